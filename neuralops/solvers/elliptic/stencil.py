"""Nearest neighbours on a structured grid: the primitives under every stencil of the solvers."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from neuralops.scale import power_of_two

__all__ = ["after", "before", "cut", "gather_faces", "gather_field", "in_series", "interleave", "neighbours", "outflow"]
__all__ += ["own_block", "sides"]


def cut(u: Array, start: int, stop: int | None, dim: int, stride: int = 1) -> Array:
    """`u[start:stop:stride]` along one dimension."""
    return lax.slice_in_dim(u, start, u.shape[dim] if stop is None else stop, stride, axis=dim)


def before(last: Array, periodic: bool, mesh_axis: str | None = None) -> Array:
    """What lies before the first layer of an axis whose last layer is given: that layer, or zero beyond a wall.

    With a mesh axis the arrays are the blocks of a grid divided over it (inside `jax.shard_map`), and the layer comes
    from the device below.
    """
    if mesh_axis is None:
        return last if periodic else jnp.zeros_like(last)
    return _passed_on(last, periodic, mesh_axis, 1)


def after(first: Array, periodic: bool, mesh_axis: str | None = None) -> Array:
    """What lies after the last layer of an axis whose first layer is given; see `before`."""
    if mesh_axis is None:
        return first if periodic else jnp.zeros_like(first)
    return _passed_on(first, periodic, mesh_axis, -1)


def _passed_on(layer: Array, periodic: bool, mesh_axis: str, step: int) -> Array:
    """A device that nobody sends to receives zeros: the field beyond a wall."""
    count = lax.axis_size(mesh_axis)
    pairs = [(i, (i + step) % count) for i in range(count) if periodic or 0 <= i + step < count]
    return lax.ppermute(layer, mesh_axis, pairs)


def neighbours(u: Array, dim: int, periodic: bool, mesh_axis: str | None = None) -> tuple[Array, Array]:
    """The fields of lower and of higher neighbours; zero beyond a wall.

    Shifted copies by concatenation: of nine forms (pads, rolls, fluxes, flat shifts, barriers) the fastest on two CPU
    cores, a stencil in float64 taking 34 us at 256^2 and 0.94 ms at 1024^2 (padded fluxes: 58, 1.4).
    """
    n = u.shape[dim]
    first, last = cut(u, 0, 1, dim), cut(u, n - 1, n, dim)
    low = lax.concatenate([before(last, periodic, mesh_axis), cut(u, 0, n - 1, dim)], dim)
    high = lax.concatenate([cut(u, 1, n, dim), after(first, periodic, mesh_axis)], dim)
    return low, high


def in_series(low: Array, high: Array, total: Array) -> Array:
    """low high / total, of conductors one behind the other, of any size; 0 for two zeros."""
    size = power_of_two(lax.stop_gradient(total))  # JAX differentiates a quotient by the square of what is below
    return (low / size) * high / jnp.where(total == 0, 1, total / size)


def sides(c: Array, dim: int) -> tuple[Array, Array]:
    """The conductances of the faces below and above each point, from those of all faces, one more than the points."""
    n = c.shape[dim]
    return cut(c, 0, n - 1, dim), cut(c, 1, n, dim)


def outflow(
    u: Array, faces: Sequence[Array], periodic: Sequence[bool], mesh_axes: Sequence[str | None] | None = None
) -> Array:
    """Sum over faces of c (u - u_neighbour) over the trailing axes of `u`.

    Along its own axis a face array has one entry more than the points, on a periodic axis the first face again at the
    end; along the others it may have length 1.
    """
    out = None
    for axis, c in enumerate(faces):
        below, above = sides(c, axis)
        low, high = neighbours(
            u, u.ndim - len(faces) + axis, periodic[axis], None if mesh_axes is None else mesh_axes[axis]
        )
        term = below * (u - low) + above * (u - high)
        out = term if out is None else out + term
    assert out is not None
    return out


def interleave(first: Array, second: Array, dim: int) -> Array:
    """first[0], second[0], first[1], ... along one dimension; `first` may be one longer."""
    total = first.shape[dim] + second.shape[dim]
    if first.shape[dim] > second.shape[dim]:
        second = lax.concatenate([second, jnp.zeros_like(cut(first, 0, 1, dim))], dim)
    shape = list(first.shape)
    shape[dim] *= 2
    return cut(jnp.stack([first, second], dim + 1).reshape(shape), 0, total, dim)


def gather_field(u: Array, placement: Sequence[tuple[str, int] | None]) -> Array:
    """The whole field on every device, from blocks divided over mesh axes (one, or `None`, per dimension)."""
    for dim, place in enumerate(placement):
        if place is not None:
            u = lax.all_gather(u, place[0], axis=dim, tiled=True)
    return u


def own_block(u: Array, placement: Sequence[tuple[str, int] | None]) -> Array:
    """A device's block of a field that every device holds whole; the inverse of `gather_field`."""
    for dim, place in enumerate(placement):
        if place is not None:
            size = u.shape[dim] // place[1]
            u = lax.dynamic_slice_in_dim(u, lax.axis_index(place[0]) * size, size, axis=dim)
    return u


def gather_faces(faces: Sequence[Array], mesh_axes: Sequence[str | None]) -> list[Array]:
    """All faces on every device, from those of each block, which share the faces between them."""
    whole = []
    for axis, c in enumerate(faces):
        for dim, name in enumerate(mesh_axes):
            if name is None or c.shape[dim] == 1:
                continue
            if dim == axis:
                n = c.shape[dim] - 1
                last = lax.all_gather(cut(c, n, None, dim), name, axis=dim, tiled=True)
                inner = lax.all_gather(cut(c, 0, n, dim), name, axis=dim, tiled=True)
                c = lax.concatenate([inner, cut(last, last.shape[dim] - 1, None, dim)], dim)
            else:
                c = lax.all_gather(c, name, axis=dim, tiled=True)
        whole.append(c)
    return whole
