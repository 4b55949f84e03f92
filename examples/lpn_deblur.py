"""Deblurring a real picture: total variation, wavelets, a learned proximal network and a denoiser without guarantee.

    python examples/lpn_deblur.py                 # small: one or two minutes on two cores
    python examples/lpn_deblur.py --steps 4000 --hidden-channels 24 --patch 32    # networks that are worth it

Two denoisers of one size learn on patches of pictures inside scikit-image and scikit-learn. A crop of a picture that
they have not seen is blurred, noise is added, and `inverse.reconstruct` restores it with each of four regularisers. The
learned proximal network is the proximal operator of a function whatever its weights are, so that ADMM with rho above
2 scale |A|^2 cannot go wrong; the other one has no such function. Report and figure lie under --output.
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

import neuralops as no
from neuralops.data import pictures
from neuralops.inverse import ADMM, FISTA, Learned, TotalVariation, Wavelets, maps, reconstruct
from neuralops.nn import ConvexConv


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lpn_deblur"))
    parser.add_argument("--steps", type=int, default=500, help="optimiser steps of each network")
    parser.add_argument("--hidden-channels", type=int, default=8)
    parser.add_argument("--patch", type=int, default=16, help="points per side of the training patches")
    parser.add_argument("--picture", default="chelsea", choices=pictures.NAMES, help="held out and restored")
    parser.add_argument("--size", type=int, default=64, help="points per side of the crop")
    parser.add_argument("--blur", type=float, default=1.0, help="standard deviation in points")
    parser.add_argument("--noise", type=float, default=0.02, help="standard deviation of the measurement's noise")
    parser.add_argument("--level", type=float, default=0.05, help="standard deviation the denoisers are trained for")
    parser.add_argument("--rho", type=float, default=0.2, help="weight of the learned regularisers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


def train(op: Any, args: argparse.Namespace, patches: np.ndarray) -> Any:
    """Learns to take noise off the patches; the noise is drawn anew in every step."""
    batch = 16
    epochs = max(1, round(args.steps * batch / len(patches)))
    schedule = optax.cosine_decay_schedule(3e-3, epochs * len(patches) // batch, 0.05)
    op, history = no.fit(
        op,
        patches,
        objective=no.losses.denoising(no.losses.mse, noise=args.level),
        optimizer=optax.adam(schedule),
        num_epochs=epochs,
        batch_size=batch,
        key=jax.random.key(args.seed + 1),
        progress=not args.quiet,
    )
    return op, float(history.loss[-1])


def scores(x: Any, clean: Any) -> tuple[float, float]:
    x = jnp.clip(x, 0, 1)
    return float(no.metrics.psnr(x, clean)), float(no.metrics.ssim(x, clean))


def draw(path: Path, shown: dict[str, Any], told: dict[str, tuple[float, float]]) -> None:
    columns = -(-len(shown) // 2)
    figure = Figure(figsize=(3 * columns, 7.2), layout="constrained")
    places = figure.subplots(2, columns).ravel()
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    for axes, (name, x) in zip(places, shown.items(), strict=False):
        axes.imshow(np.asarray(x[0]), cmap="gray", vmin=0, vmax=1)
        axes.set_title(name if name not in told else f"{name}\n{told[name][0]:.2f} dB, SSIM {told[name][1]:.3f}")
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    key, other, noise_key = jax.random.split(jax.random.key(args.seed), 3)
    others = tuple(name for name in pictures.NAMES if name != args.picture)
    patches = pictures.patches(others, args.patch, 800, seed=args.seed)

    width = args.hidden_channels
    # With few channels and steps the average start learns faster, with more the sparse one (docs/lpn.md).
    more = {"init": "average" if width < 16 else "sparse", "beta": 20.0, "alpha": 0.05}
    psi = ConvexConv(1, width, strides=(1, 1, 1), readout_channels=width, **more, key=key)
    networks = {"LPN": no.LPN(psi, center=0.5), "unconstrained": no.ConvDenoiser(1, width, 5, key=other)}
    lines = []
    for name, op in networks.items():
        started = time.perf_counter()
        networks[name], loss = train(op, args, patches)
        size = sum(leaf.size for leaf in jax.tree.leaves(op))
        gain = 10 * np.log10(args.level**2 / loss)
        seconds = time.perf_counter() - started
        lines.append(f"{name}: {size} parameters, takes {gain:.2f} dB of noise off patches, {seconds:.0f} s")
        print(lines[-1], flush=True)

    whole = pictures.picture(args.picture)
    top, left = (whole.shape[1] - args.size) // 2, (whole.shape[2] - args.size) // 2
    clean = jnp.asarray(whole[:, top : top + args.size, left : left + args.size])
    A = maps.Blur(clean.shape, maps.gaussian(args.blur), boundary="reflect")
    y = A(clean) + args.noise * jax.random.normal(noise_key, clean.shape)
    norm = A.norm()

    admm = lambda rho: ADMM(rho, max_steps=60, rtol=1e-4)  # 2 scale |A|^2 is |A|^2
    runs = {
        "total variation": (TotalVariation(0.008), FISTA(rtol=1e-4)),
        "wavelets": (Wavelets(0.008), FISTA(rtol=1e-4)),
        "LPN": (Learned(networks["LPN"]), admm(args.rho)),
        "LPN, rho of the theorem": (Learned(networks["LPN"]), admm(1.05 * norm**2)),
        "unconstrained": (Learned(networks["unconstrained"]), admm(args.rho)),
    }
    shown, told = {"picture": clean, "blurred": y}, {"blurred": scores(y, clean)}
    for name, (regularizer, method) in runs.items():
        monitor = 1 if name.startswith("LPN") else 0
        found = reconstruct(A, y, regularizer, method, norm=norm, monitor=monitor)
        shown[name], told[name] = found.value, scores(found.value, clean)
        lines.append(f"{name}: {found.message}")
        print(lines[-1], flush=True)

    table = [f"\n{'':26}  PSNR    SSIM"]
    table += [f"{name:26} {psnr:6.2f}  {ssim:6.3f}" for name, (psnr, ssim) in told.items()]
    print("\n".join(table))
    (args.output / "report.txt").write_text("\n".join([*lines, *table]) + "\n")
    draw(args.output / "pictures.png", shown, told)


if __name__ == "__main__":
    main()
