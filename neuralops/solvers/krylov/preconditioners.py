"""Simple preconditioners: the diagonal, a polynomial, and symmetric scaling of another one."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.operator import AbstractOperator, Envelope, as_operator
from neuralops.solvers.algebra.matrices import as_linear_map
from neuralops.solvers.algebra.vectors import Dot, ratio
from neuralops.solvers.elliptic.diffusion import Diffusion

__all__ = ["Chebyshev", "Jacobi", "Scaled"]

POWER_STEPS = 20  # of the power iteration for the largest eigenvalue, which it finds to a few per cent from below
SAFETY = 1.1  # by which that estimate is raised


class Jacobi(AbstractOperator):
    """Division by the diagonal: M r = r / diag(A).

    Worth its little cost where the diagonal varies: strong contrasts, badly scaled matrices. Not for a constant
    coefficient on a uniform grid, where it changes nothing.

    **Arguments:**

    - `A`: a `Diffusion`, a matrix, or any operator with `diagonal()`.
    - `inverse_diagonal`: 1 / diag(A), instead of `A`.

    Where the diagonal is zero (outside a mask) so is the result. Grid-locked; leading axes (channels) pass through.

    **Raises:** `ValueError` when there is no diagonal.
    """

    inverse_diagonal: Float[Array, "*grid"]

    def __init__(self, A: Any = None, *, inverse_diagonal: Any = None):
        self.inverse_diagonal = _inverse_diagonal(A) if inverse_diagonal is None else jnp.asarray(inverse_diagonal)

    @property
    def A(self) -> None:
        """Not kept."""

    @property
    def envelope(self) -> Envelope:
        return _anywhere()

    def __call__(self, r: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        _check_residual(r, self.inverse_diagonal)
        return self.inverse_diagonal.astype(r.dtype) * r


class Chebyshev(AbstractOperator):
    """A polynomial in D^-1 A, with D the diagonal, that is close to its inverse on an interval (Saad 2003, 12.3).

    It is the Chebyshev iteration from zero: linear, symmetric, positive up to the sum of the bounds, and free of
    inner products, which on many devices are what waits. One application costs `degree - 1` products with `A`.

    **Arguments:**

    - `A`: a `Diffusion`, a matrix, or any linear operator with `diagonal()`.
    - `degree`: the number of terms, at least 1; 1 is `Jacobi`, up to a factor.
    - `bounds`: the interval (low, high) of eigenvalues of D^-1 A to aim at; may be traced. By default high is an upper
      bound (2, by Gershgorin, for a `Diffusion`; else from a power iteration of 20 steps) and low is high / 30.
    - `inverse_diagonal`: 1 / diag(A), for an operator without `diagonal()`.

    Grid-locked; leading axes (channels) pass through.

    **Raises:** `ValueError` on a degree below 1, bounds that are not positive and ordered, or no diagonal.
    """

    A: Any
    inverse_diagonal: Float[Array, "*grid"]
    bounds: Float[Array, " 2"]
    degree: int = eqx.field(static=True)

    def __init__(self, A: Any, degree: int = 4, *, bounds: Any = None, inverse_diagonal: Any = None):
        self.A, self.degree = as_operator(as_linear_map(A)), count(degree, "degree", hint="use degree=4.")
        self.inverse_diagonal = _inverse_diagonal(A) if inverse_diagonal is None else jnp.asarray(inverse_diagonal)
        if bounds is None:
            high = 2.0 if isinstance(A, Diffusion) else SAFETY * _largest_eigenvalue(self.A, self.inverse_diagonal)
            bounds = (high / 30, high)
        elif isinstance(bounds, str) or not hasattr(bounds, "__len__") or len(bounds) != 2:
            raise ValueError(f"bounds: expected two numbers (low, high), got {bounds!r}; use (0.06, 2.0).")
        elif not _traced(bounds) and not 0 < np.asarray(bounds)[0] < np.asarray(bounds)[1]:
            raise ValueError(f"bounds: expected 0 < low < high, got {bounds!r}; use (0.06, 2.0).")
        self.bounds = jnp.asarray(bounds, self.inverse_diagonal.dtype)

    @property
    def envelope(self) -> Envelope:
        return self.A.envelope if isinstance(self.A, AbstractOperator) else _anywhere()

    def __call__(self, r: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        _check_residual(r, self.inverse_diagonal)
        inverse_diagonal, (low, high) = self.inverse_diagonal.astype(r.dtype), self.bounds.astype(r.dtype)
        centre, radius = (high + low) / 2, (high - low) / 2
        factors, rho = [], radius / centre
        for _ in range(self.degree - 1):
            after = 1 / (2 * centre / radius - rho)
            factors.append((after * rho, 2 * after / radius))
            rho = after

        def advance(state: tuple[Array, Array], factor: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
            x, d = state
            d = factor[0] * d + factor[1] * (inverse_diagonal * (r - self.A(x)))
            return (x + d, d), None

        d = inverse_diagonal * r / centre
        if not factors:
            return d
        stacked = tuple(jnp.stack(column) for column in zip(*factors, strict=True))
        return lax.scan(advance, (d, d), stacked)[0][0]


class Scaled(AbstractOperator):
    """An approximate inverse between two multiplications by a weight, w M(w r), which keeps it symmetric.

    With w = a^(-1/2) the inverse of the constant-coefficient operator becomes one of -div(a grad u) that is far better
    where a is smooth (Concus and Golub 1973): `Scaled(FastPoisson(grid), a**-0.5)`. Across jumps of `a` it is worse
    than the plain inverse.

    **Arguments:**

    - `inverse`: a map from residual to correction.
    - `weight`: a field `(*grid,)`, positive; or anything that broadcasts against the residual.

    **Raises:** `ValueError` when `inverse` cannot be called.
    """

    inverse: Any
    weight: Float[Array, "*grid"]

    def __init__(self, inverse: Any, weight: Any):
        self.inverse, self.weight = as_operator(inverse), jnp.asarray(weight)

    @property
    def envelope(self) -> Envelope:
        return self.inverse.envelope if isinstance(self.inverse, AbstractOperator) else _anywhere()

    def __call__(self, r: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        _check_residual(r, self.weight)
        weight = self.weight.astype(r.dtype)
        return weight * self.inverse(weight * r)


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _anywhere() -> Envelope:
    return Envelope(ndim=(1, 2, 3), boundary=("dirichlet", "neumann", "periodic"), refinement="grid-locked")


def _inverse_diagonal(A: Any) -> Array:
    A = as_linear_map(A)
    if not callable(getattr(A, "diagonal", None)):
        raise ValueError(
            f"A: expected an operator with diagonal(), got {type(A).__name__}; pass a Diffusion or a matrix, or "
            "inverse_diagonal=1 / d."
        )
    diagonal = A.diagonal()
    return jnp.where(diagonal == 0, 0, 1 / jnp.where(diagonal == 0, 1, diagonal))


def _largest_eigenvalue(A: Any, inverse_diagonal: Array) -> Array:
    """An estimate from below for D^-1 A, by the power method on the symmetric D^(-1/2) A D^(-1/2)."""
    root, dot = jnp.sqrt(inverse_diagonal), Dot(tuple(getattr(A, "mesh_axes", ())))
    unit = lambda v: v * ratio(jnp.ones((), v.dtype), dot.norm(v))

    def advance(v: Array, _: None) -> tuple[Array, Array]:
        w = root * A(root * v)
        return unit(w), dot(v, w)

    start = unit(jax.random.normal(jax.random.key(0), inverse_diagonal.shape, inverse_diagonal.dtype))
    return lax.scan(advance, start, None, length=POWER_STEPS)[1][-1]


def _check_residual(r: Any, like: Array) -> None:
    shape = tuple(getattr(r, "shape", ()))
    if len(shape) < like.ndim or any(n not in (m, 1) for n, m in zip(like.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"r: expected the shape {like.shape} of the operator (leading axes free), got {shape}; build the "
            "preconditioner from the operator that is solved with."
        )
    if not hasattr(r, "dtype") or not jnp.issubdtype(r.dtype, jnp.floating):
        came = getattr(r, "dtype", type(r).__name__)
        raise ValueError(f"r: expected a real floating array, got {came}; use r.astype(jnp.float32).")
