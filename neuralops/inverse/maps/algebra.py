"""Maps made of maps: products, sums, multiples, stacks, adjoints, normal maps; and the two plainest ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_plain
from neuralops.inverse.maps.linear_map import AbstractLinearMap, check_shape

__all__ = ["Added", "Composed", "Identity", "Matrix", "Multiple", "Normal", "Stack", "Transposed", "stack"]

Shape = tuple[int, ...]


class Identity(AbstractLinearMap):
    """The map x -> x: denoising, and the shift in `A.normal() + rho * Identity(A.in_shape)`.

    **Arguments:** `in_shape`, `(channels, *grid)`.
    """

    in_shape: Shape = eqx.field(static=True)

    def __init__(self, in_shape: Sequence[int]):
        self.in_shape = check_shape(in_shape, "in_shape")

    @property
    def out_shape(self) -> Shape:
        return self.in_shape

    @property
    def symmetric(self) -> bool:
        return True

    def apply(self, x: Array) -> Array:
        return x

    def apply_adjoint(self, y: Array) -> Array:
        return y

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return jnp.ones(())


class Matrix(AbstractLinearMap):
    """A dense matrix as a map, on fields flattened in C order.

    **Arguments:**

    - `matrix`: `(out, in)`, real and floating; a leaf.
    - `in_shape`, `out_shape`: of the fields, by default `(1, in)` and `(1, out)`.

    **Raises:** `ValueError` when it is no real matrix or the shapes do not fit.
    """

    matrix: Float[Array, "out in"]
    in_shape: Shape = eqx.field(static=True)
    out_shape: Shape = eqx.field(static=True)

    def __init__(self, matrix: Any, in_shape: Any = None, out_shape: Any = None):
        check_plain(matrix, "matrix")
        self.matrix = jnp.asarray(matrix)
        if self.matrix.ndim != 2 or not jnp.issubdtype(self.matrix.dtype, jnp.floating):
            raise ValueError(
                f"matrix: expected real floating (out, in), got {self.matrix.dtype} of shape {self.matrix.shape}; give "
                "one row per measured number."
            )
        m, n = self.matrix.shape
        self.in_shape = check_shape((1, n) if in_shape is None else in_shape, "in_shape")
        self.out_shape = check_shape((1, m) if out_shape is None else out_shape, "out_shape")
        for name, shape, size in (("in_shape", self.in_shape, n), ("out_shape", self.out_shape, m)):
            if math.prod(shape) != size:
                raise ValueError(f"{name}: expected {size} entries as the matrix has, got {shape}; make them agree.")

    def apply(self, x: Array) -> Array:
        return jnp.matmul(self.matrix.astype(x.dtype), x.reshape(-1), precision="highest").reshape(self.out_shape)

    def apply_adjoint(self, y: Array) -> Array:
        return jnp.matmul(self.matrix.T.astype(y.dtype), y.reshape(-1), precision="highest").reshape(self.in_shape)


class Transposed(AbstractLinearMap):
    """The adjoint of a map as a map, `A.T`; of an adjoint, the map itself."""

    op: AbstractLinearMap

    def __init__(self, op: AbstractLinearMap):
        self.op = _map(op, "op")

    @property
    def in_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def symmetric(self) -> bool:
        return self.op.symmetric

    @property
    def T(self) -> AbstractLinearMap:
        return self.op

    def apply(self, x: Array) -> Array:
        return self.op.apply_adjoint(x)

    def apply_adjoint(self, y: Array) -> Array:
        return self.op.apply(y)

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return self.op.norm(*args, **options)


class Normal(AbstractLinearMap):
    """A^T A, `A.normal()`: symmetric, so `solve` takes it."""

    op: AbstractLinearMap

    def __init__(self, op: AbstractLinearMap):
        self.op = _map(op, "op")

    @property
    def in_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def symmetric(self) -> bool:
        return True

    def apply(self, x: Array) -> Array:
        return self.op.apply_adjoint(self.op.apply(x))

    def apply_adjoint(self, y: Array) -> Array:
        return self.apply(y)

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return self.op.norm(*args, **options) ** 2


class Composed(AbstractLinearMap):
    """`outer @ inner`: first inner, then outer."""

    outer: AbstractLinearMap
    inner: AbstractLinearMap

    def __init__(self, outer: AbstractLinearMap, inner: AbstractLinearMap):
        self.outer, self.inner = _map(outer, "outer"), _map(inner, "inner")
        if self.outer.in_shape != self.inner.out_shape:
            raise ValueError(
                f"inner: expected a map to {self.outer.in_shape}, which the outer one takes, got one to "
                f"{self.inner.out_shape}; build both for the same shape."
            )

    @property
    def in_shape(self) -> Shape:
        return self.inner.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.outer.out_shape

    def apply(self, x: Array) -> Array:
        return self.outer.apply(self.inner.apply(x))

    def apply_adjoint(self, y: Array) -> Array:
        return self.inner.apply_adjoint(self.outer.apply_adjoint(y))


class Added(AbstractLinearMap):
    """`A + B`, of maps between the same shapes."""

    maps: tuple[AbstractLinearMap, ...]

    def __init__(self, maps: Sequence[AbstractLinearMap]):
        given = tuple(_map(A, "maps") for A in maps)
        # A sum of sums is one sum
        self.maps = tuple(B for A in given for B in (A.maps if isinstance(A, Added) else (A,)))
        if not self.maps:
            raise ValueError("maps: expected at least one map, got none; give those to add.")
        for A in self.maps:
            if (A.in_shape, A.out_shape) != (self.maps[0].in_shape, self.maps[0].out_shape):
                raise ValueError(
                    f"maps: expected maps from {self.maps[0].in_shape} to {self.maps[0].out_shape}, got one from "
                    f"{A.in_shape} to {A.out_shape}; use stack(A, B) to see both."
                )

    @property
    def in_shape(self) -> Shape:
        return self.maps[0].in_shape

    @property
    def out_shape(self) -> Shape:
        return self.maps[0].out_shape

    @property
    def symmetric(self) -> bool:
        return all(A.symmetric for A in self.maps)

    def apply(self, x: Array) -> Array:
        first, *others = [A.apply(x) for A in self.maps]
        return sum(others, start=first)

    def apply_adjoint(self, y: Array) -> Array:
        first, *others = [A.apply_adjoint(y) for A in self.maps]
        return sum(others, start=first)


class Multiple(AbstractLinearMap):
    """`factor * A`. The factor is a leaf, so that another value compiles nothing again."""

    factor: Float[Array, ""]
    op: AbstractLinearMap

    def __init__(self, factor: Any, op: AbstractLinearMap):
        self.op = _map(op, "op")
        number = not isinstance(factor, bool | str) and isinstance(
            factor, int | float | np.number | np.ndarray | jax.Array
        )
        if not number or jnp.shape(factor) != () or jnp.issubdtype(jnp.result_type(factor), jnp.complexfloating):
            shown = f"shape {jnp.shape(factor)}" if number else type(factor).__name__
            raise ValueError(
                f"factor: expected a real number, got {shown}; for a factor per point compose with a map of your own, "
                "and apply a map to a field by A(x)."
            )
        factor = jnp.asarray(factor)
        self.factor = factor if jnp.issubdtype(factor.dtype, jnp.floating) else factor.astype(float)

    @property
    def in_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def symmetric(self) -> bool:
        return self.op.symmetric

    def apply(self, x: Array) -> Array:
        return self.factor.astype(x.dtype) * self.op.apply(x)

    def apply_adjoint(self, y: Array) -> Array:
        return self.factor.astype(y.dtype) * self.op.apply_adjoint(y)

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return jnp.abs(self.factor) * self.op.norm(*args, **options)


class Stack(AbstractLinearMap):
    """Several maps of one field, `stack(A, B)`: x -> (A x, B x), and y -> A^T y_1 + B^T y_2.

    Measurements on one grid are put side by side as channels; others are flattened to `(1, numbers)`, and `parts`
    gives them back in their own shapes.
    """

    maps: tuple[AbstractLinearMap, ...]

    def __init__(self, maps: Sequence[AbstractLinearMap]):
        self.maps = tuple(_map(A, "maps") for A in maps)
        if not self.maps:
            raise ValueError("maps: expected at least one map, got none; give those to stack.")
        for A in self.maps:
            if A.in_shape != self.maps[0].in_shape:
                raise ValueError(
                    f"maps: expected maps from {self.maps[0].in_shape}, got one from {A.in_shape}; build all for one "
                    "field."
                )

    @property
    def in_shape(self) -> Shape:
        return self.maps[0].in_shape

    @property
    def out_shape(self) -> Shape:
        shapes = [A.out_shape for A in self.maps]
        if len({shape[1:] for shape in shapes}) == 1:
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return (1, sum(math.prod(shape) for shape in shapes))

    def parts(self, y: Array) -> tuple[Array, ...]:
        """The measurements of the single maps in a stacked one."""
        flat = y.reshape(-1)  # channels come first, so this is right for both forms
        ends = np.cumsum([math.prod(A.out_shape) for A in self.maps])[:-1]
        return tuple(p.reshape(A.out_shape) for A, p in zip(self.maps, jnp.split(flat, ends), strict=True))

    def apply(self, x: Array) -> Array:
        return jnp.concatenate([A.apply(x).reshape(-1) for A in self.maps]).reshape(self.out_shape)

    def apply_adjoint(self, y: Array) -> Array:
        first, *others = [A.apply_adjoint(part) for A, part in zip(self.maps, self.parts(y), strict=True)]
        return sum(others, start=first)


def stack(*maps: AbstractLinearMap) -> Stack:
    """One map that sees what all maps see of a field; see `Stack`.

    **Raises:** `ValueError` when they take different fields.
    """
    return Stack(maps)


def _map(A: Any, name: str) -> AbstractLinearMap:
    if not isinstance(A, AbstractLinearMap):
        mend = "apply a map to a field by A(x)." if hasattr(A, "shape") else "extend AbstractLinearMap, or use Matrix."
        raise ValueError(f"{name}: expected a linear map, got {type(A).__name__}; {mend}")
    return A
