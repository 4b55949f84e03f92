"""LSM beside FNO on one set of two-phase Darcy samples: errors, also on grids they were not trained on, and a picture.

    python examples/lsm_darcy.py                            # small: 32 x 32
    python examples/lsm_darcy.py --num-points 64 --num-train 1000 --num-epochs 40 --hidden-channels 16 --n-levels 5 \\
        --factors 0.5 0.75 1 1.5 2

Both are trained for the same epochs, on one grid. The convolutions of an LSM count points, so on another grid it is
another map; an FNO is made of functions and is not. Each grid has labels of its own from the solver. Data,
checkpoints, report and figure lie under --output; a run that was interrupted goes on where it stopped when it is
started again with the same arguments.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples

RATES = {"LSM": 2e-3, "FNO": 3e-3}
COLOURS = {"LSM": "#d1495b", "FNO": "#1f77b4"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lsm_darcy"))
    parser.add_argument("--num-points", type=int, default=32, help="cells per side of the training grid")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2], help="other grids over that one")
    parser.add_argument("--num-train", type=int, default=200)
    parser.add_argument("--num-test", type=int, default=50)
    parser.add_argument("--num-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--hidden-channels", type=int, default=8, help="of the LSM; published: 64")
    parser.add_argument("--n-levels", type=int, default=3, help="of the LSM; published: 5")
    parser.add_argument("--fno-channels", type=int, default=24)
    parser.add_argument("--fno-modes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    sizes = [args.num_points * factor for factor in args.factors]
    if 1 not in args.factors or any(size != int(size) or size < 4 for size in sizes):
        parser.error(f"--factors: expected 1 and others that give whole grids of 4 or more cells, got {args.factors}.")
    args.grids = sorted({int(size) for size in sizes})
    return args


def networks(args: argparse.Namespace) -> dict[str, Any]:
    """The LSM learns the walls by its zero padding and its coordinates, the FNO has them in its sine basis."""
    keys = jax.random.split(jax.random.key(args.seed))
    modes = (min(args.fno_modes, args.num_points),) * 2
    walls = {"boundary": "dirichlet", "centering": "cell"}
    return {
        "LSM": no.LSM(1, 1, args.hidden_channels, n_levels=args.n_levels, projection_channels=64, key=keys[0]),
        "FNO": no.FNO(modes, 1, 1, args.fno_channels, **walls, key=keys[1]),
    }


def trained(name: str, network: Any, train: Samples, args: argparse.Namespace) -> tuple[Any, Any]:
    op = Normalized(network, Normalizer.fit(train.inputs), Normalizer.fit(train.outputs))
    steps = args.num_epochs * (-(-len(train) // args.batch_size))
    rate = optax.cosine_onecycle_schedule(steps, RATES[name], pct_start=0.2, div_factor=10, final_div_factor=100)
    op, history = no.fit(
        op,
        train,
        loss=no.losses.l2(),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-5)),
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 2),
        checkpoint=args.output / name.lower(),
        resume=True,
        progress=not args.quiet,
    )
    no.save(args.output / f"{name.lower()}.safetensors", op)
    return op, history


def error(op: Any, test: Samples) -> float:
    """Mean relative L2 error in percent."""
    return 100 * float(np.mean(no.evaluate(op, test, metrics={"l2": no.metrics.relative_l2})["l2"]))


def judge(
    ops: dict[str, Any], histories: dict[str, Any], train: Samples, tests: dict[int, Samples], trained_at: int
) -> tuple[str, dict[str, list[float]]]:
    """The report, and the errors of each operator on every grid."""
    found = {name: [error(op, test) for test in tests.values()] for name, op in ops.items()}
    simple = {
        "linear POD map": no.baselines.linear_pod(train),
        "nearest neighbour": no.baselines.nearest_neighbour(train),
        "training mean": no.baselines.training_mean(train),
    }
    lines = [
        "| | " + " | ".join(f"{n} x {n}, %" for n in tests) + " | parameters | seconds |",
        "| --- |" + " --- |" * (len(tests) + 2),
    ]
    for name, row in found.items():
        count = sum(leaf.size for leaf in jax.tree.leaves(ops[name]))
        seconds = np.sum(histories[name].seconds)
        lines.append(f"| {name} | " + " | ".join(f"{x:.2f}" for x in row) + f" | {count:,} | {seconds:.0f} |")
    for name, op in simple.items():  # these know one grid
        row = [f"{error(op, test):.2f}" if n == trained_at else "-" for n, test in tests.items()]
        lines.append(f"| {name} | " + " | ".join(row) + " | - | - |")
    return "\n".join(lines), found


def plot(ops: dict[str, Any], found: dict[str, list[float]], tests: dict[int, Samples], at: int, path: Path) -> None:
    """A sample on the training grid, both errors on one scale, and the errors against the grid."""
    a, u = np.asarray(tests[at].inputs[0, 0]), np.asarray(tests[at].outputs[0, 0])
    errors = {name: np.asarray(op(tests[at].inputs[0]))[0] - u for name, op in ops.items()}
    limit = max(float(np.abs(e).max()) for e in errors.values())
    figure = Figure(figsize=(15, 3.2), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.25))
    draw = lambda ax, field, **style: ax.imshow(field.T, origin="lower", extent=(0, 1, 0, 1), **style)
    for ax, field, title, colours in (
        (axes[0], a, "permeability", "cividis"),
        (axes[1], u, "pressure (solver)", "viridis"),
    ):
        figure.colorbar(draw(ax, field, cmap=colours), ax=ax, shrink=0.8)
        ax.set_title(title)
    for ax, (name, e) in zip(axes[2:4], errors.items(), strict=True):
        image = draw(ax, e, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(f"error of {name}: {100 * np.linalg.norm(e) / np.linalg.norm(u):.1f} %")
    figure.colorbar(image, ax=axes[2:4], shrink=0.8)
    for ax in axes[:4]:
        ax.set(xticks=(0, 1), yticks=(0, 1))
    for name, row in found.items():
        axes[4].plot(list(tests), row, "o-", color=COLOURS[name], label=name)
    axes[4].axvline(at, color="#999999", linewidth=0.8, linestyle=":", label="trained here")
    axes[4].set(title="relative L2 error, %", xlabel="cells per side", xscale="log", yscale="log")
    axes[4].set_xticks(list(tests), [str(n) for n in tests])
    axes[4].minorticks_off()
    low, high = min(map(min, found.values())), max(map(max, found.values()))
    ticks = [x for x in (0.5, 1, 2, 5, 10, 20, 50, 100) if low / 2 <= x <= high * 2]
    axes[4].set_yticks(ticks, [f"{x:g}" for x in ticks])
    axes[4].legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    n = args.num_points
    make = lambda n, key, count, name: no.data.generate(
        no.pde.Darcy((n, n)), key=key, num_samples=count, path=args.output / f"{name}_{n}.h5", progress=not args.quiet
    ).load()  # fmt: skip
    train = make(n, args.seed, args.num_train, "train")
    tests = {size: make(size, args.seed + 1, args.num_test, "test") for size in args.grids}
    ops, histories = {}, {}
    for name, network in networks(args).items():
        ops[name], histories[name] = trained(name, network, train, args)
    table, found = judge(ops, histories, train, tests, n)
    text = f"trained on {n} x {n}, {args.num_train} samples, {args.num_epochs} epochs; relative L2 errors\n\n{table}"
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    plot(ops, found, tests, n, args.output / "lsm_darcy.png")
    print(f"\nsaved: {args.output}/lsm_darcy.png, report.md, lsm.safetensors, fno.safetensors, the data (*.h5)")


if __name__ == "__main__":
    main()
