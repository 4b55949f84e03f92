"""Deblurring of real pictures: what the guarantee of a learned proximal network costs, beside classical regularisers.

    python benchmarks/lpn_deblur.py                      # trains, chooses, measures
    python benchmarks/lpn_deblur.py --steps 200 --crops 4 --validation 2   # a look

Grey pictures inside scikit-image and scikit-learn, split by picture. Patches of the training pictures train, by `fit`
with `losses.denoising`, three networks of one number of parameters: an `LPN`, a `GradientStep` denoiser and an
unconstrained `ConvDenoiser`. All see the same patches, noise level, steps and rates. Held-out crops are blurred by a
Gaussian, noise is added, and each method restores them: total variation and wavelets by FISTA, networks by ADMM. The
one number that each method has (weight, or rho) is the best of a list on crops of validation pictures. `lpn, theorem`
has rho above 2 scale |A|^2, and a network of its own, trained at the noise of the measurement, for which this rho is
about the weight that theory asks for.

Every network, validation run and crop is a line of the record under --output; those on record are not done again, and
training goes on from its last checkpoint. Seconds are processor time: pin the process to one core.
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
from neuralops.data import pictures
from neuralops.inverse import ADMM, FISTA, Ending, Learned, TotalVariation, Wavelets, maps, reconstruct
from neuralops.models import ConvDenoiser, GradientStep
from neuralops.nn import ConvexConv

NETWORKS = ("lpn", "lpn, theorem", "gradient step", "unconstrained")
WEIGHTS = {name: (0.002, 0.004, 0.008, 0.016, 0.032) for name in ("tv", "wavelets")}
RHOS = (0.1, 0.2, 0.4, 0.8, 1.6)
THEOREM = 1.05  # rho over 2 scale |A|^2 in the row that is within the theorem


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lpn_deblur_benchmark"))
    parser.add_argument("--steps", type=int, default=5000, help="optimiser steps of each network")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--patch", type=int, default=24)
    parser.add_argument("--patches", type=int, default=8000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--level", type=float, default=0.05, help="noise the networks are trained for")
    parser.add_argument("--blur", type=float, default=1.0, help="deviation of the blur in points")
    parser.add_argument("--noise", type=float, default=0.02, help="noise of the measurement")
    parser.add_argument("--size", type=int, default=64, help="points per side of the crops")
    parser.add_argument("--crops", type=int, default=24)
    parser.add_argument("--validation", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=100, help="of ADMM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


def network(name: str, width: int, key: jax.Array) -> Any:
    """Three of one size: the LPN has width^2 * 27 numbers in its convolutions and a few more."""
    if name.startswith("lpn"):
        # No strides: coarser layers leave the pattern of their grid in the gradient.
        psi = ConvexConv(1, width, strides=(1, 1, 1), readout_channels=width, beta=20.0, alpha=0.05, key=key)
        return no.LPN(psi, center=0.5)
    if name == "gradient step":
        return GradientStep(ConvDenoiser(1, width, 5, activation="silu", key=key))
    return ConvDenoiser(1, width, 5, key=key)


def plain(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def train(name: str, args: argparse.Namespace, names: tuple[str, ...], record: Record) -> Any:
    path = args.output / f"{plain(name)}.safetensors"
    if record.find(stage="train", network=name) and path.exists():
        return no.load(path)
    patches = pictures.patches(names, args.patch, args.patches, seed=args.seed)
    op = network(name, args.width, jax.random.key(args.seed))
    steps = args.patches // args.batch_size
    schedule = optax.cosine_decay_schedule(args.rate, args.steps, 0.02)
    started = time.process_time()
    op, history = no.fit(
        op,
        patches,
        objective=no.losses.denoising(no.losses.mse, noise=args.noise if name == "lpn, theorem" else args.level),
        optimizer=optax.adam(schedule),
        num_epochs=max(1, round(args.steps / steps)),
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 1),
        checkpoint=args.output / f"{plain(name)}_training",
        resume=True,
        progress=not args.quiet,
    )
    no.save(path, op)
    size = sum(leaf.size for leaf in jax.tree.leaves(op))
    record.add(
        stage="train",
        network=name,
        parameters=size,
        loss=float(history.loss[-1]),
        seconds=time.process_time() - started,
    )
    return op


def crops(names: tuple[str, ...], count: int, args: argparse.Namespace, seed: int) -> tuple[Any, Any]:
    """Clean and measured crops."""
    clean = jnp.asarray(pictures.patches(names, args.size, count, seed=seed, flips=False))
    noise = jax.random.normal(jax.random.key(seed), clean.shape)
    return clean, jax.vmap(blur(args))(clean) + args.noise * noise


def blur(args: argparse.Namespace) -> maps.Blur:
    return maps.Blur((1, args.size, args.size), maps.gaussian(args.blur), boundary="reflect")


def restore(method: str, number: float, ops: dict[str, Any], y: Any, A: Any, norm: Any, args: Any) -> Any:
    if method == "tv":
        return reconstruct(A, y, TotalVariation(number), FISTA(max_steps=100, rtol=1e-4), norm=norm)
    if method == "wavelets":
        return reconstruct(A, y, Wavelets(number, wavelet="sym4", levels=3), FISTA(max_steps=100, rtol=1e-4), norm=norm)
    # scale is 0.5, so that 2 scale |A|^2, of which rho is a multiple, is |A|^2
    admm = ADMM(number * norm**2, max_steps=args.iterations, rtol=1e-4)
    return reconstruct(A, y, Learned(ops[method]), admm, norm=norm)


def scores(x: Any, clean: Any) -> tuple[float, float]:
    x = jnp.clip(x, 0, 1)
    return float(no.metrics.psnr(x, clean)), float(no.metrics.ssim(x, clean))


def choose(method: str, ops: dict[str, Any], held: Any, A: Any, norm: Any, args: Any, record: Record) -> float:
    """The number of the method with the best mean PSNR on the validation crops."""
    if method == "lpn, theorem":
        return THEOREM
    clean, seen = held
    found = {}
    for number in WEIGHTS.get(method, RHOS):
        row = record.find(stage="validation", method=method, number=number)
        if row is None:
            each = [
                scores(restore(method, number, ops, y, A, norm, args).value, c)[0]
                for c, y in zip(clean, seen, strict=True)
            ]
            row = record.add(stage="validation", method=method, number=number, psnr=float(np.mean(each)))
        found[number] = row["psnr"]
    return max(found, key=found.__getitem__)


def main() -> None:
    args = parse()
    record = Record(args.output / "record.jsonl", {k: v for k, v in vars(args).items() if k not in ("output", "quiet")})
    train_names, validation_names, test_names = pictures.split(num_test=6, num_validation=3, seed=args.seed)
    ops = {name: train(name, args, train_names, record) for name in NETWORKS}
    A = blur(args)
    norm = A.norm()
    held = crops(validation_names, args.validation, args, 100 + args.seed)
    clean, seen = crops(test_names, args.crops, args, 200 + args.seed)
    for i, (c, y) in enumerate(zip(clean, seen, strict=True)):
        if record.find(stage="test", method="blurred", crop=i) is None:
            psnr, ssim = scores(y, c)
            record.add(stage="test", method="blurred", crop=i, psnr=psnr, ssim=ssim)
    for method in (*WEIGHTS, *NETWORKS):
        number = choose(method, ops, held, A, norm, args, record)
        for i, (c, y) in enumerate(zip(clean, seen, strict=True)):
            if record.find(stage="test", method=method, crop=i) is None:
                started = time.process_time()
                found = restore(method, number, ops, y, A, norm, args)
                psnr, ssim = scores(found.value, c)
                ending = Ending(int(found.result)).name
                record.add(
                    stage="test", method=method, number=number, crop=i, picture=test_names[i % len(test_names)],
                    psnr=psnr, ssim=ssim, ending=ending, steps=int(found.num_steps),
                    seconds=time.process_time() - started,
                )  # fmt: skip
    report(record, args)


def report(record: Record, args: argparse.Namespace) -> None:
    print(f"Blur {args.blur}, noise {args.noise}, {args.crops} crops of {args.size} x {args.size}")
    print("| method | its number | parameters | PSNR | SSIM | ended | seconds a crop |\n" + "| --- " * 7 + "|")
    for method in ("blurred", *WEIGHTS, *NETWORKS):
        rows = [row for row in record.rows if row["stage"] == "test" and row["method"] == method]
        psnr, ssim = (np.array([row[k] for row in rows]) for k in ("psnr", "ssim"))
        trained = record.find(stage="train", network=method)
        endings = sorted({row.get("ending", "") for row in rows})
        told = ", ".join(f"{sum(row.get('ending') == e for row in rows)} {e}" for e in endings if e)
        seconds = np.median([row["seconds"] for row in rows]) if "seconds" in rows[0] else 0.0
        print(
            f"| {method} | {rows[0].get('number', '')} | {trained['parameters'] if trained else ''} | "
            f"{psnr.mean():.2f} ± {psnr.std():.2f} | {ssim.mean():.3f} ± {ssim.std():.3f} | {told} | {seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
