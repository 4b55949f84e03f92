"""Full waveform inversion: a lens found from what receivers around it hear. A picture.

    python examples/full_waveform_inversion.py                    # some minutes on two cores
    python examples/full_waveform_inversion.py --num-points 96 --num-shots 12

Shots on the left, below and above; receivers on all four sides; walls that absorb. The medium is known where the
instruments stand; inside, the sound speed of every cell is fitted to the records by L-BFGS, first to a low frequency,
then to a higher one, from a homogeneous start. Gradients are those of the discrete scheme. The data come from a run
with half the step and eighth order, plus noise. Report and figure lie under --output.
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
from tqdm.auto import tqdm

from neuralops.pde import waves

SPEEDS = (0.6, 1.2)  # bounds of what is looked for
MARGIN = 0.15  # from the walls, where the instruments stand and the medium is known


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/full_waveform_inversion"))
    parser.add_argument("--num-points", type=int, default=48, help="cells per side of the unit box")
    parser.add_argument("--num-shots", type=int, default=6)
    parser.add_argument("--num-receivers", type=int, default=40)
    parser.add_argument("--frequencies", type=float, nargs="+", default=[2.0, 4.0], help="of the Ricker wavelets")
    parser.add_argument("--num-steps", type=int, default=12, help="of L-BFGS, for each frequency")
    parser.add_argument("--final-time", type=float, default=2.0)
    parser.add_argument("--noise", type=float, default=0.01, help="relative to the root mean square of the records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def ring(count: int, sides: tuple[int, ...]) -> np.ndarray:
    """Points 0.06 inside the given sides of the box (0 left, 1 right, 2 below, 3 above), `(2, count)`."""
    t = (np.arange(count) + 0.5) / count * len(sides)
    side, along = np.floor(t).astype(int), 0.1 + 0.8 * (t % 1)
    across = np.where(np.isin(np.take(sides, side), (0, 2)), 0.06, 0.94)
    upright = np.isin(np.take(sides, side), (0, 1))
    return np.where(upright, [across, along], [along, across])


def equation(args: argparse.Namespace, **options: Any) -> waves.WaveEquation:
    layer = waves.AbsorbingLayer(wavelength=SPEEDS[1] / min(args.frequencies), reflection=1e-2)
    return waves.WaveEquation((args.num_points,) * 2, max_sound_speed=SPEEDS[1], layer=layer, **options)


def records(
    solver: waves.WaveEquation, c: jax.Array, frequency: Any, num_steps: int, args: argparse.Namespace
) -> jax.Array:
    """What the receivers hear of each shot, `(shots, receivers, num_steps + 1)`."""
    wavelet = waves.ricker(solver.dt * np.arange(num_steps), frequency)[None]
    receivers = ring(args.num_receivers, (0, 1, 2, 3))

    def shot(where: jax.Array) -> jax.Array:
        sources = waves.Sources(where[:, None], wavelet)
        return solver.run(c, num_steps=num_steps, sources=sources, receivers=receivers).records

    return jax.vmap(shot)(jnp.asarray(ring(args.num_shots, (0, 2, 3)).T))


def observed(args: argparse.Namespace, c: jax.Array, solver: waves.WaveEquation) -> list[jax.Array]:
    """Records for each frequency at the steps of `solver`, with noise."""
    fine, num_steps = equation(args, order=8, dt=solver.dt / 2), 2 * round(args.final_time / solver.dt)
    data = []
    for i, frequency in enumerate(args.frequencies):
        heard = jax.jit(lambda c, frequency=frequency: records(fine, c, frequency, num_steps, args))(c)[..., ::2]
        noise = jax.random.normal(jax.random.key(args.seed + i), heard.shape)
        data.append(heard + args.noise * jnp.sqrt(jnp.mean(heard**2)) * noise)
    return data


def speed(z: jax.Array) -> jax.Array:
    """Unbounded numbers to speeds within the bounds, and 1 where the medium is known."""
    inside = (np.arange(len(z)) + 0.5) / len(z)
    inside = (inside > MARGIN) & (inside < 1 - MARGIN)
    return jnp.where(np.outer(inside, inside), SPEEDS[0] + (SPEEDS[1] - SPEEDS[0]) * jax.nn.sigmoid(z), 1.0)


def invert(
    data: list[jax.Array], solver: waves.WaveEquation, args: argparse.Namespace
) -> tuple[jax.Array, list[float]]:
    """The sound speed, and the misfit after each step relative to that of the start of its frequency."""
    n = args.num_points
    z = jnp.full((n, n), np.log((1.0 - SPEEDS[0]) / (SPEEDS[1] - 1.0)))  # speed 1
    history = []
    method, num_steps = optax.lbfgs(), round(args.final_time / solver.dt)

    def misfit(z: jax.Array, frequency: jax.Array, heard: jax.Array) -> jax.Array:
        return jnp.mean((records(solver, speed(z), frequency, num_steps, args) - heard) ** 2) / jnp.mean(heard**2)

    @jax.jit
    def step(z: jax.Array, state: Any, frequency: jax.Array, heard: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
        value, slope = optax.value_and_grad_from_state(misfit)(z, frequency, heard, state=state)
        updates, state = method.update(
            slope, state, z, value=value, grad=slope, value_fn=misfit, frequency=frequency, heard=heard
        )
        return optax.apply_updates(z, updates), state, value

    with tqdm(total=args.num_steps * len(data), disable=args.quiet, unit="step") as bar:
        for frequency, heard in zip(args.frequencies, data, strict=True):
            state = method.init(z)
            values = []
            for _ in range(args.num_steps):
                z, state, value = step(z, state, jnp.asarray(frequency), heard)
                values.append(float(value))
                bar.set_postfix(frequency=frequency, misfit=f"{values[-1]:.2e}")
                bar.update()
            history += values
    return speed(z), history


def picture(path: Path, true: np.ndarray, found: np.ndarray, history: list[float], args: argparse.Namespace) -> None:
    fig = Figure(figsize=(11, 3.6), layout="constrained")
    axes = fig.subplots(1, 3)
    for ax, c, title in ((axes[0], true, "sound speed"), (axes[1], found, "found")):
        image = ax.imshow(c.T, origin="lower", extent=(0, 1, 0, 1), vmin=SPEEDS[0], vmax=1.1)
        ax.plot(*ring(args.num_receivers, (0, 1, 2, 3)), ".", color="white", markersize=3)
        ax.plot(*ring(args.num_shots, (0, 2, 3)), "r*", markersize=8)
        ax.set_title(title)
    fig.colorbar(image, ax=axes[:2], shrink=0.9)
    for i, frequency in enumerate(args.frequencies):
        part = history[i * args.num_steps : (i + 1) * args.num_steps]
        axes[2].semilogy(np.arange(len(part)) + i * args.num_steps, part, label=f"{frequency:g} per time")
    axes[2].axhline(args.noise**2 / (1 + args.noise**2), color="gray", linestyle=":", label="noise")
    axes[2].set(title="misfit relative to the data", xlabel="steps of L-BFGS")
    axes[2].legend()
    fig.savefig(path, dpi=110)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    solver = equation(args)
    lens = waves.Lens(background=1.0, speed=0.75, centre=0.5, radius=0.18)
    true = lens.sample(jax.random.key(args.seed), solver.grid)[0]
    start = time.perf_counter()
    found, history = invert(observed(args, true, solver), solver, args)
    size = lambda c: float(jnp.linalg.norm(c - true) / jnp.linalg.norm(1.0 - true))
    report = (
        f"{args.num_shots} shots, {args.num_receivers} receivers, {args.num_points} x {args.num_points} cells: the "
        f"deviation from speed 1 was found to {100 * size(found):.1f} % in L2, the misfit fell to {history[-1]:.1e} "
        f"of the data ({time.perf_counter() - start:.0f} s)"
    )
    print(report)
    (args.output / "report.md").write_text(report + "\n")
    picture(args.output / "full_waveform_inversion.png", np.asarray(true), np.asarray(found), history, args)
    print(f"saved: {args.output / 'full_waveform_inversion.png'}")


if __name__ == "__main__":
    main()
