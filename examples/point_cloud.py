"""Operators on irregular points side by side: stress, or a potential, on plates with random holes.

    python examples/point_cloud.py                          # small: sixty plates
    python examples/point_cloud.py --num-train 400 --num-test 100 --seconds 240 --spacing 0.08 \\
        --latent-points 32 --n-levels 4                     # a larger study

Every sample is a finite-element mesh of its own (`pde.Perforated`, needs the extra `fem`). An LSM and an FNO on a
latent grid (`GeoOperator`) and a Transolver see the points, their quadrature weights and a mask, and may train for the
same time each. Beside them stand the nearest training point and, on a uniform grid, the nearest training plate and a
linear map of POD modes.
The report has the errors, also by the distance to the nearest hole; the figure shows a test sample on its mesh.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator, RegularGridInterpolator

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples

BANDS = (0.0, 0.02, 0.05, 0.1, 0.2, 1.0)  # distances to the nearest hole
RATES = {"LSM": 1e-3, "Geo-FNO": 2e-3, "Transolver": 1e-3}
DECAY_STEPS, MOST_EPOCHS = 500, 100_000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/point_cloud"))
    parser.add_argument("--equation", choices=("elasticity", "poisson"), default="elasticity")
    parser.add_argument("--spacing", type=float, default=0.12, help="of the points, far from the holes")
    parser.add_argument("--num-train", type=int, default=60)
    parser.add_argument("--num-test", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4, help="training time of each operator")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--latent-points", type=int, default=24, help="per side of the grid of LSM and Geo-FNO")
    parser.add_argument("--n-levels", type=int, default=3, help="of the LSM; published: 5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def datasets(args: argparse.Namespace) -> tuple[Any, Samples, Samples]:
    """The problem and its samples; one file each, so that a second run finds them."""
    problem = no.pde.Perforated(args.equation, spacing=args.spacing)
    made = []
    for seed, (name, number) in enumerate((("train", args.num_train), ("test", args.num_test))):
        path = args.output / f"{args.equation}_{name}_{args.spacing}_{number}.h5"
        if not path.exists():
            samples = no.data.pad(**problem.clouds(number, seed=seed, progress=not args.quiet))
            no.data.write(
                path, samples, name="Perforated", parameters=problem.parameters(),
                input_fields=problem.input_fields, output_fields=problem.output_fields,
            )  # fmt: skip
        made.append(no.data.open(path).load())
    return problem, *made


def networks(samples: Samples, key: jax.Array, args: argparse.Namespace) -> dict[str, Any]:
    """Geo-FNO and LSM differ in what works on the latent grid; all are of a similar size."""
    channels = samples.inputs.shape[1]
    keys = jax.random.split(key, 6)
    box = ((-0.1, 1.1),) * 2  # the series is periodic in it: some room around the plate
    geo = {"n_modes": (16, 15), "latent_points": args.latent_points, "domain": box, "projection_channels": 64}
    fno = no.FNO((16, 16), 16, 16, 16, n_layers=3, positional_embedding=None, key=keys[0])
    lsm = no.LatentUNet(16, n_levels=args.n_levels, key=keys[1])
    return {
        "LSM": no.GeoOperator(lsm, channels, 1, key=keys[2], **geo),
        "Geo-FNO": no.GeoOperator(fno, channels, 1, key=keys[3], **geo),
        "Transolver": no.Transolver(
            channels, 1, 64, n_layers=4, n_heads=4, n_slices=32,
            positional_embedding="reference", key=keys[4],
        ),
    }  # fmt: skip


def trained(name: str, op: Any, train: Samples, seed: int, args: argparse.Namespace) -> tuple[Any, float, int]:
    """Trains until the time is over; the first epoch, which compiles, is not counted. With seconds and epochs.

    The number of steps is not known before, so the rate falls as the root of the steps done, and the averaged
    parameters are taken.
    """
    op = Normalized(op, Normalizer.fit(train.inputs, mask=train.mask), Normalizer.fit(train.outputs, mask=train.mask))
    began = []

    def over(epoch: int, report: dict[str, Any]) -> bool:
        began.append(time.perf_counter())
        return began[-1] - began[0] >= args.seconds

    op, history = no.fit(
        op,
        train,
        loss=no.losses.l2(),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(lambda step: RATES[name] / jnp.sqrt(1 + step / DECAY_STEPS), weight_decay=1e-5),
        ),
        num_epochs=MOST_EPOCHS,
        batch_size=args.batch_size,
        key=jax.random.key(seed),
        callback=over,
        average=0.98,
        drop_last=True,
        progress=not args.quiet,
    )
    return op, began[-1] - began[0], len(history.loss)


def on_grid(values: np.ndarray, places: np.ndarray, points: int) -> np.ndarray:
    """A field `(n,)` at `places` `(2, n)` on a uniform grid of the square: linear between points, holes too."""
    x = np.linspace(0, 1, points)
    asked = np.stack(np.meshgrid(x, x, indexing="ij"), -1)
    inside = LinearNDInterpolator(places.T, values)(asked)
    return np.where(np.isfinite(inside), inside, NearestNDInterpolator(places.T, values)(asked))


def on_grid_baselines(train: Samples, test: Samples, equation: str, points: int = 48) -> dict[str, np.ndarray]:
    """What the linear map of POD modes and the nearest plate make of the test samples, `(samples, 1, points)`.

    They work with fields on a uniform grid. For the stress their input is the distance to the nearest hole, which
    tells all of the shape and which the operators do not see.
    """

    def gridded(samples: Samples, outputs: bool) -> np.ndarray:
        fields = []
        for sample in samples:
            inside = np.asarray(sample.mask)
            if outputs:
                values = sample.outputs[0]
            else:
                values = sample.extras["hole_distance"] if equation == "elasticity" else sample.inputs[0]
            fields.append(on_grid(np.asarray(values)[inside], np.asarray(sample.coords)[:, inside], points))
        return np.stack(fields)[:, None].astype(np.float32)

    pairs, asked = (gridded(train, False), gridded(train, True)), jnp.asarray(gridded(test, False))
    x = np.linspace(0, 1, points)
    at_points = lambda field, sample: RegularGridInterpolator((x, x), np.asarray(field)[0])(
        np.clip(np.asarray(sample.coords).T, 0, 1)
    )[None]
    rows = {
        "linear POD map": no.baselines.linear_pod(pairs, num_modes=min(32, len(train) - 1)),
        "nearest plate": no.baselines.nearest_neighbour(pairs),
    }
    return {
        name: np.stack([at_points(u, sample) for u, sample in zip(jax.vmap(op)(asked), test, strict=True)])
        for name, op in rows.items()
    }


def errors(predictions: Any, test: Samples) -> dict[str, float]:
    """Mean relative L2 error, and the root mean square error near and far from the holes over that of the field."""
    p, t, inside = np.asarray(predictions)[:, 0], np.asarray(test.outputs)[:, 0], np.asarray(test.mask)
    relative = [np.linalg.norm((a - b)[m]) / np.linalg.norm(b[m]) for a, b, m in zip(p, t, inside, strict=True)]
    found = {"relative L2": float(np.mean(relative))}
    distance = np.asarray(test.extras["hole_distance"])
    size = np.sqrt(np.mean(t[inside] ** 2))
    for low, high in itertools.pairwise(BANDS):
        band = inside & (distance >= low) & (distance < high)
        found[f"{low:g} to {high:g}"] = float(np.sqrt(np.mean((p - t)[band] ** 2)) / size) if band.any() else np.nan
    return found


def predictions_of(op: Any, test: Samples) -> np.ndarray:
    return np.concatenate(
        [np.asarray(jax.jit(no.losses.predict)(op, test[i : i + 16])) for i in range(0, len(test), 16)]
    )


def plot(problem: Any, test: Samples, predictions: dict[str, np.ndarray], path: Path) -> None:
    """The first test sample on its mesh: the field, and the errors on one scale."""
    cloud = problem.draw((1, 0))
    mesh, n = cloud.mesh, cloud.outputs.shape[1]
    figure = Figure(figsize=(3.6 * (1 + len(predictions)), 4.0), layout="constrained")
    axes = figure.subplots(1, 1 + len(predictions))
    title = {"elasticity": "von Mises stress", "poisson": "u"}[problem.equation]
    draw = lambda ax, values, **style: ax.tripcolor(
        *mesh.points, mesh.triangles.T, values, shading="gouraud", **style
    )  # fmt: skip
    figure.colorbar(draw(axes[0], cloud.outputs[0], cmap="viridis"), ax=axes[0], shrink=0.8)
    axes[0].triplot(*mesh.points, mesh.triangles.T, color="white", linewidth=0.2)
    axes[0].set_title(f"{title} (finite elements)")
    wrong = {name: p[0, 0, :n] - np.asarray(test.outputs)[0, 0, :n] for name, p in predictions.items()}
    limit = np.quantile(np.abs(np.concatenate(list(wrong.values()))), 0.99)
    for ax, (name, error) in zip(axes[1:], wrong.items(), strict=True):
        image = draw(ax, error, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(f"error of {name}")
    figure.colorbar(image, ax=axes[1:], shrink=0.8, extend="both")
    for ax in axes:
        ax.set(aspect="equal", xticks=(0, 1), yticks=(0, 1))
    figure.savefig(path, dpi=90)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    problem, train, test = datasets(args)
    found: dict[str, list[dict[str, float]]] = {}
    shown, notes = {}, {}
    for seed in args.seeds:
        for name, op in networks(train, jax.random.key(seed), args).items():
            notes[name] = f"{sum(leaf.size for leaf in jax.tree.leaves(op)):,}"
            op, seconds, epochs = trained(name, op, train, seed, args)
            no.save(args.output / f"{name.lower()}_{seed}.safetensors", op)
            predicted = predictions_of(op, test)
            found.setdefault(name, []).append({**errors(predicted, test), "seconds": seconds, "epochs": epochs})
            shown.setdefault(name, predicted)
    simple = on_grid_baselines(train, test, args.equation)
    closest = no.baselines.nearest_neighbour(train)
    simple["nearest point"] = np.stack([np.asarray(closest(x.inputs, coords=x.coords)) for x in test])
    for name, predicted in simple.items():
        found[name] = [errors(predicted, test)]
    found["training mean"] = [errors(predictions_of(no.baselines.training_mean(train), test), test)]

    columns = list(found["linear POD map"][0])
    lines = [
        f"{args.equation}, {len(train)} training samples, {int(np.mean(np.sum(train.mask, 1)))} points on average, "
        f"{len(args.seeds)} seed(s); errors in %",
        "",
        f"| | parameters | seconds | epochs | {columns[0]} | "
        + " | ".join(f"distance {c}" for c in columns[1:])
        + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(columns),
    ]
    for name, rows in found.items():
        cells = []
        for column in columns:
            values = 100 * np.array([row[column] for row in rows])
            cells.append(f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""))
        taken = [f"{np.mean([row[x] for row in rows]):.0f}" if x in rows[0] else "" for x in ("seconds", "epochs")]
        lines.append("| " + " | ".join([name, notes.get(name, ""), *taken, *cells]) + " |")
    text = "\n".join(lines)
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    plot(problem, test, {**shown, "linear POD map": simple["linear POD map"]}, args.output / "point_cloud.png")
    print(f"\nsaved: {args.output}/point_cloud.png, report.md, the operators (*.safetensors), the data (*.h5)")


if __name__ == "__main__":
    main()
