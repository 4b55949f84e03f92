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
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize
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
    hear = jax.jit(lambda frequency: records(fine, c, frequency, num_steps, args)[..., ::2])
    data = []
    for i, frequency in enumerate(args.frequencies):
        heard = hear(frequency)
        noise = jax.random.normal(jax.random.key(args.seed + i), heard.shape)
        data.append(heard + args.noise * jnp.sqrt(jnp.mean(heard**2)) * noise)
    return data


def invert(
    data: list[jax.Array], solver: waves.WaveEquation, args: argparse.Namespace
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The sound speed, and for each frequency the misfit relative to the data at the start and after each step."""
    n, num_steps = args.num_points, round(args.final_time / solver.dt)
    inside = np.abs((np.arange(n) + 0.5) / n - 0.5) < 0.5 - MARGIN
    unknown = np.outer(inside, inside)

    def misfit(speeds: jax.Array, frequency: jax.Array, heard: jax.Array) -> jax.Array:
        c = jnp.ones((n, n)).at[unknown].set(speeds)
        return jnp.mean((records(solver, c, frequency, num_steps, args) - heard) ** 2) / jnp.mean(heard**2)

    value_and_slope = jax.jit(jax.value_and_grad(misfit))
    speeds, history = np.ones(int(unknown.sum())), []
    with tqdm(total=args.num_steps * len(data), disable=args.quiet, unit="step") as bar:
        for frequency, heard in zip(args.frequencies, data, strict=True):
            at = functools.partial(value_and_slope, frequency=frequency, heard=heard)
            speeds, values = descend(at, speeds, args.num_steps, bar)
            history.append(values)
    c = np.ones((n, n))
    c[unknown] = speeds
    return c, history


def descend(value_and_slope: Any, speeds: np.ndarray, num_steps: int, bar: Any) -> tuple[np.ndarray, np.ndarray]:
    """L-BFGS within the bounds, and the values on its way."""

    def at(speeds: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = value_and_slope(jnp.asarray(speeds, jnp.float32))
        return float(value), np.asarray(slope, np.float64)

    def seen(intermediate_result: Any) -> None:
        values.append(intermediate_result.fun)
        bar.set_postfix(misfit=f"{values[-1]:.2e}")
        bar.update()

    values, bounds, options = [at(speeds)[0]], [SPEEDS] * len(speeds), {"maxiter": num_steps}
    found = minimize(at, speeds, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=seen)
    return found.x, np.array(values)


def picture(
    path: Path, true: np.ndarray, found: np.ndarray, history: list[np.ndarray], args: argparse.Namespace
) -> None:
    fig = Figure(figsize=(11, 3.6), layout="constrained")
    axes = fig.subplots(1, 3)
    for ax, c, title in ((axes[0], true, "sound speed"), (axes[1], found, "found")):
        image = ax.imshow(c.T, origin="lower", extent=(0, 1, 0, 1), vmin=SPEEDS[0], vmax=1.1)
        ax.plot(*ring(args.num_receivers, (0, 1, 2, 3)), ".", color="white", markersize=3)
        ax.plot(*ring(args.num_shots, (0, 2, 3)), "r*", markersize=8)
        ax.set_title(title)
    fig.colorbar(image, ax=axes[:2], shrink=0.9)
    start = 0
    for frequency, values in zip(args.frequencies, history, strict=True):
        axes[2].semilogy(start + np.arange(len(values)), values, label=f"{frequency:g} per time")
        start += len(values)
    axes[2].axhline(args.noise**2 / (1 + args.noise**2), color="gray", linestyle=":", label="noise")
    axes[2].set(title="misfit relative to the data", xlabel="steps of L-BFGS")
    axes[2].legend()
    fig.savefig(path, dpi=110)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    solver = equation(args)
    lens = waves.Lens(background=1.0, speed=0.75, centre=0.5, radius=0.18)
    true = np.asarray(lens.sample(jax.random.key(args.seed), solver.grid)[0])
    start = time.perf_counter()
    found, history = invert(observed(args, jnp.asarray(true), solver), solver, args)
    error = float(np.linalg.norm(found - true) / np.linalg.norm(1.0 - true))
    report = (
        f"{args.num_shots} shots, {args.num_receivers} receivers, {args.num_points} x {args.num_points} cells: the "
        f"deviation from speed 1 was found to {100 * error:.1f} % in L2, the misfit fell to {history[-1][-1]:.1e} "
        f"of the data ({time.perf_counter() - start:.0f} s)"
    )
    print(report)
    (args.output / "report.md").write_text(report + "\n")
    picture(args.output / "full_waveform_inversion.png", true, found, history, args)
    print(f"saved: {args.output / 'full_waveform_inversion.png'}")


if __name__ == "__main__":
    main()
