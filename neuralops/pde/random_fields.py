"""Gaussian random fields by their Karhunen-Loeve series, the same function on every grid."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_number, count, flag
from neuralops.grid import Grid, check_boundary, per_axis
from neuralops.transforms import Axis

Boundary = str | tuple[str, str]


class GaussianRandomField(eqx.Module):
    """The Gaussian law with covariance scale^2 (-Laplacian + tau^2)^(-alpha) on a box, drawn exactly.

    A sample is mean + sum_m sqrt(lambda_m) xi_m phi_m, with phi_m the L2-orthonormal sine, cosine or
    Fourier modes of the field's boundary (`transforms`), lambda_m the covariance's eigenvalues, and
    xi_m independent standard normals. Each xi_m is drawn from the key and the mode's own numbers, so one
    key gives one series: a finer grid adds modes and changes none, and float32 and float64 draw the
    same numbers to float32's digits.

    This is the law of the FNO line (Li et al. 2021, arXiv 2010.08895, appendix A.3). Their two-dimensional
    generator uses scale^2 = tau^(2 alpha - 2); the exponent that makes the field's variance nearly free
    of tau in d dimensions is 2 alpha - d, which is the default here and equals theirs for d = 2.
    Their Darcy input is `GaussianRandomField(2.0, 3.0, boundary="neumann")`; their Burgers input,
    N(0, 625 (-Laplacian + 25)^(-2)), is
    `GaussianRandomField(2.0, 5.0, boundary="periodic", scale=25.0, zero_mean=False)`.

    **Arguments:**

    - `alpha`: smoothness; samples are functions only for `alpha > ndim / 2`.
    - `tau`: inverse length scale, in radians per unit of length, at least 0.
    - `boundary`: the condition that the samples satisfy, a word for all axes or one entry per axis, as in `Grid`.
      It need not be the grid's own: a Dirichlet problem commonly has a Neumann coefficient.
    - `scale`: the factor in front; `None` means tau^(alpha - ndim/2).
    - `mean`: a constant that is added.
    - `zero_mean`: leaves the constant mode out, where the boundary has one (periodic and Neumann on all axes).
    - `num_modes`: modes per axis, one for all or one per axis, cosines and sines counted separately. Every
      grid then samples exactly the same function, including one too coarse to resolve it. `None` takes
      all modes that the grid resolves, so a coarse grid holds the leading part of a fine grid's series.

    **Raises:** `ValueError` on values that are not finite or out of range, and on unknown boundaries.
    """

    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    boundary: Boundary | tuple[Boundary, ...] = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)
    mean: float = eqx.field(static=True)
    zero_mean: bool = eqx.field(static=True)
    num_modes: int | tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        alpha: float,
        tau: float,
        *,
        boundary: Any = "neumann",
        scale: float | None = None,
        mean: float = 0.0,
        zero_mean: bool = True,
        num_modes: int | Sequence[int] | None = None,
    ) -> None:
        self.alpha = check_number(alpha, "alpha", above=0.0)
        self.tau = check_number(tau, "tau", at_least=0.0)
        self.scale = None if scale is None else check_number(scale, "scale", at_least=0.0)
        self.mean = check_number(mean, "mean")
        self.zero_mean = flag(zero_mean, "zero_mean")
        self.boundary = (
            tuple(check_boundary(b) for b in boundary)
            if isinstance(boundary, Sequence) and not isinstance(boundary, str)
            else check_boundary(boundary)
        )
        self.num_modes = check_num_modes(num_modes)
        if self.tau == 0.0 and self.scale is None:
            raise ValueError("scale: with tau=0 the default scale tau^(alpha - ndim/2) is degenerate; give scale=1.0.")

    def sample(self, key: Array, grid: Grid, *, dtype: Any = None) -> Float[Array, " 1 *grid"]:
        """One field at the points of `grid`, shape `(1, *grid)`.

        `dtype` defaults to JAX's floating type (float64 inside `jax.enable_x64`).

        **Raises:** `ValueError` when `alpha <= ndim / 2`, when the covariance has no finite value on the constant
        mode (`tau=0` with `zero_mean=False`), or when JAX cannot hold `dtype`.
        """
        dtype = check_dtype(dtype)
        boundaries = [check_boundary(b) for b in per_axis(self.boundary, grid.ndim, "boundary")]
        wanted = per_axis(self.num_modes, grid.ndim, "num_modes")
        covers = [_Cover.of(axis, b, modes) for axis, b, modes in zip(grid.axes, boundaries, wanted, strict=True)]
        shape = tuple(
            transforms.shared_modes(cover.axis) if modes is None else modes
            for cover, modes in zip(covers, wanted, strict=True)
        )
        deviations = self.standard_deviations(shape, boundaries, grid.domain_extent)
        u = _standard_normal(key, shape, dtype) * jnp.asarray(deviations, dtype)
        for dim, cover in enumerate(covers):
            u = cover.evaluate(u, dim)
        return (self.mean + u)[None]

    def standard_deviations(
        self, num_modes: Sequence[int], boundary: Sequence[Boundary], domain_extent: Sequence[float]
    ) -> np.ndarray:
        """Standard deviation of each coefficient of `transforms`' basis, shape `num_modes`, as float64 NumPy.

        The root of the covariance's eigenvalue times the factor that makes the basis function L2-orthonormal.
        """
        ndim = len(num_modes)
        if self.alpha <= ndim / 2:
            raise ValueError(
                f"alpha: samples in {ndim} dimension(s) are functions for alpha > {ndim / 2}, got {self.alpha}; "
                "take a larger alpha."
            )
        laplacian, norm = np.zeros(()), np.ones(())
        for m, b, L in zip(num_modes, boundary, domain_extent, strict=True):
            w = transforms.wavenumbers(b, m)
            laplacian = np.add.outer(laplacian, (np.pi * w / L) ** 2)
            norm = np.multiply.outer(norm, np.sqrt(np.where(w == 0, 1.0, 2.0) / L))
        spectrum = laplacian + self.tau**2
        constant = laplacian == 0
        if not self.zero_mean and self.tau == 0.0 and constant.any():
            raise ValueError("tau: the constant mode needs tau > 0, got 0.0; take tau > 0 or zero_mean=True.")
        scale = self.tau ** (self.alpha - ndim / 2) if self.scale is None else self.scale
        dropped = constant if self.zero_mean else np.zeros_like(constant)
        return np.where(dropped, 0.0, scale * np.where(dropped, 1.0, spectrum) ** (-self.alpha / 2) * norm)


def check_num_modes(value: Any, ndim: int | None = None) -> int | tuple[int, ...] | None:
    """A positive count, one per axis, or `None` for all, or a `ValueError`."""
    if value is None:
        return None
    counts = tuple(value) if isinstance(value, Sequence) else (value,)
    counts = tuple(count(m, "num_modes", hint="give counts such as 32, or None for all.") for m in counts)
    if not isinstance(value, Sequence):
        return counts[0]
    return counts if ndim is None else per_axis(counts, ndim, "num_modes")


def check_dtype(dtype: Any) -> Any:
    """A real floating type that JAX can hold, its default for `None`, or a `ValueError`."""
    default = jnp.result_type(float)
    dtype = default if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype: expected a real floating type, got {dtype}; use float32 or float64.")
    if dtype.itemsize > default.itemsize:
        raise ValueError(f"dtype: {dtype} is switched off in JAX; draw inside `with jax.enable_x64(True):`.")
    return dtype


@functools.partial(jax.jit, static_argnums=(1, 2))  # op by op, a first draw would take seconds
def _standard_normal(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Standard normals in which number (i, j, ...) depends on the key and i, j, ... alone, not on `shape`."""
    if shape:
        counter = jnp.arange(shape[0], dtype=jnp.uint32)
        return jax.vmap(lambda m: _standard_normal(jax.random.fold_in(key, m), shape[1:], dtype))(counter)
    # jax.random.normal draws different numbers in each dtype; two words through the inverse distribution
    # function do not. The first bit is the sign, the other 63 a probability in (0, 1/2), where ndtri keeps
    # its digits far into the tail.
    high, low = jax.random.bits(key, (2,), jnp.uint32)
    whole = (high & jnp.uint32(0x7FFFFFFF)).astype(dtype)
    probability = (whole + (low.astype(dtype) + 0.5) * 2.0**-32) * 2.0**-32
    magnitude = -jax.scipy.special.ndtri(probability)
    return jnp.where(high >> 31 == 1, -magnitude, magnitude)


