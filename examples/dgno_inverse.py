"""A two-phase medium from 100 noisy values of the pressure: not one answer but a posterior.

    python examples/dgno_inverse.py        # about a minute on two cores, with a roughly trained operator
    python examples/dgno_forward.py --medium two_phase --num-epochs 150 --output outputs/two_phase
    python examples/dgno_inverse.py --operator outputs/two_phase/dgno.safetensors

A deep generative neural operator is trained without labels (or loaded). Its code is the unknown: the prior is fitted
to the codes of the training media, the decoders say what would be measured, and Hamiltonian Monte Carlo draws the codes
that agree with what was. What the operator itself gets wrong, as 50 solves show, counts as a part of the noise.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from dgno_forward import build, objective

import neuralops as no
from neuralops import inverse
from neuralops.data import Samples

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/dgno_inverse"))
    parser.add_argument("--operator", type=Path, help="a checkpoint of examples/dgno_forward.py --medium two_phase")
    parser.add_argument("--num-train", type=int, default=3000, help="media, without solutions")
    parser.add_argument("--num-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--num-centers", type=int, default=50, help="test functions of a step")
    parser.add_argument("--radius", type=float, default=1e-2, help="of their balls")
    parser.add_argument("--num-points", type=int, default=100, help="where the pressure is measured")
    parser.add_argument("--num-solved", type=int, default=50, help="media that measure the operator's own error")
    parser.add_argument("--snr", type=float, default=25.0, help="signal to noise in decibels")
    parser.add_argument("--rank", type=int, default=32, help="directions of the codes that are searched")
    parser.add_argument("--num-warmup", type=int, default=300)
    parser.add_argument("--num-samples", type=int, default=300, help="of each of four chains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    args.medium = "two_phase"
    return args


def trained(args: argparse.Namespace, problem: no.pde.NodalDarcy, media: Samples) -> no.DGNO:
    if args.operator is not None:
        return no.load(args.operator)
    steps = args.num_epochs * -(-args.num_train // args.batch_size)
    op, _ = no.fit(
        build(args.medium, jax.random.key(args.seed)),
        media,
        objective=objective(args, problem.forcing),
        optimizer=optax.adamw(optax.cosine_decay_schedule(args.learning_rate, steps), weight_decay=1e-4),
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 1),
        progress=not args.quiet,
    )
    return op


def picture(path: Path, truth: np.ndarray, report: inverse.Summary, points: np.ndarray) -> None:
    """The medium, what is known of it, and three media that would explain the data."""
    fig, axes = plt.subplots(2, 3, figsize=(10, 6.4), layout="constrained")
    low, high = truth.min(), truth.max()
    panels = [
        ("truth, and where u was measured", truth[0], low, high, "viridis"),
        ("posterior mean", report.mean[0], low, high, "viridis"),
        ("posterior standard deviation", report.std[0], 0, report.std.max(), "magma"),
        *((f"draw {i + 1}", draw[0], low, high, "viridis") for i, draw in enumerate(report.samples[:3])),
    ]
    for ax, (title, field, least, most, colours) in zip(axes.flat, panels, strict=True):
        image = ax.imshow(field.T, origin="lower", extent=(0, 1, 0, 1), vmin=least, vmax=most, cmap=colours)
        ax.set_title(title, fontsize=10)
        ax.set_xticks([0, 1])
        ax.set_yticks([0, 1])
        fig.colorbar(image, ax=ax, shrink=0.85)
    axes[0, 0].plot(*points, ".", color="white", markersize=5, markeredgecolor="black", markeredgewidth=0.5)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    args = parse()
    if importlib.util.find_spec("blackjax") is None:  # said before minutes of training
        raise SystemExit("this example samples with blackjax: pip install 'neuralops-jax[plot,inverse]'")
    args.output.mkdir(parents=True, exist_ok=True)
    problem = no.pde.NodalDarcy((29, 29), medium=args.medium)
    draw = jax.jit(jax.vmap(problem.sample))
    media = Samples(np.asarray(draw(jax.random.split(jax.random.key(args.seed), args.num_train))))
    op = trained(args, problem, media)
    no.save(args.output / "dgno.safetensors", op)

    solved = no.data.generate(problem, key=args.seed + 1, num_samples=args.num_solved + 1, progress=not args.quiet)
    solved = solved.map(lambda x: np.asarray(x, np.float32))
    known, truth, u = solved[:-1], solved.inputs[-1], solved.outputs[-1]
    errors = (known.outputs - np.asarray(jax.jit(jax.vmap(op))(known.inputs))).reshape(args.num_solved, -1)

    rng = np.random.default_rng(args.seed)
    nodes = problem.grid.coordinates().reshape(2, -1).astype(np.float32)
    inside = np.flatnonzero((nodes > 0).all(0) & (nodes < 1).all(0))  # at the walls u is known
    chosen = rng.choice(inside, args.num_points, replace=False)
    noise = inverse.noise_of(u, args.snr)
    sensor = inverse.PointMeasurement(nodes[:, chosen], noise=noise, model_error=errors[:, chosen])
    seen = sensor.simulate(u.reshape(-1)[chosen], key=jax.random.key(args.seed + 2))

    codes = jax.jit(jax.vmap(op.encode))(media.inputs)
    prior = inverse.Gaussian.fit(codes, rank=args.rank)
    posterior = inverse.Posterior(op, prior, seen)
    draws = inverse.hmc(
        posterior,
        key=jax.random.key(args.seed + 3),
        num_warmup=args.num_warmup,
        num_samples=args.num_samples,
        progress=not args.quiet,
    )
    report = inverse.summary(draws, posterior, jnp.asarray(problem.grid.coordinates(), jnp.float32), truth=truth)
    own = np.sqrt(np.mean(errors[:, chosen] ** 2))
    text = f"noise {float(noise):.2g}, error of the operator itself {own:.2g} (root mean squares)\n{report}"
    print("\n" + text)
    (args.output / "report.txt").write_text(text + "\n")
    picture(args.output / "dgno_inverse.png", truth, report, nodes[:, chosen])
    print(f"saved: {args.output}/dgno_inverse.png, dgno.safetensors, report.txt")


if __name__ == "__main__":
    main()
