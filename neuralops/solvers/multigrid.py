"""Geometric multigrid for `Diffusion`: any size, boundary and mask, built inside `jit`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.grid import Grid
from neuralops.operator import AbstractOperator, Envelope
from neuralops.solvers.coarsening import Line, coarse_faces, coarsened
from neuralops.solvers.diffusion import Diffusion
from neuralops.solvers.smoothers import Stencil, chebyshev, colour_of, jacobi, red_black
from neuralops.solvers.stencil import cut, outflow
from neuralops.solvers.sublattice import Parts, merge, parities, split
from neuralops.solvers.transfer import Transfer
from neuralops.solvers.volumes import line_volumes

__all__ = ["Multigrid"]

SMOOTHERS = ("red_black", "jacobi", "chebyshev")
CYCLES = ("V", "W", "F")
COARSENINGS = ("cells", "nodes")
# An axis is coarsened when its coupling is at least this fraction of the strongest.
STRONG = 1 / 3


class Multigrid(AbstractOperator):
    """One multigrid cycle as an approximate inverse."""

    A: Diffusion
    levels: tuple[Stencil, ...]
    transfers: tuple[Transfer, ...]
    coarsest: Float[Array, "points points"]
    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    smoother: str = eqx.field(static=True)
    cycle: str = eqx.field(static=True)
    coarsening: str | None = eqx.field(static=True)
    anisotropy: tuple[float, ...] | None = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    dtype: str | None = eqx.field(static=True)

    def __init__(
        self,
        A: Diffusion,
        *,
        pre: int = 1,
        post: int = 1,
        smoother: Literal["red_black", "jacobi", "chebyshev"] = "red_black",
        cycle: Literal["V", "W", "F"] = "V",
        coarsening: Literal["cells", "nodes"] | None = None,
        anisotropy: Sequence[float] | None = None,
        symmetric: bool = True,
        dtype: str | None = None,
        coarsest_points: int = 64,
    ):
        self.A, self.pre, self.post, self.smoother, self.cycle = A, pre, post, smoother, cycle
        self.coarsening, self.symmetric, self.dtype = coarsening, symmetric, dtype
        self.anisotropy = None if anisotropy is None else tuple(anisotropy)
        kind = coarsening or ("cells" if "cell" in A.grid.centering else "nodes")
        faces = tuple(c if dtype is None else c.astype(dtype) for c in _all_faces(A))
        lines = _lines(A, kind)
        levels, transfers = [], []
        while math.prod(line.num_points for line in lines) > coarsest_points:
            axes = _strong_axes(lines, self.anisotropy)
            if not axes:
                break
            stencil = Stencil(lines, faces)
            new = tuple(coarsened(line) if a in axes else line for a, line in enumerate(lines))
            levels.append(stencil)
            transfers.append(Transfer(stencil, axes))
            faces = tuple(coarse_faces(c, lines, new, axis) for axis, c in enumerate(faces))
            lines = new
        self.levels, self.transfers = tuple(levels), tuple(transfers)
        self.coarsest = _inverse(lines, faces)

    @property
    def envelope(self) -> Envelope:
        return self.A.envelope

    def __call__(self, r, /, *, key=None):
        b = r if self.dtype is None else r.astype(self.dtype)
        return self._cycle(0, b).astype(r.dtype)

    def _cycle(self, depth: int, b: Array) -> Array:
        if depth == len(self.levels):
            return (self.coarsest @ b.reshape(-1)).reshape(b.shape)
        stencil, transfer = self.levels[depth], self.transfers[depth]
        axes = range(b.ndim)
        parts = split(b, axes)
        x = self._smooth(stencil, None, parts, self.pre, False)
        done = (
            self.smoother == "red_black"
            and self.pre > 0
            and not any(l.periodic and l.local_points % 2 for l in stencil.lines)
        )
        r = {p: stencil.residual(x, parts, p) for p in parts if not (done and colour_of(p) == 1)}
        e = transfer.prolong(self._cycle(depth + 1, transfer.restrict(r)))
        x = {p: x[p] + e[p] for p in x}
        x = self._smooth(stencil, x, parts, self.post, True)
        return merge(x, axes)

    def _smooth(self, stencil, x, b, sweeps, after):
        if self.smoother == "red_black":
            order = (1, 0) if after and self.symmetric else (0, 1)
            x = red_black(stencil, x, b, order * sweeps)
            return x if x is not None else {p: jnp.zeros_like(v) for p, v in b.items()}
        return {"jacobi": jacobi, "chebyshev": chebyshev}[self.smoother](stencil, x, b, sweeps)


def _all_faces(A: Diffusion) -> list[Array]:
    """Conductances of all faces, on periodic axes with the first face again at the end."""
    faces = A._conductances(jnp.result_type(float))
    wraps = [boundary == "periodic" for boundary in A.grid.boundary]
    return [
        lax.concatenate([c, cut(c, 0, 1, a)], a) if wrap else c
        for a, (c, wrap) in enumerate(zip(faces, wraps, strict=True))
    ]


def _lines(A: Diffusion, kind: str) -> tuple[Line, ...]:
    lines = []
    for a, (axis, h) in enumerate(zip(A.grid.axes, A.grid.spacing, strict=True)):
        widths = line_volumes(A.grid, A.widths, a) * h
        lengths = widths
        if kind == "nodes":
            wall = {"dirichlet": 0.5 if axis.centering == "cell" else 1.0, "neumann": 0.0}
            inner = (widths[:-1] + widths[1:]) / 2 if axis.centering == "cell" else np.full(len(widths) - 1, h)
            if axis.boundary == "periodic":
                ends = [(widths[0] + widths[-1]) / 2] * 2
            else:
                ends = [wall[axis.ends[0]] * widths[0], wall[axis.ends[1]] * widths[-1]]
            lengths = np.concatenate([ends[:1], inner, ends[1:]])
        lines.append(Line(kind, axis.ends, tuple(float(v) for v in lengths)))
    return tuple(lines)


def _strong_axes(lines, anisotropy):
    strengths = {}
    for a, line in enumerate(lines):
        if coarsened(line) is None:
            continue
        mean = sum(line.lengths) / len(line.lengths)
        strengths[a] = (1.0 if anisotropy is None else anisotropy[a]) / mean**2
    if not strengths:
        return []
    top = max(strengths.values())
    return [a for a, s in strengths.items() if s >= STRONG * top]


def _inverse(lines, faces):
    shape = tuple(line.num_points for line in lines)
    n = math.prod(shape)
    basis = jnp.eye(n, dtype=faces[0].dtype).reshape(n, *shape)
    matrix = outflow(basis, faces, [l.periodic for l in lines]).reshape(n, n)
    return jnp.linalg.pinv(matrix, hermitian=True, rtol=1e-5 if matrix.dtype == jnp.float32 else 1e-11)
