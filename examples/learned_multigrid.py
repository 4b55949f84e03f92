"""Multigrid whose coarse levels are learned, for a rough medium: conductivity drawn cell by cell over four decades.

    python examples/learned_multigrid.py          # a short training, a small table; a minute
    python examples/learned_multigrid.py --full   # the study: minutes of training, up to four times the trained size

The network starts as the classical cycle and is trained on how fast conjugate gradients reduce the energy of an error
(`solvers.energy_decay`); no solution is computed for it. It is evaluated on media that it has not seen, at its size and
larger, and far outside of its family, against the best classical cycle of the library and plain CG. Network, table and
figure lie under --output; a training that was interrupted goes on when it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import neuralops as no
from neuralops.data import Samples
from neuralops.solvers.learning.energy_decay import energy_decay

CLASSICAL = {
    f"{coarsening}, V({sweeps},{sweeps})": {"coarsening": coarsening, "pre": sweeps, "post": sweeps}
    for coarsening in ("cells", "nodes")
    for sweeps in (1, 2)
}


def box(n: int) -> no.Grid:
    return no.Grid((n, n), boundary="dirichlet", centering="cell")


def rough(rng: np.random.Generator, n: int, contrast: float = 1e4) -> np.ndarray:
    """Conductivity log-uniform over the contrast, independent in every cell."""
    return contrast ** rng.uniform(size=(n, n))


def coins(rng: np.random.Generator, n: int) -> np.ndarray:
    """1 or 1000 in every cell, at random."""
    return 1e3 ** (rng.uniform(size=(n, n)) < 0.5)


def walls(rng: np.random.Generator, n: int) -> np.ndarray:
    """Thin insulating walls along both axes, one for every eight lines, with gaps."""
    a = np.ones((n, n))
    for view in (a, a.T):
        for line in rng.choice(n, size=n // 8, replace=False):
            start, length = rng.integers(n), rng.integers(n // 4, n)
            shut = np.zeros(n, bool)
            shut[np.arange(start, start + length) % n] = True
            shut[rng.choice(n, size=max(1, n // 32), replace=False)] = False
            view[line, shut] = 1e-4
    return a


def board(rng: np.random.Generator, n: int) -> np.ndarray:
    """A checkerboard of contrast 1000 with a period that no coarse grid fits."""
    period, shift = rng.uniform(3, n / 4), rng.uniform(0, n, 2)
    x, y = (np.floor((np.arange(n) + s) / period) for s in shift)
    return np.where((x[:, None] + y) % 2, 1e3, 1.0)


MAX_STEPS = 5000

FAMILIES: dict[str, Callable[..., np.ndarray]] = {
    "rough": rough,
    "coins": coins,
    "walls": walls,
    "board": board,
    "constant": lambda rng, n: np.ones((n, n)),
}


class Variant(NamedTuple):
    """How many sweeps before and after the correction, and whether those after mirror those before."""

    sweeps: int
    symmetric: bool

    def cycle(self, A: no.Diffusion, network: Any) -> no.Multigrid:
        options: dict[str, Any] = {"pre": self.sweeps, "post": self.sweeps, "symmetric": self.symmetric}
        return no.Multigrid(A, coarsening="nodes", dtype="float32", learned=network, **options)


def method(M: no.Multigrid | None, rtol: float | jax.Array) -> no.CG | no.FlexibleCG:
    if M is None or M.symmetric:
        return no.CG(rtol, preconditioner=M, max_steps=MAX_STEPS, history=MAX_STEPS)
    return no.FlexibleCG(rtol, memory=1, preconditioner=M, max_steps=MAX_STEPS, history=MAX_STEPS)


def decay(variant: Variant, network: Any, u: jax.Array) -> jax.Array:
    """What is minimised, for one medium and one noise (the channels of u)."""
    A = no.Diffusion.from_coefficient(box(u.shape[-1]), u[0])
    M = variant.cycle(A, network)
    return energy_decay(A, M, jax.lax.stop_gradient(M(u[1])))


def train(network: Any, args: argparse.Namespace) -> tuple[Any, float]:
    """Trained at the sizes in turn; the seconds that took."""
    begin = time.perf_counter()

    def objective(network: Any, batch: Samples, *, key: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(functools.partial(decay, args.variant, network))(batch.inputs))

    for stage, (n, epochs) in enumerate(zip(args.sizes, args.epochs, strict=True)):
        rng = np.random.default_rng([args.seed, stage])
        media = np.stack([FAMILIES[args.families[i % len(args.families)]](rng, n) for i in range(args.samples)])
        inputs = jnp.asarray(np.stack([media, rng.normal(size=media.shape)], 1), jnp.float32)
        steps = epochs * (args.samples // args.batch_size)
        rate = optax.cosine_decay_schedule(args.learning_rate / (1 + stage), steps)
        network, history = no.fit(
            network,
            Samples(inputs),
            objective=objective,
            optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
            num_epochs=epochs,
            batch_size=args.batch_size,
            key=jax.random.key(args.seed + stage),
            checkpoint=args.output / f"stage_{stage}_{n}",
            resume=True,
            progress=not args.quiet,
        )
        print(
            f"{n} x {n}: energy per step {np.exp(history.loss[0]):.3f} at first, {np.exp(history.loss[-1]):.3f} at last"
        )
    return network, time.perf_counter() - begin


@functools.cache
def programs(n: int, network: Any, variant: Variant) -> dict[str, tuple[Callable, Callable, Callable]]:
    """By method: builds the cycle, solves with it, and does both, as where every solve has a medium of its own."""
    medium = functools.partial(no.Diffusion.from_coefficient, box(n))

    def solve(a: jax.Array, b: jax.Array, M: Any, rtol: float | jax.Array = 1e-6) -> no.Solution:
        return no.solve(medium(a), b, method(M, rtol))

    builders: dict[str, Callable] = {
        name: lambda a, options=options: no.Multigrid(medium(a), dtype="float32", **options)
        for name, options in CLASSICAL.items()
    }
    builders["learned"] = lambda a: variant.cycle(medium(a), network)
    builders["CG"] = lambda a: None
    both = lambda build: lambda a, b: solve(a, b, build(a))
    return {name: (jax.jit(build), jax.jit(solve), jax.jit(both(build))) for name, build in builders.items()}


def measure(n: int, family: str, network: Any, args: argparse.Namespace) -> dict[str, tuple[float, float, float]]:
    """By method the mean iterations to 1e-6, and medians of seconds to solve, and to build the cycle and solve."""
    methods = programs(n, network, args.variant)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for sample in range(args.test_samples):
        rng = np.random.default_rng([args.seed, 1000, sample])
        a = jnp.asarray(FAMILIES[family](rng, n))
        b = jnp.asarray(rng.normal(size=(n, n))) if sample % 2 else jnp.ones((n, n))
        cycles = {name: build(a) for name, (build, _, _) in methods.items()}
        for repeat in range(args.repeats + 1):
            for name, (_, solve, both) in methods.items():
                if name == "CG" and repeat > 1:
                    continue
                times = [time.perf_counter()]
                solution = jax.block_until_ready(solve(a, b, cycles[name], 1e-6))
                times.append(time.perf_counter())
                jax.block_until_ready(both(a, b))
                times.append(time.perf_counter())
                if repeat:  # the first one compiles
                    found[name].append((int(solution.num_steps), *np.diff(times)))
    return {
        name: (float(np.mean([r[0] for r in rows])), *(float(np.median([r[i] for r in rows])) for i in (1, 2)))
        for name, rows in found.items()
    }


def table(network: Any, seconds: float, args: argparse.Namespace) -> str:
    lines = [
        "| medium | grid | CG | best classical | learned | ratio | solve ms, fastest classical | learned "
        "| with set-up ms, classical | learned | solves until the training has paid |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cases = [(family, n) for family in args.families for n in args.test_sizes]
    cases += [(family, args.test_sizes[0]) for family in args.far]
    for family, n in cases:
        rows = measure(n, family, network, args)
        best = min(CLASSICAL, key=lambda name: rows[name][0])
        fastest, quickest = (min(CLASSICAL, key=lambda name, i=i: rows[name][i]) for i in (1, 2))
        gain = rows[quickest][2] - rows["learned"][2]
        cells = [family, f"{n}^2", f"{rows['CG'][0]:.0f}", f"{rows[best][0]:.1f} ({best})", f"{rows['learned'][0]:.1f}"]
        cells += [f"{rows['learned'][0] / rows[best][0]:.2f}", f"{1e3 * rows[fastest][1]:.2f} ({fastest})"]
        cells += [f"{1e3 * rows['learned'][1]:.2f}", f"{1e3 * rows[quickest][2]:.2f} ({quickest})"]
        cells += [f"{1e3 * rows['learned'][2]:.2f}"]
        cells += [f"{seconds / gain:.0f}" if gain > 0 else "never"]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def figure(network: Any, args: argparse.Namespace) -> Figure:
    """A medium, and the residuals of the best cycles on it."""
    n = args.test_sizes[-1]
    rng = np.random.default_rng([args.seed, 2000])
    a = jnp.asarray(FAMILIES[args.families[0]](rng, n))
    b = jnp.asarray(rng.normal(size=(n, n)))
    shown = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = shown.subplots(1, 2)
    image = left.imshow(np.log10(a).T, origin="lower")
    shown.colorbar(image, ax=left, label="log10 conductivity")
    for name, (build, solve, _) in programs(n, network, args.variant).items():
        if name == "CG":
            continue
        label = f"learned, V({args.sweeps},{args.sweeps})" if name == "learned" else name
        solution = solve(a, b, build(a), 1e-10)
        right.semilogy(
            solution.history[: int(solution.num_steps) + 1], label=label, lw=2.5 if name == "learned" else 1.2
        )
    right.set(xlabel="steps of CG", ylabel="relative residual", title=f"{n} x {n}, a medium it has not seen")
    right.legend()
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the study of the documentation")
    parser.add_argument("--families", nargs="+", default=["rough"], choices=FAMILIES, help="trained on, in turns")
    parser.add_argument("--sizes", type=int, nargs="+", help="points per side while training, one stage each")
    parser.add_argument("--epochs", type=int, nargs="+", help="per stage")
    parser.add_argument("--test-sizes", type=int, nargs="+")
    parser.add_argument("--far", nargs="*", choices=FAMILIES, help="tried too, without training")
    parser.add_argument("--samples", type=int, help="media to train on")
    parser.add_argument("--test-samples", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--hidden-channels", type=int, default=16)
    parser.add_argument("--n-layers", type=int, default=1)
    parser.add_argument("--n-spatial", type=int, default=1)
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--free", action="store_true", help="sweeps after the correction on their own; FlexibleCG")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--network", type=Path, help="a saved network, instead of training one")
    parser.add_argument("--output", type=Path, default=Path("outputs/learned_multigrid"))
    args = parser.parse_args()
    args.sizes = args.sizes or ([32, 64] if args.full else [32])
    args.epochs = args.epochs or ([64, 24] if args.full else [2])
    args.samples = args.samples or (1024 if args.full else 512)
    args.test_samples = args.test_samples or (4 if args.full else 2)
    args.test_sizes = args.test_sizes or ([64, 128, 256] if args.full else [64])
    args.far = args.far or [f for f in FAMILIES if f not in args.families and (args.full or f == "constant")]
    jax.config.update("jax_enable_x64", True)

    args.variant = Variant(args.sweeps, not args.free)
    channels = no.Multigrid.learned_channels(2, pre=args.sweeps, post=args.sweeps, symmetric=not args.free)
    network = no.MultigridDirection(
        *channels,
        args.hidden_channels,
        n_layers=args.n_layers,
        n_spatial=args.n_spatial,
        key=jax.random.key(args.seed),
    )
    network, seconds = jax.tree.map(lambda p: p.astype(jnp.float32), network), 0.0
    if args.network:
        network = no.load(args.network)
    else:
        network, seconds = train(network, args)
        print(f"trained in {seconds:.0f} s")
    args.output.mkdir(parents=True, exist_ok=True)
    no.save(args.output / "network.safetensors", network)
    text = table(network, seconds, args)
    (args.output / "table.md").write_text(f"Trained in {seconds:.0f} s.\n\n{text}\n")
    figure(network, args).savefig(args.output / "learned_multigrid.png", dpi=80)
    print(f"network, table and figure: {args.output}")


if __name__ == "__main__":
    main()
