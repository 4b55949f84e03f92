"""Darcy flow measured at scattered points: DeepONet and MultiONet learn from data that lie nowhere in common.

    python examples/deeponet_unaligned.py                      # under a minute on two cores
    python examples/deeponet_unaligned.py --seeds 3 --num-train 400 --num-epochs 400

For every permeability the pressure is known at random points of its own, and their number differs too. Both networks
are trained on the points as they are (`data.pad`, `query_mask`) and judged on a regular grid where nothing was
measured. Beside them stand predictors that need no network: the mean of all measurements as a function of the
place, the measurements of the nearest training sample, interpolated, and a map that is linear in the leading modes of
the logarithm of the permeability.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
import optax
from scipy.interpolate import RBFInterpolator, RectBivariateSpline

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples, pad

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen

MODES = 8  # sine waves along an axis, in the baselines
FEATURES = 16  # leading modes of the input, in the linear map


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/deeponet_unaligned"))
    parser.add_argument("--num-points", type=int, default=32, help="cells along a side, of the solver and the judge")
    parser.add_argument(
        "--num-sensors", type=int, default=8, help="along a side, of the permeability; divides the former"
    )
    parser.add_argument("--scale", type=float, default=30.0, help="strength of the variation of the permeability")
    parser.add_argument("--measurements", type=int, nargs=2, default=(20, 60), help="fewest and most a sample")
    parser.add_argument("--num-train", type=int, default=200)
    parser.add_argument("--num-test", type=int, default=50)
    parser.add_argument("--num-epochs", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--hidden-channels", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    if args.num_points % args.num_sensors:
        parser.error(f"--num-sensors must divide --num-points, got {args.num_sensors} and {args.num_points}")
    if not 1 <= args.measurements[0] <= args.measurements[1]:
        parser.error(f"--measurements must be two counts in order, got {args.measurements}")
    return args


class Data(NamedTuple):
    """What is measured, where, and the truth on the grid."""

    inputs: np.ndarray  # logarithm of the permeability at the sensors, (samples, 1, sensors)
    places: list[np.ndarray]  # (2, points) for each sample
    values: list[np.ndarray]  # (1, points)
    fields: np.ndarray  # pressure on the grid, (samples, 1, n, n)
    grid: no.Grid

    @property
    def scattered(self) -> Samples:
        return pad(list(self.inputs), self.values, query=self.places)

    @property
    def regular(self) -> Samples:
        points = self.grid.coordinates().reshape(2, -1).astype("float32")
        return Samples(self.inputs, self.fields.reshape(len(self.fields), 1, -1), query=points)


def measured(fields: np.ndarray, grid: no.Grid, counts: np.ndarray, rng: np.random.Generator) -> Any:
    """Random points for each field, and its values there: a cubic spline through the cells, zero at the walls."""
    axes = [
        np.concatenate([[0], (np.arange(n) + 0.5) * h, [n * h]]) for n, h in zip(grid.shape, grid.spacing, strict=True)
    ]
    places, values = [], []
    for u, count in zip(fields, counts, strict=True):
        x = rng.uniform(size=(2, count)) * np.array(grid.domain_extent)[:, None]
        spline = RectBivariateSpline(*axes, np.pad(u[0], 1), s=0)
        places.append(x.astype("float32"))
        values.append(spline.ev(*x)[None].astype("float32"))
    return places, values


def draw(args: argparse.Namespace, num_samples: int, key: jax.Array) -> Data:
    problem = no.pde.Darcy((args.num_points,) * 2, coefficient="log_normal", alpha=3.0, tau=3.0, scale=args.scale)
    solved = no.data.generate(problem, key=key, num_samples=num_samples, progress=not args.quiet)
    rng = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    m, block = args.num_sensors, args.num_points // args.num_sensors
    sensed = np.log(solved.inputs).reshape(num_samples, 1, m, block, m, block).mean((3, 5)).reshape(num_samples, 1, -1)
    counts = rng.integers(args.measurements[0], args.measurements[1] + 1, size=num_samples)
    places, values = measured(solved.outputs.astype(float), problem.grid, counts, rng)
    return Data(sensed.astype("float32"), places, values, solved.outputs, problem.grid)


def train(network: Any, data: Data, seed: int, args: argparse.Namespace) -> Any:
    """The output is scaled alone, not shifted: what vanishes at the walls still does."""
    scale = Normalizer((0.0,), (float(np.std(np.concatenate(data.values, 1))),), 1)
    updates = args.num_epochs * -(-len(data.inputs) // args.batch_size)
    op, _ = no.fit(
        Normalized(network, Normalizer.fit(data.inputs), scale),
        data.scattered,
        loss=no.losses.l2(),
        optimizer=optax.adam(optax.cosine_onecycle_schedule(updates, args.learning_rate)),
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
        key=jax.random.key(seed + 1),
        progress=not args.quiet,
    )
    return op


def waves(x: np.ndarray) -> np.ndarray:
    """Sine waves that vanish at the walls of the unit square, (points, modes), at (2, points)."""
    one = [np.sin(np.pi * np.arange(1, MODES + 1) * place[:, None]) for place in x.astype(float)]
    return np.einsum("np,nq->npq", *one).reshape(len(x[0]), -1)


def least_squares(features: np.ndarray, data: Data) -> np.ndarray:
    """Coefficients of features times waves, fitted to all measurements; a little ridge where they say nothing."""
    rows = [np.kron(f, waves(x)) for f, x in zip(features[:, None], data.places, strict=True)]
    A, b = np.concatenate(rows), np.concatenate(data.values, 1)[0]
    gram = A.T @ A
    return np.linalg.solve(gram + 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram)), A.T @ b)


def baselines(data: Data) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Predictors from an input (1, sensors) and points (2, points) to values (points,)."""
    flat = data.inputs[:, 0].astype(float)
    ones = np.ones((len(flat), 1))
    mean = least_squares(ones, data)
    centre, modes = flat.mean(0), np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:FEATURES]
    project = lambda a: np.concatenate([ones[: len(a)], (a - centre) @ modes.T], 1)
    linear = least_squares(project(flat), data)

    def nearest(a: np.ndarray, x: np.ndarray) -> np.ndarray:
        i = np.argmin(((flat - a) ** 2).sum(1))
        s = np.linspace(0, 1, 13)
        walls = np.concatenate([[s, 0 * s], [s, 0 * s + 1], [0 * s, s], [0 * s + 1, s]], 1)
        known = np.concatenate([data.places[i], np.unique(walls, axis=1)], 1).T
        values = np.concatenate([data.values[i][0], np.zeros(len(known) - data.values[i].shape[1])])
        return RBFInterpolator(known, values)(x.T)

    return {
        "mean of the measurements": lambda a, x: waves(x) @ mean,
        "nearest sample, interpolated": nearest,
        f"linear in {FEATURES} modes": lambda a, x: np.kron(project(a), waves(x)) @ linear,
    }


