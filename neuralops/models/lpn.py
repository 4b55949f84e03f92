"""Learned proximal networks (Fang, Buchanan and Sulam, ICLR 2024): exact proximal operators of learned regularisers."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count
from neuralops.grid import BOUNDARIES, per_axis
from neuralops.nn.convex import AbstractPotential, ConvexDense
from neuralops.nn.convex_conjugate import Prior, regularizer
from neuralops.nn.convex_conv import ConvexConv
from neuralops.operator import AbstractOperator, Envelope, as_operator, check_field, envelope_of


class LPN(AbstractOperator):
    """A learned proximal network: the gradient f = grad psi of a convex potential.

    Whatever its weights, f(y) = argmin over x of |x - y|^2 / 2 + R(x) for some R, which need not be convex; `prior`
    gives R. Trained with `losses.proximal_matching` on noisy fields, R tends to -sigma^2 log p, the prior of the clean
    ones up to a constant. One network is for one noise level, or with `code_range` in its potential for every level,
    then called as `op(y, code=jnp.array([sigma]))`.

    **Arguments:**

    - `psi`: a potential: `nn.ConvexDense`, `nn.ConvexConv`, `nn.ConvexIntegral`, or any convex function of a field that
      gives a number (a pytree of floating arrays that is callable, or a plain function); that it is convex is then
      yours to see to.
    - `center`: a value c about which psi works, f(y) = c + (grad psi)(y - c), which is the gradient of
      psi(y - c) + <c, y>. Fields that lie far from zero on one side, such as pictures in [0, 1] with c = 0.5, are
      learned faster.

    Input and output `(channels, *grid)`. Refinement: that of `psi`.

    **Raises:** `ValueError` when `psi` cannot be called, when `center` is no number, and on fields that it does not
    take.
    """

    psi: Any
    center: float = eqx.field(static=True)

    def __init__(self, psi: Any, *, center: float = 0.0) -> None:
        self.psi = as_operator(psi)
        self.center = check_number(center, "center")

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> LPN:
        """A configuration of the authors' code.

        | name | field | parameters |
        | --- | --- | --- |
        | `"toy_1d"` | one number, `(1, 1)` | 10,502 |
        | `"mnist"` | `(1, 28, 28)` | 317,056 |
        | `"celeba"` | `(3, 128, 128)` | 7,235,713 |
        | `"mayo_ct"` | `(1, 128, 128)` | 7,175,297 |

        `changes` override single arguments of the potential, `nn.ConvexDense` for the first and `nn.ConvexConv` for the
        others. Negative weights of the authors' first draw for `"toy_1d"`, which they clip after the first step, are
        clipped here from the start.

        **Raises:** `ValueError` on another name.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these names.")
        make, options = _PAPER[name]
        return cls(make(**{**options, **changes}, key=key))

    @property
    def keywords(self) -> frozenset[str]:
        return self.psi.keywords if isinstance(self.psi, AbstractPotential) else frozenset()

    @property
    def envelope(self) -> Envelope:
        return envelope_of(self.psi)

    @property
    def project(self) -> Any:
        """The same with negative constrained weights at zero; `fit` applies it after each step. Missing where `psi` has
        no `project`."""
        project = self.psi.project
        return lambda: LPN(project(), center=self.center)

    def potential(
        self, y: Float[Array, " channels *grid"], *, code: Float[Array, " 1"] | None = None
    ) -> Float[Array, ""]:
        """psi(y).

        **Raises:** `ValueError` on fields and codes that it does not take.
        """
        if not isinstance(self.psi, AbstractPotential):
            check_field(y, channels=None, ndim=None, where="LPN")
            _no_code(code)
            return jnp.sum(self.psi(y - self.center)) + self.center * jnp.sum(y)
        # checked before anything is taken from y
        self.psi.check(y)
        linear = self.center * self.measure(y.shape[1:]) * jnp.sum(y)
        return self.psi.value(y - self.center, code=code) + linear

    def __call__(
        self,
        u: Float[Array, " channels *grid"],
        /,
        *,
        code: Float[Array, " 1"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, " channels *grid"]:
        if isinstance(self.psi, AbstractPotential):
            self.psi.check(u)
            return self.center + self.psi.gradient(u - self.center, code=code)
        check_field(u, channels=None, ndim=None, where="LPN")
        _no_code(code)
        return jax.grad(self.potential)(u)

    def measure(self, grid: tuple[int, ...]) -> float:
        """What a point counts for in the inner product: 1, or the volume of its cell where psi is an integral."""
        return self.psi.measure(grid) if isinstance(self.psi, AbstractPotential) else 1.0

    def prior(
        self,
        x: Float[Array, " channels *grid"],
        *,
        code: Float[Array, " 1"] | None = None,
        rtol: float = 1e-5,
        max_steps: int = 500,
    ) -> Prior:
        """R(x) = <x, y> - |x|^2 / 2 - psi(y) at y with f(y) = x, see `nn.convex_conjugate`; batches by `jax.vmap`.

        Compare values of one operator only: R has a constant of its own. grad R(x) = y - x, by `jax.grad` too.

        **Arguments:** `rtol`, of the residual |f(y) - x| / |x| at which to stop; `max_steps`.

        **Raises:** `ValueError` on fields and codes that it does not take.
        """
        return _prior(self, x, code, rtol=rtol, max_steps=max_steps)


@functools.partial(jax.jit, static_argnames=("rtol", "max_steps"))
def _prior(op: Any, x: Array, code: Any, *, rtol: float, max_steps: int) -> Prior:
    fixed = jax.lax.stop_gradient(op)  # psi's own derivatives are those at the point that is found
    return regularizer(
        lambda y: op.potential(y, code=code),
        x,
        search=(lambda y: fixed.potential(y, code=code), lambda y: fixed(y, code=code)),
        measure=op.measure(x.shape[1:]),
        rtol=rtol,
        max_steps=max_steps,
    )


def _no_code(code: Any) -> None:
    if code is not None:
        raise ValueError(
            "code: expected None for a potential that takes no level, got one; build it with code_range=(low, high)."
        )


class Patched(AbstractOperator):
    """An LPN on fields larger than those it was trained on: the average over overlapping patches, exactly a prox.

    psi(y) = sum over the patches of psi_op(patch) / c, where each point lies in c = (patch / stride)^ndim patches. At
    the edge patches reach into zeros, so that this holds for every point: f is then the gradient of psi on the whole
    field. The plain overlap-average, with fewer patches at the edge, is not.

    **Arguments:**

    - `op`: an `LPN`.
    - `patch`: points per axis of a patch, one number or one per axis.
    - `stride`: from one patch to the next, a divisor of `patch`; by default half of it.
    - `chunk_size`: patches at a time, which bounds the memory.

    Input and output `(channels, *grid)` with any number of points.

    **Raises:** `ValueError` on arguments outside the above, and on fields that `op` does not take.
    """

    op: Any
    patch: tuple[int, ...] = eqx.field(static=True)
    stride: tuple[int, ...] = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def __init__(
        self,
        op: Any,
        patch: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        *,
        chunk_size: int = 16,
    ) -> None:
        if not callable(getattr(op, "potential", None)):
            raise ValueError(
                f"op: expected an LPN, which has a potential, got {type(op).__name__}; without one the average over "
                "patches is no proximal operator."
            )
        self.op = op
        ndim = envelope_of(op.psi).ndim[0]
        self.patch = tuple(count(n, "patch") for n in per_axis(patch, ndim, "patch"))
        steps = [max(n // 2, 1) for n in self.patch] if stride is None else per_axis(stride, ndim, "stride")
        self.stride = tuple(count(n, "stride") for n in steps)
        if any(n % s for n, s in zip(self.patch, self.stride, strict=True)):
            raise ValueError(
                f"stride: expected divisors of the patch {self.patch}, got {self.stride}; then every point lies in as "
                "many patches."
            )
        self.chunk_size = count(chunk_size, "chunk_size")

    @property
    def keywords(self) -> frozenset[str]:
        return self.op.keywords

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.patch),), BOUNDARIES, "spacing-locked")

    @property
    def project(self) -> Any:
        """That of `op`."""
        project = self.op.project
        return lambda: eqx.tree_at(lambda patched: patched.op, self, project())

    def measure(self, grid: tuple[int, ...]) -> float:
        return self.op.measure(self.patch)

    def potential(
        self, y: Float[Array, " channels *grid"], *, code: Float[Array, " 1"] | None = None
    ) -> Float[Array, ""]:
        """psi(y), the sum over the patches over their number at each point.

        **Raises:** `ValueError` on fields and codes that it does not take.
        """
        _, read = self._patches(y)
        starts, chunks = self._starts(y.shape[1:])

        def chunk(total: Array, given: Any) -> tuple[Array, None]:
            places, counted = given
            values = jax.vmap(lambda place: self.op.potential(read(place), code=code))(places)
            return total + jnp.sum(jnp.where(counted, values, 0)), None

        total, _ = jax.lax.scan(jax.checkpoint(chunk), jnp.zeros((), y.dtype), (starts, chunks))
        return total / self._coverage

    def __call__(
        self,
        u: Float[Array, " channels *grid"],
        /,
        *,
        code: Float[Array, " 1"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, " channels *grid"]:
        wide, read = self._patches(u)
        starts, chunks = self._starts(u.shape[1:])

        def chunk(total: Array, given: Any) -> tuple[Array, None]:
            places, counted = given
            found = jax.vmap(lambda place: self.op(read(place), code=code))(places)
            found = jnp.where(counted.reshape(-1, *(1,) * (found.ndim - 1)), found, 0)

            def add(total: Array, given: Any) -> tuple[Array, None]:
                place, one = given
                there = jax.lax.dynamic_slice(total, tuple(place), one.shape)
                return jax.lax.dynamic_update_slice(total, there + one, tuple(place)), None

            return jax.lax.scan(add, total, (places, found))[0], None

        total, _ = jax.lax.scan(jax.checkpoint(chunk), jnp.zeros_like(wide), (starts, chunks))
        inside = tuple(slice(p - s, p - s + n) for p, s, n in zip(self.patch, self.stride, u.shape[1:], strict=True))
        return total[(slice(None), *inside)] / self._coverage

    prior = LPN.prior

    @property
    def _coverage(self) -> int:
        return math.prod(p // s for p, s in zip(self.patch, self.stride, strict=True))

    def _patches(self, y: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The field in zeros, and how a patch is read from it."""
        check_field(y, channels=None, ndim=len(self.patch), where="Patched")
        # A patch starts at every multiple of the stride from -(patch - stride) on that reaches a point of the field.
        margins = [(p - s, -n % s + p - s) for n, p, s in zip(y.shape[1:], self.patch, self.stride, strict=True)]
        wide = jnp.pad(y, [(0, 0), *margins])
        return wide, lambda place: jax.lax.dynamic_slice(wide, tuple(place), (len(y), *self.patch))

    def _starts(self, grid: tuple[int, ...]) -> tuple[Array, Array]:
        """Where patches start, all channels first, in chunks, and which of the last chunk count."""
        ranges = [range(1)]
        for n, p, s in zip(grid, self.patch, self.stride, strict=True):
            ranges.append(range(0, n + -n % s + p - s - s + 1, s))
        starts = list(itertools.product(*ranges))
        size = min(self.chunk_size, len(starts))
        missing = -len(starts) % size
        counted = jnp.asarray([True] * len(starts) + [False] * missing).reshape(-1, size)
        return jnp.asarray([*starts, *[starts[0]] * missing], jnp.int32).reshape(-1, size, len(ranges)), counted


_PUBLISHED: dict[str, Any] = {"boundary": "dirichlet", "init": "published"}
_IMAGE = {**_PUBLISHED, "window": 16, "strides": (2, 1, 2, 1, 2), "hidden_channels": 256, "beta": 100.0, "alpha": 1e-6}
_DIGIT = {**_PUBLISHED, "window": 7, "strides": (2, 1, 2), "use_bias": False, "beta": 10.0, "alpha": 0.01}
_PAPER: dict[str, tuple[Any, dict[str, Any]]] = {
    "toy_1d": (ConvexDense, {"num_points": 1, "init": "published"}),
    "mnist": (ConvexConv, _DIGIT),
    "celeba": (ConvexConv, {"in_channels": 3, **_IMAGE}),
    "mayo_ct": (ConvexConv, {"in_channels": 1, **_IMAGE}),
}
