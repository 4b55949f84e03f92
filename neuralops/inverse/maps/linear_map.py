"""What a linear measurement is: a map between fields with its exact adjoint, an algebra, and its norm.

Annotations are no strings in this file: Equinox would take abstract variables for fields.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import check_native, check_plain, count
from neuralops.operator import AbstractOperator, Envelope
from neuralops.solvers import lanczos

__all__ = ["AbstractLinearMap", "check_shape"]

NORM_STEPS = 40


class AbstractLinearMap(AbstractOperator):
    """A linear map A from fields of `in_shape` to fields of `out_shape`, with its adjoint in the plain dot product.

    ```python
    y = A(x)                                  # `jax.vmap(A)` for a batch
    x = A.adjoint(y)                          # <A x, y> = <x, A.adjoint(y)>, to rounding
    A.T, A @ B, A + B, A - B, 2.0 * A, -A     # maps again; `stack(A, B)` sees both
    A.norm()                                  # the largest singular value
    solve(A.normal(), A.adjoint(y), CG())     # least squares
    ```

    Shapes are `(channels, *grid)`; what is no image has shape `(1, n)`. Complex measurements are real and imaginary
    channels, so that the inner product is the real one. Results have the dtype of the field.

    A map of your own sets `in_shape` and `out_shape` (fields or properties) and writes `apply`. Its adjoint is then
    found by JAX; write `apply_adjoint` too where you know a faster one, and call `transposed_by` if gradients are to
    use it. Maps are grid-locked and take any number of dimensions that their shapes have.

    **Raises:** `ValueError` on fields of another shape or dtype.
    """

    if TYPE_CHECKING:  # fields or properties, which abstract variables may be and mypy's may not

        @property
        def in_shape(self) -> tuple[int, ...]: ...

        @property
        def out_shape(self) -> tuple[int, ...]: ...
    else:
        in_shape: eqx.AbstractVar[tuple[int, ...]]
        out_shape: eqx.AbstractVar[tuple[int, ...]]

    __array_ufunc__: ClassVar[None] = None  # so that NumPy's scalars leave `2.0 * A` to this class

    @abstractmethod
    def apply(self, x: Float[Array, " channels *grid"]) -> Float[Array, " channels_out *grid_out"]:
        """A x, for a field that was checked."""

    def apply_adjoint(self, y: Float[Array, " channels_out *grid_out"]) -> Float[Array, " channels *grid"]:
        """A^T y, for a field that was checked; by default what JAX finds from `apply`."""
        return jax.linear_transpose(self.apply, jax.ShapeDtypeStruct(self.in_shape, y.dtype))(y)[0]

    @property
    def symmetric(self) -> bool:
        """Whether the map is its own adjoint by construction; `solve` need not find out then."""
        return False

    @property
    def envelope(self) -> Envelope:
        words = ("dirichlet", "neumann", "periodic")
        return Envelope(ndim=(len(self.in_shape) - 1,), boundary=words, refinement="grid-locked")

    def __call__(self, x: Any, /, *, key: Array | None = None) -> Float[Array, " channels_out *grid_out"]:
        return self.apply(_checked(x, self.in_shape, "x", type(self).__name__))

    def adjoint(self, y: Any) -> Float[Array, " channels *grid"]:
        """A^T y.

        **Raises:** `ValueError` when y is no real floating array of `out_shape`.
        """
        return self.apply_adjoint(_checked(y, self.out_shape, "y", f"{type(self).__name__}.adjoint"))

    @property
    def T(self) -> "AbstractLinearMap":
        """The adjoint as a map."""
        from neuralops.inverse.maps.algebra import Transposed

        return Transposed(self)

    def normal(self) -> "AbstractLinearMap":
        """A^T A, symmetric and not negative, as `solve` takes it."""
        from neuralops.inverse.maps.algebra import Normal

        return Normal(self)

    def norm(self, num_steps: int = NORM_STEPS, *, seed: int = 0) -> Float[Array, ""]:
        """The largest singular value |A|, by Lanczos steps with A^T A or A A^T, whichever is smaller.

        A value from below, as all of Lanczos's: within 1e-6 of it, relative, where the largest singular values stand
        apart or the steps are as many as the entries; within a per cent or so where thousands crowd at the top. Raise
        a step size's bound by that much. Maps that know their norm give it without steps. Not differentiated.

        **Arguments:**

        - `num_steps`: Lanczos steps, each one application and one adjoint; as many fields are kept.
        - `seed`: of the random start.

        **Raises:** `ValueError` on numbers that are no counts.
        """
        num_steps, seed = count(num_steps, "num_steps"), count(seed, "seed", 0)
        small = math.prod(self.in_shape) <= math.prod(self.out_shape)
        shape = self.in_shape if small else self.out_shape
        A = lax.stop_gradient(self)
        square = (lambda v: A.apply_adjoint(A.apply(v))) if small else (lambda v: A.apply(A.apply_adjoint(v)))
        dtype = jnp.result_type(float, *[leaf for leaf in jax.tree.leaves(self) if eqx.is_inexact_array(leaf)])
        start = jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)
        basis = lanczos(square, start, min(num_steps, math.prod(shape)))
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(basis.matrix)[-1], 0))

    def as_matrix(self) -> Float[Array, "out in"]:
        """The dense matrix, entries in C order, for tests and small maps."""
        n = math.prod(self.in_shape)
        rows = jax.vmap(self.apply)(jnp.eye(n).reshape(n, *self.in_shape))
        return rows.reshape(n, -1).T

    def __matmul__(self, other: Any) -> "AbstractLinearMap":
        from neuralops.inverse.maps.algebra import Composed

        return Composed(self, other)

    def __add__(self, other: Any) -> "AbstractLinearMap":
        from neuralops.inverse.maps.algebra import Added

        return Added((self, other))

    def __sub__(self, other: Any) -> "AbstractLinearMap":
        return self + (-other if isinstance(other, AbstractLinearMap) else other)

    def __mul__(self, factor: Any) -> "AbstractLinearMap":
        from neuralops.inverse.maps.algebra import Multiple

        return Multiple(factor, self)

    __rmul__ = __mul__

    def __neg__(self) -> "AbstractLinearMap":
        return self * -1.0


def check_shape(shape: Any, name: str, ndim: Sequence[int] = (1, 2, 3)) -> tuple[int, ...]:
    """A shape `(channels, *grid)` as a tuple of plain counts.

    **Raises:** `ValueError` on anything else.
    """
    sizes = tuple(shape) if isinstance(shape, Sequence | np.ndarray) and not isinstance(shape, str) else ()
    if len(sizes) - 1 not in ndim:
        raise ValueError(f"{name}: expected (channels, *grid) with {_either(ndim)} space dimensions, got {shape!r}; "
                         "give a shape such as (1, 64, 64).")  # fmt: skip
    return tuple(count(n, name, hint="give a shape such as (1, 64, 64).") for n in sizes)


def _either(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _checked(x: Any, shape: tuple[int, ...], name: str, where: str) -> Array:
    check_plain(x, name)
    check_native(x, name)
    came = getattr(x, "shape", None)
    if came is None or not hasattr(x, "dtype"):
        raise ValueError(f"{name}: {where} expects an array of shape {shape}, got {type(x).__name__}; use jnp.asarray.")
    if tuple(came) != shape:
        mend = "give a field of this shape, or build the map for yours."
        if len(came) == len(shape) + 1 and tuple(came[1:]) == shape:
            mend = "it looks batched: use jax.vmap."
        elif tuple(came) == shape[1:]:
            mend = f"the channel axis is missing: use {name}[None]."
        raise ValueError(f"{name}: {where} is locked to the shape {shape}, got {tuple(came)}; {mend}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        mend = f"use {name}.astype(jnp.float32)."
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            mend = "pass real and imaginary parts as channels."
        raise ValueError(f"{name}: {where} expects a real floating dtype, got {x.dtype}; {mend}")
    return jnp.asarray(x)
