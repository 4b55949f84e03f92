"""A coefficient of Darcy's equation from 100 noisy values of the solution: learned proximal networks and other priors.

    python benchmarks/which_prior.py two_phase
    python benchmarks/which_prior.py smooth --level 0.1

Problem, priors and reconstruction are those of `examples/lpn_darcy_inversion.py`; media, measured nodes and noise are
those of `benchmarks/dgno_inverse.py`, so that the posterior of a generative operator stands beside them. The number of
each method (weight, or rho) is the best of a list on media of their own, by the relative L2 error of a. Every run is a
line of the record under --output; those on record are not done again. Seconds are processor time.

    python benchmarks/which_prior.py two_phase --chains 3

takes the law itself as prior, on the first three media: two chains of preconditioned Crank-Nicolson steps (Cotter et
al. 2013) on the Gaussian field whose sign the medium is. No estimate has a smaller expected squared error than the
mean of the posterior.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timed import Record

import neuralops as no
from neuralops.data import generate

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import lpn_darcy_inversion as example

NUMBERS = {
    "total variation": (0.03, 0.1, 0.3, 1.0, 3.0),
    "Gaussian": (0.3, 1.0, 3.0),
    "LPN, squared error": (1.0, 2.0, 3.0, 5.0, 10.0, 30.0),
    "LPN, proximal matching": (1.0, 2.0, 3.0, 5.0, 10.0, 30.0),
}
NUM_KNOWN = 100  # media before those that dgno_inverse.py judges; the last of them tune here


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medium", choices=tuple(example.RANGE))
    parser.add_argument("--output", type=Path, default=Path("outputs/which_prior"))
    parser.add_argument("--num-train", type=int, default=4000)
    parser.add_argument("--num-epochs", type=int, default=8)
    parser.add_argument("--hidden-channels", type=int, default=16)
    parser.add_argument("--level", type=float, default=0.4, help="noise the networks are trained for")
    parser.add_argument("--measured", type=int, default=100)
    parser.add_argument("--snr", type=float, default=25.0, help="decibels")
    parser.add_argument("--media", type=int, default=20)
    parser.add_argument("--validation", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="of Gauss-Newton")
    parser.add_argument("--chains", type=int, default=0, help="media on which the law itself is the prior")
    parser.add_argument("--chain-steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def network(method: str, known: np.ndarray, args: argparse.Namespace, record: Record) -> Any:
    path = args.output / f"{args.medium}_{args.level:g}_{method.split()[-1]}.safetensors"
    if path.exists():
        return no.load(path)
    started = time.process_time()
    op = example.train(known, args, matching="matching" in method, progress=False)
    no.save(path, op)
    record.add(stage="train", method=method, seconds=time.process_time() - started)
    return op


def chain(law: Any, u: Any, chosen: np.ndarray, args: argparse.Namespace, data_key: Any, key: Any) -> Any:
    """The mean of x under the exact posterior, from a chain whose first quarter sets its step, and its acceptance."""
    forward, y = law.measured(u, chosen, args.snr, data_key)
    phases = lambda g: (g >= 0).astype(jnp.float32)
    misfit = lambda g: 0.5 * jnp.sum((forward(phases(g)) - y) ** 2)
    draw = lambda key: law.exact.field_law.sample(key, law.exact.grid).astype(jnp.float32)
    warm_up = args.chain_steps // 4

    def step(at: Any, given: Any) -> Any:
        g, h, width, total = at
        i, key = given
        propose, decide = jax.random.split(key)
        new = jnp.sqrt(1 - width**2) * g + width * draw(propose)
        h_new = misfit(new)
        taken = jnp.log(jax.random.uniform(decide)) < h - h_new
        g, h = jnp.where(taken, new, g), jnp.where(taken, h_new, h)
        tuned = jnp.minimum(width * jnp.exp(0.05 * (taken - 0.25)), 0.95)
        late = i >= warm_up
        return (g, h, jnp.where(late, width, tuned), total + late * phases(g)), taken & late

    g = draw(key)
    keys = jax.random.split(jax.random.fold_in(key, 1), args.chain_steps)
    start = (g, misfit(g), jnp.float32(0.3), jnp.zeros_like(g))
    (*_, total), taken = jax.lax.scan(step, start, (jnp.arange(args.chain_steps), keys))
    return total / (args.chain_steps - warm_up), taken.sum() / (args.chain_steps - warm_up)


def by_law(law: Any, judged: Any, chosen: np.ndarray, args: argparse.Namespace) -> None:
    run = jax.jit(lambda u, data_key, key: chain(law, u, chosen, args, data_key, key))
    for i in range(args.chains):
        a, u = (jnp.asarray(v[i], jnp.float32) for v in (judged.inputs, judged.outputs))
        data_key = jax.random.split(jax.random.fold_in(jax.random.key(7), i))[0]
        (one, p), (two, q) = (run(u, data_key, jax.random.key(100 * i + c)) for c in range(2))
        truth = law.to_x(a)
        print(
            f"medium {i}: error of the mean {float(law.error((one + two) / 2, truth)):.3f}, of each chain "
            f"{float(law.error(one, truth)):.3f}, {float(law.error(two, truth)):.3f}, between them "
            f"{float(law.error(one, two)):.3f}; acceptance {float(p):.2f}, {float(q):.2f}",
            flush=True,
        )


def main() -> None:
    args = parse()
    unsaid = ("output", "chains", "chain_steps")
    settings = {k: v for k, v in vars(args).items() if k not in unsaid}
    record = Record(args.output / f"{args.medium}_{args.level:g}.jsonl", settings)
    law = example.Law(args.medium)
    known = law.media(args.seed + 1, args.num_train)
    mean, root = example.gaussian(known)
    samples = generate(law.exact, key=5, num_samples=NUM_KNOWN + args.media, progress=False)
    tuning, judged = samples[NUM_KNOWN - args.validation : NUM_KNOWN], samples[NUM_KNOWN:]
    _, inside = law.inner_nodes()
    chosen = np.random.default_rng(args.measured).choice(inside, args.measured, replace=False)

    if args.chains:
        return by_law(law, judged, chosen, args)

    for method, numbers in NUMBERS.items():
        op = network(method, known, args, record) if method.startswith("LPN") else None

        @jax.jit
        def run(number: Any, a: Any, u: Any, key: Any, op: Any, prior: str = method.split(",")[0]) -> Any:
            forward, y = law.measured(u, chosen, args.snr, key)
            x, misfit = example.invert(prior, number, forward, y, mean, root, op, steps=args.steps)
            return law.error(x, law.to_x(a)), law.error(mean, law.to_x(a)), misfit[-1]

        def errors(stage: str, number: float, media: Any, method: str = method, op: Any = op, run: Any = run) -> Any:
            found = []
            for i in range(len(media)):
                row = record.find(stage=stage, method=method, number=number, medium=i)
                if row is None:
                    started = time.process_time()
                    a, u = (jnp.asarray(v[i], jnp.float32) for v in (media.inputs, media.outputs))
                    key = jax.random.split(jax.random.fold_in(jax.random.key(7), i))[0]
                    error, base, misfit = (float(v) for v in run(number, a, u, key, op))
                    row = record.add(
                        stage=stage, method=method, number=number, medium=i, error=error, mean_medium=base,
                        misfit=misfit, seconds=time.process_time() - started,
                    )  # fmt: skip
                found.append(row)
            return found

        tried = {n: np.mean([row["error"] for row in errors("validation", n, tuning)]) for n in numbers}
        best = min(tried, key=tried.__getitem__)
        print(method, {n: round(float(e), 4) for n, e in tried.items()}, flush=True)
        rows = errors("test", best, judged)
        error, base, misfit = (np.array([row[k] for row in rows]) for k in ("error", "mean_medium", "misfit"))
        print(
            f"{method}: {error.mean():.4f} ± {error.std(ddof=1):.4f}, misfit {misfit.mean():.1f} where "
            f"{args.measured / 2:g} is that of the noise, {np.median([r['seconds'] for r in rows]):.0f} s each; "
            f"mean medium {base.mean():.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
