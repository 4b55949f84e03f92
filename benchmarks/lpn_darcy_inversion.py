"""A two-phase medium from 100 noisy values of the pressure: a learned proximal network beside classical regularisers.

    python benchmarks/lpn_darcy_inversion.py

The unknown x is affine in log a, 0 and 1 in the two phases. An `LPN` learns to remove noise from media of the law; it,
total variation, and a Gaussian prior (the mean and covariance of the training media) regularise the same
Gauss-Newton reconstruction. The number of each (rho or weight) is the best on validation media. Errors are relative L2
errors of a. Every medium is a line of the record under --output; those on record are not done again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timed import Record

import neuralops as no
from neuralops import inverse
from neuralops.inverse import ADMM, Learned, TotalVariation, reconstruct_nonlinear
from neuralops.nn import ConvexConv

NUMBERS = {"lpn": (0.02, 0.05, 0.1, 0.2, 0.5), "tv": (0.1, 0.3, 1.0, 3.0), "gaussian": (0.3, 1.0, 3.0)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lpn_darcy_inversion_benchmark"))
    parser.add_argument("--points", type=int, default=24, help="per side")
    parser.add_argument("--num-train", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--level", type=float, default=0.4, help="noise the network is trained for")
    parser.add_argument("--measured", type=int, default=100)
    parser.add_argument("--snr", type=float, default=25.0, help="decibels")
    parser.add_argument("--media", type=int, default=20)
    parser.add_argument("--validation", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="of Gauss-Newton")
    parser.add_argument("--iterations", type=int, default=60, help="of ADMM in each")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def trained(args: argparse.Namespace, media: np.ndarray) -> no.LPN:
    path = args.output / "lpn.safetensors"
    if path.exists():
        return no.load(path)
    key = jax.random.key(args.seed + 1)
    net = ConvexConv(1, args.width, strides=(1, 2, 1), readout_channels=args.width, beta=50.0, alpha=0.01, key=key)
    steps = args.epochs * len(media) // 32
    op, _ = no.fit(
        no.LPN(net),
        media,
        objective=no.losses.denoising(no.losses.mse, noise=args.level),
        optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, steps, 0.02)),
        num_epochs=args.epochs,
        batch_size=32,
        key=jax.random.key(args.seed + 2),
        progress=False,
    )
    no.save(path, op)
    return op


def main() -> None:
    args = parse()
    record = Record(args.output / "record.jsonl", {k: v for k, v in vars(args).items() if k != "output"})
    problem = no.pde.Darcy((args.points, args.points))
    high, low = problem.values
    to_a = lambda x: low * (high / low) ** x
    draw = jax.jit(jax.vmap(lambda k: jnp.log(problem.sample(k) / low) / np.log(high / low)))
    media = np.asarray(draw(jax.random.split(jax.random.key(args.seed), args.num_train)))
    started = time.process_time()
    op = trained(args, media)
    print(f"network: {time.process_time() - started:.0f} s of processor time")
    mean = jnp.asarray(media.mean(0))
    flat = media.reshape(len(media), -1)
    root = jnp.asarray(np.linalg.cholesky(np.cov(flat.T) + 1e-3 * np.eye(flat.shape[1])), jnp.float32)

    def one(method: str, number: Any, x: Any, key: Any) -> tuple[Any, Any]:
        place, noisy = jax.random.split(key)
        chosen = jax.random.choice(place, x.size, (args.measured,), replace=False)
        u = problem.solve(to_a(x))
        noise = inverse.noise_of(u, args.snr)
        # in units of the noise, so that scale = 0.5 is the misfit
        forward = lambda x: problem.solve(to_a(jnp.clip(x, -0.5, 1.5))).ravel()[chosen] / noise
        y = u.ravel()[chosen] / noise + jax.random.normal(noisy, (args.measured,))
        options = {"x0": mean, "max_steps": args.steps, "line_search": False, "dense": True}
        if method == "gaussian":
            field = lambda w: mean + (root @ w.ravel()).reshape(mean.shape)
            m = ADMM(30.0, max_steps=args.iterations)
            options["x0"] = jnp.zeros_like(mean)
            found = reconstruct_nonlinear(lambda w: forward(field(w)), y, inverse.L2(number), m, **options)
            value = field(found.value)
        elif method == "tv":
            m = ADMM(30.0, max_steps=args.iterations)
            found = reconstruct_nonlinear(forward, y, TotalVariation(number, max_steps=50, rtol=1e-2), m, **options)
            value = found.value
        else:
            m = ADMM(number * 100.0, max_steps=args.iterations)
            found = reconstruct_nonlinear(forward, y, Learned(op), m, **options)
            value = found.value
        value = jnp.clip(value, 0, 1)
        a = to_a(x)
        error = jnp.linalg.norm(to_a(value) - a) / jnp.linalg.norm(a)
        base = jnp.linalg.norm(to_a(mean) - a) / jnp.linalg.norm(a)
        return error, base, found.misfit[-1]

    keys = jax.random.split(jax.random.key(args.seed + 7), args.validation + args.media)
    fresh = draw(jax.random.split(jax.random.key(args.seed + 8), args.validation + args.media))
    for method, numbers in NUMBERS.items():
        run = jax.jit(lambda number, x, key, method=method: one(method, number, x, key))

        def errors(stage: str, number: float, which: range, method: str = method, run: Any = run) -> list[float]:
            found = []
            for i in which:
                row = record.find(stage=stage, method=method, number=number, medium=i)
                if row is None:
                    error, base, misfit = (float(v) for v in run(number, fresh[i], keys[i]))
                    row = record.add(
                        stage=stage, method=method, number=number, medium=i, error=error, mean_field=base, misfit=misfit
                    )
                found.append((row["error"], row["mean_field"]))
            return np.asarray(found).T

        tried = {n: float(errors("validation", n, range(args.validation))[0].mean()) for n in numbers}
        best = min(tried, key=tried.__getitem__)
        print(method, "validation", {n: round(e, 4) for n, e in tried.items()}, flush=True)
        error, base = errors("test", best, range(args.validation, args.validation + args.media))
        print(f"{method}: {error.mean():.4f} +- {error.std():.4f}; mean field {base.mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
