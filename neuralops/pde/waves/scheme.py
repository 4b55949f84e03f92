"""One step of the wave equation in a given medium."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.pde.waves.absorbing import Slabs, Whole, absorb
from neuralops.pde.waves.driving import Drive
from neuralops.pde.waves.layout import AbstractLayout, Placement, Profiles
from neuralops.pde.waves.stencils import difference, dual, halfway, second_differences, taps
from neuralops.transforms import Axis

__all__ = ["Scheme", "WaveState", "faces_of"]

_FACTORS = (1.0, 1 / 24, 3 / 640, 5 / 7168)  # theta / (2 sin(theta/2)) in powers of 4 sin(theta/2)^2


class WaveState(NamedTuple):
    """Two time levels of the field on the grid and its layers, and what the layers remember.

    `WaveState(current, previous)` runs back in time, where no wall absorbs. `impulse`: the integral of the field over
    the time so far, in steps, where velocities are asked for.
    """

    previous: Array
    current: Array
    memory: tuple[Any, ...] = ()
    impulse: Any = None


class Scheme(eqx.Module):
    """What belongs to a medium, as arrays, and how a step is made of it. Built by `WaveEquation`."""

    stiffness: Float[Array, "*wide"]  # K dt^2
    lightness: tuple[Array, ...] | None  # 1/rho at the faces of each axis; None for 1
    opened: tuple[Array, ...] | None  # faces that no rigid obstacle closes; None for all
    layout: AbstractLayout = eqx.field(static=True)
    order: int | str = eqx.field(static=True)
    time_order: int = eqx.field(static=True)
    compact: bool = eqx.field(static=True)  # second derivatives at once
    slabs: tuple[Slabs, ...] = eqx.field(static=True)

    def laplacian(self, u: Array, known: Any = None) -> Array:
        """div((1/rho) grad u); `known`: prescribed values beyond the walls, per axis and end."""
        axes, spacings = self.layout.axes, self.layout.grid.spacing
        if self.compact:
            return second_differences(u, axes, spacings, self.order, known)
        total = jnp.zeros_like(u)
        for d in range(u.ndim):
            ends = (None, None) if known is None else known[d]
            total = total + self._divergence(self._flux(u, d, ends), d)
        return total

    @property
    def _order(self) -> int | str:
        """Of single differences; around obstacles they are put together from those of second order."""
        return self.order if self.opened is None else 2

    def _flux(self, u: Array, d: int, ends: Any = (None, None)) -> Array:
        """(1/rho) du/dx_d half-way between the points."""
        slope = self._slope(u, d, ends)
        return slope if self.lightness is None else self.lightness[d] * slope

    def _slope(self, u: Array, d: int, ends: Any = (None, None)) -> Array:
        axis, h = self.layout.axes[d], self.layout.grid.spacing[d]
        return self._around_obstacles(difference(u, d, axis, h, self._order, ends), d, h)

    def _divergence(self, flux: Array, d: int) -> Array:
        """What a flux brings to the points between which it stands."""
        axis, h = self.layout.axes[d], self.layout.grid.spacing[d]
        return difference(self._around_obstacles(flux, d, h), d, dual(axis), h, self._order)

    def _whole(self, d: int) -> Whole:
        return Whole(lambda u: self._slope(u, d), lambda flux: self._divergence(flux, d))

    def velocity(self, impulse: Array) -> Float[Array, "*components"]:
        """What the impulse has set moving: v_t = -(1/rho) grad u, integrated over time, at the points (in steps)."""
        axes = [dual(axis) for axis in self.layout.axes]
        return jnp.stack(
            [-halfway(self._flux(impulse, d), d, axis, axis.boundary, self._order) for d, axis in enumerate(axes)]
        )

    def compression(self, velocity: Float[Array, "*components"]) -> Array:
        """-K dt^2 div v of a velocity at the points: dt u_t over dt, at time 0."""
        total = jnp.zeros_like(self.stiffness)
        for d, (v, axis) in enumerate(zip(velocity, self.layout.axes, strict=True)):
            total = total - self._divergence(halfway(v, d, axis, dual(axis).boundary, self._order), d)
        return self.stiffness * total

    def advance(self, state: WaveState, drive: Drive, emitters: Placement | Profiles | None) -> WaveState:
        """The next time level.

        u+ = 2 u - u- + dt^2 a with a = K (div((1/rho) grad u) + s), and for the fourth order dt^4/12 a_tt more, where
        a_tt = K (div((1/rho) grad a) + s_tt) (the modified equation).
        """
        now, change = drive.now, drive.change
        where = drive.emitters(self.layout, self.order, emitters)
        if where is not None:
            where = where.densities(self.stiffness, jnp.asarray(self.layout.volumes(), self.stiffness.dtype))
        increment = self.stiffness * self.laplacian(state.current, now.known)
        increment = increment if where is None else where.spread(increment, now.strength)
        if self.time_order == 4:
            bent = self.stiffness * self.laplacian(increment, change.known)
            bent = bent if where is None else where.spread(bent, change.strength)
            increment = increment + bent / 12
        following, memory = 2 * state.current - state.previous + increment, []
        for slabs, kept in zip(self.slabs, state.memory, strict=True):
            weight = None if self.lightness is None else self.lightness[slabs.dim]
            whole = None if self.opened is None else self._whole(slabs.dim)
            extra, kept = absorb(slabs, state.current, weight, kept, whole)
            following = slabs.add(following, slabs.near(self.stiffness, extra.shape[slabs.dim + 1]) * extra)
            memory.append(kept)
        impulse = state.impulse
        if impulse is not None:
            impulse = impulse + (state.current + following) / 2
        return WaveState(state.current, following, tuple(memory), impulse)

    def start(self, u: Array, rate: Array, drive: Drive, emitters: Placement | Profiles | None) -> WaveState:
        """The time level before u, so that the first step has the order of the others; `rate`: dt u_t."""
        memory = tuple(slabs.memory(u.shape, u.dtype) for slabs in self.slabs)
        if self.time_order == 4:
            rate = rate + self.stiffness * self.laplacian(rate, drive.rate.known) / 6
        ahead = self.advance(WaveState(jnp.zeros_like(u), u, memory), drive, emitters)
        half = (ahead.current - 2 * u) / 2  # of what the step adds
        return WaveState(u - rate + half, u, memory)

    def energy(self, state: WaveState) -> Float[Array, ""]:
        """1/2 |(u1 - u0)/dt|^2_(1/K) - 1/2 <u1, div((1/rho) grad u0)> over the box, its layers included."""
        volumes = jnp.asarray(self.layout.volumes(), self.stiffness.dtype)
        still = self.stiffness == 0  # in obstacles
        kinetic = jnp.where(still, 0, (state.current - state.previous) ** 2 / jnp.where(still, 1, self.stiffness))
        return 0.5 * jnp.sum(volumes * (kinetic - state.current * self.laplacian(state.previous)))

    def _around_obstacles(self, flux: Array, dim: int, h: float) -> Array:
        """A flux of second order, closed where obstacles are, with the order of the scheme away from them.

        The staggered difference of higher order is a polynomial in the second-order ones. With the faces closed in
        these, a wall of such faces is an even continuation, as at the ends of the grid, and the form stays symmetric.
        """
        if self.opened is None:
            return flux
        axis, opened = self.layout.axes[dim], self.opened[dim]
        total = term = opened * flux
        for factor in _FACTORS[1 : taps(self.order)]:
            bent = difference(difference(term, dim, dual(axis), h, 2), dim, axis, h, 2)
            term = -(h**2) * opened * bent
            total = total + factor * term
        return total


def faces_of(medium: Array, layout: AbstractLayout) -> tuple[tuple[Array, Array], ...]:
    """Per axis the values on both sides of each point of the dual axis; at a wall the one value twice."""
    return tuple(_beside(medium, dim, axis) for dim, axis in enumerate(layout.axes))


def _beside(x: Array, dim: int, axis: Axis) -> tuple[Array, Array]:
    n, target = x.shape[dim], dual(axis).num_points
    cut = lambda start, stop: lax.slice_in_dim(x, start, stop, axis=dim)
    if axis.boundary == "periodic":
        around = lax.concatenate([cut(n - 1, n), x, cut(0, 1)], dim)
        first = int(axis.centering == "node")
    else:
        walls = [end == "dirichlet" for end in axis.ends]
        around = lax.concatenate([*[cut(0, 1)] * walls[0], x, *[cut(n - 1, n)] * walls[1]], dim)
        first = 0
    pair = (lax.slice_in_dim(around, i, i + target, axis=dim) for i in (first, first + 1))
    low, high = pair
    return low, high