def networks(data: Data, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    common = {"n_layers": 5, "domain": ((0, 1), (0, 1)), "factor": "both", "branch_activation": "silu_id"}
    common |= {
        "sensors": data.inputs.shape[-1],
        "in_channels": 1,
        "out_channels": 1,
        "hidden_channels": args.hidden_channels,
    }
    key = jax.random.key(seed)
    return {"DeepONet": no.DeepONet(**common, key=key), "MultiONet": no.MultiONet(**common, sum_layers=4, key=key)}


def table(results: dict[str, list[float]]) -> str:
    lines = ["| predictor | relative L2 error on the grid in % |", "| --- | --- |"]
    for name, errors in results.items():
        spread = f" ± {100 * np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
        lines.append(f"| {name} | {100 * np.mean(errors):.2f}{spread} |")
    return "\n".join(lines)


def picture(path: Path, test: Data, i: int, name: str, op: Any, results: dict[str, list[float]]) -> None:
    """One unseen sample: its permeability, the measurements, the prediction and its error; below, all errors."""
    n = test.grid.shape[0]
    truth = test.fields[i, 0]
    guess = np.asarray(op(test.inputs[i], query=test.regular.query)).reshape(truth.shape)
    side = int(np.sqrt(test.inputs.shape[-1]))
    fig = plt.figure(figsize=(13, 5.6), layout="constrained")
    above, below = fig.subfigures(2, 1, height_ratios=(1.6, 1))
    axes = {**above.subplot_mosaic("abcd"), **below.subplot_mosaic("e")}
    extent = (0, 1, 0, 1)
    bound, worst = truth.max(), np.abs(guess - truth).max()
    for ax, field, title, low, high, cmap in (
        (
            "a",
            test.inputs[i, 0].reshape(side, side),
            f"log permeability, {side} x {side}",
            None,
            None,
            "cividis",
        ),
        ("b", None, f"pressure at {len(test.values[i][0])} points", 0, bound, "viridis"),
        ("c", guess, f"{name}, {n} x {n}", 0, bound, "viridis"),
        ("d", guess - truth, "error", -worst, worst, "RdBu_r"),
    ):
        if field is None:
            x, y = test.places[i]
            image = axes[ax].scatter(
                x, y, c=test.values[i][0], s=30, vmin=low, vmax=high, cmap=cmap, edgecolors="k", linewidths=0.4
            )
            axes[ax].set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        else:  # the first axis is x
            image = axes[ax].imshow(field.T, origin="lower", extent=extent, vmin=low, vmax=high, cmap=cmap)
        axes[ax].set(title=title, xlabel="x", ylabel="y" if ax == "a" else "")
        above.colorbar(image, ax=axes[ax], shrink=0.6)
    names = list(results)[::-1]
    errors = [100 * np.mean(results[name]) for name in names]
    bars = axes["e"].barh(names, errors, color=["C0" if name.endswith("ONet") else "0.7" for name in names])
    axes["e"].bar_label(bars, fmt="%.1f", padding=3)
    axes["e"].set(xlabel="relative L2 error on the grid in %")
    axes["e"].spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[float]] = {}
    shown: dict[str, Any] = {}
    for seed in range(args.seed, args.seed + args.seeds):
        keys = jax.random.split(jax.random.key(seed), 2)
        data, test = draw(args, args.num_train, keys[0]), draw(args, args.num_test, keys[1])
        query = test.regular.query
        for name, predict in baselines(data).items():
            guess = np.stack([predict(a, query) for a in test.inputs.astype(float)]).reshape(test.fields.shape)
            errors = jax.vmap(no.metrics.relative_l2)(guess.astype("float32"), test.fields)
            results.setdefault(name, []).append(float(np.mean(errors)))
        for name, network in networks(data, seed, args).items():
            begin = time.perf_counter()
            shown[name] = train(network, data, seed, args)
            seconds = time.perf_counter() - begin
            errors = no.evaluate(shown[name], test.regular)["relative_l2"]
            results.setdefault(name, []).append(float(np.mean(errors)))
            size = sum(x.size for x in jax.tree.leaves(network))
            print(f"seed {seed}, {name}, {size:,} parameters: {seconds:.0f} s, error {100 * results[name][-1]:.2f} %")
    text = table(results)
    print("\n" + text)
    (args.output / "report.md").write_text(text + "\n")
    best = min(shown, key=lambda name: results[name][-1])
    picture(args.output / "deeponet_unaligned.png", test, 0, best, shown[best], results)
    print(f"\nsaved: {args.output}/deeponet_unaligned.png, report.md")


if __name__ == "__main__":
    main()
