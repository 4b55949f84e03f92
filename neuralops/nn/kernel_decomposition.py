"""Canonical polyadic decompositions of given kernels: many small tensors at once, in NumPy, in double precision.

Alternating least squares of our own: the kernels of one layer are thousands of tensors of a few entries (one per pair
of channels), which a library such as TensorLy takes one by one. Here one solve serves all of them and all starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["als", "balanced", "cp_factors", "cp_tensor"]

EXACT = 1e-13  # relative error at which a tensor counts as reproduced
CHECK_EVERY = 20  # steps


def cp_factors(
    tensors: np.ndarray, rank: int, *, num_starts: int = 8, max_steps: int = 1000, seed: int = 0
) -> list[np.ndarray]:
    """Factors `(batch, n_j, rank)`, one array per axis, of `tensors` `(batch, *dims)`: sums of `rank` outer products.

    - One axis: the tensor itself and zeros.
    - Two axes: the truncated singular value decomposition, the best approximation there is.
    - More axes: exact where `rank` is at least the product of all dimensions but the largest; else `als`, which finds a
      good approximation and need not find the best. There may be none: a tensor whose border rank is smaller than its
      rank is approached without end while the factors grow.

    Each of the factors of a term has the same norm.
    """
    dims = tensors.shape[1:]
    if len(dims) == 1:
        factors = [_filled(tensors[..., None], rank)]
    elif len(dims) == 2:
        U, s, Vt = np.linalg.svd(tensors, full_matrices=False)
        factors = [_filled(U * s[:, None, :], rank), _filled(np.swapaxes(Vt, 1, 2), rank)]
    elif rank >= math.prod(dims) // max(dims):
        factors = [_filled(factor, rank) for factor in _by_unit_vectors(tensors)]
    else:
        factors = als(tensors, rank, num_starts=num_starts, max_steps=max_steps, seed=seed)
    return balanced(factors)


def als(tensors: np.ndarray, rank: int, *, num_starts: int, max_steps: int, seed: int) -> list[np.ndarray]:
    """Alternating least squares (each factor in turn solved for, the others fixed), the best of several random starts.

    Ends when all tensors are reproduced, when nothing improves any more, or after `max_steps` rounds.
    """
    rng, dims, ndim = np.random.default_rng(seed), tensors.shape[1:], tensors.ndim - 1
    size = np.linalg.norm(tensors.reshape(len(tensors), -1), axis=1)
    scaled = tensors / np.where(size > 0, size, 1).reshape(-1, *(1,) * ndim)
    factors = [rng.normal(size=(len(tensors), num_starts, n, rank)) for n in dims]
    # (batch, 1, n_j, all others), the others in the order of the axes
    unfolded = [np.moveaxis(scaled, j + 1, 1).reshape(len(tensors), 1, dims[j], -1) for j in range(ndim)]
    errors = np.full((len(tensors), num_starts), np.inf)
    for step in range(max_steps):
        for j in range(ndim):
            others = [factors[i] for i in range(ndim) if i != j]
            gram = np.prod([np.swapaxes(f, -1, -2) @ f for f in others], axis=0)
            # Where terms are alike the system is singular; the pull to the last value costs no accuracy at the end.
            pull = 1e-12 * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / rank + np.finfo(float).tiny
            right = unfolded[j] @ _khatri_rao(others) + pull * factors[j]
            factors[j] = np.swapaxes(np.linalg.solve(gram + pull * np.eye(rank), np.swapaxes(right, -1, -2)), -1, -2)
        factors = balanced(factors)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == max_steps:
            last, errors = errors, _errors(unfolded[0], factors)
            best = errors.min(1)
            if np.all((best < EXACT) | (last.min(1) - best < 1e-9 * best)):
                break
    chosen = np.argmin(errors, 1)
    found = [factor[np.arange(len(tensors)), chosen] for factor in factors]
    return [found[0] * size[:, None, None], *found[1:]]


def cp_tensor(factors: Sequence[np.ndarray]) -> np.ndarray:
    """The tensors `(batch, *dims)` that factors `(batch, n_j, rank)` make."""
    rest = _khatri_rao(factors[1:]) if len(factors) > 1 else np.ones((len(factors[0]), 1, factors[0].shape[-1]))
    return (factors[0] @ np.swapaxes(rest, -1, -2)).reshape(len(factors[0]), *(f.shape[-2] for f in factors))


def balanced(factors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same terms, the norm of each shared evenly among its factors."""
    norms = [np.linalg.norm(factor, axis=-2, keepdims=True) for factor in factors]
    share = np.exp(np.mean([np.log(np.maximum(norm, 1e-300)) for norm in norms], axis=0))
    share = np.where(np.min(norms, axis=0) > 0, share, 0)
    return [f / np.where(norm > 0, norm, 1) * share for f, norm in zip(factors, norms, strict=True)]


def _errors(unfolded: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
    """The distance of each start's tensor."""
    made = factors[0] @ np.swapaxes(_khatri_rao(factors[1:]), -1, -2)
    return np.linalg.norm((made - unfolded).reshape(*made.shape[:2], -1), axis=-1)


def _khatri_rao(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Outer products of the columns of each term, `(..., n_1 n_2 ..., rank)`."""
    product = factors[0]
    for factor in factors[1:]:
        product = product[..., :, None, :] * factor[..., None, :, :]
        product = product.reshape(*product.shape[:-3], -1, product.shape[-1])
    return product


def _filled(factor: np.ndarray, rank: int) -> np.ndarray:
    """The first `rank` terms, with zero terms behind them where there are fewer."""
    return np.pad(factor[..., :rank], [(0, 0), (0, 0), (0, max(rank - factor.shape[-1], 0))])


def _by_unit_vectors(tensors: np.ndarray) -> list[np.ndarray]:
    """Every line along the longest axis as a term of its own."""
    dims = tensors.shape[1:]
    longest = int(np.argmax(dims))
    others = [n for j, n in enumerate(dims) if j != longest]
    places = np.stack(np.unravel_index(np.arange(math.prod(others)), others))
    units = [np.broadcast_to(np.eye(n)[:, where], (len(tensors), n, len(where)))
             for n, where in zip(others, places, strict=True)]  # fmt: skip
    units.insert(longest, np.moveaxis(tensors, longest + 1, 1).reshape(len(tensors), dims[longest], -1))
    return units
