"""Geometric multigrid for `Diffusion`: any size, boundary and mask, built inside `jax.jit`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.operator import AbstractOperator, Envelope, as_operator
from neuralops.solvers.algebra.vectors import sized
from neuralops.solvers.elliptic.stencil import gather_faces, gather_field, outflow, own_block
from neuralops.solvers.elliptic.volumes import line_volumes
from neuralops.solvers.multigrid.coarsening import Line, coarse_faces, coarsened
from neuralops.solvers.multigrid.learned_levels import Corrections, channel_counts, corrected, features
from neuralops.solvers.multigrid.smoothers import Stencil, chebyshev, colour_of, jacobi, red_black
from neuralops.solvers.multigrid.sublattice import Parts, merge, split
from neuralops.solvers.multigrid.transfer import Transfer

__all__ = ["Multigrid"]

STRONG = 1 / 3  # an axis is coarsened when its coupling is at least this fraction of the strongest
COARSEST_POINTS = 64  # solved by a dense generalised inverse
LEARNED_LEVELS = 2  # the finest; corrections of those below took off a hundredth of the steps
GATHER_POINTS = 4096  # a grid divided over devices is gathered on each when a level has no more points


class Multigrid(AbstractOperator):
    """One multigrid cycle from zero: an approximate inverse of a `Diffusion`, matrix-free.

    ```python
    solve(A, b, CG(rtol=1e-8, preconditioner=Multigrid(A)))  # robust and fastest
    solve(A, b, Refinement(Multigrid(A), rtol=1e-8))  # multigrid by itself
    ```

    Any number of points in 1-D to 3-D, every boundary, variable coefficients, obstacles by a mask. Nothing is
    assembled: coarse operators are made from the conductances of the faces, in about the time of a cycle, so building
    it anew for a moved mask belongs inside the time step and the `jit` around it. It is a pytree of arrays.

    Two ways to coarsen. `"cells"` joins neighbouring cells; a coarse face conducts half of what the fine faces on it
    conduct together. Cheapest per cycle, and best for obstacles. `"nodes"` keeps every second point and interpolates
    with the conductances as weights (Alcouffe, Brandt, Dendy and Painter 1981): fewer cycles for variable
    coefficients, and the one that stands jumps wherever they lie. CG steps to 1e-8 with one V(1,1), cells against
    nodes, on 256^2 cells: the Laplacian 11 and 8, a log-normal coefficient of contrast 600 13 and 9, a checkerboard of
    contrast 1000 that no coarse grid fits 78 and 30, twelve round obstacles 12 and 15.

    The red-black sweeps after the coarse correction run in the opposite order to those before it, which makes V and W
    cycles symmetric, as `CG` needs. `symmetric=False` runs both in the same order: the better cycle by itself (a
    factor of 0.11 instead of 0.26 per V(1,1) in 2-D), for `Refinement` and `FlexibleCG`. An F cycle is never symmetric.

    **Arguments:**

    - `A`: the operator; its coefficient enters, gradients do not flow through a preconditioner.
    - `pre`, `post`: smoothing sweeps before and after the coarse correction; the degree for `"chebyshev"`.
    - `smoother`: `"red_black"` Gauss-Seidel, damped `"jacobi"`, or `"chebyshev"` polynomials of it.
    - `cycle`: `"V"`, `"W"` or `"F"`.
    - `coarsening`: `"cells"` or `"nodes"`; by default what the grid holds.
    - `anisotropy`: relative strength of the coefficient per axis, where it differs much: only axes of strong coupling
      are coarsened, until the others have caught up (mesh widths are accounted for without it).
    - `symmetric`: see above.
    - `dtype`: precision of the cycle; `"float32"` inside a float64 solve costs no accuracy and about half the time.
    - `learned`: a network that corrects coarse conductances, interpolation and relaxation of the two finest levels,
      from the conductances there (`learned_levels.py`): a map from fields to fields with the channels of
      `learned_channels`, commonly a `models.MultigridDirection`. It runs once, when the cycle is built; gradients flow
      through to its parameters. Zeros are the classical cycle. With `symmetric=True` (and then `pre` = `post`) the
      cycle is symmetric positive definite whatever the network returns. For V cycles with the red-black smoother.

    Grid-locked. Fields may have leading axes.

    **Raises:** `ValueError` on arguments that do not fit.
    """

    A: Any
    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    smoother: str = eqx.field(static=True)
    cycle: str = eqx.field(static=True)
    coarsening: str | None = eqx.field(static=True)
    anisotropy: tuple[float, ...] | None = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    dtype: str | None = eqx.field(static=True)
    learned: Any
    levels: tuple[Stencil, ...]
    corrections: tuple[Corrections | None, ...]  # per level; None is classical
    coarsest: Float[Array, "points points"]
    coarse_axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)  # per level, the axes that it coarsens
    gather_depth: int | None = eqx.field(static=True)  # the first level that every device holds whole

    derived = ("levels", "corrections", "coarsest", "coarse_axes", "gather_depth")

    def __init__(
        self,
        A: Any,
        *,
        pre: int = 1,
        post: int = 1,
        smoother: Literal["red_black", "jacobi", "chebyshev"] = "red_black",
        cycle: Literal["V", "W", "F"] = "V",
        coarsening: Literal["cells", "nodes"] | None = None,
        anisotropy: Sequence[float] | None = None,
        symmetric: bool = True,
        dtype: str | None = None,
        learned: Any = None,
    ):
        if not hasattr(A, "all_faces"):
            raise ValueError(
                f"A: expected a Diffusion, got {type(A).__name__}; Multigrid coarsens conductances of faces, so write "
                "the operator as Diffusion(grid, faces), or use Jacobi or Chebyshev for a matrix."
            )
        pre, post = count(pre, "pre", 0, hint="use 1 or 2."), count(post, "post", 0, hint="use 1 or 2.")
        if pre + post == 0:
            raise ValueError("pre, post: expected a sweep at least, got 0 and 0; use pre=1, post=1.")
        words = (
            ("smoother", smoother, ("red_black", "jacobi", "chebyshev")),
            ("cycle", cycle, ("V", "W", "F")),
            ("coarsening", coarsening, (None, "cells", "nodes")),
            ("dtype", dtype, (None, "float32", "float64")),
        )
        for name, word, allowed in words:
            if word not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {word!r}; use one of these.")
        self.A, self.pre, self.post, self.smoother, self.cycle = A, pre, post, smoother, cycle
        self.coarsening, self.symmetric, self.dtype = coarsening, flag(symmetric, "symmetric"), dtype
        self.anisotropy = _check_anisotropy(anisotropy, A.grid.ndim)
        if learned is not None and not callable(learned):
            raise ValueError(
                f"learned: expected a callable, such as a MultigridDirection, got {type(learned).__name__}; leave it "
                "out for the classical cycle."
            )
        self.learned = None if learned is None else as_operator(learned)

        faces = [lax.stop_gradient(c if dtype is None else c.astype(dtype)) for c in A.all_faces()]
        lines = _lines(A, coarsening or ("cells" if "cell" in A.grid.centering else "nodes"))
        if learned is not None:
            _check_learned(self, lines)
        levels: list[Stencil] = []
        corrections: list[Corrections | None] = []
        coarse_axes: list[tuple[int, ...]] = []
        self.gather_depth = None
        while True:
            points = math.prod(line.num_points for line in lines)
            axes = _strong_axes(lines, self.anisotropy)
            divided = any(line.mesh_axis for line in lines)
            if divided and (points <= GATHER_POINTS or not axes):
                self.gather_depth = len(levels)
                faces = gather_faces(faces, [line.mesh_axis for line in lines])
                lines = tuple(line._replace(mesh_axis=None, num_parts=1) for line in lines)
                continue
            if points <= COARSEST_POINTS or not axes:
                break
            levels.append(Stencil(lines, faces))
            coarse_axes.append(axes)
            coarse = tuple(coarsened(line) or line if a in axes else line for a, line in enumerate(lines))
            fine, faces = faces, [coarse_faces(c, lines, coarse, axis) for axis, c in enumerate(faces)]
            corrections.append(None)
            # Levels that coarsen some axes only stay classical, as coarser ones do.
            if learned is not None and len(levels) <= LEARNED_LEVELS and len(axes) == len(lines):
                sweeps = (self.pre, self.post)
                out = _answer(self.learned, lines, fine, self._channels(lines[0].coarsening))
                corrections[-1], faces = corrected(out, levels[-1], coarse, faces, sweeps, self.symmetric)
            lines = coarse
        self.levels, self.corrections, self.coarse_axes = tuple(levels), tuple(corrections), tuple(coarse_axes)
        self.coarsest = _generalised_inverse(lines, faces, learned is not None)

    @staticmethod
    def learned_channels(
        ndim: int = 2,
        *,
        pre: int = 1,
        post: int = 1,
        coarsening: Literal["cells", "nodes"] = "nodes",
        symmetric: bool = True,
    ) -> tuple[int, int]:
        """How many channels a network for `learned` takes and returns; they follow from these arguments alone."""
        symmetric = flag(symmetric, "symmetric")
        pre, post = count(pre, "pre", 0), count(post, "post", 0)
        return channel_counts(count(ndim, "ndim"), coarsening == "nodes", pre, post, symmetric)

    def _channels(self, coarsening: str) -> tuple[int, int]:
        return channel_counts(self.A.grid.ndim, coarsening == "nodes", self.pre, self.post, self.symmetric)

    @property
    def envelope(self) -> Envelope:
        return self.A.envelope

    def __call__(self, r: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        """One cycle for a right-hand side on the trailing axes; leading axes pass through."""
        self.A._check(r)
        r = jnp.asarray(r)
        b = r.reshape(-1, *r.shape[r.ndim - self.A.grid.ndim :]).astype(
            self.levels[0].dtype if self.levels else r.dtype
        )
        one = lambda b: self._solve(0, b, self.cycle)
        x = one(b[0])[None] if b.shape[0] == 1 else jax.vmap(one)(b)
        return x.astype(r.dtype).reshape(r.shape)

    def _solve(self, depth: int, b: Array, cycle: str) -> Array:
        """An approximate solution on one level."""
        if depth == self.gather_depth:
            names = self.A.placement
            return own_block(self._solve_here(depth, gather_field(b, names), cycle), names)
        return self._solve_here(depth, b, cycle)

    def _solve_here(self, depth: int, b: Array, cycle: str) -> Array:
        if depth == len(self.levels):
            flat = jnp.matmul(self.coarsest, b.reshape(-1).astype(self.coarsest.dtype), precision="highest")
            return flat.reshape(b.shape).astype(b.dtype)
        if depth == 0 or cycle == "V":
            return self._once(depth, b, cycle)
        if cycle == "F":
            return self._again(depth, self._once(depth, b, "F"), b, "V")
        # A loop, so that the program does not double with every level.
        return lax.fori_loop(0, 2, lambda _, x: self._again(depth, x, b, "W"), jnp.zeros_like(b))

    def _again(self, depth: int, x: Array, b: Array, cycle: str) -> Array:
        stencil, axes = self.levels[depth], range(b.ndim)
        parts, scaled = split(x, axes), stencil.scaled(split(b, axes))
        residual = merge({p: stencil.residual(parts, scaled, p) for p in parts}, axes)
        return x + self._once(depth, residual, cycle)

    def _once(self, depth: int, b: Array, cycle: str) -> Array:
        stencil, axes, learned = self.levels[depth], range(b.ndim), self.corrections[depth]
        transfer = Transfer(learned.transfer if learned else stencil, self.coarse_axes[depth])
        scaled = stencil.scaled(split(b, axes))
        x = self._smooth(stencil, None, scaled, self.pre, False, learned.before if learned else ())
        # Black points have just been solved for: nothing is left there, unless two of them are neighbours.
        paired = any(line.periodic and line.local_points % 2 for line in stencil.lines)
        settled = self.smoother == "red_black" and self.pre > 0 and not paired
        r = {p: stencil.residual(x, scaled, p) for p in x if not (settled and colour_of(p) == 1)}
        correction = transfer.prolong(self._solve(depth + 1, transfer.restrict(r), cycle))
        x = {p: v + correction[p] for p, v in x.items()}
        x = self._smooth(stencil, x, scaled, self.post, self.symmetric, learned.after if learned else ())
        return merge(x, axes)

    def _smooth(
        self,
        stencil: Stencil,
        x: Parts | None,
        scaled: Parts,
        sweeps: int,
        reverse: bool,
        lags: tuple[Parts | None, ...],
    ) -> Parts:
        if self.smoother == "red_black":
            return red_black(stencil, x, scaled, ((1, 0) if reverse else (0, 1)) * sweeps, lags)
        return (jacobi if self.smoother == "jacobi" else chebyshev)(stencil, x, scaled, sweeps)


def _check_anisotropy(anisotropy: Sequence[float] | None, ndim: int) -> tuple[float, ...] | None:
    if anisotropy is None:
        return None
    if not isinstance(anisotropy, Sequence) or len(anisotropy) != ndim or not all(float(v) > 0 for v in anisotropy):
        raise ValueError(
            f"anisotropy: expected one positive number per axis ({ndim}), got {anisotropy!r}; give the relative "
            "strength of the coefficient along each."
        )
    return tuple(float(v) for v in anisotropy)


def _check_learned(M: Multigrid, lines: Sequence[Line]) -> None:
    for name, came, wanted in (("smoother", M.smoother, "red_black"), ("cycle", M.cycle, "V")):
        if came != wanted:
            raise ValueError(f"{name}: expected {wanted!r} with learned, got {came!r}; leave it out.")
    if M.symmetric and M.pre != M.post:
        raise ValueError(
            f"post: expected {M.pre}, as many sweeps as before the correction, got {M.post}; a learned cycle is "
            "symmetric only so: use post=pre, or symmetric=False with FlexibleCG."
        )
    if any(line.mesh_axis for line in lines):
        raise ValueError(
            "learned: expected a grid held by one device, got one divided over a mesh axis; build it without learned."
        )


def _answer(learned: Any, lines: Sequence[Line], faces: Sequence[Array], counts: tuple[int, int]) -> Array:
    """What the network returns for a level, computed in the precision of its parameters."""
    u = features(lines, faces)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(learned)]
    out = learned(u.astype(jnp.result_type(*dtypes)) if dtypes else u)
    wanted = (counts[1], *u.shape[1:])
    if out.shape != wanted:
        raise ValueError(
            f"learned: expected a map from {u.shape} to {wanted}, got {out.shape}; make the network with the channels "
            f"{counts} of Multigrid.learned_channels(...)."
        )
    return out.astype(faces[0].dtype)


def _lines(A: Any, kind: str) -> tuple[Line, ...]:
    lines = []
    for a, (axis, h, place) in enumerate(zip(A.grid.axes, A.grid.spacing, A.placement, strict=True)):
        widths = line_volumes(A.grid, A.widths, a) * h
        lengths = widths
        if kind == "nodes":
            cells = axis.centering == "cell"
            between = (widths[:-1] + widths[1:]) / 2 if cells else np.full(len(widths) - 1, h)
            if axis.boundary == "periodic":
                outer = [(widths[0] + widths[-1]) / 2] * 2
            else:
                wall = {"dirichlet": 0.5 if cells else 1.0, "neumann": 0.0}
                outer = [wall[end] * w for end, w in zip(axis.ends, (widths[0], widths[-1]), strict=True)]
            lengths = np.concatenate([outer[:1], between, outer[1:]])
        name, parts = place if place else (None, 1)
        lines.append(Line(kind, axis.ends, tuple(float(v) for v in lengths), name, parts))
    return tuple(lines)


def _strong_axes(lines: Sequence[Line], anisotropy: tuple[float, ...] | None) -> tuple[int, ...]:
    """The axes to coarsen: those of strong coupling among the ones that can be."""
    strength = {}
    for a, line in enumerate(lines):
        if coarsened(line) is not None:
            mean = sum(line.lengths) / len(line.lengths)
            strength[a] = (1.0 if anisotropy is None else anisotropy[a]) / mean**2
    top = max(strength.values(), default=0.0)
    return tuple(a for a, s in strength.items() if s >= STRONG * top)


def _generalised_inverse(lines: Sequence[Line], faces: Sequence[Array], learned: bool) -> Array:
    shape = tuple(line.num_points for line in lines)
    n = math.prod(shape)
    basis = jnp.eye(n, dtype=faces[0].dtype).reshape(n, *shape)
    matrix, unit = sized(outflow(basis, faces, [line.periodic for line in lines]).reshape(n, n))
    eps = float(jnp.finfo(matrix.dtype).eps)
    inverse = lax.stop_gradient(jnp.linalg.pinv(lax.stop_gradient(matrix), hermitian=True, rtol=n * 10 * eps))
    if not learned:
        return inverse / unit
    # The derivative of an inverse, without that of its eigenvectors, which equal eigenvalues spoil. The null space
    # does not move.
    step = functools.partial(jnp.matmul, precision="highest")
    return (inverse - step(step(inverse, matrix - lax.stop_gradient(matrix)), inverse)) / unit
