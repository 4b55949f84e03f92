"""Draws `docs/images/lpn_landscape.png`: the regulariser that a learned proximal network has found in small digits.

python docs/figures/lpn_landscape.py

An LPN learns to take noise off the 8 x 8 digits inside scikit-learn, by absolute errors, then by proximal matching.
Its R is drawn on a plane through three digits that it has not seen, and for digits with noise, with blur, and mixed.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

import neuralops as no
from neuralops.data import pictures
from neuralops.nn import ConvexConv

ROOT = Path(__file__).parents[2]
NOISE, EPOCHS, BATCH, HELD_OUT = 0.1, 20, 50, 200


def trained(x: np.ndarray) -> no.LPN:
    psi = ConvexConv(1, 16, strides=(1, 2), window=4, readout_channels=32, beta=20.0, key=jax.random.key(0))
    op, losses = no.LPN(psi, center=0.3), no.losses
    stages = [(losses.mae, EPOCHS, 3e-3)]
    stages += [
        (losses.proximal_matching(g, mean=True), EPOCHS // 3, 1e-3) for g in losses.gamma_schedule(0.08, (4, 2, 1))
    ]
    for i, (loss, epochs, rate) in enumerate(stages):
        steps = epochs * (len(x) // BATCH)
        op, _ = no.fit(
            op, x, objective=losses.denoising(loss, noise=NOISE), num_epochs=epochs, batch_size=BATCH,
            optimizer=optax.adam(optax.cosine_decay_schedule(rate, steps, 0.1)), key=jax.random.key(i), drop_last=True,
            progress=False,
        )  # fmt: skip
    return op


def main() -> None:
    digits, labels = pictures.digits()
    order = np.random.default_rng(0).permutation(len(digits))
    digits, labels = digits[order], labels[order]
    op = trained(digits[HELD_OUT:])
    held, names = digits[:HELD_OUT], labels[:HELD_OUT]
    prior = jax.jit(jax.vmap(lambda x: op.prior(x, max_steps=300)))

    first, second, third = (held[np.flatnonzero(names == digit)[0]] for digit in (0, 0, 1))
    second = held[np.flatnonzero(names == 0)[1]]
    s = np.linspace(-0.35, 1.35, 29)
    plane = np.array([first + a * (second - first) + b * (third - first) for b in s for a in s], np.float32)
    found = prior(jnp.asarray(plane))
    R = np.asarray(found.value).reshape(len(s), len(s))
    print(f"plane: largest residual {float(found.residual.max()):.1e}")

    few = held[:60]
    rng = np.random.default_rng(1)
    noisy = {c: np.clip(few + c * rng.normal(size=few.shape), 0, 1) for c in (0, 0.05, 0.1, 0.2, 0.3)}
    blurred = {c: gaussian_filter(few, (0, 0, c, c)) for c in (0, 0.25, 0.5, 1.0, 2.0)}
    mixed = {c: (1 - c) * few + c * few[::-1] for c in (0, 0.25, 0.5, 0.75, 1.0)}
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1.35, 1, 1, 1))
    R = R - R.min()
    image = axes[0].contourf(s, s, R, 24, cmap="cividis")
    figure.colorbar(image, ax=axes[0], label="R, less its least value")
    for place, digit, corner in (
        ((0, 0), first, (0.02, 0.02)),
        ((1, 0), second, (0.68, 0.02)),
        ((0, 1), third, (0.02, 0.68)),
    ):
        axes[0].plot(*place, "wo", markeredgecolor="k")
        small = axes[0].inset_axes((*corner, 0.18, 0.18))
        small.imshow(digit[0], cmap="gray_r")
        small.set(xticks=(), yticks=())
    axes[0].set_title("plane through three digits")
    curves = (
        ("noise", "its deviation", noisy),
        ("blur", "its deviation, points", blurred),
        ("mixed", "share of another digit", mixed),
    )
    for ax, (title, label, cases) in zip(axes[1:], curves, strict=True):
        values = np.array([np.asarray(prior(jnp.asarray(x, jnp.float32)).value) for x in cases.values()])
        values = values - values[0].mean()
        print(title, {c: round(float(v), 3) for c, v in zip(cases, values.mean(1), strict=True)})
        ax.plot(list(cases), values, color="0.85", lw=0.6)
        ax.plot(list(cases), values.mean(1), "o-", color="#c8553d")
        ax.set(title=title, xlabel=label)
    axes[1].set_ylabel("R, less the mean of clean digits")
    figure.savefig(ROOT / "docs" / "images" / "lpn_landscape.png", dpi=100)


if __name__ == "__main__":
    main()