class _Cover(eqx.Module):
    """One axis on which a basis is evaluated and that holds the grid's points among its own.

    The basis's boundary may differ from the grid's, and its modes may outnumber the points: the cover has
    the basis's boundary and `refine` times the grid's spacings.
    """

    axis: Axis = eqx.field(static=True)
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    refine: int = eqx.field(static=True)

    @staticmethod
    def of(axis: Axis, boundary: Boundary, num_modes: int | None) -> _Cover:
        step = 1 if axis.centering == "node" else 2  # an odd refinement keeps the midpoints of cells
        refine = 1
        while True:
            cover = _Cover._refined(axis, boundary, refine)
            if cover is not None and (num_modes is None or transforms.shared_modes(cover.axis) >= num_modes):
                return cover
            refine += step

    @staticmethod
    def _refined(axis: Axis, boundary: Boundary, refine: int) -> _Cover | None:
        p, q = transforms.positions(axis)
        if axis.centering == "cell":
            n = axis.num_points * refine
            return _Cover(Axis(n, boundary, "cell"), refine // 2, n, refine)
        intervals = q // 2 * refine
        first, last = int(p[0]) // 2 * refine, int(p[-1]) // 2 * refine
        ends = Axis(1, boundary, "node").ends
        n = intervals + 1 - (ends[0] == "dirichlet") - (ends[1] == "dirichlet") - (boundary == "periodic")
        return _Cover(Axis(n, boundary, "node"), first, last + 1, refine) if n >= 1 else None

    def evaluate(self, coefficients: Array, dim: int) -> Array:
        """Coefficients along `dim` to values at the grid's points."""
        u = transforms.from_modes(coefficients, dim, self.axis)
        if self.axis.centering == "node":  # complete to all nodes, both ends included
            zero = jnp.zeros_like(jax.lax.slice_in_dim(u, 0, 1, axis=dim))
            low, high = self.axis.ends
            parts = [zero] * (low == "dirichlet") + [u] + [zero] * (high == "dirichlet")
            if low == "periodic":
                parts.append(jax.lax.slice_in_dim(u, 0, 1, axis=dim))
            u = jnp.concatenate(parts, dim)
        return jax.lax.slice_in_dim(u, self.start, self.stop, self.refine, axis=dim)
