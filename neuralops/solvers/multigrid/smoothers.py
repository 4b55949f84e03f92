"""Smoothers of a multigrid: cheap iterations that damp what a coarser grid cannot see."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from neuralops.solvers.multigrid.coarsening import Line
from neuralops.solvers.multigrid.sublattice import Parity, Parts, below_and_above, high, low, split_faces

__all__ = ["Stencil", "chebyshev", "jacobi", "red_black"]

CHEBYSHEV_RATIO = 4.0  # of the ends of the interval that Chebyshev smoothing damps


class Stencil(eqx.Module):
    """The operator of one level on split fields, from the conductances of its faces.

    Fields are divided by the diagonal wherever they are made, on purpose: XLA on CPU drops optimisation barriers and
    recomputes cheap producers in each of their consumers, so that sweeps and levels would be nested into one another; a
    division it never computes twice. The diagonal itself is summed up on the way, which is cheaper than reading it.
    """

    lines: tuple[Line, ...] = eqx.field(static=True)
    faces: tuple[Parts, ...]

    def __init__(self, lines: tuple[Line, ...], faces: Sequence[Array]):
        self.lines = lines
        self.faces = tuple(split_faces(c, axis) for axis, c in enumerate(faces))

    @property
    def dtype(self) -> Any:
        return next(iter(self.faces[0].values())).dtype

    def divided(self, v: Array, p: Parity, axes: Iterable[int] | None = None) -> Array:
        """`v` over the diagonal (over its share from some axes) at the points of part `p`; zero where that vanishes."""
        total = self.total(p, range(len(self.lines)) if axes is None else axes)
        return v / jnp.where(total > 0, total, jnp.inf)

    def scaled(self, b: Parts) -> Parts:
        """A right-hand side over the diagonal, as the smoothers want it."""
        return {p: self.divided(v, p) for p, v in b.items()}

    def inflow(self, x: Parts, p: Parity, axes: Iterable[int] | None = None, wrap_odd: bool = True) -> Array:
        """Sum over faces of c u_neighbour at the points of part `p`, across all axes or some."""
        terms = []
        for a in range(len(self.lines)) if axes is None else axes:
            line = self.lines[a]
            below, above = below_and_above(self.faces[a], p, a, line)
            terms.append(below * low(x, p, a, line, wrap_odd) + above * high(x, p, a, line, wrap_odd))
        return functools.reduce(jnp.add, terms)

    def update(self, x: Parts, scaled: Parts, p: Parity) -> Array:
        """What the equations at the points of part `p` make of the neighbours: one Jacobi step."""
        total = self.total(p, range(len(self.lines)))
        return (total * scaled[p] + self.inflow(x, p)) / jnp.where(total > 0, total, jnp.inf)

    def lagged(self, x: Parts | None, scaled: Parts, p: Parity, lag: Array | None) -> Array:
        """The same with `lag` times the change added to the equations: relaxation by total / (total + lag).

        One division at the end, as everywhere, so that it is not computed twice.
        """
        total = self.total(p, range(len(self.lines)))
        right = total * scaled[p] if x is None else total * scaled[p] + self.inflow(x, p)
        if lag is None:
            return right / jnp.where(total > 0, total, jnp.inf)
        return (right if x is None else right + lag * x[p]) / jnp.where(total > 0, total + lag, jnp.inf)

    def residual(self, x: Parts, scaled: Parts, p: Parity) -> Array:
        """b - A x at the points of part `p`."""
        return self.total(p, range(len(self.lines))) * (scaled[p] - x[p]) + self.inflow(x, p)

    def total(self, p: Parity, axes: Iterable[int]) -> Array:
        """The diagonal, or its share from some axes."""
        pairs = [below_and_above(self.faces[a], p, a, self.lines[a]) for a in axes]
        return functools.reduce(jnp.add, [below + above for below, above in pairs])


def colour_of(p: Parity) -> int:
    return sum(p) % 2


def red_black(
    stencil: Stencil,
    x: Parts | None,
    b: Parts,
    colours: tuple[int, ...],
    lags: Sequence[Parts | None] = (),
) -> Parts:
    """Half sweeps of Gauss-Seidel in the given order of colours; `b` is scaled, `x=None` means zero.

    `lags`, per half sweep, are added to the diagonal at every point, to its under- or (negative) overrelaxation.
    """
    for colour, lag in itertools.zip_longest(colours, lags):
        if x is None:
            first = lambda v, p, lag=lag: v if lag is None else stencil.lagged(None, b, p, lag[p])
            x = {p: first(v, p) if colour_of(p) == colour else jnp.zeros_like(v) for p, v in b.items()}
        elif lags:
            x = {
                p: stencil.lagged(x, b, p, lag[p] if lag else None) if colour_of(p) == colour else v
                for p, v in x.items()
            }
        else:
            x = {p: stencil.update(x, b, p) if colour_of(p) == colour else v for p, v in x.items()}
    return _zeros(b) if x is None else x


def jacobi(stencil: Stencil, x: Parts | None, b: Parts, sweeps: int) -> Parts:
    """Damped Jacobi with the weight 2d/(2d + 1), the best for the Laplacian in d dimensions."""
    ndim = len(stencil.lines)
    weight = 2 * ndim / (2 * ndim + 1)
    for _ in range(sweeps):
        if x is None:
            x = {p: weight * v for p, v in b.items()}
        else:
            x = {p: (1 - weight) * v + weight * stencil.update(x, b, p) for p, v in x.items()}
    return _zeros(b) if x is None else x


def chebyshev(stencil: Stencil, x: Parts | None, b: Parts, degree: int) -> Parts:
    """A Chebyshev polynomial of the Jacobi iteration that is small on the upper part of the spectrum of D^-1 A.

    By Gershgorin's circles that spectrum ends at 2; what a coarser grid cannot see lies above a quarter or so of
    that (Adams, Brezina, Hu and Tuminaro 2003). Three-term form of Saad, Iterative Methods, algorithm 12.1.
    """
    top, bottom = 2.0, 2.0 / CHEBYSHEV_RATIO
    middle, half = (top + bottom) / 2, (top - bottom) / 2
    sigma = middle / half
    rho, step = 1 / sigma, None
    for _ in range(degree):
        residual = b if x is None else {p: stencil.update(x, b, p) - v for p, v in x.items()}
        if step is None:
            step = {p: v / middle for p, v in residual.items()}
        else:
            new_rho = 1 / (2 * sigma - rho)
            step = {p: new_rho * rho * step[p] + 2 * new_rho / half * v for p, v in residual.items()}
            rho = new_rho
        x = step if x is None else {p: v + step[p] for p, v in x.items()}
    return _zeros(b) if x is None else x


def _zeros(b: Parts) -> Parts:
    return {p: jnp.zeros_like(v) for p, v in b.items()}
