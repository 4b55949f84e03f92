"""Matrices as linear maps: dense, `jax.experimental.sparse` and SciPy sparse ones, and lineax operators."""

from __future__ import annotations

import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from neuralops.operator import AbstractOperator

__all__ = ["DenseMatrix", "SparseMatrix", "as_linear_map"]

MAX_WIDTH = 256  # most entries per row in the padded block
UNROLLED = 8  # columns of the block up to which one fused loop is faster than one pass per column
REST_COST = 4  # time of an entry outside the padded block over one inside, measured on two CPU cores: 3.5 to 5
ASYMMETRY = 1e-10  # of the largest entry; assembled matrices are symmetric to rounding only


def as_linear_map(A: Any, b: Any = None, *, name: str = "A") -> Any:
    """A matrix as a callable pytree that `solve` takes; anything else is returned unchanged.

    `solve` calls it. Call it yourself to convert a matrix once and solve with it many times: a new matrix
    of the same pattern does not recompile the solve.

    ```python
    A = as_linear_map(scipy_matrix, b)          # A(b), A.diagonal()
    ```

    **Arguments:**

    - `A`: a square, symmetric, real floating matrix: a 2-D array (JAX or NumPy), a `BCOO` or `BCSR` matrix of
      `jax.experimental.sparse`, a SciPy sparse matrix or array, or a lineax operator. Matrices of NumPy and
      SciPy are computed with in the precision of `b`, whatever their own; JAX arrays must have its dtype.
      Differentiable in the entries of JAX matrices.
    - `b`: the right-hand side, `(n,)`, which the matrix must fit; `None` checks the matrix only.
    - `name`: what the messages call the matrix.

    Symmetry is checked when the entries are known, to 1e-10 of the largest one (the precision of the dtype if that
    is more): the methods of this library, and the rule of differentiation, are for symmetric matrices. Entries
    traced by JAX are not checked.

    **Returns:** `DenseMatrix`, `SparseMatrix`, or another callable for a lineax operator.

    **Raises:** `ValueError` on a matrix that is not square, symmetric, real and floating, or does not fit `b`.
    """
    scipy_sparse, jax_sparse, lineax = (
        sys.modules.get(module) for module in ("scipy.sparse", "jax.experimental.sparse", "lineax")
    )  # who has such a matrix has imported its module
    if isinstance(A, jax.Array | np.ndarray):
        _check_matrix(name, A.shape, A.dtype, b, host=isinstance(A, np.ndarray))
        _check_symmetric_dense(name, A)
        return DenseMatrix(jnp.asarray(A, _dtype_of(b, A)))
    if scipy_sparse is not None and scipy_sparse.issparse(A):
        _check_matrix(name, A.shape, A.dtype, b, host=True)
        entries = A.tocoo()
        return _sparse(name, entries.row, entries.col, entries.data, A.shape[0], _dtype_of(b, A))
    if jax_sparse is not None and isinstance(A, jax_sparse.JAXSparse):
        if not isinstance(A, jax_sparse.BCOO | jax_sparse.BCSR):
            raise ValueError(
                f"{name}: expected a BCOO or BCSR matrix, got {type(A).__name__}; use BCOO.fromdense({name}.todense())."
            )
        if A.n_batch or A.n_dense:
            raise ValueError(
                f"{name}: expected a plain matrix, got n_batch={A.n_batch} and n_dense={A.n_dense}; use jax.vmap for a "
                f"batch and BCOO.fromdense({name}.todense()) for dense blocks."
            )
        _check_matrix(name, A.shape, A.dtype, b, host=False)
        if _traced(A.indices, getattr(A, "indptr", None)):
            entries = A if isinstance(A, jax_sparse.BCOO) else A.to_bcoo()
            nothing = jnp.zeros((0, A.shape[0]), A.dtype)
            return SparseMatrix(
                nothing.astype(jnp.int32), nothing, entries.indices[:, 0], entries.indices[:, 1], entries.data
            )
        indices = np.asarray(A.indices)  # in NumPy: JAX would trace it where the matrix is a constant inside jit
        if isinstance(A, jax_sparse.BCOO):
            return _sparse(name, indices[:, 0], indices[:, 1], A.data, A.shape[0], A.dtype)
        ends = np.asarray(A.indptr)
        rows = np.repeat(np.arange(A.shape[0]), np.diff(ends))
        return _sparse(name, rows, indices[: ends[-1]], A.data, A.shape[0], A.dtype)
    if lineax is not None and isinstance(A, lineax.AbstractLinearOperator):
        rules = (lineax.is_symmetric, lineax.is_positive_semidefinite, lineax.is_negative_semidefinite)
        if not any(rule(A) for rule in rules):
            raise ValueError(
                f"{name}: expected a lineax operator tagged as symmetric or positive semidefinite, got "
                f"{type(A).__name__} without; build it with tags=lineax.positive_semidefinite_tag."
            )
        inner = getattr(A, "fn", None)  # an operator of this library in lineax's dress
        return inner if isinstance(inner, AbstractOperator) else _LineaxMap(A)
    if hasattr(A, "matvec") and hasattr(A, "rmatvec"):
        raise ValueError(
            f"{name}: expected a matrix or a function JAX can trace, got {type(A).__name__}, which computes in NumPy; "
            "pass the matrix itself, or use neuralops.interop.scipy to bring preconditioners of this library to SciPy."
        )
    return A


