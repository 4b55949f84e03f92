"""The linear systems of the comparison, in NumPy and SciPy alone: faces, right-hand sides, matrices, true residuals.

Every system is -div(a grad u) = f on the unit box by finite volumes, divided by the cell volume: row i is the sum over
the faces of c (u_i - u_neighbour), with c the coefficient on the face over h^2 (harmonic mean of two cells, the cell's
own over half the distance at a Dirichlet wall). Right-hand sides are white noise. A name says kind, dimension and
points per side: `node2d-511`, `cell3d-64`, `lognormal-512`, ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.sparse as sp

__all__ = ["KINDS", "Problem", "problem"]

BALLS = 12


class Problem:
    """One system. `a` and `mask` are on the grid (`None`: one, everywhere); `b` may be incompatible."""

    def __init__(self, name: str, points: tuple[int, ...], *, centering: str = "cell", boundary: str = "dirichlet",
                 a: np.ndarray | None = None, mask: np.ndarray | None = None, compatible: bool = True):  # fmt: skip
        self.name, self.points, self.centering, self.boundary = name, points, centering, boundary
        self.a, self.mask = a, mask
        self.spacing = 1 / points[0] if centering == "cell" else 1 / (points[0] + 1)
        self.singular = boundary == "neumann"
        self.faces = [_faces(self, axis) for axis in range(len(points))]
        b = np.random.default_rng(0).standard_normal(points)
        if mask is not None:
            b[~mask] = 0
        self.b = b
        if self.singular:  # compatible in each component, or in the sum only
            self.b = self.project(b) if compatible else np.where(mask, b - b.sum() / mask.sum(), 0)
        self.range = self.project(self.b)  # what any solver can hope to match

    @property
    def ndim(self) -> int:
        return len(self.points)

    def apply(self, u: np.ndarray) -> np.ndarray:
        out = np.zeros_like(u)
        for axis, c in enumerate(self.faces):
            ends = [(0, 0)] * self.ndim
            ends[axis] = (1, 1)
            out -= np.diff(c * np.diff(np.pad(u, ends), axis=axis), axis=axis)
        return out

    @property
    def incompatible(self) -> bool:
        return float(np.linalg.norm(self.b - self.range)) > 1e-12 * float(np.linalg.norm(self.b))

    def project(self, b: np.ndarray) -> np.ndarray:
        """b without its mean on each component, where the system is singular."""
        if not self.singular:
            return b
        label, count = self._components
        sums = np.bincount(label.ravel(), b.ravel(), count + 1)
        sizes = np.maximum(np.bincount(label.ravel(), minlength=count + 1), 1)
        return np.where(label > 0, b - (sums / sizes)[label], 0)

    @functools.cached_property
    def _components(self) -> tuple[np.ndarray, int]:
        return scipy.ndimage.label(np.ones(self.points, bool) if self.mask is None else self.mask)

    def residual(self, x: Any) -> float:
        """The true relative residual, against the part of b that lies in the range."""
        x = self.scatter(np.asarray(x, np.float64).ravel())
        return float(np.linalg.norm(self.range - self.apply(x)) / np.linalg.norm(self.range))

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """The flat numbers of the unknowns."""
        return np.arange(self.b.size) if self.mask is None else np.flatnonzero(self.mask)

    def matrix(self) -> sp.csr_matrix:
        """The same operator as a sparse matrix over the unknowns, with 32-bit indices."""
        number, diagonal = np.arange(self.b.size, dtype=np.int32).reshape(self.points), np.zeros(self.points)
        rows, columns, values = [], [], []
        for axis, c in enumerate(self.faces):
            n = self.points[axis]
            low, high, inner = (_cut(v, axis, i, j) for v, i, j in ((number, 0, n - 1), (number, 1, n), (c, 1, n)))
            diagonal += _cut(c, axis, 0, n) + _cut(c, axis, 1, n + 1)
            open_ = inner.ravel() != 0
            low, high, inner = low.ravel()[open_], high.ravel()[open_], inner.ravel()[open_]
            rows, columns, values = [*rows, low, high], [*columns, high, low], [*values, -inner, -inner]
        rows, columns, values = [*rows, number.ravel()], [*columns, number.ravel()], [*values, diagonal.ravel()]
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        full = sp.csr_matrix(entries, shape=(number.size, number.size))
        return full if self.mask is None else full[self.inside][:, self.inside].tocsr()

    def scatter(self, x: np.ndarray) -> np.ndarray:
        """Unknowns back onto the grid; a vector of all points is only reshaped."""
        if x.size == self.b.size:
            return x.reshape(self.points)
        u = np.zeros(self.b.size)
        u[self.inside] = x
        return u.reshape(self.points)


def _cut(v: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    return v[(slice(None),) * axis + (slice(start, stop),)]


def _faces(p: Problem, axis: int) -> np.ndarray:
    """Conductances across an axis, one more than points, from wall to wall."""
    n = p.points[axis]
    a = np.ones(p.points) if p.a is None else p.a
    wall = 0.0 if p.boundary == "neumann" else (2.0 if p.centering == "cell" else 1.0)
    low, high = _cut(a, axis, 0, n - 1), _cut(a, axis, 1, n)
    inner = 2 * low * high / (low + high)
    if p.mask is not None:
        inner = inner * (_cut(p.mask, axis, 0, n - 1) & _cut(p.mask, axis, 1, n))
    layers = [wall * _cut(a, axis, 0, 1), inner, wall * _cut(a, axis, n - 1, n)]
    return np.concatenate(layers, axis) / p.spacing**2


def _node(ndim: int) -> Callable[[str, int], Problem]:
    return lambda name, n: Problem(name, (n,) * ndim, centering="node")


def _cell(ndim: int) -> Callable[[str, int], Problem]:
    return lambda name, n: Problem(name, (n,) * ndim)


def _with_contrast(log_a: np.ndarray, contrast: float) -> np.ndarray:
    """exp of a Gaussian field whose largest value is `contrast` times the smallest, whatever the draw."""
    return np.exp(log_a * (np.log(contrast) / np.ptp(log_a)))


def _lognormal(name: str, n: int) -> Problem:
    """A white field filtered by a Gaussian of width 0.05 (standard deviation near 1), the same on every grid."""
    modes = min(n, 64)
    damping = np.exp(-((0.05 * np.pi * np.arange(64)) ** 2) / 2)
    spectrum = np.zeros((n, n))
    spectrum[:modes, :modes] = (np.random.default_rng(1).standard_normal((64, 64)) * np.outer(damping, damping))[
        :modes, :modes
    ]
    return Problem(name, (n, n), a=_with_contrast(scipy.fft.idctn(spectrum, norm="ortho"), 227.0))


def _white(name: str, n: int) -> Problem:
    return Problem(name, (n, n), a=_with_contrast(np.random.default_rng(1).standard_normal((n, n)), 5465.0))


def _squares(count: int | None) -> Callable[[str, int], Problem]:
    """A checkerboard of coefficients 1 and 1000; of single cells if `count` is None."""

    def make(name: str, n: int) -> Problem:
        i = np.arange(n) if count is None else np.arange(n) * count // n
        return Problem(name, (n, n), a=np.where((i[:, None] + i[None, :]) % 2, 1000.0, 1.0))

    return make


def _coin(name: str, n: int) -> Problem:
    """Each cell 1 or 1000 by a coin."""
    return Problem(name, (n, n), a=np.where(np.random.default_rng(2).random((n, n)) < 0.5, 1000.0, 1.0))


def _balls(ndim: int, compatible: bool) -> Callable[[str, int], Problem]:
    """Neumann walls, 12 insulated balls, and inside two of them an island of one and an island of two cells."""

    def make(name: str, n: int) -> Problem:
        rng = np.random.default_rng(3)
        centres, radii = rng.uniform(0.1, 0.9, (BALLS, ndim)), rng.uniform(0.04, 0.11, BALLS)
        x = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * ndim, indexing="ij"), -1)
        mask = np.ones((n,) * ndim, bool)
        for centre, radius in zip(centres, radii, strict=True):
            mask &= np.sum((x - centre) ** 2, -1) > radius**2
        first, second = (tuple(int(c * n) for c in centres[i]) for i in np.argsort(radii)[-2:])
        mask[first] = True
        mask[second] = mask[(second[0] + 1, *second[1:])] = True
        return Problem(name, (n,) * ndim, boundary="neumann", mask=mask, compatible=compatible)

    return make


KINDS: dict[str, Callable[[str, int], Problem]] = {
    "node2d": _node(2),
    "node3d": _node(3),
    "cell2d": _cell(2),
    "cell3d": _cell(3),
    "lognormal": _lognormal,  # contrast 227
    "white": _white,  # log-normal, independent in each cell, contrast 5465
    "squares": _squares(8),
    "cells": _squares(None),  # its harmonic faces are all alike, but at the walls
    "coin": _coin,
    "balls2d": _balls(2, True),
    "balls3d": _balls(3, True),
    "balls2dglobal": _balls(2, False),
    "balls3dglobal": _balls(3, False),
}


def problem(name: str) -> Problem:
    kind, _, n = name.rpartition("-")
    if kind not in KINDS or not n.isdigit():
        raise ValueError(f"problem: expected a kind of {sorted(KINDS)}, '-' and points per side, got {name!r}.")
    return KINDS[kind](name, int(n))
