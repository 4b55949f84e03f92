"""The linear map W_Mg of MgNO: one multigrid cycle whose stencils are learned (He, Liu and Xu, ICLR 2024)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.grid import CENTERINGS, check_boundary, per_axis
from neuralops.nn.convolution import coarse_points, coarsen, ghost_rule, refine
from neuralops.nn.kernel_factors import Compress, KernelFactors, check_compress, dense_kernel
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.norm import LayerNorm
from neuralops.nn.separable import convolve
from neuralops.operator import Envelope

__all__ = ["MultigridConv"]

Ghosts = tuple[tuple[str, str], ...]
RANDOM_SHARE = 0.3  # of the uniform kernels in transfers that start as interpolation


class Sweep(eqx.Module):
    """One smoothing step u + S(f - A u); S f alone where u is still zero."""

    A: Float[Array, "*taps out in"] | KernelFactors | None
    A_bias: Float[Array, " in"] | None
    S: Float[Array, "*taps in out"] | KernelFactors
    S_bias: Float[Array, " out"] | None

    def __call__(self, u: Array | None, f: Array, ghosts: Ghosts) -> Array:
        if u is None:
            return _affine(convolve(f, self.S, ghosts), self.S_bias)
        assert self.A is not None
        residual = f - _affine(convolve(u, self.A, ghosts), self.A_bias)
        return u + _affine(convolve(residual, self.S, ghosts), self.S_bias)


class Level(eqx.Module):
    """The learned arrays of one level: its sweeps, and the ways to the next coarser level and back."""

    pre: tuple[Sweep, ...]
    post: tuple[Sweep, ...]
    restriction: Float[Array, "*taps in in"] | KernelFactors | None  # R
    projection: Float[Array, "*taps out out"] | KernelFactors | None  # Pi
    system: Float[Array, "*taps out in"] | KernelFactors | None  # A_R
    system_bias: Float[Array, " in"] | None
    prolongation: Float[Array, "*taps out out"] | KernelFactors | None  # P
    norm: LayerNorm | None


class MultigridConv(AbstractLayer):
    """One multigrid cycle with learned stencils (MgNO, section 3), linear in its input, in 1-D to 3-D.

    With the source f as input, `levels` J (1 is the finest) and u starting at zero,

        u <- u + S (f - A u)                                       nu_l times, down to level J
        f' = R f  or  R (f - A_R u),    u' = Pi u  or  0           from level l to level l + 1
        u <- u + P u',  then  u <- u + S (f - A u)  nu'_l times    from level J - 1 up to level 1

    and the output is u on level 1. A, S, R, Pi are convolutions with three taps per axis and P is a transposed one,
    each with kernels of its own; the boundary decides what they read beyond the edge (`nn.convolution`). The defaults
    of `transfer` and `coarse_init` are those of the published experiments, `"residual"` and `"zero"` those of the
    classical V cycle, which is contained: `docs/mgno.md` gives the kernels.

    Any number of points: a level of n points has (n + 1) // 2 on the next one, or (n - 1) // 2 with `kept="odd"`.
    Levels with no point left (fewer than two beside a reflecting end) are skipped. On nested grids the boundary is
    exact on every level: periodic axes of a multiple of 2^(J - 1) points; cells of such a number; Neumann nodes
    k 2^(J - 1) + 1; Dirichlet nodes k 2^(J - 1) - 1 with `kept="odd"`. On other sizes coarse points end up to one
    spacing off the wall.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of f and u on level 1.
    - `sweeps`: a pair (nu_l, nu'_l) per level, the finest first; the second of the last pair is 0.
    - `ndim`: number of space dimensions.
    - `multiples`: channels per level in multiples of those on level 1; by default 1 everywhere.
    - `transfer`: `"source"` (f' = R f) or `"residual"` (f' = R (f - A_R u)).
    - `coarse_init`: `"project"` (u' = Pi u) or `"zero"`.
    - `boundary`, `centering`: as in `Grid`.
    - `kept`: the points of the coarse grid, `"even"` or `"odd"` ones.
    - `up_taps`: taps of P, 3 or 4, or one such number per pair of levels; by default 3 for nodes and 4 for cells.
    - `up_ghosts`: what P reads beyond the edge, `"boundary"`, or `"zero"` as in the released code.
    - `sharing`: `"none"`; `"sweeps"`, one A and one S for all sweeps of a level; `"levels"`, the same kernels on
      all levels as well, so that their number does not depend on the levels.
    - `use_bias`: a number per channel after A and S; the map is then affine.
    - `norm`: `"layer_norm"` normalises u after each correction, over channels and points; the map is then not linear.
    - `num_points`: the grid of the affine maps in `norm`, which locks the operator to it.
    - `first_system`: also holds the A of the very first sweep, which acts on zero and does nothing (the released
      Helmholtz model has it).

    - `init`: initial kernels. `"uniform"`: in +-1/sqrt(fan in), PyTorch's default, as published; fields then shrink
      on their way through every level, by sqrt(3) down and sqrt(12) up in 2-D with four taps. `"interpolation"`: R and
      Pi average and P interpolates each channel, as in classical multigrid, plus 0.3 times the uniform kernels, so that
      coarse levels are heard from the first step (`docs/mgno.md` has the gain).
    - `compress`: `None`, or variant and rank as in `SeparableConv`, such as `("kernel", 1)`: all kernels are held as
      one-way factors. With `init="interpolation"` the average and the interpolation are then a fixed part of R, Pi and
      P, to which the factors add.

    Refinement: *spacing-locked* (see `Envelope`); *grid-locked* with a norm.

    **Raises:** `ValueError` on counts or words outside the above.
    """

    levels: tuple[Level, ...]
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    sweeps: tuple[tuple[int, int], ...] = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    multiples: tuple[int, ...] | None = eqx.field(static=True)
    transfer: str = eqx.field(static=True)
    coarse_init: str = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    kept: str = eqx.field(static=True)
    up_taps: tuple[int, ...] = eqx.field(static=True)
    up_ghosts: str = eqx.field(static=True)
    sharing: str = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)
    norm: str | None = eqx.field(static=True)
    num_points: tuple[int, ...] | None = eqx.field(static=True)
    first_system: bool = eqx.field(static=True)
    init: str = eqx.field(static=True)
    compress: Compress | None = eqx.field(static=True)

    derived = ("levels",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sweeps: Sequence[Sequence[int]],
        *,
        ndim: int = 2,
        multiples: Sequence[int] | None = None,
        transfer: Literal["source", "residual"] = "source",
        coarse_init: Literal["project", "zero"] = "project",
        boundary: Any = "dirichlet",
        centering: Any = "node",
        kept: Literal["even", "odd"] = "even",
        up_taps: int | Sequence[int] | None = None,
        up_ghosts: Literal["boundary", "zero"] = "boundary",
        sharing: Literal["none", "sweeps", "levels"] = "none",
        use_bias: bool = False,
        norm: Literal["layer_norm"] | None = None,
        num_points: int | Sequence[int] | None = None,
        first_system: bool = False,
        init: Literal["interpolation", "uniform"] = "interpolation",
        compress: Compress | None = None,
        key: Array,
    ) -> None:
        self.ndim = ndim = count(ndim, "ndim", most=3)
        choices: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
            ("transfer", transfer, ("source", "residual")),
            ("coarse_init", coarse_init, ("project", "zero")),
            ("kept", kept, ("even", "odd")),
            ("up_ghosts", up_ghosts, ("boundary", "zero")),
            ("sharing", sharing, ("none", "sweeps", "levels")),
            ("norm", norm, (None, "layer_norm")),
            ("init", init, ("interpolation", "uniform")),
        )
        for name, word, allowed in choices:
            if word not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {word!r}; use one of these.")
        self.in_channels = count(in_channels, "in_channels")
        self.out_channels = count(out_channels, "out_channels")
        self.sweeps = check_sweeps(sweeps)
        depth = len(self.sweeps)
        self.multiples = None if multiples is None else _check_multiples(multiples, depth)
        self.transfer, self.coarse_init, self.kept = transfer, coarse_init, kept
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, ndim, "boundary"))
        self.centering = per_axis(centering, ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")
        if kept == "odd" and "periodic" in self.boundary:
            raise ValueError(
                "kept: on a periodic axis the coarse grid keeps the even points, got 'odd'; use kept='even'."
            )
        self.up_taps = _check_taps(up_taps, depth, self.centering)
        self.up_ghosts, self.sharing, self.use_bias, self.norm = up_ghosts, sharing, flag(use_bias, "use_bias"), norm
        self.first_system, self.init = flag(first_system, "first_system"), init
        self.compress = None if compress is None else check_compress(compress)
        if (norm is None) != (num_points is None):
            raise ValueError(
                f"num_points: expected the grid if and only if norm='layer_norm', got norm={norm!r} and "
                f"num_points={num_points!r}; give both or neither."
            )
        points = () if num_points is None else per_axis(num_points, ndim, "num_points")
        self.num_points = tuple(count(n, "num_points") for n in points) or None
        if sharing == "levels" and (self.multiples is not None or norm is not None or len(set(self.up_taps)) > 1):
            raise ValueError(
                "sharing: one set of kernels for all levels needs equal channels, taps and no norm on them; use "
                "sharing='sweeps', or leave out multiples, up_taps and norm."
            )
        self.levels = _build(self, key)

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        return Envelope((self.ndim,), tuple(sorted(words)), "spacing-locked" if self.norm is None else "grid-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels_out"]:
        ghosts = tuple(ghost_rule(b, c) for b, c in zip(self.boundary, self.centering, strict=True))
        up_ghosts = ghosts if self.up_ghosts == "boundary" else (("zero", "zero"),) * self.ndim
        grids = self._grids(u.shape[:-1], ghosts)
        f, v = u, None  # v is the u of the formulas
        kept: list[tuple[Array, Array]] = []
        for depth in range(len(grids)):
            if depth > 0:
                assert v is not None
                level = self._level(depth - 1)
                assert level.restriction is not None
                if level.system is not None:
                    f = f - _affine(convolve(v, level.system, ghosts), level.system_bias)
                f = coarsen(f, dense_kernel(level.restriction), ghosts, self.kept)
                v = None if level.projection is None else coarsen(v, dense_kernel(level.projection), ghosts, self.kept)
            for i in range(self.sweeps[depth][0]):
                v = self._sweep(depth, i)(v, f, ghosts)
            v = jnp.zeros((*f.shape[:-1], self._channels(depth)[1]), f.dtype) if v is None else v
            kept.append((v, f))
        for depth in reversed(range(len(grids) - 1)):
            level, coarse = self._level(depth), v
            assert level.prolongation is not None
            assert coarse is not None
            v, f = kept[depth]
            v = v + refine(coarse, dense_kernel(level.prolongation), up_ghosts, self.kept, grids[depth])
            v = v if level.norm is None else level.norm.channels_last(v)
            for i in range(self.sweeps[depth][1]):
                v = self._sweep(depth, self.sweeps[depth][0] + i)(v, f, ghosts)
        assert v is not None
        return v

    def with_levels(self, sweeps: Sequence[Sequence[int]]) -> MultigridConv:
        """The same kernels in a cycle of fewer levels; with `sharing="levels"` in any cycle.

        Leaving out the coarsest levels changes the map by what they contributed. The same kernels on more levels mean
        the same operator on each where it looks the same in units of the spacing; that holds for a Laplacian with
        R = P^T, whose V cycle keeps its rate of convergence so.

        **Raises:** `ValueError` when levels are added, or their sweeps changed, without `sharing="levels"`.
        """
        new = check_sweeps(sweeps)
        if self.norm is not None:
            raise ValueError("sweeps: the norms belong to their levels and grids; build a new MultigridConv.")
        if self.sharing == "levels":
            return self._with({"sweeps": new}, self.levels)
        if new[:-1] != self.sweeps[: len(new) - 1] or new[-1][0] != self.sweeps[len(new) - 1 : len(new)][0][0]:
            raise ValueError(
                f"sweeps: expected the beginning of {self.sweeps}, got {new}; levels of their own kernels can only be "
                "left out, use sharing='levels'."
            )
        last = eqx.tree_at(
            lambda level: (level.post, level.restriction, level.projection, level.system, level.system_bias,
                           level.prolongation),
            self.levels[len(new) - 1], ((), None, None, None, None, None), is_leaf=lambda x: x is None,
        )  # fmt: skip
        changes = {
            "sweeps": new,
            "up_taps": self.up_taps[: len(new) - 1],
            "multiples": None if self.multiples is None else self.multiples[: len(new)],
        }
        return self._with(changes, (*self.levels[: len(new) - 1], last))

    def _with(self, changes: dict[str, Any], levels: tuple[Level, ...]) -> MultigridConv:
        other = object.__new__(MultigridConv)
        for field in dataclasses.fields(self):
            object.__setattr__(other, field.name, changes.get(field.name, getattr(self, field.name)))
        object.__setattr__(other, "levels", levels)
        return other

    def _level(self, depth: int) -> Level:
        return self.levels[0 if self.sharing == "levels" else depth]

    def _sweep(self, depth: int, i: int) -> Sweep:
        level = self._level(depth)
        return (level.pre + level.post)[i if self.sharing == "none" else 0]

    def _channels(self, depth: int) -> tuple[int, int]:
        multiple = 1 if self.multiples is None else self.multiples[depth]
        return multiple * self.in_channels, multiple * self.out_channels

    def _grids(self, grid: tuple[int, ...], ghosts: Ghosts) -> list[tuple[int, ...]]:
        """The points of each level that has any."""
        fewest = [2 if "reflect" in rules else 1 for rules in ghosts]
        grids = [grid]
        while len(grids) < len(self.sweeps):
            coarse = tuple(coarse_points(n, self.kept) for n in grids[-1])
            if coarse == grids[-1] or any(n < m for n, m in zip(coarse, fewest, strict=True)):
                break
            grids.append(coarse)
        return grids


def _build(op: MultigridConv, key: Array) -> tuple[Level, ...]:
    """Fresh levels for the arguments in `op`."""
    keys = (jax.random.fold_in(key, i) for i in itertools.count())

    def uniform(shape: Sequence[int], fan: int) -> Array:
        bound = 1 / math.sqrt(fan)
        return jax.random.uniform(next(keys), shape, minval=-bound, maxval=bound)

    def kernel(
        c_in: int, c_out: int, taps: int = 3, *, transposed: bool = False, share: float = 1.0, stencil: Any = None
    ) -> Array | KernelFactors:
        # PyTorch takes the fan of a transposed convolution from its output channels.
        shape, fan = (*(taps,) * op.ndim, c_in, c_out), taps**op.ndim * (c_out if transposed else c_in)
        if op.compress is None:
            return share * uniform(shape, fan)
        return KernelFactors(shape, op.compress, variance=share**2 / (3 * fan), stencil=stencil, key=next(keys))

    def transfer(c_in: int, c_out: int, taps: int = 3, *, transposed: bool = False) -> Array | KernelFactors:
        if op.init == "uniform":
            return kernel(c_in, c_out, taps, transposed=transposed)
        line = _line_weights(taps) * (2 if transposed else 1)
        stencil = (tuple(line.tolist()),) * op.ndim
        random = kernel(c_in, c_out, taps, transposed=transposed, share=RANDOM_SHARE, stencil=stencil)
        if isinstance(random, KernelFactors):
            return random
        weights = functools.reduce(np.multiply.outer, (line,) * op.ndim)
        return jnp.asarray(weights[..., None, None] * np.eye(c_in, c_out), random.dtype) + random

    def bias(c_in: int, c_out: int) -> Array | None:
        return uniform((c_out,), 3**op.ndim * c_in) if op.use_bias else None

    def sweep(f: int, u: int, has_system: bool) -> Sweep:
        A, A_bias = (kernel(u, f), bias(u, f)) if has_system else (None, None)
        return Sweep(A, A_bias, kernel(f, u), bias(f, u))

    levels = []
    grid = op.num_points
    for depth, (pre, post) in enumerate(op.sweeps[:1] if op.sharing == "levels" else op.sweeps):
        f, u = op._channels(depth)
        from_zero = pre > 0 and (depth == 0 or op.coarse_init == "zero")
        spare = depth == 0 and op.first_system
        if op.sharing == "none":
            sweeps = [sweep(f, u, i > 0 or not from_zero or spare) for i in range(pre + post)]
        else:
            alone = op.sharing == "sweeps" and from_zero and pre + post == 1
            sweeps = [sweep(f, u, not alone or spare)] if pre + post or op.sharing == "levels" else []
            pre, post = len(sweeps), 0
        inner = depth < len(op.sweeps) - 1  # the coarsest level has no way down and none back
        next_f, next_u = op._channels(depth + 1) if inner else (0, 0)
        levels.append(
            Level(
                pre=tuple(sweeps[:pre]),
                post=tuple(sweeps[pre:]),
                restriction=transfer(f, next_f) if inner else None,
                projection=transfer(u, next_u) if inner and op.coarse_init == "project" else None,
                system=kernel(u, f) if inner and op.transfer == "residual" else None,
                system_bias=bias(u, f) if inner and op.transfer == "residual" else None,
                prolongation=transfer(next_u, u, op.up_taps[depth], transposed=True) if inner else None,
                norm=LayerNorm(u, grid) if inner and grid is not None else None,
            )
        )
        grid = None if grid is None else tuple(coarse_points(n, op.kept) for n in grid)
    return tuple(levels)


def _line_weights(taps: int) -> np.ndarray:
    """Weights of a mean over neighbours along one axis; twice that is linear interpolation to nodes, or to cells."""
    return np.asarray({3: (0.25, 0.5, 0.25), 4: (0.125, 0.375, 0.375, 0.125)}[taps])


def _affine(v: Array, bias: Array | None) -> Array:
    return v if bias is None else v + bias


def check_sweeps(sweeps: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of whole numbers, the coarsest level without sweeps after a correction."""
    try:
        pairs = tuple((int(pre), int(post)) for pre, post in sweeps)
    except (TypeError, ValueError):
        pairs = ()
    if not pairs or min(min(pair) for pair in pairs) < 0 or pairs != tuple(tuple(pair) for pair in sweeps):
        raise ValueError(
            f"sweeps: expected a pair of counts (before, after the correction) per level, got {sweeps!r}; give e.g. "
            "[(1, 0)] * 5 + [(2, 0)]."
        )
    if pairs[-1][1] or not pairs[-1][0]:
        raise ValueError(
            "sweeps: on the coarsest level nothing comes back from below, so its pair is (n, 0) with n at least 1, "
            f"got {pairs[-1]}; put all its sweeps first."
        )
    return pairs


def _check_multiples(multiples: Any, depth: int) -> tuple[int, ...]:
    if len(multiples) != depth or multiples[0] != 1:
        raise ValueError(
            f"multiples: expected {depth} counts, one per level and 1 for the finest, got {multiples!r}; give e.g. "
            f"{tuple(range(1, depth + 1))}."
        )
    return tuple(count(m, "multiples") for m in multiples)


def _check_taps(up_taps: Any, depth: int, centering: Sequence[str]) -> tuple[int, ...]:
    if up_taps is None:
        up_taps = 3 if all(word == "node" for word in centering) else 4
    taps = per_axis(up_taps, depth - 1, "up_taps")
    if any(k not in (3, 4) for k in taps):
        raise ValueError(f"up_taps: expected 3 or 4, one for all or one per pair of levels, got {up_taps!r}; use 3.")
    return tuple(int(k) for k in taps)
