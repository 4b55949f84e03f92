"""Sparse-view tomography of ellipse phantoms: filtered back-projection, total variation, a learned prior. A picture.

    python examples/lpn_tomography.py                       # small: 32 x 32 cells, 12 views, 8 test images
    python examples/lpn_tomography.py --num-points 64 --views 200 60 --num-train 4000 --hidden-channels 16 \\
        --num-test 20 --num-steps 60  # the study

Data are exact line integrals plus noise, not those of the discretisation that inverts them. The prior is an LPN,
trained here to denoise phantoms: absolute errors first, then proximal matching with a gamma that shrinks. It
reconstructs by ADMM in the order x, u, z, where rho is its weight. That and the weight of total variation are tuned on
images of their own, by PSNR. Report and figure lie under --output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import neuralops as no
from neuralops.inverse import ADMM, FISTA, Learned, TotalVariation, maps, random_ellipses, reconstruct
from neuralops.nn import ConvexConv

TV_WEIGHTS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RHOS = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lpn_tomography"))
    parser.add_argument("--num-points", type=int, default=32, help="cells per side")
    parser.add_argument("--views", type=int, nargs="+", default=[12], help="angles over half a turn")
    parser.add_argument("--noise", type=float, default=0.01, help="of a line integral; the box has side 1")
    parser.add_argument("--num-train", type=int, default=400, help="phantoms that the prior is trained on")
    parser.add_argument("--num-tune", type=int, default=4, help="phantoms for weights")
    parser.add_argument("--num-test", type=int, default=8)
    parser.add_argument("--crop", type=int, default=32, help="cells per side of the part of a phantom that is learned")
    parser.add_argument("--num-epochs", type=int, default=9, help="of absolute errors; as many of proximal matching")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--hidden-channels", type=int, default=8)
    parser.add_argument("--prior-noise", type=float, default=0.1, help="at which the prior is trained")
    parser.add_argument("--num-steps", type=int, default=25, help="of ADMM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def crops(fields: Any, size: int, seed: int) -> np.ndarray:
    """A part of each field, at a random place."""
    rng = np.random.default_rng(seed)
    size = min(size, fields.shape[-1])
    places = rng.integers(0, fields.shape[-1] - size + 1, (len(fields), 2))
    return np.stack([x[:, i : i + size, j : j + size] for x, (i, j) in zip(np.asarray(fields), places, strict=True)])


def trained(fields: np.ndarray, args: argparse.Namespace) -> Any:
    """A learned proximal network for these fields."""
    # No strides: coarser layers leave the pattern of their grid in the gradient.
    width, key = args.hidden_channels, jax.random.key(args.seed)
    psi = ConvexConv(1, width, strides=(1, 1, 1), readout_channels=width, beta=20.0, key=key)
    op, losses = no.LPN(psi, center=0.2), no.losses
    per_epoch = max(len(fields) // args.batch_size, 1)
    gammas = losses.gamma_schedule(0.08, (4, 2, 1))
    adam = lambda rate, epochs: optax.adam(optax.cosine_decay_schedule(rate, epochs * per_epoch, alpha=0.1))
    later = max(args.num_epochs // 3, 1)
    first, then = adam(5e-3, args.num_epochs), adam(1e-3, later)  # one optimiser, one program
    stages = [(losses.mae, args.num_epochs, first)]
    stages += [(losses.proximal_matching(gamma, mean=True), later, then) for gamma in gammas]
    for i, (loss, epochs, optimizer) in enumerate(stages):
        op, _ = no.fit(
            op,
            fields,
            objective=losses.denoising(loss, noise=args.prior_noise),
            optimizer=optimizer,
            num_epochs=epochs,
            batch_size=args.batch_size,
            key=jax.random.fold_in(jax.random.key(args.seed + 1), i),
            progress=not args.quiet,
        )
    return op


def best(solve: Callable[[Any], jax.Array], choices: tuple[Any, ...], truth: jax.Array, tune: int) -> tuple[Any, Any]:
    """The choice of highest mean PSNR on the first `tune` images, and what it gives for the others."""
    score = jax.jit(jax.vmap(no.metrics.psnr))
    found = {choice: solve(choice) for choice in choices}
    means = {choice: float(jnp.mean(score(images[:tune], truth[:tune]))) for choice, images in found.items()}
    chosen = max(choices, key=lambda choice: np.nan_to_num(means[choice], nan=-np.inf))
    return chosen, found[chosen]


def study(op: Any, views: int, phantoms: Any, args: argparse.Namespace) -> tuple[dict[str, Any], Any, dict[str, float]]:
    """All reconstructions of the test images, these images, and the weights."""
    grid = no.Grid((args.num_points,) * 2, 1.0, centering="cell")
    radon = maps.Radon(grid, maps.half_turn(views))
    size = float(radon.norm())
    A = (1 / size) * radon  # of norm 1
    images = jax.jit(jax.vmap(lambda phantom: phantom.image(grid)))(phantoms)
    clean = jax.jit(jax.vmap(lambda phantom: phantom.sinogram(radon)))(phantoms)
    y = clean + args.noise * jax.random.normal(jax.random.key(args.seed + 3), clean.shape)

    @jax.jit
    def by_tv(weight: Any, y: jax.Array) -> jax.Array:
        one = lambda y: reconstruct(A, y / size, TotalVariation(weight), FISTA(max_steps=200), norm=1.0).value
        return jax.vmap(one)(y)

    @jax.jit
    def by_prior(rho: Any, op: Any, y: jax.Array, x0: jax.Array) -> jax.Array:
        method = ADMM(rho, max_steps=args.num_steps, rtol=1e-4, inner=no.CG(1e-4, max_steps=30))
        one = lambda y, x0: reconstruct(A, y / size, Learned(op), method, x0=x0, norm=1.0).value
        return jax.vmap(one)(y, x0)

    filtered = {w: jax.vmap(maps.FilteredBackProjection(radon, w))(y) for w in ("ramp", "hann")}
    _, start = best(filtered.__getitem__, tuple(filtered), images, args.num_tune)
    weight, smooth = best(lambda w: by_tv(w, y), TV_WEIGHTS, images, args.num_tune)
    rho, learned = best(lambda r: by_prior(r, op, y, start), RHOS, images, args.num_tune)
    found = {"filtered back-projection": start, "total variation": smooth, "learned prior": learned}
    test = slice(args.num_tune, None)
    return {name: x[test] for name, x in found.items()}, images[test], {"weight": weight, "rho": rho}


def judge(found: dict[str, Any], truth: jax.Array, views: int, tuned: dict[str, float]) -> str:
    lines = [
        f"{views} views; weight of total variation {tuned['weight']:g}, rho {tuned['rho']:g}\n",
        "| | PSNR, dB | SSIM |\n| --- | --- | --- |",
    ]
    for name, images in found.items():
        cells = []
        for metric in (no.metrics.psnr, no.metrics.ssim):
            values = np.asarray(jax.jit(jax.vmap(metric))(images, truth))
            cells.append(f"{values.mean():.3g} ± {values.std():.2g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict[str, Any], truth: jax.Array, path: Path) -> None:
    """One image, its reconstructions, and below them their errors on one scale."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, 1 + len(found))
    exact = np.asarray(truth[0, 0])
    axes[0, 0].imshow(exact, cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title("phantom")
    axes[1, 0].axis("off")
    for (top, below), (name, images) in zip(axes[:, 1:].T, found.items(), strict=True):
        image = np.asarray(images[0, 0])
        shown = top.imshow(image, cmap="gray", vmin=0, vmax=1)
        top.set_title(f"{name}\n{float(no.metrics.psnr(images[0], truth[0])):.1f} dB")
        wrong = below.imshow(image - exact, cmap="RdBu_r", vmin=-0.3, vmax=0.3)
    figure.colorbar(shown, ax=axes[0], shrink=0.8)
    figure.colorbar(wrong, ax=axes[1], shrink=0.8, label="error")
    for ax in axes.flat:
        ax.set(xticks=(), yticks=())
    figure.savefig(path, dpi=80)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    draw = lambda key, number: jax.jit(jax.vmap(random_ellipses))(jax.random.split(jax.random.key(key), number))
    grid = no.Grid((args.num_points,) * 2, 1.0, centering="cell")
    fields = jax.jit(lambda p: jax.lax.map(lambda one: one.image(grid), p))(draw(args.seed + 10, args.num_train))
    began = time.perf_counter()
    op = trained(crops(fields, args.crop, args.seed), args)
    seconds = time.perf_counter() - began
    phantoms = draw(args.seed + 11, args.num_tune + args.num_test)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(op))
    report = [f"{args.num_points} x {args.num_points} cells, noise {args.noise:g}, {args.num_test} images; prior of "
              f"{parameters:,} parameters, trained in {seconds:.0f} s"]  # fmt: skip
    for views in args.views:
        found, truth, tuned = study(op, views, phantoms, args)
        report.append(judge(found, truth, views, tuned))
        plot(found, truth, args.output / f"lpn_tomography_{views}.png")
    text = "\n\n".join(report)
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    no.save(args.output / "lpn.safetensors", op)
    print(f"\nsaved: {args.output}/lpn_tomography_*.png, report.md, lpn.safetensors")


if __name__ == "__main__":
    main()
