"""MgNO beside FNO on one set of two-phase Darcy samples: errors, also at the walls, size, seconds, and a picture.

    python examples/mgno_darcy.py                            # rough medium, 32 x 32, about a minute on two cores
    python examples/mgno_darcy.py --num-points 64 --num-train 1000 --hidden-channels 24 --n-layers 4 --num-epochs 40 \\
        --equal-seconds                                      # the study in docs/mgno.md

The study's smooth medium: --medium smooth --num-epochs 80 --symmetries. Both are trained for the same epochs; with
--equal-seconds a third network is an FNO that may train as long as the MgNO did. Data, checkpoints, report and figure
lie under --output; a run that was interrupted goes on where it stopped when it is started again with the same
arguments.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.training.schedules import one_cycle

MEDIA = {"rough": {"values": (12.0, 2.0), "tau": 5.0}, "smooth": {"values": (12.0, 3.0), "tau": 3.0}}
RATES = {"MgNO": 1.5e-3, "FNO": 3e-3}
SYMMETRIES = 8  # of the square


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/mgno_darcy"))
    parser.add_argument("--medium", choices=MEDIA, default="rough", help="tau 5 and 12/2, or tau 3 and 12/3")
    parser.add_argument("--num-points", type=int, default=32, help="cells per side")
    parser.add_argument("--num-train", type=int, default=300)
    parser.add_argument("--num-test", type=int, default=100)
    parser.add_argument("--num-epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--hidden-channels", type=int, default=16, help="channels of the MgNO; published: 24")
    parser.add_argument("--n-layers", type=int, default=3, help="layers of the MgNO; published: 4 or 5")
    parser.add_argument("--fno-channels", type=int, default=32)
    parser.add_argument("--fno-modes", type=int, default=16)
    parser.add_argument("--equal-seconds", action="store_true", help="also an FNO with as many seconds as the MgNO")
    parser.add_argument("--symmetries", action="store_true", help="train on the mirror images of the samples too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    if args.symmetries and args.num_epochs % SYMMETRIES:
        parser.error(f"--num-epochs: expected a multiple of {SYMMETRIES} with --symmetries, got {args.num_epochs}.")
    return args


def networks(args: argparse.Namespace) -> dict[str, Any]:
    """Both know that the pressure vanishes at the walls: one by its stencils' ghosts, the other by its sine basis."""
    walls = {"boundary": "dirichlet", "centering": "cell", "key": jax.random.key(args.seed)}
    levels = max(round(math.log2(args.num_points)), 2)
    sweeps = ((1, 0),) * (levels - 1) + ((2, 0),)
    modes = (min(args.fno_modes, args.num_points),) * 2
    return {
        "MgNO": no.MgNO(1, 1, args.hidden_channels, n_layers=args.n_layers, sweeps=sweeps, **walls),
        "FNO": no.FNO(modes, 1, 1, args.fno_channels, **walls),
    }


def images(samples: Samples) -> Samples:
    """The samples and what they become under the other symmetries of the square, none of which the medium prefers."""

    def all_of(x: np.ndarray) -> np.ndarray:
        turned = (x, np.swapaxes(x, -1, -2))
        return np.concatenate([y[..., ::i, ::j] for y in turned for i in (1, -1) for j in (1, -1)])

    return Samples(all_of(samples.inputs), all_of(samples.outputs))


def trained(name: str, network: Any, train: Samples, num_epochs: int, args: argparse.Namespace) -> tuple[Any, Any]:
    file = name.lower().replace(", ", "_").replace(" ", "_")
    op = Normalized(network, Normalizer.fit(train.inputs), Normalizer.fit(train.outputs))
    steps = -(-len(train.inputs) // args.batch_size)
    if args.symmetries:  # every image is seen an eighth as often
        train, passes = images(train), num_epochs // SYMMETRIES
    else:
        passes = num_epochs
    # The published recipe, Adam with decay in the gradient and one cycle per epoch, at rates that suit few epochs.
    rate = one_cycle(
        RATES[name.partition(",")[0]], num_epochs, steps, pct_start=0.2, div_factor=2, final_div_factor=100
    )
    op, history = no.fit(
        op,
        train,
        # Slopes weigh (2 pi)^2 less than in losses.h1, under which a MgNO leaves large smooth errors for long.
        loss=no.losses.fourier_h1(max_wavenumber=20),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(1e-6), optax.adam(rate)),
        num_epochs=passes,
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 2),
        checkpoint=args.output / file,
        resume=True,
        progress=not args.quiet,
    )
    no.save(args.output / f"{file}.safetensors", op)
    return op, history


