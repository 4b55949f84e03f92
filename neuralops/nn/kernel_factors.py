"""Convolution kernels as sums of products of one-way factors (compressed a priori), and what that costs.

A kernel `(*taps, channels, channels_out)` of d axes is, with R the rank,

    "kernel"      K[a, b, c, i, o] = sum_r u[r, a, i, o] v[r, b, i, o] w[r, c, i, o]     every pair of channels alone
    "cp"          K[a, b, c, i, o] = sum_r I[i, r] A[a, r] B[b, r] C[c, r] S[r, o]       the whole array
    "depthwise"   K[a, b, c, i, o] = sum_r A[a, r, i] B[b, r, i] C[c, r, i] S[r, i, o]   per input channel

with as many tap factors as axes. The factors are what is trained (Boukraichi et al., arXiv 2304.04964).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.nn.kernel_decomposition import cp_factors

__all__ = ["VARIANTS", "Compress", "Counts", "KernelFactors", "check_compress", "conv_counts", "dense_kernel"]

VARIANTS = ("kernel", "cp", "depthwise")
Compress = tuple[str, int | float]


class Counts(NamedTuple):
    """Numbers of a compressed convolution beside those of the ordinary one of the same size.

    `operations` are per point of the output, a multiplication with an addition counting two, the bias none.
    """

    parameters: int
    operations: int
    dense_parameters: int
    dense_operations: int


def conv_counts(
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    rank: int | float,
    *,
    variant: str = "kernel",
    use_bias: bool = True,
) -> Counts:
    """Parameters and operations of a convolution with the kernel size per axis, by formula.

    With k the sum of the kernel size over the axes and R the rank, parameters are C_in C_out R k (`"kernel"`),
    R (C_in + k + C_out) (`"cp"`) and C_in R (k + C_out) (`"depthwise"`), and a bias. Operations are twice that without
    the bias, with stride one, for the chain of one-way convolutions; `SeparableConv` runs `"kernel"` as an ordinary
    convolution, which takes `dense_operations`, because the chain needs C_in C_out fields in between.

    **Raises:** `ValueError` on counts and words outside the above.
    """
    sizes = tuple(count(k, "kernel_size") for k in kernel_size)
    shape = (*sizes, count(in_channels, "in_channels"), count(out_channels, "out_channels"))
    variant, rank = check_variant(variant), check_rank(rank)
    one = _size_of_a_term(shape, variant)
    bias, dense, terms = shape[-1] if use_bias else 0, math.prod(shape), find_rank(shape, variant, rank)
    return Counts(terms * one + bias, 2 * terms * one, dense + bias, 2 * dense)


def check_compress(compress: Any) -> Compress:
    """A variant and a rank, in plain values.

    **Raises:** `ValueError` on anything else.
    """
    pair = tuple(compress) if isinstance(compress, Sequence) and not isinstance(compress, str) else ()
    if len(pair) != 2 or pair[0] not in VARIANTS:
        raise ValueError(
            f"compress: expected None or a pair of one of {VARIANTS} and a rank, got {compress!r}; give e.g. "
            "('kernel', 1)."
        )
    return str(pair[0]), check_rank(pair[1], "compress")


def check_variant(variant: Any) -> str:
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {VARIANTS}, got {variant!r}; use one of these words.")
    return str(variant)


def check_rank(rank: Any, name: str = "rank") -> int | float:
    """A count of terms, or a number between 0 and 1: that fraction of the dense kernel's parameters.

    **Raises:** `ValueError` on anything else.
    """
    plain = getattr(rank, "shape", None) == () and not isinstance(rank, jax.core.Tracer)
    number = rank.item() if plain else rank
    if isinstance(number, float) and 0 < number < 1:
        return number
    return count(number, name, hint="give a number of terms, or a fraction of the dense parameters such as 0.25.")


def find_rank(shape: Sequence[int], variant: str, rank: int | float) -> int:
    """The rank itself, or the largest with that fraction of the dense parameters, at least one."""
    if isinstance(rank, int):
        return rank
    return max(1, int(rank * math.prod(shape) / _size_of_a_term(shape, variant)))


def _size_of_a_term(shape: Sequence[int], variant: str) -> int:
    taps, (c_in, c_out) = sum(shape[:-2]), shape[-2:]
    return {"kernel": c_in * c_out * taps, "cp": c_in + taps + c_out, "depthwise": c_in * (taps + c_out)}[variant]


class KernelFactors(eqx.Module):
    """The factors of one kernel; `array()` is the kernel.

    **Arguments:**

    - `shape`: that of the kernel, `(*taps, channels, channels_out)`.
    - `compress`: variant and rank, from `check_compress`.
    - `variance`: of the kernel's entries at the start. Each tap factor is drawn from a sphere, as are those of the
      channels: entries then have mean zero, are uncorrelated, and none of the factors is small by chance.
    - `stencil`: weights per axis whose product, on each channel alone, is a fixed part of the kernel.
    """

    factors: tuple[Float[Array, "..."], ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    variant: str = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    stencil: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Sequence[int],
        compress: Compress,
        *,
        variance: float,
        stencil: tuple[tuple[float, ...], ...] | None = None,
        key: Array,
    ) -> None:
        self.shape, self.variant, self.stencil = tuple(shape), compress[0], stencil
        self.rank = R = find_rank(self.shape, *compress)
        shapes = self._shapes()
        std = (variance / R) ** (1 / (2 * len(shapes)))
        self.factors = tuple(
            _on_spheres(k, s, axes, std)
            for k, (s, axes) in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        )

    def _shapes(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Of each factor the shape, and the axes over which a vector of it runs."""
        taps, (c_in, c_out), R = self.shape[:-2], self.shape[-2:], self.rank
        if self.variant == "kernel":
            return [((R, k, c_in, c_out), (1,)) for k in taps]
        if self.variant == "cp":
            return [((c_in, R), (0,)), *(((k, R), (0,)) for k in taps), ((R, c_out), (0,))]
        return [*(((k, R, c_in), (0,)) for k in taps), ((R, c_in, c_out), (0, 1))]

    def array(self) -> Float[Array, "*taps in out"]:
        letters = "abc"[: len(self.shape) - 2]
        taps = {"kernel": "r{}io", "cp": "{}r", "depthwise": "{}ri"}[self.variant]
        terms = [taps.format(letter) for letter in letters]
        if self.variant == "cp":
            terms = ["ir", *terms, "ro"]
        elif self.variant == "depthwise":
            terms = [*terms, "rio"]
        kernel = jnp.einsum(f"{','.join(terms)}->{letters}io", *self.factors)
        if self.stencil is None:
            return kernel
        fixed = np.ones(())
        for line in self.stencil:
            fixed = np.multiply.outer(fixed, np.asarray(line))
        return kernel + jnp.asarray(fixed[..., None, None] * np.eye(self.shape[-2], self.shape[-1]), kernel.dtype)

    @property
    def is_chained(self) -> bool:
        """Whether a chain is the faster way to a training step on a CPU (`docs/compressed-convolutions.md`)."""
        if self.variant == "kernel" or self.stencil is not None:
            return False
        ndim = len(self.shape) - 2
        return ndim == 3 or (ndim == 2 and (self.variant == "cp" or self.rank == 1))

    def chain(self, u: Float[Array, "*grid channels"], line: Callable[[Array, Array, int], Array], tied: Any) -> Array:
        """The convolution as a chain of maps of one axis, `line(field, taps, axis)`, with `taps` `(k, channels)`.

        `tied(weights, field)` stands before each product with a matrix. Not for `"kernel"`, nor with a stencil.
        """
        R, c_in = self.rank, self.shape[-2]
        if self.variant == "cp":
            first, *taps, last = self.factors
            v = u @ tied(first, u)
        else:
            *taps, last = self.factors
            v = jnp.concatenate([u] * R, -1) if R > 1 else u
            taps, last = [t.reshape(-1, R * c_in) for t in taps], last.reshape(R * c_in, -1)
        for axis, factor in enumerate(taps):
            v = line(v, factor, axis)
        return v @ tied(last, v)

    def decomposed(self, kernel: Any, **search: Any) -> KernelFactors:
        """The same with the factors of a given kernel, as near as `cp_factors` finds them; `search` is for it."""
        K = np.asarray(kernel, np.float64)
        ndim, R, (c_in, c_out) = K.ndim - 2, self.rank, self.shape[-2:]
        taps = tuple(range(ndim))
        if self.variant == "kernel":
            pairs = K.transpose(ndim, ndim + 1, *taps).reshape(c_in * c_out, *K.shape[:ndim])
            factors = [f.transpose(2, 1, 0).reshape(R, -1, c_in, c_out) for f in cp_factors(pairs, R, **search)]
        elif self.variant == "cp":
            first, *lines, last = (f[0] for f in cp_factors(K.transpose(ndim, *taps, ndim + 1)[None], R, **search))
            factors = [first, *lines, last.T]
        else:
            *lines, last = cp_factors(K.transpose(ndim, *taps, ndim + 1), R, **search)
            factors = [*(f.transpose(1, 2, 0) for f in lines), last.transpose(2, 0, 1)]
        dtype = jnp.asarray(kernel).dtype
        new = tuple(jnp.asarray(np.ascontiguousarray(f), dtype) for f in factors)
        return eqx.tree_at(lambda kernel: kernel.factors, self, new)


def dense_kernel(kernel: Array | KernelFactors) -> Array:
    """The array of a kernel, whichever way it is held."""
    return kernel.array() if isinstance(kernel, KernelFactors) else kernel


def _on_spheres(key: Array, shape: tuple[int, ...], axes: tuple[int, ...], std: float) -> Array:
    """Vectors along `axes` of random direction, whose entries have the standard deviation `std`."""
    x = jax.random.normal(key, shape)
    radius = std * math.sqrt(math.prod(shape[axis] for axis in axes))
    return x * radius / jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))
