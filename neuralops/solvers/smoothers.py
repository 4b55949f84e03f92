"""Smoothers of a multigrid: cheap iterations that damp what a coarser grid cannot see."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from neuralops.solvers.coarsening import Line
from neuralops.solvers.sublattice import Parity, Parts, high, low, parities, split, split_faces

__all__ = ["Stencil", "chebyshev", "jacobi", "red_black"]

RED, BLACK = 0, 1


class Stencil(eqx.Module):
    """The operator of one level on split fields: conductances below and above each point, and the inverse diagonal.

    The inverse diagonal is zero where no face reaches, so a smoother leaves such points alone.
    """

    lines: tuple[Line, ...] = eqx.field(static=True)
    below: tuple[Parts, ...]
    above: tuple[Parts, ...]
    inverse_diagonal: Parts

    def __init__(self, lines: tuple[Line, ...], faces: tuple[Array, ...]):
        self.lines = lines
        pairs = [split_faces(c, axis) for axis, c in enumerate(faces)]
        self.below, self.above = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        self.inverse_diagonal = {}
        points = {0: [(x.local_points + 1) // 2 for x in lines], 1: [x.local_points // 2 for x in lines]}
        for p in parities(len(lines)):
            shape = tuple(points[bit][a] for a, bit in enumerate(p))
            total = functools.reduce(jnp.add, [b[p] + c[p] for b, c in zip(self.below, self.above, strict=True)])
            diagonal = jnp.broadcast_to(total, shape)
            self.inverse_diagonal[p] = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)

    def inflow(self, x: Parts, p: Parity) -> Array:
        """Sum over faces of c u_neighbour at the points of part `p`."""
        terms = []
        for a, line in enumerate(self.lines):
            terms.append(self.below[a][p] * low(x, p, a, line) + self.above[a][p] * high(x, p, a, line))
        return functools.reduce(jnp.add, terms)

    def residual(self, x: Parts, b: Parts, p: Parity) -> Array:
        """b - A x at the points of part `p`."""
        terms = []
        for a, line in enumerate(self.lines):
            lower, higher = low(x, p, a, line) - x[p], high(x, p, a, line) - x[p]
            terms.append(self.below[a][p] * lower + self.above[a][p] * higher)
        return b[p] + functools.reduce(jnp.add, terms)


def colour_of(p: Parity) -> int:
    return sum(p) % 2


def red_black(stencil: Stencil, x: Parts | None, b: Parts, colours: tuple[int, ...]) -> Parts:
    """Half sweeps of Gauss-Seidel in the given order of colours; `x=None` means zero."""
    for colour in colours:
        new = {}
        for p, inverse in stencil.inverse_diagonal.items():
            if colour_of(p) != colour:
                new[p] = jnp.zeros_like(b[p]) if x is None else x[p]
            else:
                new[p] = inverse * (b[p] if x is None else b[p] + stencil.inflow(x, p))
        x = new
    return x


def jacobi(stencil: Stencil, x: Parts | None, b: Parts, sweeps: int) -> Parts:
    """Damped Jacobi with the weight 2d/(2d + 1), the best for the Laplacian in d dimensions."""
    ndim = len(stencil.lines)
    weight = 2 * ndim / (2 * ndim + 1)
    for _ in range(sweeps):
        if x is None:
            x = {p: weight * inverse * b[p] for p, inverse in stencil.inverse_diagonal.items()}
        else:
            x = {
                p: x[p] + weight * inverse * stencil.residual(x, b, p)
                for p, inverse in stencil.inverse_diagonal.items()
            }
    return {p: jnp.zeros_like(v) for p, v in b.items()} if x is None else x


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
        start = x is None
        scaled = {
            p: inverse * (b[p] if start else stencil.residual(x, b, p))
            for p, inverse in stencil.inverse_diagonal.items()
        }
        if step is None:
            step = {p: v / middle for p, v in scaled.items()}
        else:
            new_rho = 1 / (2 * sigma - rho)
            step = {p: new_rho * rho * step[p] + 2 * new_rho / half * v for p, v in scaled.items()}
            rho = new_rho
        x = step if start else {p: x[p] + v for p, v in step.items()}
    return {p: jnp.zeros_like(v) for p, v in b.items()} if x is None else x


CHEBYSHEV_RATIO = 4.0