def judge(ops: dict[str, Any], seconds: dict[str, str], train: Samples, test: Samples, grid: no.Grid) -> str:
    rows = {
        **ops,
        "linear POD map": no.baselines.linear_pod(train),
        "nearest neighbour": no.baselines.nearest_neighbour(train),
        "training mean": no.baselines.training_mean(train),
    }
    size = float(np.sqrt(np.mean(np.asarray(test.outputs) ** 2)))
    metrics = {
        "l2": no.metrics.relative_l2,
        "h1": no.losses.h1(grid),
        "walls": no.metrics.Bound(no.metrics.boundary_error, grid=grid),
    }
    lines = [
        "| | relative L2, % | relative H1, % | error at the walls, % of the field | parameters | epochs x seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, op in rows.items():
        result = no.evaluate(op, test, metrics=metrics)
        count = f"{sum(leaf.size for leaf in jax.tree.leaves(op)):,}" if name in ops else "-"
        lines.append(
            f"| {name} | {100 * result['l2'].mean():.2f} | {100 * result['h1'].mean():.2f} "
            f"| {100 * result['walls'].mean() / size:.2f} | {count} | {seconds.get(name, '-')} |"
        )
    return "\n".join(lines)


def plot(ops: dict[str, Any], histories: dict[str, Any], epochs: int, test: Samples, path: Path) -> None:
    """A sample, both predictions' errors on one scale, their errors across the middle, and the losses."""
    a, u = test.inputs[0, 0], test.outputs[0, 0]
    errors = {name: np.asarray(op(test.inputs[0]))[0] - u for name, op in ops.items()}
    scale = max(float(np.abs(e).max()) for e in errors.values())
    figure = Figure(figsize=(12.5, 5.8), layout="constrained")
    axes = figure.subplots(2, 3)
    shown = [("permeability", a, "cividis", None), ("pressure (solver)", u, "viridis", None)]
    shown += [(f"error of {name}", e, "RdBu_r", scale) for name, e in errors.items()]
    for ax, (title, field, colours, limit) in zip((*axes[0, :2], *axes[1, :2]), shown, strict=True):
        image = ax.imshow(
            field.T,
            origin="lower",
            cmap=colours,
            vmin=None if limit is None else -limit,
            vmax=limit,
            extent=(0, 1, 0, 1),
        )
        ax.set(title=title, xticks=(0, 1), yticks=(0, 1))
        figure.colorbar(image, ax=ax, shrink=0.8)
    middle = u.shape[1] // 2
    x = (np.arange(u.shape[0]) + 0.5) / u.shape[0]
    for colour, (name, e) in zip(("#1f77b4", "#d1495b"), errors.items(), strict=True):
        axes[0, 2].plot(x, e[:, middle], color=colour, label=name)
        passes = len(histories[name].loss)
        axes[1, 2].plot(epochs / passes * (1 + np.arange(passes)), histories[name].loss, ".-", color=colour, label=name)
    axes[0, 2].axhline(0, color="#999999", linewidth=0.8)
    axes[0, 2].set(title="error across the middle", xlabel="x")
    axes[1, 2].set(title="training loss", xlabel="epoch", yscale="log")
    for ax in axes[:, 2]:
        ax.legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    problem = no.pde.Darcy((args.num_points,) * 2, **MEDIA[args.medium])
    make = lambda key, count, name: no.data.generate(
        problem, key=key, num_samples=count, path=args.output / name, progress=not args.quiet
    ).load()  # fmt: skip
    train = make(args.seed, args.num_train, f"train_{args.medium}_{args.num_points}.h5")
    test = make(args.seed + 1, args.num_test, f"test_{args.medium}_{args.num_points}.h5")

    ops, histories, seconds = {}, {}, {}
    both = networks(args)
    for name in (*both, *(["FNO, as many seconds"] if args.equal_seconds else [])):
        num_epochs = args.num_epochs
        if name not in both:
            share = np.median(histories["MgNO"].seconds) / np.median(histories["FNO"].seconds)
            unit = SYMMETRIES if args.symmetries else 1
            num_epochs = unit * round(num_epochs * share / unit)
        network = both[name.partition(",")[0]]
        ops[name], histories[name] = trained(name, network, train, num_epochs, args)
        per_epoch = np.median(histories[name].seconds) * len(histories[name].seconds) / num_epochs
        seconds[name] = f"{num_epochs} x {per_epoch:.2f}"
    text = (
        f"{args.medium} medium, {args.num_points} x {args.num_points}, {args.num_train} samples, "
        f"{args.num_epochs} epochs\n\n" + judge(ops, seconds, train, test, problem.grid)
    )
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    plot({name: ops[name] for name in both}, histories, args.num_epochs, test, args.output / "mgno_darcy.png")
    print(f"\nsaved: {args.output}/mgno_darcy.png, report.md, mgno.safetensors, fno.safetensors, the data (*.h5)")


if __name__ == "__main__":
    main()