class DenseMatrix(eqx.Module):
    """A dense symmetric matrix as a linear map of vectors `(n,)`. Made by `as_linear_map`."""

    matrix: Float[Array, "n n"]

    def __call__(self, v: Float[Array, " n"], /) -> Float[Array, " n"]:
        return jnp.matmul(self.matrix, v, precision="highest")

    def diagonal(self) -> Float[Array, " n"]:
        return jnp.diagonal(self.matrix)


class SparseMatrix(eqx.Module):
    """A sparse symmetric matrix as a linear map of vectors `(n,)`. Made by `as_linear_map`.

    The hybrid format of Bell and Garland (2009): rows are padded to one width and stored by columns, so that the
    product is a few gathers (stencil matrices on two CPU cores: 1.1 to 1.5 times as fast as SciPy's CSR, 4 to 9 times
    as `BCOO @`); what exceeds the width is kept as (row, column, value) and added by a scatter.

    **Fields:**

    - `columns`, `values`: `(width, n)`; padding points at the row itself, with the value 0.
    - `rest_rows`, `rest_columns`, `rest_values`: the other entries.
    """

    columns: Int[Array, "width n"]
    values: Float[Array, "width n"]
    rest_rows: Int[Array, " rest"]
    rest_columns: Int[Array, " rest"]
    rest_values: Float[Array, " rest"]

    def __call__(self, v: Float[Array, " n"], /) -> Float[Array, " n"]:
        def add(total: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
            return total + column[1] * v.at[column[0]].get(mode="promise_in_bounds"), None

        width = self.values.shape[0]
        out, _ = lax.scan(
            add, jnp.zeros_like(v), (self.columns, self.values), unroll=width if 0 < width <= UNROLLED else 1
        )
        if self.rest_rows.size:
            # Indices out of bounds are the padding of a traced BCOO matrix and count nothing.
            terms = self.rest_values * v.at[self.rest_columns].get(mode="fill", fill_value=0)
            out = out.at[self.rest_rows].add(terms, mode="drop")
        return out

    def diagonal(self) -> Float[Array, " n"]:
        n = self.values.shape[1]
        out = jnp.sum(jnp.where(self.columns == jnp.arange(n), self.values, 0), axis=0)
        own = jnp.where(self.rest_rows == self.rest_columns, self.rest_values, 0)
        return out.at[self.rest_rows].add(own, mode="drop")


class _LineaxMap(eqx.Module):
    operator: Any

    def __call__(self, v: Any, /) -> Any:
        return self.operator.mv(v)

    def diagonal(self) -> Array:
        return sys.modules["lineax"].diagonal(self.operator)


def _sparse(name: str, rows: np.ndarray, columns: np.ndarray, values: Any, n: int, dtype: Any) -> SparseMatrix:
    order: Any = slice(rows.size)  # BCSR pads at the end
    if rows.size and max(rows.max(), columns.max()) >= n:  # BCOO pads with indices out of bounds
        order = np.flatnonzero((rows < n) & (columns < n))
    if np.any(rows[order][1:] < rows[order][:-1]):
        order = np.arange(rows.size)[order][np.argsort(rows[order], kind="stable")]
    concrete = not _traced(values)
    values = (np.asarray(values) if concrete else values)[order]
    rows, columns = rows[order], columns[order].astype(np.int32, copy=False)
    if concrete:
        _check_symmetric_sparse(name, rows, columns, values, n)
    lengths = np.bincount(rows, minlength=n)
    starts = np.cumsum(lengths) - lengths
    number = np.arange(_best_width(lengths))[:, None]  # of an entry in its row
    filled = number < lengths
    source = np.where(filled, starts + number, 0)
    rest = np.flatnonzero(np.arange(rows.size) - np.repeat(starts, lengths) >= number.size)
    xp = np if concrete else jnp
    return SparseMatrix(
        jnp.asarray(np.where(filled, columns[source], np.arange(n, dtype=np.int32))),
        jnp.asarray(xp.where(filled, values[source], 0), dtype),
        jnp.asarray(rows[rest], jnp.int32),
        jnp.asarray(columns[rest]),
        jnp.asarray(values[rest], dtype),
    )


def _best_width(lengths: np.ndarray) -> int:
    """The width of the padded block for which padding and entries left out together cost least."""
    longer = np.bincount(np.minimum(lengths, MAX_WIDTH + 1), minlength=MAX_WIDTH + 2)[::-1].cumsum()[::-1]
    beyond = np.maximum(lengths - MAX_WIDTH, 0).sum()
    # longer[k] rows have k entries or more, so a block of width w leaves out the sum over k > w
    left_out = beyond + np.append(longer[1 : MAX_WIDTH + 1][::-1].cumsum()[::-1], 0)
    return int(np.argmin(lengths.size * np.arange(MAX_WIDTH + 1) + REST_COST * left_out))


def _traced(*arrays: Any) -> bool:
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def _dtype_of(b: Any, A: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(A.dtype if b is None else b.dtype)


def _check_matrix(name: str, shape: tuple[int, ...], dtype: Any, b: Any, *, host: bool) -> None:
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(
            f"{name}: expected a square matrix (n, n), got shape {tuple(shape)}; pass a function for other linear "
            "maps, and the normal equations for a least-squares problem."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        mend = (
            "of a Hermitian one solve the real form, [[Re, -Im], [Im, Re]]."
            if jnp.issubdtype(dtype, jnp.complexfloating)
            else f"use {name}.astype(float)."
        )
        raise ValueError(f"{name}: expected a real floating matrix, got {dtype}; {mend}")
    if b is None:
        return
    n = shape[0]
    if not hasattr(b, "shape") or tuple(b.shape) != (n,):
        came = f"shape {tuple(b.shape)}" if hasattr(b, "shape") else f"a {type(b).__name__}"
        mend = f"give one entry per row of {name}, whose shape is {tuple(shape)}."
        if hasattr(b, "shape") and len(b.shape) == 2 and n in b.shape and 1 not in b.shape:
            axis = b.shape.index(n)
            mend = f"for a batch use jax.vmap(lambda b: solve({name}, b, method), in_axes={1 - axis})(b)."
        elif hasattr(b, "shape") and b.size == n:
            mend = "use b.ravel(), and reshape the solution."
        raise ValueError(f"b: expected shape ({n},) for a matrix {name} of shape {tuple(shape)}, got {came}; {mend}")
    if not host and dtype != b.dtype:
        raise ValueError(f"{name}: expected the dtype of b, {b.dtype}, got {dtype}; cast one: {name}.astype(b.dtype).")


def _refuse_asymmetry(name: str, largest: float, asymmetry: float, dtype: Any) -> None:
    if asymmetry > max(ASYMMETRY, 100 * float(jnp.finfo(dtype).eps)) * largest:
        raise ValueError(
            f"{name}: expected a symmetric matrix, got one whose entries differ from their transposes by "
            f"{asymmetry:.3g} where the largest is {largest:.3g}; use GMRES of scipy.sparse.linalg or lineax, or "
            f"({name} + {name}.T) / 2 if it should be symmetric."
        )


def _check_symmetric_dense(name: str, A: Any) -> None:
    if _traced(A):
        return
    with jax.ensure_compile_time_eval():  # also when a constant matrix is met inside jit
        xp = np if isinstance(A, np.ndarray) else jnp
        _refuse_asymmetry(name, float(xp.max(xp.abs(A))), float(xp.max(xp.abs(A - A.T))), A.dtype)


def _check_symmetric_sparse(name: str, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n: int) -> None:
    from scipy.sparse import csr_array

    dtype, values = values.dtype, values.astype(float)  # SciPy has no bfloat16
    A = csr_array((values, columns, np.concatenate([[0], np.bincount(rows, minlength=n).cumsum()])), shape=(n, n))
    if A.nnz:
        A.sum_duplicates()
        _refuse_asymmetry(name, float(np.max(np.abs(A.data))), float(abs(A - A.T.tocsr()).max()), dtype)
