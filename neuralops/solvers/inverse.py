"""The inverse of an operator as an operator."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neuralops.arguments import flag
from neuralops.operator import AbstractOperator, Envelope, as_operator
from neuralops.solvers.algebra.matrices import as_linear_map
from neuralops.solvers.linear_solve import solve

__all__ = ["Inverse"]


class Inverse(AbstractOperator):
    """The map r -> x with A x = r, solved by a method: `solve(A, r, method).value`.

    ```python
    solution_operator = Inverse(A, CG(1e-8, preconditioner=Multigrid(A)))
    solve(A, b, FlexibleCG(1e-8, preconditioner=Inverse(A, CG(max_steps=8))))     # inner iterations
    solve(A, b, Refinement(Inverse(A, CG(1e-4), dtype="float32"), rtol=1e-12))    # mixed precision
    ```

    Differentiable in `r` and in what `A` holds, by the implicit rule of `solve`; not in what `method` holds. The report
    of the solve is lost: call `solve` to see it. Stopped short, an iterative method is a nonlinear map of r.

    **Arguments:**

    - `A`: as in `solve`.
    - `method`: as in `solve`. Numbers in it are static, arrays (a preconditioner's, traced tolerances) are leaves.
    - `dtype`: `"float32"` or `"float64"`: the precision to compute in; the arrays of `A` and `method` are cast, the
      result has the dtype of r again. By default the dtype of r, or that of the arrays of `A` where it is narrower.
    - `warn`: as in `solve`.

    Grid-locked where `A` is.

    **Raises:** `ValueError` when `A` is no linear map or `method` no method, and as `solve` does.
    """

    A: Any
    arrays: tuple[Any, ...]
    numbers: tuple[Any, ...] = eqx.field(static=True)
    dtype: str | None = eqx.field(static=True)
    warn: bool = eqx.field(static=True)

    def __init__(self, A: Any, method: Any, *, dtype: str | None = None, warn: bool = True):
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype: expected None, 'float32' or 'float64', got {dtype!r}; use one of these.")
        if isinstance(method, type) or method is None or isinstance(method, str):
            raise ValueError(f"method: expected an instance such as CG(1e-6), got {method!r}; call its constructor.")
        self.A = as_operator(as_linear_map(A))
        leaves, tree = jax.tree.flatten(method if isinstance(method, eqx.Module) else as_operator(method))
        plain = [leaf.item() if isinstance(leaf, np.generic) else leaf for leaf in leaves]
        self.arrays = tuple(leaf if eqx.is_array(leaf) else None for leaf in plain)
        self.numbers = (tree, *(None if eqx.is_array(leaf) else leaf for leaf in plain))
        self.dtype, self.warn = dtype, flag(warn, "warn")

    def __reduce__(
        self,
    ) -> Any:  # a tree structure of Equinox does not know itself again when it is copied, a tree does
        tree, *numbers = self.numbers
        method = jax.tree.unflatten(tree, range(len(numbers)))
        return _again, (self.A, self.arrays, method, tuple(numbers), self.dtype, self.warn)

    @property
    def method(self) -> Any:
        """The method, put together again."""
        tree, *numbers = self.numbers
        return jax.tree.unflatten(tree, [n if a is None else a for a, n in zip(self.arrays, numbers, strict=True)])

    @property
    def envelope(self) -> Envelope:
        if isinstance(self.A, AbstractOperator):
            return self.A.envelope
        return Envelope(ndim=(1, 2, 3), boundary=("dirichlet", "neumann", "periodic"), refinement="grid-locked")

    def __call__(self, r: Any, /, *, key: Array | None = None) -> Any:
        A, method, dtype = self.A, self.method, self.dtype
        kinds = {leaf.dtype for leaf in jax.tree.leaves(A) if eqx.is_inexact_array(leaf)}
        if dtype is not None:
            A, method = _cast(A, dtype), _cast(method, dtype)
        elif len(kinds) == 1:
            (dtype,) = kinds
        floating = all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(r))
        wider = lambda leaf: self.dtype is not None or jnp.finfo(leaf.dtype).bits > jnp.finfo(dtype).bits
        b = r
        if dtype is not None and floating:  # anything else is refused by solve
            b = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if wider(leaf) else leaf, r)
        x = solve(A, b, method, warn=self.warn).value
        return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), x, r)


def _again(A: Any, arrays: Any, method: Any, numbers: tuple[Any, ...], dtype: str | None, warn: bool) -> Inverse:
    """An `Inverse` from its fields, when it is copied or unpickled."""
    copy = object.__new__(Inverse)
    fields = {"A": A, "arrays": arrays, "numbers": (jax.tree.structure(method), *numbers), "dtype": dtype, "warn": warn}
    for name, value in fields.items():
        object.__setattr__(copy, name, value)
    return copy


def _cast(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)
