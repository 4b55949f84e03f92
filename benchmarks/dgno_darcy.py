"""Darcy's equation on 29 x 29 nodes with and without labels, every method for the same time.

    python benchmarks/dgno_darcy.py smooth --seconds 300 --seeds 3
    python benchmarks/dgno_darcy.py two_phase --methods dgno pi_deeponet pi_multionet --seconds 240 --seeds 3

Inputs, references and test samples come from `pde.NodalDarcy`. Methods train one after another on a quiet machine: each
is tried for a moment to see how long a step takes, then trained for as many steps as fit into the time, with a cosine
schedule to the end. The table has the mean and the standard deviation over seeds of the mean relative L2 error on the
test samples; trivial baselines use labels. Runs that are on record are not repeated: delete their lines to do so.

Without labels: `dgno` (weak form against test functions drawn at every step; of two phases the mixed form),
`dgno_balanced` (two phases, with a flux that balances by construction: ours), `pi_deeponet` and `pi_multionet` (the
published strong residual by differences on the nodes), `pino` (the same of an FNO). With labels: `deeponet`,
`multionet`, `fno`.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import jax
import numpy as np
from timed import runs, table, train_for

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.nn import MLPEncoder

SQUARE = ((0.0, 1.0), (0.0, 1.0))
LABELLED = ("deeponet", "multionet", "fno")


class Factored(no.AbstractOperator):
    """An operator on the nodes times sin(pi x) sin(pi y), the published factor."""

    op: no.FNO

    @property
    def envelope(self):
        return self.op.envelope

    def __call__(self, u, /, *, key=None):
        wave = [np.sin(np.pi * np.linspace(0, 1, n)) for n in u.shape[1:]]
        return self.op(u) * np.outer(*wave).astype(np.float32)


def datasets(args: argparse.Namespace) -> tuple[no.pde.NodalDarcy, Samples, Samples, Samples]:
    """Inputs without labels, labelled samples and test samples; the labels are kept on disk."""
    problem = no.pde.NodalDarcy((29, 29), medium=args.medium)
    args.output.mkdir(parents=True, exist_ok=True)
    solved = functools.partial(no.data.generate, problem, progress=args.progress)
    test = solved(key=2, num_samples=args.num_test, path=args.output / f"{args.medium}_test").load()
    labelled = test[:1]
    if set(args.methods) & set(LABELLED) or args.baselines:
        labelled = solved(key=3, num_samples=args.num_labelled, path=args.output / f"{args.medium}_train").load()
    draws = jax.jit(jax.vmap(problem.sample))(jax.random.split(jax.random.key(1), args.num_train))
    single = lambda samples: samples.map(lambda x: np.asarray(x, np.float32))
    return problem, Samples(np.asarray(draws, np.float32)), single(labelled), single(test)


def build(method: str, problem: no.pde.NodalDarcy, key: jax.Array, args: argparse.Namespace) -> tuple:
    """An operator and what it is trained on."""
    grid, smooth = problem.grid, args.medium == "smooth"
    keys = jax.random.split(key, 5)
    scale = Normalizer((2.1,), (1.0,), 2) if smooth else Normalizer((7.5,), (2.5,), 2)
    supervised = no.losses.supervised(no.losses.l2())
    differences = functools.partial(no.pde.darcy_differences, grid=grid, forcing=problem.forcing)
    strong = no.losses.grid_residual(differences, reduction="norm")
    if method in ("dgno", "dgno_balanced"):
        balanced = method == "dgno_balanced"
        return dgno(keys, balanced, args), label_free(balanced, args, problem.forcing)
    if method in ("pino", "fno"):
        fno = no.FNO((12, 12), 1, 1, 32, boundary="neumann", centering="node", key=keys[0])
        return Normalized(Factored(fno), scale, None), strong if method == "pino" else supervised
    shape = {"n_layers": args.layers, "factor": "both", "key": keys[0]}
    if method.endswith("multionet"):
        op = no.MultiONet(grid, 1, 1, args.width, sum_layers=args.layers - 1, **shape)
    else:
        op = no.DeepONet(grid, 1, 1, args.width, **shape)
    return Normalized(op, scale, None), strong if method.startswith("pi_") else supervised


def dgno(keys: jax.Array, balanced: bool, args: argparse.Namespace) -> no.DGNO:
    if args.medium == "smooth":
        return no.DGNO.paper("darcy_smooth", key=keys[0])
    decoder = functools.partial(no.MultiONet.paper, "width100_l4")
    return no.DGNO(
        MLPEncoder((29, 29), 1, 128, (512, 256), key=keys[0]),
        decoder(factor="both", key=keys[1]),
        decoder(trunk_activation="silu_sin", branch_activation="silu_id", key=keys[2]),
        decoder(out_channels=1 if balanced else 2, key=keys[3]),
        phases=(5.0, 10.0),
    )


def label_free(balanced: bool, args: argparse.Namespace, forcing: float):
    """The sheet's weights; four points a ball, whose corrected rule is exact for fluxes linear in x."""
    smooth = args.medium == "smooth"
    ball = {"num_centers": args.num_centers, "radius": args.radius, "num_points": 4}
    weak = no.pde.WeakDarcy(SQUARE, forcing=forcing, form="primal" if smooth else "mixed", **ball)
    if balanced:
        equation = no.pde.BalancedDarcy(SQUARE, forcing=forcing, num_points=4 * args.num_centers)
        virtual = no.losses.virtual_observables(equation, order=0)
    elif smooth:
        virtual = no.losses.virtual_observables(weak, top=10 * args.num_centers)
    else:
        virtual = no.losses.virtual_observables(weak, order=0, weights={"balance": args.num_centers**0.5})
    terms = {"pde": virtual, "data": no.losses.reconstruction()}
    return no.losses.weighted_sum(terms, {"data": 0.25})


