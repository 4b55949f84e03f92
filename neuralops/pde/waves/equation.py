"""The acoustic wave equation on a box: the scheme, its walls and its time step."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_number, count
from neuralops.grid import Grid, per_axis
from neuralops.pde.waves.absorbing import POWER, AbsorbingLayer, Slab, absorb
from neuralops.pde.waves.march import GRADIENTS, march
from neuralops.pde.waves.placement import Placement, place
from neuralops.pde.waves.stencils import ORDERS, difference, dual, second_difference, stiffness, symbol, taps
from neuralops.transforms import Axis

__all__ = ["Sources", "WaveEquation", "WaveRun", "WaveState"]

WALLS = ("periodic", "dirichlet", "neumann", "absorbing", "prescribed")
_ON_GRID = {"absorbing": "neumann", "prescribed": "dirichlet"}
_FACTORS = (1.0, 1 / 24, 3 / 640, 5 / 7168)  # theta / (2 sin(theta/2)) in powers of 4 sin(theta/2)^2


class Sources(NamedTuple):
    """Points that emit: s = sum_i f_i(t) delta(x - x_i).

    `positions`: `(ndim, sources)` in the units of the box, or `(ndim, sources, num_steps)` for sources that move.
    `amplitudes`: f at the times 0, dt, 2 dt, ..., `(sources, num_steps)`; zero before and afterwards.
    """

    positions: Any
    amplitudes: Any


class WaveState(NamedTuple):
    """Two time levels of the field on the grid and its layers, and what the layers remember.

    `WaveState(current, previous, ())` runs back in time, where no wall absorbs.
    """

    previous: Array
    current: Array
    memory: tuple[Any, ...] = ()


class WaveRun(NamedTuple):
    """What `WaveEquation.run` returns.

    `final`: the field at the last step, `(*grid,)`. `frames`: at the steps 0, `every`, 2 `every`, ...,
    `(frames, *grid)`, or `None`. `records`: at the receivers at the steps 0 to `num_steps`,
    `(receivers, num_steps + 1)`, or `None`. `state`: where it ended, for another run.
    """

    final: Any
    frames: Any
    records: Any
    state: WaveState


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
        points = lambda end, h: self.layer.num_points(h) if end == "absorbing" and self.layer else 0
        return tuple(
            (points(low, h), points(high, h)) for (low, high), h in zip(self.walls, self.grid.spacing, strict=True)
        )

    @property
    def _axes(self) -> tuple[Axis, ...]:
        """The axes with their layers, at whose outer walls the field vanishes."""
        words = {"absorbing": "dirichlet", "prescribed": "dirichlet"}
        axes = []
        for n, ends, centering, more in zip(
            self.num_points, self.walls, self.centering, self.layer_points, strict=True
        ):
            low, high = (words.get(end, end) for end in ends)
            axes.append(Axis(n + sum(more), low if low == high else (low, high), centering))
        return tuple(axes)

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
        """Points in the shortest wave, of this frequency in the slowest medium, on the coarsest axis."""
        return sound_speed / (frequency * max(self.grid.spacing))

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

    # ---- fields on the grid and on the grid with its layers

    def widen(self, field: Float[Array, "*grid"]) -> Float[Array, "*wide"]:
        """A medium continued into the layers by its values at the walls."""
        return jnp.pad(field, self.layer_points, mode="edge")

    def narrow(self, field: Float[Array, "*wide"]) -> Float[Array, "*grid"]:
        """A field without its layers."""
        starts = [low for low, _ in self.layer_points]
        return lax.slice(field, starts, [s + n for s, n in zip(starts, self.num_points, strict=True)])

    # ---- running

    def run(
        self,
        sound_speed: Any,
        initial: Any = None,
        *,
        num_steps: int,
        density: Any = None,
        initial_rate: Any = None,
        state: WaveState | None = None,
        sources: Sources | None = None,
        receivers: Any = None,
        traces: Any = None,
        mask: Any = None,
        every: int | None = None,
        gradient: str = "recomputed",
    ) -> WaveRun:
        """Steps the field from time 0, or from a state, and returns what was asked for.

        Differentiable in all arrays, works under `jax.jit` and `jax.vmap`, and computes in the dtype of `sound_speed`.
        A sound speed above `max_sound_speed`, or values that are not positive, give a field of NaN.

        **Arguments:**

        - `sound_speed`: c, `(*grid,)`; `density`: rho, `(*grid,)`, or `None` for 1.
        - `initial`, `initial_rate`: u and u_t at time 0, `(*grid,)`; zero by default. `state` replaces both.
        - `num_steps`: how many.
        - `sources`: `Sources`.
        - `receivers`: positions `(ndim, receivers)`.
        - `traces`: for prescribed walls, per axis a pair (low, high) with `None` where nothing is prescribed, else the
          field at the steps 0 to `num_steps`, in the layers of points on and beyond the wall that the stencil reaches,
          `(num_steps + 1, *grid)` with `order / 2` points along the axis, in ascending order.
        - `mask`: 1 where waves go, 0 in obstacles, `(*grid,)`.
        - `every`: keeps a frame each so many steps.
        - `gradient`: `"recomputed"` (memory like the root of the steps, exact), `"stored"` (like the steps, exact) or
          `"reversed"` (two fields, where no wall absorbs; exact to the rounding of the way back).

        **Raises:** `ValueError` on shapes that do not fit and words that are unknown.
        """
        num_steps = count(num_steps, "num_steps")
        every = None if every is None else count(every, "every", most=num_steps)
        c = self._field(sound_speed, "sound_speed")
        self._check_speed(c)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient: expected one of {GRADIENTS}, got {gradient!r}; use one of these.")
        if gradient == "reversed" and self.absorbs:
            raise ValueError(
                "gradient: 'reversed' needs steps that run back, which an absorbing wall does not; use 'recomputed'."
            )
        if state is not None and (initial is not None or initial_rate is not None):
            raise ValueError("state: expected it alone, got initial values too; leave them out.")
        arrays = (c, initial, initial_rate, density, state, sources, receivers, traces, mask)
        return _run(self, arrays, num_steps, every, gradient)

    def energy(self, state: WaveState, sound_speed: Any, density: Any = None, mask: Any = None) -> Float[Array, ""]:
        """What leapfrog keeps between two time levels: |u_t|^2 / (2 K) and the form of the fluxes, over the box.

        E = 1/2 |(u1 - u0)/dt|^2_(1/K) - 1/2 <u1, L u0>, constant to rounding without sources and absorbing walls, for
        `time_order=2`.
        """
        scheme = self._scheme(self._field(sound_speed, "sound_speed"), density, mask)
        volume = jnp.asarray(self._volumes(), scheme.k.dtype)
        rate = (state.current - state.previous) ** 2 / scheme.k
        form = state.current * self._laplacian(scheme, state.previous, None)
        return 0.5 * jnp.sum(volume * (rate - form))

    # ---- the scheme

    def _scheme(self, c: Array, density: Any, mask: Any) -> _Scheme:
        c = self.widen(c)
        wrong = ~(jnp.isfinite(c) & (c > 0) & (c <= self.max_sound_speed * (1 + 1e-6)))
        c = jnp.where(jnp.any(wrong), jnp.nan, c)
        k, faces, opened = (self.dt * c) ** 2, None, None
        axes = self._axes
        if (density is None) != (self.density == "constant"):
            raise ValueError(
                f"density: expected {'None' if self.density == 'constant' else 'a field'}, as that of the equation is "
                f"{self.density!r}, got {'None' if density is None else 'a field'}; build it with density='variable'."
            )
        if density is not None:
            rho = self.widen(self._field(density, "density").astype(c.dtype))
            k = k * rho
            faces = tuple(2 / (low + high) for low, high in (_beside(rho, d, a) for d, a in enumerate(axes)))
        if (mask is None) != (self.obstacle is None):
            raise ValueError(
                f"mask: expected {'None' if self.obstacle is None else 'a field'}, as the equation's obstacle is "
                f"{self.obstacle!r}, got {'None' if mask is None else 'a field'}; build it with obstacle='neumann'."
            )
        if mask is not None:
            inside = self.widen(self._field(mask, "mask").astype(c.dtype))
            if self.obstacle == "dirichlet":
                k = k * inside  # what starts at zero in there stays
            else:
                opened = tuple(low * high for low, high in (_beside(inside, d, a) for d, a in enumerate(axes)))
        return _Scheme(k, faces, opened)

    def _laplacian(self, scheme: _Scheme, u: Array, known: Any) -> Array:
        total = None
        for d, (axis, h) in enumerate(zip(self._axes, self.grid.spacing, strict=True)):
            ends = (None, None) if known is None else known[d]
            if scheme.opened is not None:
                part = _around_obstacles(u, d, axis, h, self.order, scheme, ends)
            elif self.compact:
                part = second_difference(u, d, axis, h, self.order, ends)
            else:
                slope = difference(u, d, axis, h, self.order, ends)
                flux = slope if scheme.faces is None else scheme.faces[d] * slope
                part = difference(flux, d, dual(axis), h, self.order)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _advance(self, scheme: _Scheme, state: WaveState, x: Any, fixed: Any) -> tuple[Array, tuple[Any, ...]]:
        """The next time level."""
        emitted, known = x
        now = None if known is None else jax.tree.map(lambda t: t[1], known)
        increment = scheme.k * self._laplacian(scheme, state.current, now)
        if emitted is not None:
            where = self._emitters(emitted, fixed, increment.dtype)
            strength = emitted["amplitude"]
            increment = where.spread(increment, self._at(scheme.k, where) * strength[1])
        if self.time_order == 4:
            bent = None if known is None else jax.tree.map(lambda t: t[0] - 2 * t[1] + t[2], known)
            more = scheme.k * self._laplacian(scheme, increment, bent)
            if emitted is not None:
                change = strength[0] - 2 * strength[1] + strength[2]
                more = where.spread(more, self._at(scheme.k, where) * change)
            increment = increment + more / 12
        following = 2 * state.current - state.previous + increment
        memory = []
        for slab, kept in zip(self._slabs, state.memory, strict=True):
            faces = None if scheme.faces is None else scheme.faces[slab.dim]
            extra, kept = absorb(slab, state.current, faces, kept)
            following = slab.add(following, slab.near(scheme.k, extra.shape[slab.dim]) * extra)
            memory.append(kept)
        return following, tuple(memory)

    def _start(self, scheme: _Scheme, u: Array, rate: Array, emitted: Any, fixed: Any, traced: Any) -> WaveState:
        """The time level before the first, so that the first step has the order of the others."""
        memory = tuple(slab.memory(u.shape, u.dtype) for slab in self._slabs)
        first = jax.tree.map(lambda x: x[0], (emitted, traced))
        drift = self.dt * rate
        if self.time_order == 4:
            bent = None
            if first[1] is not None:  # the rate of the prescribed values, by a central difference
                bent = jax.tree.map(lambda t: (t[2] - t[0]) / 2, first[1])
            drift = drift + scheme.k * self._laplacian(scheme, drift, bent) / 6
        zero = WaveState(jnp.zeros_like(u), u, memory)
        ahead, _ = self._advance(scheme, zero, first, fixed)  # 2 u + increment
        return WaveState(u - drift + (ahead - 2 * u) / 2, u, memory)

    @property
    def _slabs(self) -> tuple[Slab, ...]:
        slabs = []
        for d, (ends, axis, h) in enumerate(zip(self.walls, self._axes, self.grid.spacing, strict=True)):
            for end, word in enumerate(ends):
                if word == "absorbing" and self.layer is not None and not isinstance(self.order, str):
                    points = self.layer.num_points(h)
                    # A tenth of the echo allowed for the damping itself, the rest for its differences.
                    decay = math.log(10 / self.layer.reflection)
                    sigma = (POWER + 1) * self.max_sound_speed * decay / (2 * points * h)
                    slabs.append(Slab.of(d, axis, end, points, self.order, h, sigma, self.dt))
        return tuple(slabs)

    # ---- sources, receivers, traces

    def _place(self, positions: Any, dtype: Any, name: str) -> Placement:
        positions = jnp.asarray(positions)
        ndim = self.grid.ndim
        if positions.ndim != 2 or positions.shape[0] != ndim or not jnp.issubdtype(positions.dtype, jnp.floating):
            raise ValueError(
                f"{name}: expected positions ({ndim}, points), got {positions.dtype} of shape {positions.shape}; put "
                "the axes first."
            )
        samples = 8 if isinstance(self.order, str) else self.order
        first = [
            self.grid.points(a)[0] - low * h
            for a, ((low, _), h) in enumerate(zip(self.layer_points, self.grid.spacing, strict=True))
        ]
        return place(positions.astype(dtype), self._axes, first, self.grid.spacing, samples)

    def _emission(self, sources: Sources | None, num_steps: int, dtype: Any) -> tuple[Any, Any]:
        """Per step the amplitudes before, at and after it, and positions if they move; and where, if they rest."""
        if sources is None:
            return None, None
        f = jnp.asarray(sources.amplitudes, dtype)
        positions = jnp.asarray(sources.positions)
        moving = positions.ndim == 3
        shape = (self.grid.ndim, f.shape[0], num_steps)[: 3 if moving else 2]
        if f.ndim != 2 or f.shape[1] != num_steps or positions.shape != shape:
            raise ValueError(
                f"sources: expected positions ({self.grid.ndim}, sources) or ({self.grid.ndim}, sources, {num_steps}) "
                f"and amplitudes (sources, {num_steps}), got {positions.shape} and {f.shape}; give an amplitude a step."
            )
        padded = jnp.pad(f.T, ((1, 1), (0, 0)))
        emitted = {"amplitude": jnp.stack([padded[:-2], padded[1:-1], padded[2:]], axis=1)}
        if moving:
            return {**emitted, "positions": jnp.moveaxis(positions, 2, 0)}, None
        return emitted, self._place(positions, dtype, "sources.positions")

    def _emitters(self, emitted: Any, fixed: Any, dtype: Any) -> Placement:
        return self._place(emitted["positions"], dtype, "sources.positions") if fixed is None else fixed

    def _at(self, k: Array, where: Placement) -> Array:
        """K dt^2 over the control volume, at the samples that a source is spread over."""
        volumes = jnp.asarray(self._volumes(), k.dtype)
        return (k / volumes).reshape(-1)[where.samples]

    def _volumes(self) -> np.ndarray:
        """Quadrature weights with the layers, `(*wide,)`."""
        total = np.ones(())
        for axis, h in zip(self._axes, self.grid.spacing, strict=True):
            total = np.multiply.outer(total, h * transforms.relative_weights(axis))
        return total

    def _traces(self, traces: Any, num_steps: int, dtype: Any) -> Any:
        """Per step the prescribed values before, at and after it."""
        wanted = [[end == "prescribed" for end in ends] for ends in self.walls]
        if not any(map(any, wanted)):
            if traces is not None:
                raise ValueError("traces: expected None where no wall is prescribed, got values; leave them out.")
            return None
        hint = f"give, per axis, a pair (low, high) with values for {num_steps + 1} steps, or None."
        if not isinstance(traces, Sequence) or len(traces) != self.grid.ndim or any(len(t) != 2 for t in traces):
            raise ValueError(f"traces: expected a pair for each of {self.grid.ndim} axes, got {type(traces)}; {hint}")
        out = []
        wide = tuple(axis.num_points for axis in self._axes)
        for d, (pair, needed) in enumerate(zip(traces, wanted, strict=True)):
            parts: list[Array | None] = []
            for value, need in zip(pair, needed, strict=True):
                shape = (num_steps + 1, *wide[:d], taps(self.order), *wide[d + 1 :])
                got = None if value is None else tuple(jnp.shape(value))
                if need != (value is not None) or (need and got != shape):
                    raise ValueError(f"traces: expected {shape if need else None} along axis {d}, got {got}; {hint}")
                if not need:
                    parts.append(None)
                    continue
                x = jnp.asarray(value, dtype)
                before = jnp.concatenate([2 * x[:1] - x[1:2], x[:-2]])  # the step before time 0 by extrapolation
                parts.append(jnp.stack([before, x[:-1], x[1:]], axis=1))
            out.append(tuple(parts))
        return tuple(out)

    # ---- checks

    def _field(self, x: Any, name: str) -> Array:
        x = jnp.asarray(x)
        if x.shape != self.num_points:
            raise ValueError(
                f"{name}: expected a field on the grid {self.num_points}, got shape {x.shape}; use jax.vmap for a "
                "batch, and x[0] for a field with a channel axis."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating) and name != "mask":
            raise ValueError(f"{name}: expected floating numbers, got {x.dtype}; convert with astype.")
        return x

    def _check_speed(self, c: Array) -> None:
        if isinstance(c, jax.core.Tracer):
            return
        low, high = float(np.asarray(c).min()), float(np.asarray(c).max())  # under jit jnp.min would be traced
        if not (low > 0 and high <= self.max_sound_speed * (1 + 1e-6)):
            raise ValueError(
                f"sound_speed: expected speeds in (0, {self.max_sound_speed:g}], for which dt = {self.dt:g} is stable, "
                f"got {low:g} to {high:g}; raise max_sound_speed."
            )


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))  # one program for all runs of a kind
def _run(equation: WaveEquation, arrays: Any, num_steps: int, every: int | None, gradient: str) -> WaveRun:
    c, initial, initial_rate, density, state, sources, receivers, traces, mask = arrays
    dtype = c.dtype
    scheme = equation._scheme(c, density, mask)
    traced = equation._traces(traces, num_steps, dtype)
    emitted, fixed = equation._emission(sources, num_steps, dtype)
    heard = None if receivers is None else equation._place(receivers, dtype, "receivers")
    if state is None:
        wide = lambda x, name: (
            jnp.zeros(scheme.k.shape, dtype)
            if x is None
            else jnp.pad(equation._field(x, name).astype(dtype), equation.layer_points)
        )
        state = equation._start(
            scheme, wide(initial, "initial"), wide(initial_rate, "initial_rate"), emitted, fixed, traced
        )

    parameters = (scheme, fixed, heard)

    def step(parameters: Any, state: WaveState, x: Any) -> tuple[WaveState, Any]:
        scheme, fixed, heard = parameters
        following, memory = equation._advance(scheme, state, x, fixed)
        output = None if heard is None else heard.read(state.current)
        return WaveState(state.current, following, memory), output

    def run(s: WaveState, x: Any, n: int) -> tuple[WaveState, Any]:
        if gradient != "reversed":
            return march(step, parameters, s, x, n, gradient)
        pairs = lambda p, s, x: _as_pair(step(p, WaveState(*s), x))
        (previous, current), output = march(pairs, parameters, (s.previous, s.current), x, n, gradient)
        return WaveState(previous, current), output

    xs = (emitted, traced)
    frames: Any = None
    if every is None:
        state, records = run(state, xs, num_steps)
    else:
        whole = num_steps // every
        cut = jax.tree.map(lambda x: x[: whole * every].reshape(whole, every, *x.shape[1:]), xs)

        def stretch(s: WaveState, x: Any) -> tuple[WaveState, Any]:
            s, heard_now = run(s, x, every)
            return s, (equation.narrow(s.current), heard_now)

        first = equation.narrow(state.current)[None]
        state, (frames, records) = lax.scan(stretch, state, cut, length=whole)
        frames = jnp.concatenate([first, frames])
        records = None if records is None else records.reshape(-1, records.shape[-1])
        if num_steps > whole * every:
            rest = jax.tree.map(lambda x: x[whole * every :], xs)
            state, last = run(state, rest, num_steps - whole * every)
            records = None if records is None else jnp.concatenate([records, last])
    if heard is not None:
        records = jnp.concatenate([records, heard.read(state.current)[None]]).T
    return WaveRun(equation.narrow(state.current), frames, records, state)


class _Scheme(NamedTuple):
    """What belongs to a medium: K dt^2 at points, 1/rho at faces, and the faces that no obstacle closes."""

    k: Array
    faces: tuple[Array, ...] | None
    opened: tuple[Array, ...] | None


def _check_walls(ends: Any) -> tuple[str, str]:
    pair = (ends, ends) if isinstance(ends, str) else tuple(ends)
    if len(pair) != 2 or any(end not in WALLS for end in pair) or (pair[0] == "periodic") != (pair[1] == "periodic"):
        raise ValueError(
            f"walls: expected one of {WALLS} or a pair (low end, high end), got {ends!r}; a periodic axis is periodic "
            "at both ends."
        )
    return pair


def _beside(x: Array, dim: int, axis: Axis) -> tuple[Array, Array]:
    """The values on both sides of each point of the dual axis; at a wall the one value twice."""
    n, target = x.shape[dim], dual(axis).num_points
    cut = lambda start, stop: lax.slice_in_dim(x, start, stop, axis=dim)
    if axis.boundary == "periodic":
        if axis.centering == "node":
            return x, lax.concatenate([cut(1, n), cut(0, 1)], dim)
        return lax.concatenate([cut(n - 1, n), cut(0, n - 1)], dim), x
    walls = [end == "dirichlet" for end in axis.ends]
    wide = lax.concatenate([*[cut(0, 1)] * walls[0], x, *[cut(n - 1, n)] * walls[1]], dim)
    slide = lambda start: lax.slice_in_dim(wide, start, start + target, axis=dim)
    return slide(0), slide(1)


def _around_obstacles(u: Array, dim: int, axis: Axis, h: float, order: Any, scheme: _Scheme, known: Any) -> Array:
    """div((1/rho) grad u) along an axis with closed faces, of the order of the scheme away from them.

    The staggered difference of higher order is a polynomial in the second-order ones; with the faces closed in these,
    fluxes vanish on them, as even reflection has it, and the form stays symmetric.
    """
    opened, across = scheme.opened[dim], dual(axis)  # type: ignore[index]

    def corrected(g: Array) -> Array:
        total = term = opened * g
        for factor in _FACTORS[1 : taps(order)]:
            bent = difference(difference(term, dim, across, h, 2), dim, axis, h, 2)
            term = -(h**2) * opened * bent
            total = total + factor * term
        return total

    slope = corrected(difference(u, dim, axis, h, 2, known))
    flux = slope if scheme.faces is None else scheme.faces[dim] * slope
    return difference(corrected(flux), dim, across, h, 2)


def _as_pair(result: tuple[WaveState, Any]) -> tuple[tuple[Array, Array], Any]:
    return (result[0].previous, result[0].current), result[1]
