"""Darcy's equation without labels: a deep generative neural operator from the equation alone.

    python examples/dgno_forward.py                        # under a minute on two cores
    python examples/dgno_forward.py --num-epochs 100       # some minutes; relative L2 error near 1 %
    python examples/dgno_forward.py --medium two_phase --num-epochs 60

The operator sees coefficients, never a solution. One code stands behind each coefficient; decoders give coefficient and
solution back at any point, and the equation ties them together: for a smooth coefficient by its weak form, tested on
small balls drawn anew at every step; for two phases by a flux that balances the source exactly, so that the
constitutive law alone is left. Solutions are computed for the test samples alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import numpy as np
import optax

import neuralops as no
from neuralops.data import Samples
from neuralops.nn import ConvEncoder, MLPEncoder

SQUARE = ((0.0, 1.0), (0.0, 1.0))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/dgno_forward"))
    parser.add_argument("--medium", choices=("smooth", "two_phase"), default="smooth")
    parser.add_argument("--num-train", type=int, default=1000, help="coefficients, without solutions")
    parser.add_argument("--num-test", type=int, default=40)
    parser.add_argument("--num-epochs", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--num-centers", type=int, default=50, help="test functions of a step")
    parser.add_argument("--radius", type=float, default=1e-2, help="of their balls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def build(medium: str, key: jax.Array) -> no.DGNO:
    """The published networks; of two phases with a stream function as the flux and a narrower decoder of the medium."""
    keys = jax.random.split(key, 4)
    if medium == "smooth":
        return no.DGNO(
            ConvEncoder((29, 29), 1, 128, (128, 128), key=keys[0]),
            solution=no.MultiONet.paper("width100_l5", factor="both", key=keys[1]),
            medium=no.MultiONet.paper("width100_l5", key=keys[2]),
        )
    decoder = no.MultiONet.paper
    return no.DGNO(
        MLPEncoder((29, 29), 1, 128, (512, 256), key=keys[0]),
        solution=decoder("width100_l4", factor="both", key=keys[1]),
        medium=decoder("width100_l4", trunk_activation="silu_sin", branch_activation="silu_id", key=keys[2]),
        flux=decoder("width100_l4", key=keys[3]),
        phases=(5.0, 10.0),
    )


def objective(args: argparse.Namespace, forcing: float):
    """The equation, and the coefficient given back."""
    if args.medium == "smooth":
        balls = {"num_centers": args.num_centers, "radius": args.radius, "num_points": 4}
        equation = no.pde.WeakDarcy(SQUARE, forcing=forcing, form="primal", **balls)
        virtual = no.losses.virtual_observables(equation, top=10 * args.num_centers)
    else:  # between the nodes the coefficient is that of the nearest one
        equation = no.pde.BalancedDarcy(SQUARE, forcing=forcing, num_points=4 * args.num_centers)
        virtual = no.losses.virtual_observables(equation, order=0)
    return no.losses.weighted_sum({"equation": virtual, "input": no.losses.reconstruction()}, {"input": 0.25})


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    problem = no.pde.NodalDarcy((29, 29), medium=args.medium)
    draw = jax.jit(jax.vmap(problem.sample))
    train = Samples(np.asarray(draw(jax.random.split(jax.random.key(args.seed), args.num_train))))
    test = no.data.generate(problem, key=args.seed + 1, num_samples=args.num_test, progress=not args.quiet)
    test = test.map(lambda x: np.asarray(x, np.float32))

    steps = args.num_epochs * -(-args.num_train // args.batch_size)
    rate = optax.cosine_decay_schedule(args.learning_rate, steps)
    op, history = no.fit(
        build(args.medium, jax.random.key(args.seed + 2)),
        train,
        objective=objective(args, problem.forcing),
        optimizer=optax.adamw(rate, weight_decay=1e-4),
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 3),
        progress=not args.quiet,
    )

    even = problem.solve(np.ones_like(test.inputs[0]))  # scales with 1/a: what can be said without a network
    errors = no.evaluate(op, test)["relative_l2"]
    trivial = no.evaluate(lambda a: even / a.mean(), test)["relative_l2"]
    decoded = jax.jit(jax.vmap(lambda a: op.decode_input(op.encode(a))))(test.inputs)
    recovered = jax.vmap(no.metrics.relative_l2)(decoded, test.inputs)
    text = "\n".join(
        [
            "| mean relative L2 error in %, no labels | u | a |",
            "| --- | --- | --- |",
            f"| DGNO | {100 * errors.mean():.2f} | {100 * float(recovered.mean()):.2f} |",
            f"| constant coefficient | {100 * trivial.mean():.2f} | |",
        ]
    )
    print(f"\n{text}\n{sum(history.seconds):.0f} s of training, {steps} steps")
    (args.output / "report.md").write_text(text + "\n")
    no.save(args.output / "dgno.safetensors", op)
    predictions = np.asarray(jax.jit(jax.vmap(op))(test.inputs[:3]))
    no.plotting.panel(
        test.inputs[:3],
        test.outputs[:3],
        predictions,
        args.output / "dgno_forward.png",
        grid=problem.grid,
        names=("coefficient", "solver", "DGNO, no labels", "error"),
    )
    print(f"saved: {args.output}/dgno_forward.png, dgno.safetensors, report.md")


if __name__ == "__main__":
    main()
