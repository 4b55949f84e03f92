"""What drives a wave field from step to step: sources, and values prescribed at walls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from neuralops.pde.waves.layout import AbstractLayout, Placement, Profiles
from neuralops.pde.waves.stencils import taps

__all__ = ["Drive", "ExtendedSources", "Sources", "emitting", "placed", "prescribed"]


class Sources(NamedTuple):
    """Points that emit: s = sum_i f_i(t) delta(x - x_i).

    `positions`: `(ndim, sources)` in the units of the box, or `(ndim, sources, num_steps)` for sources that move.
    `amplitudes`: f at the times 0, dt, 2 dt, ..., `(sources, num_steps)`; zero before and afterwards.
    """

    positions: Any
    amplitudes: Any


class ExtendedSources(NamedTuple):
    """Fields that emit: s = sum_i f_i(t) p_i(x).

    `profiles`: p, `(sources, *grid)`. `amplitudes`: f at the times 0, dt, 2 dt, ..., `(sources, num_steps)`.
    """

    profiles: Any
    amplitudes: Any


class Part(NamedTuple):
    strength: Any  # of each source
    known: Any  # beyond the walls


class Drive(NamedTuple):
    """One step's share, or with a first axis that of each step: values before, at and after it along the next axis."""

    strength: Any = None
    known: Any = None
    positions: Any = None  # of sources that move

    @property
    def now(self) -> Part:
        return self._combined(lambda t: t[1])

    @property
    def change(self) -> Part:
        """Second differences in time."""
        return self._combined(lambda t: t[0] - 2 * t[1] + t[2])

    @property
    def rate(self) -> Part:
        """Central differences in time."""
        return self._combined(lambda t: (t[2] - t[0]) / 2)

    def _combined(self, over_time: Any) -> Part:
        return Part(*jax.tree.map(over_time, (self.strength, self.known)))

    def emitters(
        self, layout: AbstractLayout, order: int | str, at_rest: Placement | Profiles | None
    ) -> Placement | Profiles | None:
        return at_rest if self.positions is None else placed(self.positions, layout, order, "sources.positions")


def placed(positions: Any, layout: AbstractLayout, order: int | str, name: str, *, spread: bool = True) -> Placement:
    """Points between the points, by polynomials with as many samples as the order of the scheme.

    **Raises:** `ValueError` on a shape other than `(ndim, points)`.
    """
    positions, ndim = jnp.asarray(positions), layout.grid.ndim
    if positions.ndim != 2 or positions.shape[0] != ndim or not jnp.issubdtype(positions.dtype, jnp.floating):
        raise ValueError(
            f"{name}: expected positions ({ndim}, points), got {positions.dtype} of shape {positions.shape}; put "
            "the axes first."
        )
    return layout.place(positions, (8 if isinstance(order, str) else order) - 1, spread=spread)


def emitting(
    sources: Sources | ExtendedSources | None, layout: AbstractLayout, order: int | str, num_steps: int, dtype: Any
) -> tuple[Drive, Placement | Profiles | None]:
    """The sources' share of each step, and where they are, if they rest.

    **Raises:** `ValueError` on shapes that do not fit.
    """
    if sources is None:
        return Drive(), None
    f = jnp.asarray(sources.amplitudes, dtype)
    if isinstance(sources, ExtendedSources):
        p = jnp.asarray(sources.profiles, dtype)
        if f.ndim != 2 or f.shape[1] != num_steps or p.shape != (len(f), *layout.narrow_shape):
            raise ValueError(
                f"sources: expected profiles (sources, {', '.join(map(str, layout.narrow_shape))}) and amplitudes "
                f"(sources, {num_steps}), got {p.shape} and {f.shape}; give an amplitude a step."
            )
        return Drive(_over_steps(f)), Profiles(jax.vmap(layout.surrounded)(p))
    positions, ndim = jnp.asarray(sources.positions), layout.grid.ndim
    moving = positions.ndim == 3
    wanted = (ndim, *f.shape[:1], num_steps)[: 3 if moving else 2]
    if f.ndim != 2 or f.shape[1] != num_steps or positions.shape != wanted:
        raise ValueError(
            f"sources: expected positions ({ndim}, sources) or ({ndim}, sources, {num_steps}) and amplitudes (sources, "
            f"{num_steps}), got {positions.shape} and {f.shape}; give an amplitude a step."
        )
    strength = _over_steps(f)
    if moving:
        return Drive(strength, positions=jnp.moveaxis(positions.astype(dtype), 2, 0)), None
    return Drive(strength), placed(positions.astype(dtype), layout, order, "sources.positions")


def _over_steps(f: Array) -> Array:
    """Amplitudes `(sources, steps)` as `(steps, 3, sources)`: before, at and after each step."""
    f = jnp.pad(f.T, ((1, 1), (0, 0)))
    return jnp.stack([f[:-2], f[1:-1], f[2:]], axis=1)


def prescribed(
    traces: Any, walls: Sequence[tuple[str, str]], layout: AbstractLayout, order: int | str, num_steps: int, dtype: Any
) -> Any:
    """The prescribed values of each step, per axis and end.

    **Raises:** `ValueError` on values where nothing is prescribed, on none where something is, and on other shapes.
    """
    if not any("prescribed" in ends for ends in walls):
        if traces is not None:
            raise ValueError("traces: expected None where no wall is prescribed, got values; leave them out.")
        return None
    hint = f"give, per axis, a pair (low, high) with values for {num_steps + 1} steps, or None."
    pairs = traces if isinstance(traces, Sequence) else ()
    if len(pairs) != len(walls) or any(not isinstance(t, Sequence) or len(t) != 2 for t in pairs):
        raise ValueError(f"traces: expected a pair for each of {len(walls)} axes, got {type(traces).__name__}; {hint}")

    def steps(value: Any, d: int, word: str) -> Array | None:
        shape = (num_steps + 1, *layout.shape[:d], taps(order), *layout.shape[d + 1 :])
        wanted = shape if word == "prescribed" else None
        got = None if value is None else jnp.shape(value)
        if got != wanted:
            raise ValueError(f"traces: expected {wanted} along axis {d}, got {got}; {hint}")
        if value is None:
            return None
        x = jnp.asarray(value, dtype)
        before = jnp.concatenate([2 * x[:1] - x[1:2], x[:-2]])  # the step before time 0 by extrapolation
        return jnp.stack([before, x[:-1], x[1:]], axis=1)

    zipped = enumerate(zip(pairs, walls, strict=True))
    return tuple(tuple(steps(x, d, word) for x, word in zip(pair, ends, strict=True)) for d, (pair, ends) in zipped)
