"""The acoustic wave equation on a box: the scheme, its walls and its time step."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.grid import Grid, per_axis
from neuralops.pde.waves.absorbing import AbsorbingLayer, Slabs
from neuralops.pde.waves.checks import check_medium, check_run, check_state, state_like
from neuralops.pde.waves.driving import ExtendedSources, Sources
from neuralops.pde.waves.layout import AbstractLayout, Layout
from neuralops.pde.waves.running import WaveRun, run
from neuralops.pde.waves.scheme import Scheme, WaveState, faces_of
from neuralops.pde.waves.stencils import ORDERS, stiffness, symbol, taps
from neuralops.transforms import Axis

__all__ = ["WaveEquation"]

WALLS = ("periodic", "dirichlet", "neumann", "absorbing", "prescribed")
_ON_GRID = {"absorbing": "neumann", "prescribed": "dirichlet"}
_WIDE = {"absorbing": "dirichlet", "prescribed": "dirichlet"}  # at the outer wall of a layer the field vanishes
PHASE_ERROR = 0.01  # above which points per wavelength are too few


class WaveEquation(eqx.Module):
    """(1/K) u_tt = div((1/rho) grad u) + s, K = rho c^2, on a box of one to three dimensions, step by step.

    With rho = 1, the default, this is (1/c^2) u_tt = Laplace u + s. Second-order leapfrog, or the fourth-order modified
    equation (`time_order=4`), and in space differences of order 2 to 8 or sine, cosine and Fourier modes, continued at
    the walls as the boundary says: all orders hold up to the walls. A density is averaged at the faces, so that 1/rho
    is its harmonic mean, and the staggered differences are used. Without sources, on boxes that absorb nothing, the
    discrete energy is constant to rounding.

    **Arguments:**

    - `num_points`, `domain_extent`, `centering`: the grid, as in `Grid`.
    - `walls`: `"periodic"`, `"dirichlet"` (u = 0), `"neumann"` (no flux), `"absorbing"` or `"prescribed"` (u given at
      each step as `traces`), per axis and end as in `Grid`. The points of an absorbing end lie as at `"neumann"`; its
      layer lies outside and is never seen. Those of a prescribed end lie as at `"dirichlet"`.
    - `max_sound_speed`: bound of c, from which the longest stable step follows, in length / time.
    - `dt`: the step; by default `cfl` times the longest stable one.
    - `cfl`: that fraction, in (0, 1].
    - `order`: 2, 4, 6, 8 or `"spectral"`, in space; `time_order`: 2 or 4.
    - `density`: `"constant"` (1), or `"variable"`, given to `run`.
    - `layer`: an `AbsorbingLayer`, where a wall absorbs.
    - `obstacle`: `None`, or what the obstacles are that `run` gets as a `mask`: `"dirichlet"` (u = 0 in them) or
      `"neumann"` (rigid: no flux into them).

    Warns (`UserWarning`) where the longest wave that a layer is made for does not fit between its walls.

    **Raises:** `ValueError` on arguments out of range, and on a step that would not be stable.
    """

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    walls: tuple[Any, ...] = eqx.field(static=True)
    max_sound_speed: float = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    cfl: float = eqx.field(static=True)
    order: int | str = eqx.field(static=True)
    time_order: int = eqx.field(static=True)
    density: str = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    layer: AbsorbingLayer | None = eqx.field(static=True)
    obstacle: str | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int],
        *,
        max_sound_speed: float,
        domain_extent: float | Sequence[float] = 1.0,
        walls: Any = "absorbing",
        dt: float | None = None,
        cfl: float = 0.7,
        order: int | str = 4,
        time_order: int = 2,
        density: str = "constant",
        centering: str | Sequence[str] = "cell",
        layer: AbsorbingLayer | None = None,
        obstacle: str | None = None,
    ) -> None:
        ndim = len(num_points) if isinstance(num_points, Sequence) else 1
        self.walls = tuple(_check_walls(w) for w in per_axis(walls, ndim, "walls"))
        words = [tuple(_ON_GRID.get(end, end) for end in ends) for ends in self.walls]
        grid = Grid(num_points, domain_extent, tuple(words), centering)  # type: ignore[arg-type]
        self.num_points, self.domain_extent, self.centering = grid.num_points, grid.domain_extent, grid.centering
        if order not in ORDERS or isinstance(order, bool):
            raise ValueError(f"order: expected one of {ORDERS}, got {order!r}; use one of these.")
        if time_order not in (2, 4) or isinstance(time_order, bool):
            raise ValueError(f"time_order: expected 2 or 4, got {time_order!r}; use one of these.")
        if density not in ("constant", "variable"):
            raise ValueError(f"density: expected 'constant' or 'variable', got {density!r}; use one of these.")
        if obstacle not in (None, "dirichlet", "neumann"):
            raise ValueError(f"obstacle: expected None, 'dirichlet' or 'neumann', got {obstacle!r}; use one of these.")
        if obstacle == "neumann" and order == "spectral":
            raise ValueError("obstacle: modes know no rigid obstacles, got order='spectral'; take order=8.")
        self.order, self.time_order, self.density, self.obstacle = order, int(time_order), density, obstacle
        self.max_sound_speed = check_number(max_sound_speed, "max_sound_speed", above=0.0)
        self.cfl = check_number(cfl, "cfl", above=0.0)
        if self.cfl > 1:
            raise ValueError(f"cfl: expected a fraction of the longest stable step, got {cfl}; give at most 1.")
        if min(grid.num_points) <= 2 * taps(order):
            raise ValueError(
                f"num_points: differences of order {order} need more than {2 * taps(order)} points, got "
                f"{grid.num_points}; take more, or a lower order."
            )
        if self.absorbs and layer is None:
            raise ValueError(
                "layer: expected an AbsorbingLayer where a wall absorbs, got None; give "
                "layer=AbsorbingLayer(wavelength=the longest wave, reflection=1e-3)."
            )
        if layer is not None and not isinstance(layer, AbsorbingLayer):
            raise ValueError(f"layer: expected an AbsorbingLayer, got {layer!r}; give AbsorbingLayer(wavelength=...).")
        if self.absorbs and time_order == 4:
            raise ValueError(
                "time_order: the fourth-order step grows in absorbing layers, got 4; take 2 and a shorter dt."
            )
        if order == "spectral" and any({"absorbing", "prescribed"} & set(ends) for ends in self.walls):
            raise ValueError(
                "order: modes know neither absorbing nor prescribed walls, got 'spectral'; take order=8 there."
            )
        self.layer = layer
        sides = [L for L, ends in zip(self.domain_extent, self.walls, strict=True) if "absorbing" in ends]
        if layer is not None and sides and layer.wavelength > min(sides):
            warnings.warn(
                f"layer: waves of length {layer.wavelength:g} do not fit into the {min(sides):g} between walls that "
                "absorb; the field next to a source is no wave yet and is cut by the layer. Take a larger box.",
                stacklevel=2,
            )
        self.dt = self.cfl * self.longest_step() if dt is None else check_number(dt, "dt", above=0.0)
        if self.dt > self.longest_step() * (1 + 1e-9):
            raise ValueError(
                f"dt: expected at most {self.longest_step():.6g}, the longest stable step (CFL) for speeds up to "
                f"{self.max_sound_speed:g} on spacings {self.grid.spacing}, got {self.dt:g}; leave dt out to take "
                f"{self.cfl:g} of it, or lower max_sound_speed."
            )

    # ---- where things are

    @property
    def grid(self) -> Grid:
        """The grid without its layers; absorbing ends count as Neumann, prescribed ones as Dirichlet."""
        words = tuple(tuple(_ON_GRID.get(end, end) for end in ends) for ends in self.walls)
        return Grid(self.num_points, self.domain_extent, words, self.centering)

    @property
    def layer_points(self) -> tuple[tuple[int, int], ...]:
        """Points of the absorbing layers, per axis and end."""
        return self._layout.layer_points

    @property
    def _layout(self) -> Layout:
        grid = self.grid
        layers = lambda ends, h: tuple(self.layer.num_points(h) if end == "absorbing" else 0 for end in ends)  # type: ignore[union-attr]
        points = tuple(layers(ends, h) for ends, h in zip(self.walls, grid.spacing, strict=True))
        axes = []
        for n, ends, centering, more in zip(grid.shape, self.walls, self.centering, points, strict=True):
            low, high = (_WIDE.get(end, end) for end in ends)
            axes.append(Axis(n + sum(more), low if low == high else (low, high), centering))
        return Layout(grid, tuple(axes), points)  # type: ignore[arg-type]

    @property
    def absorbs(self) -> bool:
        return any("absorbing" in ends for ends in self.walls)

    @property
    def compact(self) -> bool:
        """Whether second derivatives are taken at once; layers, densities and rigid obstacles need fluxes at faces."""
        return self.density == "constant" and not self.absorbs and self.obstacle != "neumann"

    def longest_step(self) -> float:
        """The longest stable step: 2 q / (c_max sqrt(sum_a s / h_a^2)).

        q = 1, or sqrt(3) for `time_order=4`. s belongs to the differences: 4, 16/3, 272/45, 2048/315, pi^2, and for
        staggered ones 4, 49/9, 6.17, 6.62, pi^2. Exact for a constant medium, a bound for every sound speed, and for
        `order=2` for every density too; with another order a density that jumps by orders of magnitude may need less.
        """
        s = stiffness(self.order, self.compact)
        q = 1.0 if self.time_order == 2 else math.sqrt(3)
        return 2 * q / (self.max_sound_speed * math.sqrt(sum(s / h**2 for h in self.grid.spacing)))

    def points_per_wavelength(self, frequency: float, sound_speed: float) -> float:
        """Points in the shortest wave, of this frequency in the slowest medium, on the coarsest axis.

        Warns (`UserWarning`) where they are too few for the scheme: where `phase_error` is above 1 %.
        """
        points = sound_speed / (frequency * max(self.grid.spacing))
        error = self.phase_error(frequency, sound_speed)
        if error > PHASE_ERROR:
            warnings.warn(
                f"{points:.3g} points per wavelength are few for order {self.order}: phases run wrong by "
                f"{100 * error:.3g} %; take more points or a higher order.",
                stacklevel=2,
            )
        return points

    def phase_error(self, frequency: float, sound_speed: float) -> float:
        """Relative error of the phase velocity along the worse of the axes, from the scheme's own dispersion relation.

        Infinity where the grid does not carry waves of this frequency.
        """
        w = 2 * np.pi * frequency * self.dt
        worst = 0.0
        for h in self.grid.spacing:
            theta = np.linspace(1e-6, np.pi, 20001)
            X = (sound_speed * self.dt / h) ** 2 * symbol(theta, self.order, self.compact)
            X = X - X**2 / 12 if self.time_order == 4 else X
            omega = 2 * np.arcsin(np.sqrt(np.clip(X / 4, 0, 1)))
            rising = np.maximum.accumulate(omega)
            if rising[-1] < w:
                return math.inf
            found = np.interp(w, rising, theta)
            worst = max(worst, float(abs(w / (found * sound_speed * self.dt / h) - 1)))
        return worst

    # ---- running

    def run(
        self,
        sound_speed: Any,
        initial: Any = None,
        *,
        num_steps: int,
        density: Any = None,
        initial_rate: Any = None,
        initial_velocity: Any = None,
        state: WaveState | None = None,
        sources: Sources | ExtendedSources | None = None,
        receivers: Any = None,
        traces: Any = None,
        mask: Any = None,
        every: int | None = None,
        velocities: bool = False,
        gradient: str = "recomputed",
    ) -> WaveRun:
        """Steps the field from time 0, or from a state, and returns what was asked for.

        Differentiable in all arrays, works under `jax.jit` and `jax.vmap`, and computes in the dtype of `sound_speed`.
        A sound speed above `max_sound_speed`, or values that are not positive, give a field of NaN.

        **Arguments:**

        - `sound_speed`: c, `(*grid,)`; `density`: rho, `(*grid,)`, or `None` for 1.
        - `initial`, `initial_rate`: u and u_t at time 0, `(*grid,)`; zero by default. `state` replaces both.
        - `initial_velocity`: v at time 0, `(ndim, *grid)`, with `velocities=True` and points in the middle of cells:
          the equation in its first-order form, u_t = -K div v, v_t = -(1/rho) grad u, begins with u and v.
        - `num_steps`: how many.
        - `sources`: `Sources` at points or `ExtendedSources`.
        - `receivers`: positions `(ndim, receivers)`.
        - `traces`: for prescribed walls, per axis a pair (low, high) with `None` where nothing is prescribed, else the
          field at the steps 0 to `num_steps`, in the layers of points on and beyond the wall that the stencil reaches,
          `(num_steps + 1, *grid)` with `order / 2` points along the axis, in ascending order.
        - `mask`: 1 where waves go, 0 in obstacles, `(*grid,)`.
        - `every`: keeps a frame each so many steps.
        - `velocities`: keeps the velocity v of the medium beside each frame: what (1/rho) grad u has added to that at
          time 0, integrated over the steps by the trapezoidal rule (second order in dt), at the points by polynomials
          of the scheme's order. To go on from a `state` with velocities, give the `initial_velocity` again.
        - `gradient`: `"recomputed"` (memory like the root of the steps, exact), `"stored"` (like the steps, exact) or
          `"reversed"` (two fields, where no wall absorbs; exact to the rounding of the way back).

        **Raises:** `ValueError` on shapes that do not fit and words that are unknown.
        """
        medium, initials = (sound_speed, density, mask), (initial, initial_rate, initial_velocity)
        driven = (sources, traces, receivers)
        return _run(self, *check_run(self, medium, initials, state, driven, num_steps, every, gradient, velocities))

    def energy(self, state: WaveState, sound_speed: Any, density: Any = None, mask: Any = None) -> Float[Array, ""]:
        """What leapfrog keeps between two time levels: |u_t|^2 / (2 K) and the form of the fluxes, over the box.

        E = 1/2 |(u1 - u0)/dt|^2_(1/K) - 1/2 <u1, div((1/rho) grad u0)>, constant to rounding without sources and
        absorbing walls, for `time_order=2`.
        """
        medium = check_medium(self, sound_speed, density, mask)
        like = state_like(self, self._layout.shape, False)
        return self._scheme(medium, self._layout).energy(check_state(state, medium[0].dtype, like))

    # ---- what a run is made of

    def _scheme(self, medium: tuple[Array, Array | None, Array | None], layout: AbstractLayout) -> Scheme:
        """The medium with its layers, as a step needs it; NaN where a traced value is out of range."""
        c, rho, mask = medium
        wrong = ~(jnp.isfinite(c) & (c > 0) & (c <= self.max_sound_speed * (1 + 1e-6)))
        wrong = wrong if rho is None else wrong | ~(jnp.isfinite(rho) & (rho > 0))
        c = jnp.where(layout.summed(jnp.sum(wrong)) > 0, jnp.nan, c)
        stiffness = layout.widen((self.dt * c) ** 2 * (1 if rho is None else rho))
        lightness = opened = None
        if rho is not None:
            lightness = tuple(2 / (low + high) for low, high in faces_of(layout.widen(rho), layout))
        if mask is not None and self.obstacle == "dirichlet":
            stiffness = stiffness * layout.widen(mask)  # what starts at zero in there stays
        elif mask is not None:
            opened = tuple(low * high for low, high in faces_of(layout.widen(mask), layout))
        order, time_order, compact = self.order, self.time_order, self.compact
        return Scheme(stiffness, lightness, opened, layout, order, time_order, compact, self._slabs(layout))

    def _slabs(self, layout: AbstractLayout) -> tuple[Slabs, ...]:
        slabs = []
        for d, (ends, axis, h) in enumerate(zip(self.walls, layout.axes, layout.grid.spacing, strict=True)):
            which = tuple(i for i, end in enumerate(ends) if end == "absorbing")
            if which:
                assert self.layer is not None
                assert isinstance(self.order, int)
                of = functools.partial(Slabs.of, d, axis, which, self.layer, speed=self.max_sound_speed)
                slabs.append(of(order=self.order, h=h, dt=self.dt, mesh_axis=layout.mesh_axes[d]))
        return tuple(slabs)

    def _go(
        self, scheme: Scheme, initial: Any, state: Any, driven: Any, num_steps: int, every: int | None, gradient: str,
        velocities: bool,
    ) -> WaveRun:  # fmt: skip
        u, rate, v = initial
        initial, dt = (u, None if rate is None else self.dt * rate, v), self.dt if velocities else None
        return run(scheme, self.walls, initial, state, driven, num_steps, every, gradient, dt)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))  # one program for all runs of a kind
def _run(
    equation: WaveEquation, medium: Any, initial: Any, state: Any, driven: Any, num_steps: int, every: int | None,
    gradient: str, velocities: bool,
) -> WaveRun:  # fmt: skip
    return equation._go(
        equation._scheme(medium, equation._layout), initial, state, driven, num_steps, every, gradient, velocities
    )


def _check_walls(ends: Any) -> tuple[str, str]:
    pair = (ends, ends) if isinstance(ends, str) else tuple(ends)
    if len(pair) != 2 or any(end not in WALLS for end in pair) or (pair[0] == "periodic") != (pair[1] == "periodic"):
        raise ValueError(
            f"walls: expected one of {WALLS} or a pair (low end, high end), got {ends!r}; a periodic axis is periodic "
            "at both ends."
        )
    return pair
