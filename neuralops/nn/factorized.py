"""Weights of spectral layers, dense or as a Tucker, CP or tensor-train product of small factors.

The product is formed before it is used: contracting the factors one by one with the field is slower at
the sizes in use, and the dense tensor is small beside the fields. Where the modes are complex, every
array is stored as a real pair along a leading axis of length two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FACTORIZATIONS = (None, "tucker", "cp", "tt")


class FactorizedWeight(eqx.Module):
    """A tensor of the given shape as its factors; `array()` is the dense tensor, real or a leading pair.

    **Arguments:**

    - `shape`: the dense shape, without the pair axis.
    - `factorization`: `None`, `"tucker"` (core and one matrix per axis), `"cp"` (weights and one matrix per
      axis) or `"tt"` (a chain of three-way cores).
    - `rank`: a fraction in (0, 1] of the dense parameter count, or the ranks: one per axis for Tucker,
      one for CP, the inner ones for a tensor train.
    - `is_complex`: whether entries are complex.
    - `std`: standard deviation of the dense entries at the start, sqrt(E|w|^2); a dense complex
      entry has `std`/sqrt(2) in each part.

    **Raises:** `ValueError` on an unknown factorization or impossible ranks.
    """

    core: Float[Array, "..."]
    factors: tuple[Float[Array, "..."], ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    factorization: str | None = eqx.field(static=True)
    is_complex: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        factorization: str | None,
        rank: float | tuple[int, ...],
        is_complex: bool,
        std: float,
        key: Array,
    ) -> None:
        if factorization not in FACTORIZATIONS:
            raise ValueError(
                f"factorization: expected one of {FACTORIZATIONS}, got {factorization!r}; use one of these words."
            )
        self.shape, self.factorization, self.is_complex = shape, factorization, is_complex
        core_shape: tuple[int, ...]
        factor_shapes: list[tuple[int, ...]]
        if factorization is None:
            core_shape, factor_shapes, terms = shape, [], 1
        else:
            ranks = find_ranks(shape, factorization, rank)
            terms = math.prod(ranks)  # products summed in one dense entry
            if factorization == "tucker":
                core_shape, factor_shapes = ranks, [(n, r) for n, r in zip(shape, ranks, strict=True)]
            elif factorization == "cp":
                core_shape, factor_shapes = ranks, [(n, ranks[0]) for n in shape]
            else:
                links = (1, *ranks, 1)
                cores = [(links[j], n, links[j + 1]) for j, n in enumerate(shape)]
                core_shape, factor_shapes = cores[0], [*cores[1:]]
        # A dense entry is a sum of `terms` products of independent factors: give each factor the same share.
        share = (std / math.sqrt(terms)) ** (1 / (1 + len(factor_shapes)))
        lead = (2,) if is_complex else ()
        part = share / math.sqrt(2) if is_complex else share
        keys = jax.random.split(key, 1 + len(factor_shapes))
        self.core = part * jax.random.normal(keys[0], lead + tuple(core_shape))
        self.factors = tuple(
            part * jax.random.normal(k, lead + tuple(s)) for k, s in zip(keys[1:], factor_shapes, strict=True)
        )

    def array(self) -> Float[Array, "..."]:
        """The dense tensor, shape `shape`, with a leading pair axis when complex."""
        if self.factorization is None:
            return self.core
        core, *factors = (
            jax.lax.complex(part[0], part[1]) if self.is_complex else part for part in (self.core, *self.factors)
        )
        dense = {"tucker": _tucker, "cp": _cp, "tt": _tensor_train}[self.factorization](core, factors)
        return jnp.stack([dense.real, dense.imag]) if self.is_complex else dense


def _tucker(core: Array, factors: Sequence[Array]) -> Array:
    for factor in factors:  # contracting the leading axis appends the new one: after all, the order is restored
        core = jnp.tensordot(core, factor, (0, 1))
    return core


def _cp(weights: Array, factors: Sequence[Array]) -> Array:
    product = factors[0] * weights
    for factor in factors[1:]:
        product = product[..., None, :] * factor
    return product.sum(-1)


def _tensor_train(core: Array, factors: Sequence[Array]) -> Array:
    for factor in factors:
        core = jnp.tensordot(core, factor, 1)
    return core[0, ..., 0]


def find_ranks(shape: tuple[int, ...], factorization: str, rank: float | tuple[int, ...]) -> tuple[int, ...]:
    """Ranks given as they are, or the largest uniform ones within a fraction `rank` of the dense count.

    **Raises:** `ValueError` when the fraction is not in (0, 1] or the ranks do not fit the shape.
    """
    count = {"tucker": len(shape), "cp": 1, "tt": len(shape) - 1}[factorization]
    if isinstance(rank, tuple):
        if len(rank) != count or min(rank, default=0) < 1 or not all(isinstance(r, int) for r in rank):
            raise ValueError(
                f"rank: {factorization} weights of shape {shape} take {count} positive rank(s), got {rank!r}; "
                "give that many, or a fraction in (0, 1]."
            )
        return rank
    if not 0 < rank <= 1:
        raise ValueError(
            f"rank: expected a fraction in (0, 1] of the dense parameters or the ranks, got {rank!r}; give e.g. 0.1."
        )
    budget = rank * math.prod(shape)
    if factorization == "cp":
        return (max(1, int(budget / (1 + sum(shape)))),)
    if factorization == "tucker":
        trial = lambda c: tuple(max(1, min(n, round(c * n))) for n in shape)
        size = lambda r: math.prod(r) + sum(n * k for n, k in zip(shape, r, strict=True))
    else:
        # A link can carry no more than the product of the axes on its shorter side.
        limits = [min(math.prod(shape[: j + 1]), math.prod(shape[j + 1 :])) for j in range(count)]
        trial = lambda c: tuple(max(1, min(limit, round(c * max(shape)))) for limit in limits)
        size = lambda r: sum(a * n * b for a, n, b in zip((1, *r), shape, (*r, 1), strict=True))
    low, high = 0.0, float(max(1.0, math.prod(shape) ** 0.5 / max(shape) + 1))
    for _ in range(60):  # bisection: the parameter count grows with the scale
        middle = (low + high) / 2
        low, high = (middle, high) if size(trial(middle)) <= budget else (low, middle)
    return trial(low)
