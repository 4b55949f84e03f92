"""Derivatives along one axis of a box between walls: central and staggered differences of order 2 to 8, and modes.

A field on an axis is continued beyond its ends as the boundary says (`extended`), so formulas hold up to the wall. The
derivative of a field lives half-way between its points, on the *dual* axis, where the boundary words change places:
the slope of a field that vanishes at a wall is even about it. Differences from an axis to its dual and back are each
other's negative transposes in the axis's quadrature weights, whatever the ends; hence what is made of them conserves
energy.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops import transforms
from neuralops.continuation import beyond, continued, end_rules
from neuralops.transforms import Axis
from neuralops.transposition import transposed_by

__all__ = ["CENTRAL", "ORDERS", "STAGGERED", "difference", "dual", "extended", "second_difference"]
__all__ += ["halfway", "second_differences", "staggered", "stiffness", "symbol", "taps"]

# Weights of u_{i+k} + u_{i-k} - 2 u_i over h^2, and of u_{i+k-1/2} - u_{i-k+1/2} over h, for k = 1, 2, ...
CENTRAL = {2: (1.0,), 4: (4 / 3, -1 / 12), 6: (3 / 2, -3 / 20, 1 / 90), 8: (8 / 5, -1 / 5, 8 / 315, -1 / 560)}
STAGGERED = {
    2: (1.0,),
    4: (9 / 8, -1 / 24),
    6: (75 / 64, -25 / 384, 3 / 640),
    8: (1225 / 1024, -245 / 3072, 49 / 5120, -5 / 7168),
}
ORDERS = (2, 4, 6, 8, "spectral")
# Points up to which axis by axis is faster (measured): differences of order 2 in a plane, periodic modes.
_FEW, _FEW_MODES = 2**17, 2**14
_SWAPPED = {"dirichlet": "neumann", "neumann": "dirichlet", "periodic": "periodic"}


def taps(order: int | str) -> int:
    """Points that a stencil reaches to either side; for modes, which reach everywhere, 0."""
    return 0 if isinstance(order, str) else order // 2


def stiffness(order: int | str, compact: bool = True) -> float:
    """The largest eigenvalue of -h^2 d^2/dx^2 of a scheme: 4, 16/3, 272/45, 2048/315, or pi^2 for modes.

    `compact=False` is a staggered difference applied twice.
    """
    return float(symbol(np.asarray(np.pi), order, compact))


def symbol(theta: np.ndarray, order: int | str, compact: bool = True) -> np.ndarray:
    """Eigenvalues of -h^2 d^2/dx^2 at the phase `theta` = k h between two points."""
    if isinstance(order, str):
        return theta**2
    if compact:
        return np.sum([2 * c * (1 - np.cos(k * theta)) for k, c in enumerate(CENTRAL[order], 1)], axis=0)
    return np.sum([2 * c * np.sin((k - 0.5) * theta) for k, c in enumerate(STAGGERED[order], 1)], axis=0) ** 2


def dual(axis: Axis) -> Axis:
    """Where the derivative along `axis` lives: half-way between its points, on walls too where the field vanishes."""
    low, high = (_SWAPPED[end] for end in axis.ends)
    n = axis.num_points
    if low != "periodic":
        n += sum(end == "dirichlet" for end in axis.ends) - 1
    return Axis(n, low if low == high else (low, high), "cell" if axis.centering == "node" else "node")


def _starts_below(axis: Axis) -> bool:
    """Whether the first point of the dual axis lies below the first point of the axis."""
    return axis.centering == "cell" if axis.ends[0] == "periodic" else axis.ends[0] == "dirichlet"


def extended(u: Array, dim: int, axis: Axis, low: int, high: int, known: Any = (None, None)) -> Array:
    """`u` with points beyond its ends: as the boundary says, or the nearest of those that are prescribed in `known`."""
    cuts = [None if given is None else given.shape[dim] for given in known]
    rules = end_rules(axis.boundary, axis.centering)
    wide = continued(u, dim, rules, (low if cuts[0] is None else 0, high if cuts[1] is None else 0))
    before = [] if cuts[0] is None else [lax.slice_in_dim(known[0], cuts[0] - low, cuts[0], axis=dim)]
    behind = [] if cuts[1] is None else [lax.slice_in_dim(known[1], 0, high, axis=dim)]
    return lax.concatenate([*before, wide, *behind], dim) if before or behind else wide


def staggered(u: Array, dim: int, order: int, h: float) -> Array:
    """Differences of an extended array, half-way between its points and `order` - 1 fewer than these."""
    m = taps(order)
    n = u.shape[dim] - 2 * m + 1
    cut = lambda start: lax.slice_in_dim(u, start, start + n, axis=dim)
    terms = [(c / h) * (cut(m - 1 + k) - cut(m - k)) for k, c in enumerate(STAGGERED[order], 1)]
    return sum(terms[1:], terms[0])


def halfway(u: Array, dim: int, axis: Axis, boundary: Any, order: int | str) -> Array:
    """Values half-way between the points of `axis`, where its dual lies; `boundary`: how `u` goes on beyond the ends.

    By polynomials of degree `order` - 1, for modes of degree 7.
    """
    order = 8 if isinstance(order, str) else order
    m, (low, high) = taps(order), _reach(axis, order)
    wide = extended(u, dim, Axis(axis.num_points, boundary, axis.centering), low, high)
    n = wide.shape[dim] - 2 * m + 1
    cut = lambda start: lax.slice_in_dim(wide, start, start + n, axis=dim)
    # The slope of the polynomial is that of its odd part, its value that of its even part.
    weights = [(k - 0.5) * c for k, c in enumerate(STAGGERED[order], 1)]
    terms = [w * (cut(m - 1 + k) + cut(m - k)) for k, w in enumerate(weights, 1)]
    return sum(terms[1:], terms[0])


def difference(u: Array, dim: int, axis: Axis, h: float, order: int | str, known: Any = (None, None)) -> Array:
    """The first derivative on the dual axis."""
    if isinstance(order, str):
        return _modal_derivative(u, dim, axis, h)
    if any(given is not None for given in known):
        return _difference(u, dim, axis, h, order, known)
    return _own_difference(u, dim, axis, h, order)


def second_difference(u: Array, dim: int, axis: Axis, h: float, order: int | str, known: Any = (None, None)) -> Array:
    """The second derivative on the axis itself, by the compact formula."""
    if isinstance(order, str):
        w = np.pi * transforms.wavenumbers(axis.boundary, axis.num_points) / _extent(axis, h)
        modes = transforms.to_modes(u, dim, axis)
        return transforms.from_modes(modes * _along(-(w**2), dim, u), dim, axis)
    if any(given is not None for given in known):
        return _second_difference(u, dim, axis, h, order, known)
    return _own_second_difference(u, dim, axis, h, order)


def second_differences(
    u: Array, axes: Sequence[Axis], spacings: Sequence[float], order: int | str, known: Any = None
) -> Array:
    """The sum of `second_difference` over all axes; `known`: prescribed values beyond the ends, per axis and end."""
    axes, spacings = tuple(axes), tuple(spacings)
    known = ((None, None),) * u.ndim if known is None else known
    if isinstance(order, str):
        if u.ndim > 1 and u.size > _FEW_MODES and all(axis.boundary == "periodic" for axis in axes):
            return _fourier_laplacian(u, axes, spacings)
    elif u.ndim > 2 or (u.ndim == 2 and (order > 2 or u.size > _FEW)):
        return _joint_second_differences(u, known, axes, spacings, order)
    total = jnp.zeros_like(u)
    for d, (axis, h, ends) in enumerate(zip(axes, spacings, known, strict=True)):
        total = total + second_difference(u, d, axis, h, order, ends)
    return total


# The transpose of a stencil by JAX is a sum of padded fields, slow on a CPU; it is the stencil again, in the weights of
# the axis.


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _own_difference(u: Array, dim: int, axis: Axis, h: float, order: int) -> Array:
    return _difference(u, dim, axis, h, order, (None, None))


@_own_difference.defjvp
def _(dim: int, axis: Axis, h: float, order: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    target = dual(axis)
    shape = tuple(target.num_points if d == dim else n for d, n in enumerate(primals[0].shape))
    adjoint = lambda v: -_scaled(_own_difference(_scaled(v, dim, target, -1), dim, target, h, order), dim, axis, 1)
    forward = lambda u: _own_difference(u, dim, axis, h, order)
    return forward(*primals), transposed_by(forward, adjoint, tangents[0], shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _own_second_difference(u: Array, dim: int, axis: Axis, h: float, order: int) -> Array:
    return _second_difference(u, dim, axis, h, order, (None, None))


@_own_second_difference.defjvp
def _(dim: int, axis: Axis, h: float, order: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    forward = lambda u: _own_second_difference(u, dim, axis, h, order)
    adjoint = lambda v: _scaled(forward(_scaled(v, dim, axis, -1)), dim, axis, 1)
    return forward(*primals), transposed_by(forward, adjoint, tangents[0], primals[0].shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _joint_second_differences(
    u: Array, known: Any, axes: tuple[Axis, ...], spacings: tuple[float, ...], order: int
) -> Array:
    m, shape = taps(order), u.shape
    # One array for all axes, its margins written in place: an array for each would have to be copied, and read again.
    wide = lax.pad(u, jnp.zeros((), u.dtype), [(m, m, 0)] * u.ndim)
    for d, (axis, ends) in enumerate(zip(axes, known, strict=True)):
        for start, ghosts in zip((0, m + shape[d]), _ghosts(u, d, axis, m, ends), strict=True):
            wide = lax.dynamic_update_slice(wide, ghosts, [start if a == d else m for a in range(u.ndim)])
    total = jnp.zeros_like(u)
    for d, h in enumerate(spacings):

        def cut(shift: int, d: int = d) -> Array:
            starts = [m + shift if a == d else m for a in range(u.ndim)]
            return lax.slice(wide, starts, [start + n for start, n in zip(starts, shape, strict=True)])

        # A sum of differences, as for one axis.
        terms = [(c / h**2) * ((cut(k) - u) + (cut(-k) - u)) for k, c in enumerate(CENTRAL[order], 1)]
        total = total + sum(terms[1:], terms[0])
    return total


@_joint_second_differences.defjvp
def _(
    axes: tuple[Axis, ...], spacings: tuple[float, ...], order: int, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (u, known), (du, dknown) = primals, tangents
    # Where values are prescribed, the field's own share sees zeros.
    words = [
        tuple("zero" if given is not None else word for given, word in zip(ends, axis.ends, strict=True))
        for axis, ends in zip(axes, known, strict=True)
    ]
    free = tuple(
        Axis(axis.num_points, low if low == high else (low, high), axis.centering)
        for axis, (low, high) in zip(axes, words, strict=True)
    )
    forward = lambda v: _joint_second_differences(v, ((None, None),) * v.ndim, free, spacings, order)

    def scaled(v: Array, power: int) -> Array:
        for d, axis in enumerate(free):
            v = _scaled(v, d, axis, power)
        return v

    moved = transposed_by(forward, lambda v: scaled(forward(scaled(v, -1)), 1), du, u.shape)
    for d, ends in enumerate(dknown):
        for end, given in enumerate(ends):
            if given is not None:
                moved = moved + _share_of_known(given, d, end, u.shape[d], spacings[d], order)
    return _joint_second_differences(u, known, axes, spacings, order), moved


def _share_of_known(given: Array, dim: int, end: int, n: int, h: float, order: int) -> Array:
    """What values prescribed beyond one end add to the second difference, which is in the points next to them."""
    m = taps(order)
    shape = [m if d == dim else size for d, size in enumerate(given.shape)]
    nothing, known = jnp.zeros(shape, given.dtype), (given, None) if end == 0 else (None, given)
    near = _second_difference(nothing, dim, Axis(m, "zero", "cell"), h, order, known)
    rest = (0, n - m, 0) if end == 0 else (n - m, 0, 0)
    return lax.pad(near, jnp.zeros((), near.dtype), [rest if d == dim else (0, 0, 0) for d in range(near.ndim)])


def _scaled(u: Array, dim: int, axis: Axis, power: int) -> Array:
    weights = transforms.relative_weights(axis)
    return u if np.all(weights == 1) else u * _along(weights**power, dim, u)


def _difference(u: Array, dim: int, axis: Axis, h: float, order: int, known: Any) -> Array:
    return staggered(extended(u, dim, axis, *_reach(axis, order), known), dim, order, h)


def _reach(axis: Axis, order: int) -> tuple[int, int]:
    """Points beyond the ends that a staggered stencil needs for all of the dual axis."""
    m = taps(order)
    low = m if _starts_below(axis) else m - 1
    return low, dual(axis).num_points + 2 * m - 1 - axis.num_points - low


def _second_difference(u: Array, dim: int, axis: Axis, h: float, order: int, known: Any) -> Array:
    m, n = taps(order), u.shape[dim]
    weights = [c / h**2 for c in CENTRAL[order]]
    wide = extended(u, dim, axis, m, m, known)
    cut = lambda start: lax.slice_in_dim(wide, start, start + n, axis=dim)
    # A sum of differences: weights that sum to a rounding error and not to zero would let a constant grow in time.
    terms = [c * ((cut(m + k) - u) + (cut(m - k) - u)) for k, c in enumerate(weights, 1)]
    return sum(terms[1:], terms[0])


def _ghosts(u: Array, dim: int, axis: Axis, m: int, known: Any) -> list[Array]:
    """The `m` points in front of and behind an axis, prescribed or as the boundary says."""
    own = beyond(u, dim, end_rules(axis.boundary, axis.centering), (m, m))
    given = [None if x is None else x.shape[dim] for x in known]
    before = own[0] if given[0] is None else [lax.slice_in_dim(known[0], given[0] - m, given[0], axis=dim)]
    behind = own[1] if given[1] is None else [lax.slice_in_dim(known[1], 0, m, axis=dim)]
    return [lax.concatenate(pieces, dim) for pieces in (before, behind)]


def _fourier_laplacian(u: Array, axes: tuple[Axis, ...], spacings: tuple[float, ...]) -> Array:
    """By one real transform over all axes."""
    total = np.zeros(())
    for d, (axis, h) in enumerate(zip(axes, spacings, strict=True)):
        n = axis.num_points
        turns = np.arange(n // 2 + 1) if d == len(axes) - 1 else np.fft.fftfreq(n, 1 / n)
        total = np.add.outer(total, (2 * np.pi * turns / _extent(axis, h)) ** 2)
    return jnp.fft.irfftn(jnp.asarray(-total, u.dtype) * jnp.fft.rfftn(u), s=u.shape)


def _extent(axis: Axis, h: float) -> float:
    return h * transforms.positions(axis)[1] / 2


def _along(values: np.ndarray, dim: int, u: Array) -> Array:
    return jnp.asarray(values.reshape([-1 if d == dim else 1 for d in range(u.ndim)]), u.dtype)


def _modal_derivative(u: Array, dim: int, axis: Axis, h: float) -> Array:
    """Sines become cosines and cosines sines; the mode of the highest wavenumber has its place on both axes."""
    n, target = axis.num_points, dual(axis)
    w = np.pi * transforms.wavenumbers(axis.boundary, n) / _extent(axis, h)
    modes = transforms.to_modes(u, dim, axis)
    low, high = axis.ends
    if low == "periodic":
        # (1, cos, sin, cos, sin, ...): a cosine's slope is minus the sine, a sine's the cosine.
        partner, pairs = np.arange(n), (n - 1) // 2
        partner[1 : 2 * pairs + 1] = np.arange(1, 2 * pairs + 1).reshape(-1, 2)[:, ::-1].ravel()
        sign = np.where(np.arange(n) % 2 == 1, 1.0, -1.0)
        if n % 2 == 0 and n > 1:  # alone at the end: a cosine on nodes, a sine on cells
            sign[n - 1] = -1.0 if axis.centering == "node" else 1.0
        derivative = jnp.take(modes, partner, axis=dim) * _along(sign * w[partner], dim, u)
        return transforms.from_modes(derivative, dim, target)
    if low == high == "dirichlet":
        slopes = modes * _along(w, dim, u)
        none = jnp.zeros_like(lax.slice_in_dim(slopes, 0, 1, axis=dim))
        return transforms.from_modes(lax.concatenate([none, slopes], dim), dim, target)
    if low == high:
        slopes = lax.slice_in_dim(modes * _along(-w, dim, u), 1, n, axis=dim)
        return transforms.from_modes(slopes, dim, target)
    return transforms.from_modes(modes * _along(w if low == "dirichlet" else -w, dim, u), dim, target)