def run(method: str, seed: int, problem, train: Samples, test: Samples, args: argparse.Namespace) -> dict:
    op, objective = build(method, problem, jax.random.key(seed), args)
    op, row = train_for(
        op, train, objective, seconds=args.seconds, batch_size=args.batch_size, learning_rate=args.learning_rate,
        seed=seed, progress=args.progress,
    )  # fmt: skip
    row = {"medium": args.medium, **row, "u": float(no.evaluate(op, test)["relative_l2"].mean())}
    if method.startswith("dgno"):
        decoded = jax.jit(jax.vmap(lambda a: op.decode_input(op.encode(a))))(test.inputs)
        row["a"] = float(jax.vmap(no.metrics.relative_l2)(decoded, test.inputs).mean())
        no.save(args.output / f"{args.medium}_{method}_{seed}.safetensors", op)
    return row


def baselines(problem, train: Samples, test: Samples) -> list[dict]:
    """Relative L2 errors of predictors without a network; the last one needs no labels either."""
    even = jax.vmap(lambda a: problem.solve(np.ones_like(a)))(test.inputs[:1])[0]
    rows = {
        "training mean": no.baselines.training_mean(train),
        "nearest neighbour": no.baselines.nearest_neighbour(train),
        "linear POD map": no.baselines.linear_pod(train),
        "constant coefficient": lambda a: even / a.mean(),
    }
    return [
        {"method": name, "labels": name != "constant coefficient",
         "u": float(no.evaluate(op, test)["relative_l2"].mean())} for name, op in rows.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medium", choices=("smooth", "two_phase"))
    parser.add_argument("--methods", nargs="*", default=["dgno", "pi_deeponet", "pi_multionet"])
    parser.add_argument("--seconds", type=float, default=240, help="of training, each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-train", type=int, default=4000, help="inputs of the methods without labels")
    parser.add_argument("--num-labelled", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--num-centers", type=int, default=100)
    parser.add_argument("--radius", type=float, default=1e-2)
    parser.add_argument("--width", type=int, default=100, help="of DeepONet and MultiONet")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("outputs/dgno"))
    args = parser.parse_args()
    problem, train, labelled, test = datasets(args)
    rows = runs(
        args.output / f"{args.medium}.jsonl",
        [{"method": method, "seed": seed} for seed in range(args.seeds) for method in args.methods],
        lambda method, seed: run(method, seed, problem, labelled if method in LABELLED else train, test, args),
    )
    trivial = baselines(problem, labelled, test) if args.baselines else []
    print("\n" + table(rows, trivial, {"u": "error of u in %"}, LABELLED))


if __name__ == "__main__":
    main()
