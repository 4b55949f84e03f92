"""A coefficient of Darcy's equation from 100 noisy values of its solution, with three priors. A picture.

    python examples/lpn_darcy_inversion.py                 # small: one or two minutes on two cores
    python examples/lpn_darcy_inversion.py --medium smooth

The medium, of two phases or smooth, is unknown. u is seen at random nodes through noise of 25 dB. To find a is a
non-linear problem: `reconstruct_nonlinear` takes Gauss-Newton steps, each a reconstruction with the linearised
equation, whose Jacobian comes from one adjoint solve for each value. Priors on x, which is a moved and scaled to
[0, 1]: total variation; a Gaussian with mean and covariance of media of the law; a learned proximal network, trained to
take noise off such media.
`benchmarks/which_prior.py` tunes the three weights and judges them on 20 media. Report and figure lie under
--output.
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
from neuralops import inverse
from neuralops.inverse import ADMM, L2, Learned, TotalVariation, reconstruct_nonlinear
from neuralops.nn import ConvexConv

RANGE = {"two_phase": (5.0, 10.0), "smooth": (0.1, 4.1)}  # of a
# Interfaces are local, and strides would leave the pattern of their grid; smooth media are told as a whole, by a last
# kernel as large as the coarsest grid.
LAYERS: dict[str, dict[str, Any]] = {
    "two_phase": {"strides": (1, 1, 1)},
    "smooth": {"strides": (2, 1, 2), "window": 8},
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/lpn_darcy_inversion"))
    parser.add_argument("--medium", choices=tuple(RANGE), default="two_phase")
    parser.add_argument("--num-train", type=int, default=1000, help="media that the priors learn from")
    parser.add_argument("--num-epochs", type=int, default=10)
    parser.add_argument("--hidden-channels", type=int, default=8)
    parser.add_argument("--level", type=float, default=0.4, help="noise the network is trained for")
    parser.add_argument("--measured", type=int, default=100, help="nodes where u is seen")
    parser.add_argument("--snr", type=float, default=25.0, help="decibels")
    parser.add_argument("--rho", type=float, default=3.0, help="weight of the network")
    parser.add_argument("--tv", type=float, default=0.3, help="weight of total variation")
    parser.add_argument("--gaussian", type=float, default=1.0, help="weight of the Gaussian")
    parser.add_argument("--steps", type=int, default=6, help="of Gauss-Newton")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


class Law:
    """Media, as x in [0, 1], with the solver for what is seen and a faster one to invert with: it has cells twice as
    wide, an error of 5e-4 where the noise is 5.6 %."""

    def __init__(self, medium: str) -> None:
        self.low, self.high = RANGE[medium]
        self.exact, self.fast = (no.pde.NodalDarcy((29, 29), medium=medium, refine=refine) for refine in (4, 2))

    def to_x(self, a: Any) -> Any:
        return (a - self.low) / (self.high - self.low)

    def to_a(self, x: Any) -> Any:
        return self.low + (self.high - self.low) * x

    def media(self, seed: int, count: int) -> np.ndarray:
        """x of `count` media, `(count, 1, 29, 29)`."""
        draw = jax.jit(jax.vmap(lambda key: self.to_x(self.exact.sample(key))))
        return np.asarray(draw(jax.random.split(jax.random.key(seed), count)), np.float32)

    def inner_nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """The places of all nodes, `(2, n)`, and the numbers of those that are not on the wall."""
        nodes = self.exact.grid.coordinates().reshape(2, -1)
        return nodes, np.flatnonzero((nodes > 1e-6).all(0) & (nodes < 1 - 1e-6).all(0))

    def measured(self, u: Any, chosen: np.ndarray, snr: float, key: Any) -> tuple[Callable[[Any], Any], Any]:
        """The forward map and what is seen, both in units of the noise."""
        noise = inverse.noise_of(u, snr)
        # A step of Gauss-Newton may leave the range; a stays positive.
        inside = lambda x: jnp.maximum(self.to_a(jnp.clip(x, -0.5, 1.5)), self.low / 2)
        forward = lambda x: self.fast.solve(inside(x)).ravel()[chosen] / noise
        return forward, u.ravel()[chosen] / noise + jax.random.normal(key, chosen.shape)

    def error(self, x: Any, truth: Any) -> Any:
        """Relative L2 error of a."""
        return jnp.linalg.norm(self.to_a(x) - self.to_a(truth)) / jnp.linalg.norm(self.to_a(truth))


def train(known: np.ndarray, args: argparse.Namespace, *, matching: bool = True, progress: bool = True) -> no.LPN:
    """An LPN that takes noise off media: by squared errors, then, if `matching`, by proximal matching, whose network
    tends to the mode where squared errors tend to the mean."""
    width, losses, batch = args.hidden_channels, no.losses, 16
    more = {"readout_channels": width, "beta": 20.0, "alpha": 0.02, **LAYERS[args.medium]}
    psi = ConvexConv(1, width, **more, key=jax.random.key(args.seed))
    op, per_epoch = no.LPN(psi, center=0.5), len(known) // batch
    adam = lambda rate, epochs: optax.adam(optax.cosine_decay_schedule(rate, epochs * per_epoch, 0.05))
    later = max(args.num_epochs // 4, 1)
    then = adam(1e-3, later)
    stages: list[Any] = [(losses.mse, args.num_epochs, adam(5e-3, args.num_epochs))]
    for gamma in losses.gamma_schedule(0.2, (2, 1)) if matching else ():
        stages.append((losses.proximal_matching(gamma, mean=True), later, then))
    for i, (loss, epochs, optimizer) in enumerate(stages):
        op, _ = no.fit(
            op,
            known,
            objective=losses.denoising(loss, noise=args.level),
            optimizer=optimizer,
            num_epochs=epochs,
            batch_size=batch,
            drop_last=True,
            key=jax.random.fold_in(jax.random.key(args.seed + 1), i),
            progress=progress,
        )
    return op


def gaussian(known: np.ndarray) -> tuple[Any, Any]:
    """Mean of the media, and a root of their covariance."""
    flat = known.reshape(len(known), -1)
    root = np.linalg.cholesky(np.cov(flat.T) + 1e-3 * np.eye(flat.shape[1]))
    return jnp.asarray(known.mean(0)), jnp.asarray(root, jnp.float32)


def invert(prior: str, weight: Any, forward: Any, y: Any, mean: Any, root: Any, op: Any, *, steps: int) -> Any:
    """The medium x, `(1, 29, 29)`, and the misfit in units of the noise after each step."""
    options: dict[str, Any] = {"max_steps": steps, "dense": True, "line_search": prior != "LPN"}
    if prior == "Gaussian":  # white noise w is the unknown
        field = lambda w: mean + (root @ w.ravel()).reshape(mean.shape)
        method = ADMM(1.0, max_steps=60)
        options["x0"] = jnp.zeros_like(mean)
        found = reconstruct_nonlinear(lambda w: forward(field(w)), y, L2(weight), method, **options)
        return jnp.clip(field(found.value), 0, 1), found.misfit
    options["x0"] = mean
    if prior == "total variation":
        regularizer: Any = TotalVariation(weight, max_steps=50, rtol=1e-2)
        method = ADMM(30.0, max_steps=60)
    else:
        regularizer, method = Learned(op), ADMM(weight, max_steps=60)
    found = reconstruct_nonlinear(forward, y, regularizer, method, **options)
    return jnp.clip(found.value, 0, 1), found.misfit


def draw(
    path: Path, law: Law, truth: Any, u: Any, places: np.ndarray, found: dict[str, Any], errors: dict[str, float]
) -> None:
    figure = Figure(figsize=(3.1 * (2 + len(found)), 3.4), layout="constrained")
    axes = figure.subplots(1, 2 + len(found))
    corner = (0, 1, 0, 1)
    shown = axes[0].imshow(np.asarray(u[0]).T, origin="lower", extent=corner, cmap="viridis")
    axes[0].plot(*places, "w.", markersize=3)
    axes[0].set_title(f"u, seen at {places.shape[1]} nodes")
    figure.colorbar(shown, ax=axes[0], shrink=0.75)
    for ax, (name, x) in zip(axes[1:], {"medium": truth, **found}.items(), strict=True):
        look = {"cmap": "cividis", "vmin": law.low, "vmax": law.high}
        image = ax.imshow(np.asarray(law.to_a(x[0])).T, origin="lower", extent=corner, **look)
        ax.set_title(f"{name}, error {100 * errors[name]:.1f} %" if name in errors else "medium")
    figure.colorbar(image, ax=axes[-1], shrink=0.75, label="a")
    for ax in axes:
        ax.set(xticks=(), yticks=())
    figure.savefig(path, dpi=100)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    law = Law(args.medium)
    known, truth = law.media(args.seed, args.num_train), jnp.asarray(law.media(args.seed + 1000, 1)[0])
    started = time.perf_counter()
    op = train(known, args, progress=not args.quiet)
    size = sum(leaf.size for leaf in jax.tree.leaves(op))
    lines = [f"network: {size} parameters, {args.num_train} media, {time.perf_counter() - started:.0f} s"]
    print(lines[-1], flush=True)
    u = jax.jit(law.exact.solve)(law.to_a(truth))
    nodes, inside = law.inner_nodes()
    chosen = np.random.default_rng(args.seed).choice(inside, args.measured, replace=False)
    forward, y = law.measured(u, chosen, args.snr, jax.random.key(args.seed + 2))
    mean, root = gaussian(known)
    found, errors = {}, {"mean medium": float(law.error(mean, truth))}
    for prior, weight in (("total variation", args.tv), ("Gaussian", args.gaussian), ("LPN", args.rho)):
        started = time.perf_counter()
        run = jax.jit(lambda w, y, op, prior=prior: invert(prior, w, forward, y, mean, root, op, steps=args.steps))
        found[prior], misfit = run(weight, y, op)
        errors[prior] = float(law.error(found[prior], truth))
        lines.append(f"{prior}: misfit {float(misfit[-1]):.1f} from {float(misfit[0]):.1f}, where "
                     f"{args.measured / 2:g} is that of the noise; {time.perf_counter() - started:.0f} s")  # fmt: skip
        print(lines[-1], flush=True)
    table = ["", "| prior | relative error of a |", "| --- | --- |"]
    table += [f"| {name} | {100 * error:.1f} % |" for name, error in errors.items()]
    print("\n".join(table))
    (args.output / "report.md").write_text("\n".join([*lines, *table]) + "\n")
    draw(args.output / "lpn_darcy_inversion.png", law, truth, u, nodes[:, chosen], found, errors)
    no.save(args.output / "lpn.safetensors", op)
    print(f"\nsaved: {args.output}/lpn_darcy_inversion.png, report.md, lpn.safetensors")


if __name__ == "__main__":
    main()
