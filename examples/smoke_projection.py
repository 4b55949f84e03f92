"""Smoke in a closed box, stirred by two circling discs: `no.solve` as the pressure projection of a flow solver.

    python examples/smoke_projection.py               # simulate; under a minute on two cores
    python examples/smoke_projection.py --optimise    # and choose the stirring by gradients through the simulation
    python examples/smoke_projection.py --num-points 64 --direction FILE   # pressure along learned directions: a file
                                                      # saved by deep_conjugate_direction.py or learned_multigrid.py

Velocities live on the faces of the cells, smoke and pressure at their centres. Every step carries smoke and velocity
along, adds buoyancy, and makes the flow incompressible around the discs where they now are: one Poisson problem with
new faces, solved by CG with a multigrid rebuilt in place, all of it inside `jax.lax.scan`. Under --output it saves a
strip of frames with the record of the solves, an animation, and with --optimise the flow before and after.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from tqdm import tqdm

import neuralops as no
from neuralops.solvers import Result

CENTRE, ORBIT, RADIUS = (0.5, 0.5), 0.27, 0.11  # two discs, opposite each other, circle the centre of the unit box
SOURCE, SOURCE_RADIUS = (0.5, 0.1), 0.07  # where smoke comes in
TARGET, TARGET_RADIUS = (0.22, 0.78), 0.18  # where --optimise sends it
BUOYANCY, INFLOW = 1.0, 4.0  # the acceleration of pure smoke; the rate at which the source fills

CENTRES, X_FACES, Y_FACES = (0.5, 0.5), (0.0, 0.5), (0.5, 0.0)  # where a field's first point lies, in cells
Pair = tuple[Array, Array]  # a value on the x faces (nx + 1, ny) and one on the y faces (nx, ny + 1)


class Settings(NamedTuple):
    """What is fixed when a simulation is compiled."""

    grid: no.Grid
    dt: float = 0.02
    rtol: float = 1e-4
    start: str = "previous"
    direction: Any = None  # a trained network; hashed by identity, so its arrays become constants of the program


class State(NamedTuple):
    """A moment: volume flow per area through the faces, smoke, pressure times dt now and before, angle of the discs."""

    flow: Pair
    smoke: Array
    pressure: Array
    pressure_before: Array
    angle: Array


class Report(NamedTuple):
    """What a step says of its pressure solve. Divergences are the largest in magnitude of all cells with fluid."""

    num_steps: Array
    result: Array
    divergence_before: Array
    divergence_after: Array


# --- the pressure solve ---


def project(settings: Settings, velocity: Pair, solid: Pair, opening: Pair, guess) -> tuple[Pair, Array, Report]:
    """The incompressible flow nearest to `velocity`, around solids that leave of each face the share `opening`.

    Through a face goes the fluid in its opening and the solid beside it, so that the balance of a cell counts the fluid
    a moving solid displaces (Batty, Bertails and Bridson 2007). Around a rigid body it adds up to nothing: solvable.
    """
    h = settings.grid.spacing
    flow = [w * u + (1 - w) * s for w, u, s in zip(opening, velocity, solid, strict=True)]
    A = no.Diffusion(settings.grid, [w / d**2 for w, d in zip(opening, h, strict=True)])
    b = A.load(-divergence(flow, h))  # zero in cells without fluid
    solution = no.solve(A, b, method(settings, A), x0=guess)
    flow = tuple(u - w * dp for u, w, dp in zip(flow, opening, gradient(solution.value, h), strict=True))
    after = A.load(-divergence(flow, h))
    report = Report(solution.num_steps, solution.result, jnp.max(jnp.abs(b)), jnp.max(jnp.abs(after)))
    return flow, solution.value, report


def method(settings: Settings, A: no.Diffusion) -> Any:
    """CG with a multigrid cycle, unless a trained network proposes the directions or corrects the cycle."""
    network = settings.direction
    if isinstance(network, no.DirectionNet):
        return no.DeepConjugateDirection(network, settings.rtol)
    # What learned_multigrid.py trains for.
    options = {} if network is None else {"coarsening": "nodes", "pre": 2, "post": 2, "learned": network}
    return no.CG(settings.rtol, preconditioner=no.Multigrid(A, **options))


def divergence(flow, h) -> Array:
    return jnp.diff(flow[0], axis=0) / h[0] + jnp.diff(flow[1], axis=1) / h[1]


def gradient(p: Array, h) -> Pair:
    """On the faces; zero on the walls of the box."""
    return jnp.pad(jnp.diff(p, axis=0) / h[0], ((1, 1), (0, 0))), jnp.pad(jnp.diff(p, axis=1) / h[1], ((0, 0), (1, 1)))


# --- solids ---


def places(grid: no.Grid, offset) -> np.ndarray:
    """The coordinates `(2, *shape)` of `CENTRES`, `X_FACES` or `Y_FACES`."""
    axes = [h * (np.arange(n + (o == 0)) + o) for n, h, o in zip(grid.shape, grid.spacing, offset, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def disc_centres(angle: Array) -> list[Array]:
    arm = ORBIT * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    return [jnp.asarray(CENTRE) + arm, jnp.asarray(CENTRE) - arm]


def openings(grid: no.Grid, angle: Array) -> Pair:
    """The share of each face that the discs leave open, smooth in the angle: gradients see the discs move."""

    def share(offset, h: float) -> Array:
        where = places(grid, offset)
        distances = [jnp.hypot(where[0] - c[0], where[1] - c[1]) for c in disc_centres(angle)]
        t = jnp.clip(0.5 + (jnp.minimum(*distances) - RADIUS) / (2 * h), 0, 1)
        return t * t * (3 - 2 * t)

    x, y = (share(offset, h) for offset, h in zip((X_FACES, Y_FACES), grid.spacing, strict=True))
    return x.at[(0, -1), :].set(0), y.at[:, (0, -1)].set(0)  # the box is closed


def turning(grid: no.Grid, speed: Array) -> Pair:
    """The discs turn about the centre of the box as one rigid body; on these faces that has no divergence at all."""
    x = -speed * (places(grid, X_FACES)[1] - CENTRE[1])
    y = speed * (places(grid, Y_FACES)[0] - CENTRE[0])
    return x.at[(0, -1), :].set(0), y.at[:, (0, -1)].set(0)


# --- transport ---


def linear(t: Array) -> tuple[range, Array]:
    """Which points around a place count, and how much, t of the way from point 0 to point 1."""
    return range(2), jnp.stack([1 - t, t])


def cubic(t: Array) -> tuple[range, Array]:
    """Catmull-Rom: smooth across points, so that gradients are too, and sharp."""
    inner = 1 + t * t * (1.5 * t - 2.5), t * (0.5 + t * (2 - 1.5 * t))
    return range(-1, 3), jnp.stack([t * (t * (1 - 0.5 * t) - 0.5), *inner, t * t * (0.5 * t - 0.5)])


def sample(field: Array, index, kernel) -> Array:
    """Interpolates a field at a list of places in units of its own indices; constant beyond its ends."""
    points, weights = [], []
    for i, n in zip(index, field.shape, strict=True):
        i = jnp.clip(i, 0, n - 1)
        low = lax.stop_gradient(jnp.floor(i))
        around, weight = kernel(i - low)
        points.append(jnp.clip(jnp.stack([low.astype(int) + k for k in around]), 0, n - 1))
        weights.append(weight)
    return jnp.einsum("ai,bi,abi->i", *weights, field[points[0][:, None], points[1]])


def advect(settings: Settings, flow: Pair, smoke: Array) -> tuple[Pair, Array]:
    """Semi-Lagrangian: every point fetches the value from where it came, found by the midpoint rule."""
    grid, dt = settings.grid, settings.dt
    fields, offsets = (*flow, smoke), (X_FACES, Y_FACES, CENTRES)
    index = lambda where, offset: [w / h - o for w, h, o in zip(where, grid.spacing, offset, strict=True)]

    def velocity(where: Array) -> Array:
        return jnp.stack([sample(u, index(where, o), linear) for u, o in zip(flow, offsets, strict=False)])

    # The places of all three fields in one list: half the code to compile.
    where = np.concatenate([places(grid, offset).reshape(2, -1) for offset in offsets], axis=1)
    where = jnp.asarray(where, smoke.dtype)
    origin = where - dt * velocity(where - dt / 2 * velocity(where))
    origins = jnp.split(origin, np.cumsum([u.size for u in fields])[:-1], axis=1)
    x, y, smoke = (
        sample(u, index(came, offset), cubic).reshape(u.shape)
        for u, came, offset in zip(fields, origins, offsets, strict=True)
    )
    return (x, y), smoke


# --- the simulation ---


def rest(grid: no.Grid) -> State:
    """Still air without smoke."""
    zero, (nx, ny) = jnp.zeros(grid.shape), grid.shape
    return State((jnp.zeros((nx + 1, ny)), jnp.zeros((nx, ny + 1))), zero, zero, zero, jnp.zeros(()))


def disc(grid: no.Grid, centre, radius: float) -> Array:
    """A soft indicator on the cells."""
    where = places(grid, CENTRES)
    return jnp.asarray(0.5 - 0.5 * np.tanh((np.hypot(where[0] - centre[0], where[1] - centre[1]) - radius) / 0.02))


def step(settings: Settings, state: State, speed: Array) -> tuple[State, Report]:
    """One time step in which the discs turn with an angular speed."""
    grid, dt = settings.grid, settings.dt
    (x, y), smoke = advect(settings, state.flow, state.smoke)
    smoke = smoke + dt * INFLOW * disc(grid, SOURCE, SOURCE_RADIUS) * (1 - smoke)
    smoke = jnp.clip(smoke, 0, 1)  # cubics overshoot
    y = y.at[:, 1:-1].add(dt * BUOYANCY * (smoke[:, 1:] + smoke[:, :-1]) / 2)

    angle = state.angle + dt * speed
    guess = {
        "zero": None, "previous": state.pressure, "extrapolated": 2 * state.pressure - state.pressure_before,
    }[settings.start]  # fmt: skip
    flow, pressure, report = project(settings, (x, y), turning(grid, speed), openings(grid, angle), guess)
    return State(flow, smoke, pressure, state.pressure, angle), report


@partial(jax.jit, static_argnums=0)
def simulate(settings: Settings, state: State, speeds: Array) -> tuple[State, Report]:
    """As many steps as there are speeds. On the way back of a gradient steps are computed again, to save memory."""
    return lax.scan(jax.checkpoint(partial(step, settings)), state, speeds)


def run(args: argparse.Namespace, settings: Settings) -> None:
    """Simulates frame by frame, each a compiled scan over a few steps."""
    per_frame = max(args.num_steps // args.num_frames, 1)
    state, speeds = rest(settings.grid), jnp.full(per_frame, args.speed, float)
    begin = time.perf_counter()
    compiled = simulate.lower(settings, state, speeds).compile()
    print(f"compiled in {time.perf_counter() - begin:.1f} s\n\n step  iterations  divergence: before      after")
    frames, reports, begin = [state], [], time.perf_counter()
    with tqdm(total=args.num_frames * per_frame, disable=args.quiet, unit="step", leave=False) as bar:
        for _ in range(args.num_frames):
            state, report = compiled(state, speeds)
            frames.append(state)
            reports.append(report)
            for iterations, result, before, after in zip(*map(np.asarray, report), strict=True):
                ending = "" if result == Result.converged else f"  {Result(result).name}"
                if not args.quiet:
                    bar.write(f"{bar.n:5d} {iterations:11d} {before:19.2e} {after:10.2e}{ending}")
                bar.update()
    seconds = time.perf_counter() - begin
    report = Report(*(np.concatenate(v) for v in zip(*reports, strict=True)))
    steps, missed = report.num_steps, np.sum(report.result != Result.converged)
    print(
        f"\n{len(steps)} steps in {seconds:.1f} s; {steps.mean():.2f} iterations per solve, at most {steps.max()}; "
        f"{missed} solves missed the tolerance; largest divergence before a projection "
        f"{report.divergence_before.max():.1e}, after one {report.divergence_after.max():.1e}"
    )
    times = settings.dt * per_frame * np.arange(len(frames))
    strip(frames, times, report, args.output / "smoke_projection.png")
    animate(frames, args.output / "smoke_projection.gif")
    print(f"saved: {args.output}/smoke_projection.png, smoke_projection.gif")


# --- gradients through it ---

PARTS = 5  # pictures of a run, each simulated by one compiled scan


def speeds_between(knots: Array, num_steps: int) -> Array:
    return jnp.interp(jnp.linspace(0, len(knots) - 1, num_steps), jnp.arange(len(knots)), knots)


def share_in_target(grid: no.Grid, state: State) -> Array:
    """Of all smoke the share that is in the target."""
    return jnp.sum(state.smoke * disc(grid, TARGET, TARGET_RADIUS)) / jnp.sum(state.smoke)


def optimise(args: argparse.Namespace, settings: Settings) -> None:
    """Follows the gradient in the speeds at some knots in time, after comparing it with a finite difference."""
    grid, begin = settings.grid, time.perf_counter()

    @jax.jit
    @jax.value_and_grad
    def ascent(knots: Array) -> Array:
        state, _ = simulate(settings, rest(grid), speeds_between(knots, args.num_steps))
        return share_in_target(grid, state)

    def frames(knots: Array) -> list[State]:
        state, out = rest(grid), []
        for part in jnp.split(speeds_between(knots, args.num_steps), PARTS):
            state, _ = simulate(settings, state, part)
            out.append(state)
        return out

    first = knots = jnp.full(args.num_knots, args.speed, float)
    value, slope = ascent(knots)
    direction, width = jnp.asarray(np.random.default_rng(0).normal(size=args.num_knots)), 1e-6
    ends = [share_in_target(grid, frames(knots + sign * width * direction)[-1]) for sign in (1, -1)]
    reverse, difference = float(slope @ direction), float(ends[0] - ends[1]) / (2 * width)
    print(
        f"derivative in a random direction: {reverse:.9f} in reverse mode, {difference:.9f} by central difference, "
        f"relative difference {abs(reverse / difference - 1):.1e}\n"
        f"share of the smoke in the target: {float(value):.3f} at a constant speed"
    )
    optimizer = optax.adam(args.learning_rate)
    memory, best = optimizer.init(knots), (float(value), knots)
    with tqdm(range(args.num_gradients), disable=args.quiet, unit="gradient", leave=False) as bar:
        for k in bar:
            updates, memory = optimizer.update(-slope, memory)
            knots = optax.apply_updates(knots, updates)
            value, slope = ascent(knots)
            best = max(best, (float(value), knots), key=lambda pair: pair[0])
            bar.write(f"{float(value):41.3f} after {k + 1} gradient{'s' if k else ''}")
    print("best speeds:", np.array2string(np.asarray(best[1]), precision=2), f"{time.perf_counter() - begin:.0f} s")
    times = settings.dt * args.num_steps / PARTS * np.arange(1, PARTS + 1)
    compare([frames(first), frames(best[1])], times, args.output / "smoke_optimised.png")
    print(f"saved: {args.output}/smoke_optimised.png")


# --- pictures ---


def draw(axes, state: State) -> None:
    axes.clear()
    axes.imshow(np.asarray(state.smoke).T, origin="lower", extent=(0, 1, 0, 1), cmap="magma", vmin=0, vmax=1)
    for centre in disc_centres(state.angle):
        axes.add_patch(Circle(np.asarray(centre), RADIUS, facecolor="#8fa3ad", edgecolor="white", linewidth=0.8))
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))


def strip(frames: list[State], times: np.ndarray, report: Report, path: Path) -> None:
    """Six frames, and below them what the solves did."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    chosen = np.linspace(len(frames) // 6, len(frames) - 1, 6).round().astype(int)
    for axes, k in zip(top.subplots(1, 6), chosen, strict=True):
        draw(axes, frames[k])
        axes.set_title(f"t = {times[k]:.2f}", fontsize=9)
    left, right = below.subplots(1, 2)
    left.step(np.arange(len(report.num_steps)), report.num_steps, where="mid", color="#222222", linewidth=1)
    left.set(xlabel="time step", ylabel="iterations", ylim=(0, None))
    right.semilogy(report.divergence_before, color="#d1495b", label="before the projection")
    right.semilogy(report.divergence_after, color="#222222", label="after")
    right.set(xlabel="time step", ylabel="largest divergence")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=90)


