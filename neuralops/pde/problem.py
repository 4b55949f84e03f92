"""A problem: a law for drawing input functions, the true solution operator, and a residual."""

from __future__ import annotations

import dataclasses
import inspect
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
from jaxtyping import Array, Float

from neuralops.grid import Grid, per_axis
from neuralops.operator import check_field
from neuralops.scale import norm


class Problem(eqx.Module):
    """Base class of the problems of this library.

    A problem holds numbers and words only, no arrays: it is a hashable constant under `jax.jit`, and its
    static fields carry the names of its constructor's arguments. Fields are unbatched and channels-first,
    `(channels, *grid)`; all methods work under `jax.jit` and `jax.vmap` and compute in the dtype of their
    input. `solve` is the truth that models are fitted to, and it never raises inside a compiled function:
    judge a solution by `relative_residual`, which is NaN where the solution is.
    """

    input_fields: ClassVar[tuple[str, ...]]  # one name per channel of a sample
    output_fields: ClassVar[tuple[str, ...]]  # one name per channel of a solution
    constant_fields: ClassVar[tuple[str, ...]] = ()  # inputs that do not change with time, where outputs do

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """Where inputs and outputs live."""

    @abstractmethod
    def sample(self, key: Array) -> Float[Array, " channels *grid"]:
        """Draws one input function, in JAX's default floating type (float64 inside `jax.enable_x64`)."""

    @abstractmethod
    def solve(self, a: Float[Array, " channels *grid"]) -> Float[Array, " channels_out *grid"]:
        """The solution that belongs to the input `a`.

        **Raises:** `ValueError` when `a` is not a field on the problem's grid.
        """

    def label(self, a: Float[Array, " channels *grid"]) -> tuple[Float[Array, " channels_out *grid"], dict[str, Array]]:
        """The solution, and what `data.generate` keeps beside it as `extras` of the sample: by default nothing.

        **Raises:** `ValueError` as `solve`.
        """
        return self.solve(a), {}

    @abstractmethod
    def residual(
        self, a: Float[Array, " channels *grid"], u: Float[Array, " channels_out *grid"]
    ) -> Float[Array, " channels_out *grid"]:
        """What is left of the equation when `u` is put in for the solution; zero for the discrete solution."""

    @abstractmethod
    def reference(
        self, a: Float[Array, " channels *grid"], u: Float[Array, " channels_out *grid"]
    ) -> Float[Array, " channels_out *grid"]:
        """The field against whose size the residual is judged: the right-hand side where there is one."""

    def relative_residual(
        self, a: Float[Array, " channels *grid"], u: Float[Array, " channels_out *grid"]
    ) -> Float[Array, ""]:
        """2-norm of the residual over the 2-norm of `reference(a, u)`, one number."""
        return norm(self.residual(a, u)) / norm(self.reference(a, u))

    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments as JSON can hold them, for the metadata of a file."""
        return {name: _plain(value) for name, value in self._arguments().items()}

    def with_points(self, num_points: int | Sequence[int]) -> Self:
        """The same problem on other points."""
        points = per_axis(num_points, self.grid.ndim, "num_points")
        return type(self)(**{**self._arguments(), "num_points": points})

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in list(inspect.signature(type(self).__init__).parameters)[1:]}

    def _check(self, u: Any, channels: int, name: str) -> None:
        check_field(u, channels=channels, ndim=self.grid.ndim, name=name, where=type(self).__name__)
        self.grid.check(u, name)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a law, by its name and numbers
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"name": type(value).__name__, **fields}
    if callable(value):
        return f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', repr(type(value).__name__))}"
    return value
