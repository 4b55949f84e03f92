"""Convolution by multiplication in the basis that belongs to the boundary: Fourier, sine or cosine.

Only the kept modes are computed, by matrix products with the basis functions sampled at the points (a
partial transform). That is exact on every grid, odd, even or coarser than the modes; it makes output on
another grid a matter of sampling the same functions there; and it is faster than an FFT for the mode
counts in use (`docs/benchmarks.md`). Axes are expanded first to last and sampled last to first, so that
the two large products touch whole rows of memory, and everything is real arithmetic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import count, flag
from neuralops.grid import CENTERINGS, check_boundary, per_axis
from neuralops.nn.factorized import FactorizedWeight
from neuralops.operator import AbstractOperator, Envelope, check_field
from neuralops.transforms import Axis

HIGHEST = jax.lax.Precision.HIGHEST  # on a GPU the default would round to ten bits


class SpectralConv(AbstractOperator):
    """The spectral convolution v = T^-1 (R . T u) + b (FNO, Li et al. 2021, eq. 4), in 1-D to 3-D.

    T expands `u` in the basis of its boundary per axis: Fourier (periodic), sine (dirichlet), cosine
    (neumann) or quarter-wave (a pair). R multiplies each kept mode by a matrix of the channels. The
    coefficients are those of the function (FFT `norm="forward"`), so they do not depend on the grid.

    **Arguments:**

    - `in_channels`, `out_channels`: channel counts.
    - `n_modes`: modes per axis. On a periodic axis they count both signs, as in neuraloperator: signed
      frequencies -(m//2) ... m//2 + m%2 - 1, except on the last periodic axis, which keeps 0 ... m//2
      because the field is real. On the other axes they are the first `m` basis functions. Grids that
      carry fewer modes use those weights that belong to the modes they carry.
    - `factorization`: `None` (dense), `"tucker"`, `"cp"` or `"tt"`; `rank`: the fraction of the dense
      parameters to keep, or the ranks themselves.
    - `separable`: one factor per mode and channel, no channel mixing (needs equal channel counts).
    - `boundary`, `centering`: as in `Grid`, one for all axes or one per axis.
    - `use_bias`: adds one number per output channel.
    - `init_std`: standard deviation of the initial weights; by default sqrt(2/(in + out)).

    Refinement: *exact*; a band-limited input gives the same output function on every grid that resolves it.

    **Raises:** `ValueError` on counts, words or ranks outside the above.
    """

    weight: FactorizedWeight
    bias: Float[Array, " out"] | None
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    n_modes: tuple[int, ...] = eqx.field(static=True)
    factorization: str | None = eqx.field(static=True)
    rank: float | tuple[int, ...] = eqx.field(static=True)
    separable: bool = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)
    init_std: float | None = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_modes: Sequence[int] | int,
        *,
        factorization: str | None = None,
        rank: float | Sequence[int] = 1.0,
        separable: bool = False,
        boundary: Any = "periodic",
        centering: Any = "node",
        use_bias: bool = True,
        init_std: float | None = None,
        key: Array,
    ) -> None:
        self.in_channels = in_channels = count(in_channels, "in_channels")
        self.out_channels = out_channels = count(out_channels, "out_channels")
        self.separable = separable = flag(separable, "separable")
        self.use_bias = use_bias = flag(use_bias, "use_bias")
        self.n_modes = check_modes(n_modes)
        ndim = len(self.n_modes)
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, ndim, "boundary"))
        self.centering = per_axis(centering, ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")
        if separable and in_channels != out_channels:
            raise ValueError(
                f"separable: expected equal channel counts, got {in_channels} in and {out_channels} out; "
                "use separable=False or add a Linear map."
            )
        if init_std is not None and not init_std > 0:
            raise ValueError(f"init_std: expected a positive number or None, got {init_std!r}; give e.g. 0.1.")
        self.init_std = init_std
        self.factorization = factorization
        self.rank = tuple(count(r, "rank") for r in rank) if isinstance(rank, Sequence) else float(rank)
        std = math.sqrt(2 / (in_channels + out_channels)) if init_std is None else init_std
        channels = (in_channels,) if separable else (in_channels, out_channels)
        weight_key, bias_key = jax.random.split(key)
        self.weight = FactorizedWeight(
            (*channels, *self.stored_modes),
            factorization=factorization,
            rank=self.rank,
            is_complex="periodic" in self.boundary,
            std=std,
            key=weight_key,
        )
        self.bias = std * jax.random.normal(bias_key, (out_channels,)) if use_bias else None

    @property
    def half_axis(self) -> int | None:
        """The periodic axis of which only non-negative frequencies are kept: the last one."""
        periodic = [a for a, b in enumerate(self.boundary) if b == "periodic"]
        return periodic[-1] if periodic else None

    @property
    def stored_modes(self) -> tuple[int, ...]:
        """Modes per axis as they are stored, the half axis with its m//2 + 1."""
        return tuple(m // 2 + 1 if a == self.half_axis else m for a, m in enumerate(self.n_modes))

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        return Envelope(ndim=(len(self.n_modes),), boundary=tuple(sorted(words)), refinement="exact")

    def __call__(
        self,
        u: Float[Array, " channels *grid"],
        /,
        *,
        key: Array | None = None,
        num_points: Sequence[int] | int | None = None,
    ) -> Float[Array, " channels_out *grid_out"]:
        """Applies the convolution; `num_points` samples the result on another grid of the same box."""
        ndim = len(self.n_modes)
        check_field(u, channels=self.in_channels, ndim=ndim, where="SpectralConv")
        new_grid = u.shape[1:] if num_points is None else per_axis(num_points, ndim, "num_points")
        new_grid = tuple(count(n, "num_points") for n in new_grid)
        return jnp.moveaxis(self.channels_last(jnp.moveaxis(u, 0, -1), new_grid), -1, 0)

    def channels_last(
        self, u: Float[Array, "*grid channels"], new_grid: tuple[int, ...] | None = None
    ) -> Float[Array, "*grid_out channels_out"]:
        """The same map on `(*grid, channels)`, without checks."""
        z = self.mixed(self.to_modes(u), u.shape[:-1])
        return self.from_modes(z, u.shape[:-1], new_grid)

    def to_modes(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*modes channels pair"]:
        """T: the kept coefficients of a field, `pair` real and imaginary part, without that axis in a real basis."""
        for a, plan in enumerate(self._plans(u.shape[:-1])):
            u = _expand(u, a, plan)
        return u

    def mixed(
        self, z: Float[Array, "*modes channels pair"], grid: Sequence[int] | None = None
    ) -> Float[Array, "*modes channels_out pair"]:
        """R: the coefficients times the weights of their modes, those that `grid` carries, by default all."""
        if grid is None:
            return self._mix(z, [(0, m) for m in self.stored_modes])
        return self._mix(z, [plan.weight_modes for plan in self._plans(grid)])

    def from_modes(
        self, z: Float[Array, "*modes channels pair"], grid: Sequence[int], new_grid: Sequence[int] | None = None
    ) -> Float[Array, "*grid_out channels"]:
        """T^-1 and the bias: the function with these coefficients, of a field on `grid`, sampled on `new_grid`."""
        plans = self._plans(grid, new_grid)
        for a in reversed(range(len(plans))):
            z = _sample(z, a, plans[a])
        return z if self.bias is None else z + self.bias

    def _plans(self, grid: Sequence[int], new_grid: Sequence[int] | None = None) -> list[_AxisPlan]:
        return [self._plan(a, n, n_out) for a, (n, n_out) in enumerate(zip(grid, new_grid or grid, strict=True))]

    def _plan(self, a: int, n: int, n_out: int) -> _AxisPlan:
        axis = Axis(n, self.boundary[a], self.centering[a])
        first = "periodic" not in self.boundary[:a]
        return _plan_axis(axis, axis._replace(num_points=n_out), self.n_modes[a], first, a == self.half_axis)

    def _mix(self, z: Array, chosen: list[tuple[int, int]]) -> Array:
        """Multiplies the modes by R, (*modes, in[, pair]) -> (*modes, out[, pair])."""
        ndim, paired = len(chosen), self.half_axis is not None
        weight = self.weight.array()  # ([2,] in[, out], *modes), the pair only where there is a Fourier axis
        for a, (start, stop) in enumerate(chosen):
            weight = jax.lax.slice_in_dim(weight, start, stop, axis=weight.ndim - ndim + a)
        if paired:
            # A complex product as a real one: (re, im) of z meets [[re, im], [-im, re]] of the weight.
            re, im = weight
            weight = jnp.stack([jnp.stack([re, im], -1), jnp.stack([-im, re], -1)], -2)  # (in[, out], *modes, q, r)
        modes = tuple(range(ndim))
        if self.separable:
            weight = jnp.moveaxis(weight, 0, ndim)
            return jnp.einsum("...q,...qr->...r", z, weight, precision=HIGHEST) if paired else z * weight
        weight_modes = tuple(2 + a for a in modes)
        contract = ((ndim, ndim + 1), (0, weight.ndim - 2)) if paired else ((ndim,), (0,))
        return jax.lax.dot_general(z, weight, (contract, (modes, weight_modes)), precision=HIGHEST)


def check_modes(n_modes: Sequence[int] | int) -> tuple[int, ...]:
    """Mode counts as a tuple, one per axis, 1 to 3 axes."""
    modes = tuple(n_modes) if isinstance(n_modes, Sequence) else (n_modes,)
    if not 1 <= len(modes) <= 3:
        raise ValueError(f"n_modes: expected 1 to 3 counts, one per axis, got {n_modes!r}; give e.g. (16, 16).")
    return tuple(count(m, "n_modes") for m in modes)


class _AxisPlan(NamedTuple):
    """The basis of one axis, sampled on the grid that comes in and on the one that goes out.

    Matrices act from the left. A sine or cosine basis has (k, n) and (n, k) and treats both parts of a
    pair alike. A Fourier axis turns real fields into pairs (k, r, n) if it is the first one and pairs into
    pairs (k, r, n, q) otherwise, and back, where the first one takes the real part.
    """

    analysis: np.ndarray
    synthesis: np.ndarray
    is_fourier: bool
    is_first: bool  # no Fourier axis before it
    weight_modes: tuple[int, int]  # the stored modes that this grid carries


@functools.lru_cache(maxsize=256)
def _plan_axis(axis: Axis, new_axis: Axis, m: int, first: bool, half: bool) -> _AxisPlan:
    n = axis.num_points
    if axis.boundary != "periodic":
        kept = min(m, n)
        analysis, synthesis = transforms.analysis_matrix(axis, kept), transforms.synthesis_matrix(new_axis, kept)
        return _AxisPlan(analysis, synthesis, False, first, (0, kept))
    if half:
        low, high, shift = 0, min(m // 2, n // 2) + 1, 0
    else:
        low, high, shift = max(-(m // 2), -(n // 2)), min(m // 2 + m % 2, n // 2 + n % 2), m // 2
    frequencies = np.arange(low, high)
    analysis = _as_real_product(_fourier(axis, frequencies).conj().T / n)
    backward = _fourier(new_axis, frequencies)
    if half:  # each k > 0 stands for both signs; the mean and the Nyquist mode stand for themselves
        backward = backward * np.where((frequencies == 0) | (2 * frequencies == n), 1.0, 2.0)
    synthesis = _as_real_product(backward)
    if first:  # a real field comes in, and the real part goes out
        analysis, synthesis = analysis[..., 0], synthesis[:, 0]
    return _AxisPlan(analysis, synthesis, True, first, (low + shift, high + shift))


def _as_real_product(matrix: np.ndarray) -> np.ndarray:
    """A complex matrix (i, j) as a real one (i, r, j, q) that maps pairs q to pairs r."""
    re, im = matrix.real, matrix.imag
    return np.stack([np.stack([re, -im], -1), np.stack([im, re], -1)], 1)


def _expand(z: Array, a: int, plan: _AxisPlan) -> Array:
    """Turns the points of axis `a` in (modes before a, points from a, channels[, pair]) into its modes."""
    return _contract(plan.analysis, z, a, takes_pair=not plan.is_first, gives_pair=True, is_fourier=plan.is_fourier)


def _sample(z: Array, a: int, plan: _AxisPlan) -> Array:
    """Turns the modes of axis `a` in (modes up to a, points after a, channels[, pair]) into points."""
    return _contract(plan.synthesis, z, a, takes_pair=True, gives_pair=not plan.is_first, is_fourier=plan.is_fourier)


def _contract(matrix: np.ndarray, z: Array, a: int, *, takes_pair: bool, gives_pair: bool, is_fourier: bool) -> Array:
    takes_pair, gives_pair = takes_pair and is_fourier, gives_pair and is_fourier
    rank = matrix.ndim
    dims = ((rank - 2, rank - 1), (a, z.ndim - 1)) if takes_pair else ((rank - 1,), (a,))
    z = jnp.tensordot(jnp.asarray(matrix, z.dtype), z, dims, precision=HIGHEST)
    if gives_pair:
        z = jnp.moveaxis(z, 1, -1)
    return jnp.moveaxis(z, 0, a)


def _fourier(axis: Axis, frequencies: np.ndarray) -> np.ndarray:
    """exp(2 pi i k x/L) at the points, (n, k), angles reduced in integers."""
    p, q = transforms.positions(axis)
    return np.exp(2j * np.pi * ((p[:, None] * frequencies) % q) / q)
