"""Two flows without labels by DGNO: Burgers' equation between walls, and Stokes flow around a cylinder.

    python benchmarks/dgno_flows.py burgers --seconds 300 --seeds 3 --baselines
    python benchmarks/dgno_flows.py stokes --seconds 1200 --seeds 3 --baselines

Burgers: u(x, 0) at 128 points to u at 128 x 101 points of space and time, from `pde.BurgersWalls`. That problem lives
on [0, 2], the published decoder on [-1, 1]: points go to the decoder, and to the weak form, as x - 1. Stokes (needs
scikit-fem): the inflow at 256 points to velocity and pressure at the points of the mesh, from
`datasets/stokes_cylinder.py`.

The published networks and weights of the terms. Training takes a moment to see how long a step takes, then as many
steps as fit into the time, with a cosine schedule to the end. The table has mean and standard deviation over seeds of
the mean relative L2 error on the test samples; trivial baselines use labels unless it says no. Stokes flow is linear
in the inflow, and the inflows have two parameters: there a linear map fitted to labels is nearly exact, and the figure
of a network says how well it is trained without labels, not that one is needed. Runs that are on record are not
repeated: delete their lines to do so.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timed import runs, table, train_for

import neuralops as no
from neuralops.data import Samples

FIELDS = {
    "burgers": {"u": "error of u in %", "end": "at the last time"},
    "stokes": {"u": "error of u in %", "v": "of v", "p": "of p"},
}
CENTERS = {"burgers": 100, "stokes": 200}
CYLINDER, RADIUS, NEAR = (0.5, 0.6), 0.1, ((0.3, 0.7), (0.4, 0.8))


def burgers_data(args: argparse.Namespace) -> tuple[Samples, Samples, Samples]:
    """Inputs without labels, labelled samples and test samples; the labels are kept on disk."""
    problem = no.pde.BurgersWalls()
    query = problem.query - np.array([problem.domain_extent / 2, 0.0]).reshape(2, 1, 1)

    def solved(name: str, key: int, number: int) -> Samples:
        path = args.output / f"burgers_{name}"
        samples = no.data.generate(problem, key=key, num_samples=number, path=path, progress=args.progress).load()
        return Samples(single(samples.inputs), single(samples.outputs)[:, None], query=single(query))

    test = solved("test", 2, args.num_test)
    labelled = solved("train", 3, args.num_labelled) if args.baselines else test[:1]
    draws = jax.jit(jax.vmap(problem.sample))(jax.random.split(jax.random.key(1), args.num_train))
    return Samples(single(draws)), labelled, test


def stokes_data(args: argparse.Namespace) -> tuple[Samples, Samples, Samples]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
    import stokes_cylinder  # needs scikit-fem

    stokes = stokes_cylinder.Stokes(stokes_cylinder.triangulate())
    make = functools.partial(stokes_cylinder.make, stokes, progress=args.progress)
    test = make(args.num_test, [0, 1])
    labelled = make(args.num_labelled, [0, 0]) if args.baselines else test[:1]
    b = np.random.default_rng(2).uniform(*stokes_cylinder.FREQUENCIES, size=(args.num_train, 2))
    inflow = stokes_cylinder.inflow(np.linspace(0, 1, stokes_cylinder.INFLOW_POINTS), b)
    return Samples(single(inflow)[:, None]), labelled, test


def single(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def burgers_objective(args: argparse.Namespace) -> Any:
    """The weights of the sheet. Five points a ball: the corrected rule is exact for fluxes linear in x."""
    weak = no.pde.WeakBurgers(num_centers=args.num_centers, radius=args.radius, num_points=5)
    x = np.linspace(-1, 1, no.pde.BurgersWalls().num_points)
    terms = {
        "pde": no.losses.virtual_observables(weak, top=25 * args.num_centers),
        "initial": no.losses.observed(np.stack([x, 0 * x]), "input", reduction="norm"),
    }
    return no.losses.weighted_sum(terms, {"pde": 1000.0, "initial": 10000.0})


def stokes_objective(args: argparse.Namespace) -> Any:
    """The weights of the sheet, where each of the two momentum equations has its own mean square.

    The flow is determined by two conditions at every side. The authors have p = 0 alone at the outlet; v = 0 there,
    true of the reference up to what the table's data sheet says, is added unless `published_outlet`.
    """
    weak = no.pde.WeakStokes(
        num_centers=args.num_centers, radius=args.radius, num_points=4, laws=args.laws,
        refined=(NEAR, max(28 * args.num_centers // 100, 1)), inside=functools.partial(outside_cylinder, args.radius),
    )  # fmt: skip
    y = np.linspace(0, 1, 256)
    x, around = np.linspace(0, 2, 129), 2 * np.pi * np.arange(64) / 64
    inlet, outlet = np.stack([0 * y, y]), np.stack([2 + 0 * y[::4], y[::4]])
    cylinder = np.array(CYLINDER)[:, None] + RADIUS * np.stack([np.cos(around), np.sin(around)])
    walls = np.concatenate([np.stack([x, 0 * x]), np.stack([x, 1 + 0 * x]), cylinder], 1)
    known = no.losses.observed
    terms = {
        "pde": no.losses.virtual_observables(weak, weights={"momentum": 2.0}),
        "inflow": known(inlet, "input", channels=(0,)),
        "straight": known(inlet, 0.0, channels=(1,)),
        "walls": known(walls, 0.0, channels=(0, 1)),
        "outlet": known(outlet, 0.0, channels=(2,) if args.published_outlet else (1, 2)),
    }
    weights = {
        "pde": 10.0,
        "inflow": 2.0,
        "straight": 2.0,
        "walls": 4.0,
        "outlet": 2.0 if args.published_outlet else 4.0,
    }
    return no.losses.weighted_sum(terms, weights)  # a mean over two channels counts twice


def outside_cylinder(radius: float, x: Any) -> Any:
    """Whether a ball around a centre lies outside the cylinder."""
    return (x[0] - CYLINDER[0]) ** 2 + (x[1] - CYLINDER[1]) ** 2 > (RADIUS + radius) ** 2


def metrics(flow: str) -> dict[str, Callable[..., Any]]:
    relative = no.metrics.relative_l2
    if flow == "burgers":
        return {"u": relative, "end": lambda p, t: relative(p[:, -1], t[:, -1])}
    return {name: lambda p, t, i=i: relative(p[i : i + 1], t[i : i + 1]) for i, name in enumerate(FIELDS[flow])}


def judge(op: Any, test: Samples, flow: str) -> dict[str, float]:
    return {name: float(e.mean()) for name, e in no.evaluate(op, test, metrics=metrics(flow)).items()}


def run(method: str, seed: int, train: Samples, test: Samples, args: argparse.Namespace) -> dict:
    op = no.DGNO.paper(args.flow, key=jax.random.key(seed))
    objective = {"burgers": burgers_objective, "stokes": stokes_objective}[args.flow](args)
    op, row = train_for(
        op, train, objective, seconds=args.seconds, batch_size=args.batch_size, learning_rate=args.learning_rate,
        seed=seed, progress=args.progress,
    )  # fmt: skip
    no.save(args.output / f"{args.flow}_{method}_{seed}.safetensors", op)
    return {"flow": args.flow, **row, **judge(op, test, args.flow)}


def baselines(train: Samples, test: Samples, flow: str) -> list[dict]:
    """Errors of predictors without a network; the standing flow needs no labels."""
    rows = {
        "training mean": no.baselines.training_mean(train),
        "nearest neighbour": no.baselines.nearest_neighbour(train),
        "linear POD map": no.baselines.linear_pod(train),
    }
    if flow == "burgers":
        shape = test.outputs.shape[1:]
        rows["u = u at time 0"] = lambda a: jax.numpy.broadcast_to(a[:, None], shape)
    return [{"method": name, "labels": name != "u = u at time 0", **judge(op, test, flow)} for name, op in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flow", choices=tuple(FIELDS))
    parser.add_argument("--seconds", type=float, default=300, help="of training, each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-train", type=int, default=4000, help="inputs without labels")
    parser.add_argument("--num-labelled", type=int, default=1000, help="samples of the baselines")
    parser.add_argument("--num-test", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=None, help="50 for Burgers, 25 for Stokes")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--num-centers", type=int, default=None, help="100 for Burgers; 200 for Stokes, with 56 more near the cylinder"
    )
    parser.add_argument("--radius", type=float, default=1e-2)
    parser.add_argument("--laws", choices=("ball", "center"), default="center", help="of Stokes, see WeakStokes")
    parser.add_argument("--published-outlet", action="store_true", help="p = 0 alone at the outlet")
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("outputs/dgno"))
    args = parser.parse_args()
    args.batch_size = args.batch_size or {"burgers": 50, "stokes": 25}[args.flow]
    args.num_centers = args.num_centers or CENTERS[args.flow]
    args.output.mkdir(parents=True, exist_ok=True)
    train, labelled, test = {"burgers": burgers_data, "stokes": stokes_data}[args.flow](args)
    method = "dgno_published_outlet" if args.published_outlet else "dgno"
    rows = runs(
        args.output / f"{args.flow}.jsonl",
        [{"method": method, "seed": seed} for seed in range(args.seeds)],
        functools.partial(run, train=train, test=test, args=args),
    )
    trivial = baselines(labelled, test, args.flow) if args.baselines else []
    print("\n" + table(rows, trivial, FIELDS[args.flow], ()))


if __name__ == "__main__":
    main()
