"""Solvers of this library in SciPy's style, and its operators for SciPy's solvers.

NumPy arrays in and out, double precision inside whatever JAX's global setting: nothing here has to know of JAX.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_array, csr_array, issparse
from scipy.sparse.linalg import LinearOperator

from neuralops.interop import grid_of
from neuralops.operator import as_operator
from neuralops.solvers.algebra.matrices import as_linear_map
from neuralops.solvers.algebra.null_space import NullSpace
from neuralops.solvers.elliptic.diffusion import Diffusion
from neuralops.solvers.krylov.cg import CG
from neuralops.solvers.linear_solve import solve as solve_with_jax
from neuralops.solvers.solution import Result, Solution

__all__ = ["as_linear_operator", "cg", "solve", "to_sparse"]


def solve(
    A: Any, b: Any, method: Any, *, x0: Any = None, null_space: NullSpace | None = None, throw: bool = False
) -> Solution:
    """`neuralops.solve` for NumPy and SciPy: in double precision, with NumPy arrays in the `Solution`.

    ```python
    A = scipy.sparse.csr_array(...)
    solution = no.interop.scipy.solve(A, b, no.CG(1e-8, preconditioner=no.solvers.Jacobi(A)))
    x, steps = solution.value, int(solution.num_steps)
    ```

    **Arguments:**

    - `A`: a SciPy sparse or NumPy matrix, symmetric positive definite, or whatever else `neuralops.solve` takes.
      Arrays inside an operator keep the precision it was built with; build it under `jax.enable_x64(True)`
      when its coefficients matter to more than seven digits.
    - `b`: the right-hand side, `(n,)` for a matrix, a field for an operator.
    - `method`, `x0`, `null_space`, `throw`: as in `neuralops.solve`.

    **Returns:** a `Solution` of NumPy arrays; `solution.message` says how it went.

    **Raises:** as `neuralops.solve`.
    """
    with jax.enable_x64(True):
        x0 = None if x0 is None else jax.tree.map(_double("x0"), x0)
        solution = solve_with_jax(A, jax.tree.map(_double("b"), b), method, x0=x0, null_space=null_space, throw=throw)
        return jax.tree.map(np.array, solution)


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
) -> tuple[np.ndarray, int]:
    """`scipy.sparse.linalg.cg` with the compiled, residual-confirming CG of this library.

    The iterates are SciPy's, and so is the stopping test, ||b - A x|| <= max(rtol ||b||, atol); success is only
    reported when the true residual passes it. Compiled once per pattern of the matrix.

    **Arguments:**

    - `A`: a symmetric positive definite SciPy sparse or NumPy matrix.
    - `b`: `(n,)`.
    - `x0`: the start, by default zero.
    - `rtol`, `atol`, `maxiter`: as in SciPy; at most 10 n steps by default.
    - `M`: the preconditioner, close to the inverse of `A`: a symmetric positive definite matrix, or a
      function `(n,) -> (n,)` that JAX can trace.

    **Returns:** `(x, info)`: `info` is 0 on success, the number of steps when the tolerance was not met, and
    -1 after a breakdown (`A` or `M` is not positive definite) or NaN. `solve` tells more.

    **Raises:** `ValueError` on a matrix that is not symmetric, real and of the size of `b`.
    """
    with jax.enable_x64(True):
        b = _double("b")(b)
        if issparse(M) or isinstance(M, np.ndarray | jax.Array | LinearOperator):
            M = as_linear_map(M, b, name="M")
        method = CG(rtol, atol, max_steps=maxiter, preconditioner=M)
    solution = solve(A, b, method, x0=x0)
    if solution.converged:
        return solution.value, 0
    if solution.result in (Result.breakdown, Result.nonfinite):
        return solution.value, -1
    return solution.value, max(int(solution.num_steps), 1)


def as_linear_operator(A: Any, shape: tuple[int, ...] | None = None, *, dtype: Any = np.float64) -> LinearOperator:
    """An operator of this library as a SciPy `LinearOperator` on flattened fields: a matrix or a preconditioner.

    ```python
    M = no.interop.scipy.as_linear_operator(no.FastPoisson(grid))
    x, info = scipy.sparse.linalg.cg(matrix, b.ravel(), M=M, rtol=1e-10)
    ```

    **Arguments:**

    - `A`: a `Diffusion`, `FastPoisson`, `Multigrid`, `Inverse`, or any callable from fields of one shape to
      fields of the same shape that JAX can trace; linear for the solvers of SciPy that need it so.
    - `shape`: the shape of one field; by default that of the grid that `A` lives on.
    - `dtype`: the precision it computes in; `np.float32` halves the time of a preconditioner. SciPy sees double
      precision either way.

    The transpose (`rmatvec`) is derived by JAX; blocks of vectors (`matmat`, as in `lobpcg`) are batched.

    **Raises:** `ValueError` when the shape is not known, or `A` does not map such fields to such fields.
    """
    A = as_operator(A)
    if shape is None:
        grid = grid_of(A)
        if grid is None:
            raise ValueError(
                f"shape: expected the shape of a field, got None for {type(A).__name__}, which names no grid; pass "
                "shape=b.shape."
            )
        shape = grid.shape
    shape = tuple(int(n) for n in (shape if np.iterable(shape) else (shape,)))
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected np.float32 or np.float64, got {dtype}; use one of these.")
    return _FieldOperator(A, shape, dtype)


class _FieldOperator(LinearOperator):
    def __init__(self, A: Any, shape: tuple[int, ...], dtype: np.dtype):
        self.operator, self.field, self.precision = A, jax.ShapeDtypeStruct(shape, dtype), dtype
        with jax.enable_x64(True):
            out = jax.eval_shape(lambda v: A(v), self.field)
        if getattr(out, "shape", None) != shape:
            raise ValueError(
                f"A: expected a map from fields of shape {shape} to the same, got {jax.tree.map(np.shape, out)}; pass "
                "the shape of the field it takes."
            )
        super().__init__(np.float64, (math.prod(shape),) * 2)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._run(_apply, x, self.field.shape)

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._run(_apply_transpose, x, self.field.shape)

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        if not X.shape[1]:
            return np.zeros(X.shape)
        return self._run(_apply_batch, X.T, (X.shape[1], *self.field.shape)).reshape(X.shape[::-1]).T

    def _run(self, function: Any, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if np.iscomplexobj(x):
            raise ValueError(f"x: expected real vectors, got {x.dtype}; apply it to real and imaginary parts.")
        with jax.enable_x64(True):
            v = jnp.asarray(np.ascontiguousarray(x).reshape(shape), self.precision)
            return np.array(function(self.operator, v), np.float64).ravel()  # a copy: JAX's own memory is read-only


# With the operator as an argument, so that a rebuilt one (other coefficients, same grid) does not recompile.
_apply = jax.jit(lambda A, v: A(v))
_apply_batch = jax.jit(lambda A, v: jax.vmap(lambda u: A(u))(v))
# By vjp: `solve`, inside an Inverse, has a rule for derivatives and none for linear_transpose.
_apply_transpose = jax.jit(lambda A, v: jax.vjp(lambda u: A(u).astype(v.dtype), v)[1](v)[0])


def to_sparse(A: Diffusion) -> csr_array:
    """A `Diffusion` as a SciPy CSR matrix in double precision, on fields flattened in C order.

    For algebraic multigrid, direct solvers and eigenvalue solvers: one row per point, at most one entry per
    neighbour and the diagonal, no stored zeros off the diagonal. Rows of points outside a mask are zero.

    **Raises:** `ValueError` when `A` is no `Diffusion`.
    """
    if not isinstance(A, Diffusion):
        raise ValueError(
            f"A: expected a Diffusion, got {type(A).__name__}; use as_linear_operator(A), which needs no matrix."
        )
    grid = A.grid
    n = math.prod(grid.shape)
    points = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64).reshape(grid.shape)
    with jax.enable_x64(True):
        faces = [np.asarray(c, np.float64) for c in A._conductances(jnp.float64)]
    diagonal = np.zeros(grid.shape)
    rows, columns, values = [points.ravel()], [points.ravel()], [diagonal.ravel()]
    for axis, (c, m) in enumerate(zip(faces, grid.shape, strict=True)):
        periodic = grid.boundary[axis] == "periodic"
        below = np.take(c, range(m), axis)
        above = np.roll(c, -1, axis) if periodic else np.take(c, range(1, m + 1), axis)
        diagonal += below + above
        for side, step in ((below, -1), (above, 1)):
            neighbour = np.roll(points, -step, axis)
            weight = np.broadcast_to(side, grid.shape).copy()
            if not periodic:  # beyond a wall is zero
                weight[(slice(None),) * axis + (0 if step < 0 else -1,)] = 0
            keep = weight != 0
            rows.append(points[keep])
            columns.append(neighbour[keep])
            values.append(-weight[keep])
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return coo_array(entries, shape=(n, n)).tocsr()


def _double(name: str) -> Any:
    def convert(u: Any) -> jax.Array:
        u = np.asarray(u)
        if not np.issubdtype(u.dtype, np.floating):
            raise ValueError(f"{name}: expected real floating numbers, got {u.dtype}; use {name}.astype(float).")
        return jnp.asarray(u, jnp.float64)

    return convert
