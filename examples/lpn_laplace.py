"""A learned proximal network finds soft thresholding: three losses on noisy Laplace numbers, and the prior behind each.

    python examples/lpn_laplace.py                                  # small: about a minute on two cores
    python examples/lpn_laplace.py --steps 4000 --batch-size 2000   # some minutes; close to the exact functions

The clean number x has density exp(-|x|) / 2, the noisy one is y = x + noise. Trained with the squared error, a denoiser
becomes the posterior mean; with the absolute error, the posterior median; by proximal matching, the posterior mode,
which is soft thresholding, the proximal operator of sigma^2 |x|. The network has no idea of |x|: its regulariser is
found by inverting it, `op.prior`. Report and figure lie under --output.
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
from matplotlib.figure import Figure
from scipy.special import ndtr

import neuralops as no

STAGES = ((0.5, 1e-3), (0.4, 3e-4), (0.3, 3e-4), (0.2, 1e-4), (0.1, 5e-5))  # gamma, and the rate at first
COLOURS = {"squared error": "#1f77b4", "absolute error": "#edae49", "proximal matching": "#d1495b"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lpn_laplace"))
    parser.add_argument(
        "--steps", type=int, default=1000, help="with each of the first two losses; 2.5 times as many more"
    )
    parser.add_argument("--batch-size", type=int, default=500, help="2000 in the paper")
    parser.add_argument("--hidden-channels", type=int, default=50)
    parser.add_argument("--sigma", type=float, default=1.0, help="standard deviation of the noise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def laplace(num_samples: int) -> np.ndarray:
    """The quantiles of the clean numbers, as fields `(num_samples, 1, 1)`: a sample without luck."""
    p = (np.arange(num_samples) + 0.5) / num_samples
    x = np.where(p < 0.5, np.log(2 * p), -np.log(2 * (1 - p)))
    return x.astype(np.float32).reshape(-1, 1, 1)


def exact(y: np.ndarray, sigma: float) -> dict[str, np.ndarray]:
    """Posterior mean, median and mode of x given y."""
    s = sigma**2
    # The posterior is a normal law about y - s where x > 0 and one about y + s where x < 0, with these masses.
    right, left = np.exp(-y) * ndtr((y - s) / sigma), np.exp(y) * ndtr(-(y + s) / sigma)
    mean = ((y - s) * right + (y + s) * left) / (right + left)
    low, high = np.full_like(y, -20.0), np.full_like(y, 20.0)
    for _ in range(60):  # the median by bisection
        middle = (low + high) / 2
        below = np.exp(y) * ndtr((np.minimum(middle, 0) - y - s) / sigma)
        below += np.exp(-y) * (ndtr((np.maximum(middle, 0) - y + s) / sigma) - ndtr((s - y) / sigma))
        under = below < (right + left) / 2
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    mode = np.sign(y) * np.maximum(np.abs(y) - s, 0)
    return {"squared error": mean, "absolute error": (low + high) / 2, "proximal matching": mode}


def trained(op: Any, loss: Any, steps: int, rate: float, last: float, args: argparse.Namespace) -> Any:
    """Some steps with one loss, the rate falling from `rate` to `last`; the average of the weights over the steps."""
    clean = laplace(args.batch_size * min(steps, 200))
    schedule = optax.cosine_decay_schedule(rate, steps, alpha=last / rate)
    op, _ = no.fit(
        op,
        clean,
        objective=no.losses.denoising(loss, noise=args.sigma),
        optimizer=optax.adam(schedule),
        num_epochs=max(steps // min(steps, 200), 1),
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 1),
        average=0.99,
        progress=not args.quiet,
    )
    return op


def networks(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    """A network for each loss, the last one going on from the second; and the seconds that each took."""
    start = no.LPN.paper("toy_1d", hidden_channels=args.hidden_channels, key=jax.random.key(args.seed))
    ops, seconds = {}, {}
    for name, loss in (("squared error", no.losses.mse), ("absolute error", no.losses.mae)):
        began = time.perf_counter()
        ops[name] = trained(start, loss, args.steps, 3e-3, 1e-5, args)
        seconds[name] = time.perf_counter() - began
    op, began = ops["absolute error"], time.perf_counter()
    for gamma, rate in STAGES:
        op = trained(op, no.losses.proximal_matching(gamma), args.steps // 2, rate, rate / 10, args)
    ops["proximal matching"], seconds["proximal matching"] = op, time.perf_counter() - began
    return ops, seconds


def judge(ops: dict[str, Any], args: argparse.Namespace) -> tuple[list[list[Any]], dict[str, dict[str, np.ndarray]]]:
    """Rows of errors, and the curves."""
    y, x = np.linspace(-3.5, 3.5, 281), np.linspace(-2, 2, 81)
    truth = exact(y, args.sigma)
    column = lambda z: jnp.asarray(z, jnp.float32).reshape(-1, 1, 1)
    rows, curves = [], {}
    for name, op in ops.items():
        f = np.asarray(jax.vmap(op)(column(y))).ravel()
        found = jax.vmap(op.prior)(column(x))
        R = np.asarray(found.value) - float(np.min(found.value))
        inner = np.abs(y) <= 3
        error, off = np.abs(f - truth[name]), np.abs(f - truth["proximal matching"])
        to_abs = R - args.sigma**2 * np.abs(x)
        rows.append(
            [name, error[inner].max(), off.max(), off.mean(), np.abs(to_abs).max(), float(found.residual.max())]
        )
        curves[name] = {"y": y, "f": f, "exact": truth[name], "x": x, "R": R}
    return rows, curves


def plot(curves: dict[str, dict[str, np.ndarray]], sigma: float, path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(curve["y"], curve["f"], color=COLOURS[name], label=name)
        left.plot(curve["y"], curve["exact"], color="black", linewidth=0.9, linestyle="--")
        right.plot(curve["x"], curve["R"], color=COLOURS[name], label=name)
    x = next(iter(curves.values()))["x"]
    left.plot([], [], color="black", linewidth=0.9, linestyle="--", label="posterior mean, median, mode")
    right.plot(x, sigma**2 * np.abs(x), color="black", linewidth=0.9, linestyle="--", label="|x|, the truth")
    left.set(title="the networks f(y)", xlabel="y, noisy")
    right.set(title="their regularisers R(x), from op.prior", xlabel="x, clean", ylim=(-0.1, None))
    for ax in (left, right):
        ax.legend(frameon=False)
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    ops, seconds = networks(args)
    rows, curves = judge(ops, args)
    head = "| trained with | from its exact function, [-3, 3] | from soft thresholding, most | mean | R from |x|, most "
    lines = [head + "| inverted to | seconds |", "|" + " --- |" * 7]
    for name, *numbers in rows:
        shown = [*(f"{n:.3f}" for n in numbers[:-1]), f"{numbers[-1]:.0e}", f"{seconds[name]:.0f}"]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    text = "\n".join(lines)
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    plot(curves, args.sigma, args.output / "lpn_laplace.png")
    no.save(args.output / "proximal_matching.safetensors", ops["proximal matching"])
    print(f"\nsaved: {args.output}/lpn_laplace.png, report.md, proximal_matching.safetensors")


if __name__ == "__main__":
    main()