def compare(rows: list[list[State]], times: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for line, row, name in zip(figure.subplots(2, len(times)), rows, ("constant speed", "optimised"), strict=True):
        for axes, state, t in zip(line, row, times, strict=True):
            draw(axes, state)
            axes.add_patch(Circle(TARGET, TARGET_RADIUS, fill=False, edgecolor="#7fdbca", linestyle="--"))
            axes.set_title(f"t = {t:.1f}", fontsize=9)
        line[0].set_ylabel(name)
    figure.savefig(path, dpi=80)


def animate(frames: list[State], path: Path) -> None:
    figure = Figure(figsize=(2.4, 2.4))
    axes = figure.add_axes((0, 0, 1, 1))
    moving = FuncAnimation(figure, lambda k: draw(axes, frames[k]), len(frames))
    moving.save(path, PillowWriter(fps=20), dpi=100)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/smoke_projection"))
    parser.add_argument("--num-points", type=int, help="cells per side (default: 128, with --optimise 64)")
    parser.add_argument("--num-steps", type=int, help="time steps (default: 200, with --optimise 100)")
    parser.add_argument("--end", type=float, default=4.0, help="simulated time")
    parser.add_argument("--num-frames", type=int, default=50, help="frames of the animation")
    parser.add_argument("--speed", type=float, default=1.5, help="angular speed of the discs")
    parser.add_argument("--rtol", type=float, help="of the pressure solve (default: 1e-4, with --float64 1e-8)")
    parser.add_argument("--start", choices=("zero", "previous", "extrapolated"), default="previous")
    parser.add_argument("--direction", type=Path, help="a saved DirectionNet or MultigridDirection")
    parser.add_argument("--float64", action="store_true", help="simulate in double precision")
    parser.add_argument("--optimise", action="store_true", help="optimise the turning speed (in double precision)")
    parser.add_argument("--num-knots", type=int, default=8, help="speeds to optimise, spread over time")
    parser.add_argument("--num-gradients", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.3)
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no line per step")
    return parser.parse_args()


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    points = args.num_points or (64 if args.optimise else 128)
    args.num_steps = args.num_steps or (100 if args.optimise else 200)
    grid = no.Grid((points, points), boundary="neumann", centering="cell")
    double = args.float64 or args.optimise
    rtol = args.rtol or ((1e-11 if args.optimise else 1e-8) if double else 1e-4)
    direction = None if args.direction is None else no.load(args.direction)
    settings = Settings(grid, args.end / args.num_steps, rtol, args.start, direction)
    with jax.enable_x64(double):
        (optimise if args.optimise else run)(args, settings)


if __name__ == "__main__":
    main()
