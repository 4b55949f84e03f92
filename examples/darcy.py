"""Darcy flow, from data to a certified answer: generate, train an FNO, judge it, hand it to the solver.

    python examples/darcy.py                          # makes its own data, a few minutes on two cores
    python examples/darcy.py --data train.npz --test test.npz     # or .mat, .h5: your own samples

Everything it makes lies under --output: the data (HDF5), the checkpoint, the figure and the table. A run that
was interrupted goes on where it stopped when it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import optax

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples

NAMES = ("permeability", "pressure (solver)", "pressure (FNO)", "error")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="training samples of your own: .npz, .mat or .h5")
    parser.add_argument("--test", type=Path, help="test samples beside --data (default: its last tenth)")
    parser.add_argument("--output", type=Path, default=Path("outputs/darcy"))
    parser.add_argument("--num-points", type=int, default=32, help="training grid, points per side")
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=100)
    parser.add_argument("--num-epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--hidden-channels", type=int, default=32)
    parser.add_argument("--n-modes", type=int, default=16)
    parser.add_argument("--n-layers", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def read(path: Path) -> Samples:
    """Samples from a file, by its ending."""
    if path.suffix == ".mat":
        return no.data.read_mat(path)
    if path.suffix == ".npz":
        return no.data.read_npz(path)
    with no.data.open(path) as source:
        return source.load()


def own_data(args: argparse.Namespace) -> tuple[Samples, dict[str, tuple[no.Grid, Samples]]]:
    train = read(args.data)
    if args.test:
        test = read(args.test)
    else:
        cut = len(train.inputs) - max(len(train.inputs) // 10, 1)
        test = Samples(train.inputs[cut:], train.outputs[cut:])
        train = Samples(train.inputs[:cut], train.outputs[:cut])
    grid = no.Grid(train.inputs.shape[2:], boundary="neumann", centering="cell")
    return train, {"trained grid": (grid, test)}


def generated_data(args: argparse.Namespace) -> tuple[no.pde.Darcy, Samples, dict[str, tuple[no.Grid, Samples]]]:
    """Training samples on one grid, and the same test functions on four."""
    n = args.num_points
    # The law keeps the modes that the training grid resolves, so every grid sees the same permeability.
    problem = no.pde.Darcy((n, n), num_modes=n)
    make = lambda problem, key, count, name: no.data.generate(
        problem, key=key, num_samples=count, path=args.output / name, progress=not args.quiet
    ).load()  # fmt: skip
    print(f"data: {args.num_train} + 4 x {args.num_test} solves, float64, relative residual 1e-10")
    train = make(problem, args.seed, args.num_train, f"train_{n}.h5")
    tests = {}
    for name, m in (
        ("trained grid", n),
        ("twice", 2 * n),
        ("three times", 3 * n),
        ("odd", n + n // 2 + 1 - n // 2 % 2),
    ):
        finer = problem.with_points((m, m))
        test = make(finer, args.seed + 1, args.num_test, f"test_{m}.h5")
        tests[f"{name} ({m} x {m})"] = (finer.grid, test)
    worst = max(np.max(s.residual_norm) for s in (train, *(t for _, t in tests.values())))
    print(f"worst relative residual of a label: {worst:.1e}")
    return problem, train, tests


def on_grid(op, grid: no.Grid, new_grid: no.Grid):
    """An operator that knows one grid, used on another: series of the input there, series of the output back."""
    cosine = lambda g: no.Grid(g.num_points, g.domain_extent, "neumann", g.centering)
    here, there = cosine(grid), cosine(new_grid)
    return lambda u: no.resample(op(no.resample(u, there, here)), here, there)


def seconds_per_call(function, *args, repeats: int = 20) -> float:
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def judge(op, train: Samples, tests: dict[str, tuple[no.Grid, Samples]], problem: no.pde.Darcy | None) -> str:
    """One table: relative L2 and H1 of the operator and of the baselines on every grid, in percent."""
    grid = next(iter(tests.values()))[0]
    pod = no.baselines.linear_pod(train)
    nearest = no.baselines.nearest_neighbour(train)
    mean = no.baselines.training_mean(train)
    rows = {
        "FNO": lambda g: op,
        "linear POD map": lambda g: on_grid(pod, grid, g),
        "nearest neighbour": lambda g: on_grid(nearest, grid, g),
        "training mean": lambda g: on_grid(mean, grid, g),
    }
    if problem is not None:
        rows["solver on the trained grid"] = lambda g: on_grid(problem.solve, grid, g)
    lines = [
        "| relative L2 / H1 error in % | " + " | ".join(tests) + " |",
        "| --- |" + " --- |" * len(tests),
    ]
    for name, predictor in rows.items():
        cells = []
        for g, test in tests.values():
            if name.startswith("solver") and g == grid:
                cells.append("0 / 0 (the labels)")
                continue
            metrics = {"l2": no.metrics.relative_l2, "h1": no.losses.h1(g)}
            result = no.evaluate(predictor(g), test, metrics=metrics)
            cells.append(" / ".join(f"{100 * result[m].mean():.2f}" for m in metrics))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def timings(op, problem: no.pde.Darcy, tests: dict[str, tuple[no.Grid, Samples]]) -> str:
    lines = ["| seconds per sample | " + " | ".join(tests) + " |", "| --- |" + " --- |" * len(tests)]
    operator, solver = [], []
    for g, test in tests.values():
        a = jax.numpy.asarray(test.inputs[0])
        operator.append(f"{seconds_per_call(jax.jit(op), a):.4f}")
        with jax.enable_x64(True):
            solver.append(
                f"{seconds_per_call(jax.jit(problem.with_points(g.num_points).solve), a.astype('float64')):.4f}"
            )
    lines.append("| FNO, float32 | " + " | ".join(operator) + " |")
    lines.append("| solver, float64 to 1e-10 | " + " | ".join(solver) + " |")
    return "\n".join(lines)


def certify(op, problem: no.pde.Darcy, tests: dict[str, tuple[no.Grid, Samples]]) -> str:
    """The prediction handed to the solver: what remains to be done, and the residual that proves the result."""
    lines = [
        "| CG to 1e-6 | residual of the FNO | steps from zero | steps from the FNO | final residual |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (g, test) in tests.items():
        finer = problem.with_points(g.num_points)
        prediction = jax.jit(op)(jax.numpy.asarray(test.inputs[0]))
        with jax.enable_x64(True):
            a = jax.numpy.asarray(test.inputs[0], "float64")
            A, b = finer.operator(a), finer.load()
            for method in ("CG", "CG + FastPoisson"):
                cg = no.CG(rtol=1e-6, preconditioner=no.FastPoisson(g) if "+" in method else None)
                cold = no.solve(A, b, cg)
                warm = no.solve(A, b, cg, x0=prediction.astype("float64"))
                start = np.linalg.norm(b - A(prediction.astype("float64"))) / np.linalg.norm(b)
                lines.append(
                    f"| {name}, {method} | {start:.2f} | {int(cold.num_steps)} | {int(warm.num_steps)} "
                    f"| {float(warm.residual_norm):.1e} |"
                )
    return "\n".join(lines)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    problem = None
    if args.data:
        train, tests = own_data(args)
    else:
        problem, train, tests = generated_data(args)
    grid, test = next(iter(tests.values()))
    modes = min(args.n_modes, *grid.num_points)

    network = no.FNO(
        (modes,) * grid.ndim,
        train.inputs.shape[1],
        train.outputs.shape[1],
        args.hidden_channels,
        n_layers=args.n_layers,
        boundary="dirichlet",  # the sine basis: the pressure vanishes at the walls, so no padding is needed
        centering="cell",
        key=jax.random.key(args.seed),
    )
    op = Normalized(network, Normalizer.fit(train.inputs), Normalizer.fit(train.outputs))
    count = sum(leaf.size for leaf in jax.tree.leaves(op))
    print(f"FNO: {count:,} parameters, {len(train.inputs)} samples on {' x '.join(map(str, grid.shape))} points")
    steps = args.num_epochs * -(-len(train.inputs) // args.batch_size)
    start = time.perf_counter()
    op, history = no.fit(
        op,
        train,
        loss=no.losses.h1(grid),
        optimizer=optax.adamw(optax.cosine_onecycle_schedule(steps, args.learning_rate), weight_decay=1e-4),
        num_epochs=args.num_epochs,
        batch_size=min(args.batch_size, len(train.inputs)),
        key=jax.random.key(args.seed + 2),
        checkpoint=args.output / "training",
        resume=True,
        progress=not args.quiet,
    )
    print(f"trained in {time.perf_counter() - start:.0f} s, {history.seconds.mean():.2f} s per epoch\n")
    no.save(args.output / "fno.safetensors", op)
    op = no.load(args.output / "fno.safetensors")  # what is judged is what was saved

    report = [judge(op, train, tests, problem)]
    if problem is not None:
        report += [timings(op, problem, tests), certify(op, problem, tests)]
    text = "\n\n".join(report)
    print(text)
    (args.output / "report.md").write_text(text + "\n")

    predictions = jax.jit(jax.vmap(op))(test.inputs[:3])
    no.plotting.panel(test.inputs[:3], test.outputs[:3], predictions, args.output / "darcy.png", grid=grid, names=NAMES)
    made = "" if problem is None else ", the data (*.h5)"
    print(f"\nsaved: {args.output}/darcy.png, report.md, fno.safetensors{made}")


if __name__ == "__main__":
    main()
