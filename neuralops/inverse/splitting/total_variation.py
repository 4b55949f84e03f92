"""Total variation, whose proximal map is found by accelerated projected gradient steps on the dual."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.inverse.maps.differences import Gradient
from neuralops.inverse.splitting.loop import bounded_loop
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive

__all__ = ["TotalVariation"]

Field = Float[Array, "channels *grid"]
KINDS = ("isotropic", "anisotropic")


class TotalVariation(AbstractRegularizer):
    """R(x) = weight sum |D x|, D the differences between neighbours, in 1-D to 3-D, each channel by itself.

    Isotropic: the length of the vector of differences at each point (Rudin, Osher and Fatemi 1992); anisotropic: the
    sum of their magnitudes. Beyond the last point of an axis the difference is zero (Neumann). Differences are not
    divided by the spacing.

    The proximal map is the minimiser of 1/2 |x - y|^2 + step R(x), by the fast gradient projection of Beck and
    Teboulle 2009 on the dual, until the duality gap, which bounds 1/2 |x - exact|^2, is below rtol^2 / 2 |y - mean|^2:
    then |x - exact| <= rtol |y - mean|. It is differentiable, by the steps taken.

    **Arguments:**

    - `weight`: how much it counts.
    - `kind`: `"isotropic"` or `"anisotropic"`.
    - `rtol`: of the proximal map, as above. In float32 not below 1e-4 or so, where the gap is rounding.
    - `max_steps`: the most dual steps of one proximal map; a new value compiles again.

    **Raises:** `ValueError` on arguments outside the above.
    """

    weight: Any
    rtol: Any
    kind: str = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        weight: Any = 1.0,
        *,
        kind: Literal["isotropic", "anisotropic"] = "isotropic",
        rtol: Any = 1e-3,
        max_steps: int = 200,
    ) -> None:
        self.weight, self.rtol = positive(weight, "weight", zero=True), positive(rtol, "rtol", zero=True)
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}; use one of these words.")
        self.kind, self.max_steps = kind, count(max_steps, "max_steps")

    def value(self, x: Field) -> Float[Array, ""]:
        return self.weight * jnp.sum(self._sizes(_Differences(x.shape).of(x)))

    def _sizes(self, p: Float[Array, "axes channels *grid"]) -> Array:
        if self.kind == "anisotropic":
            return jnp.abs(p)
        squared = jnp.sum(p**2, axis=0)
        nonzero = squared > 0
        return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1)), 0)

    def _project(self, p: Array, bound: Any) -> Array:
        """Onto the dual ball: |p| <= bound at each point."""
        if self.kind == "anisotropic":
            return jnp.clip(p, -bound, bound)
        size = self._sizes(p)
        outside = size > bound
        return p * jnp.where(outside, bound / jnp.where(outside, size, 1), 1)

    def prox(self, y: Field, step: Any) -> Field:
        bound = jnp.asarray(step * self.weight, y.dtype)
        ndim = y.ndim - 1
        D = _Differences(y.shape)
        rate = 1 / (4.0 * ndim)  # below 1 / |D|^2
        axes = tuple(range(1, y.ndim))
        aim = 0.5 * jnp.asarray(self.rtol, y.dtype) ** 2 * jnp.sum((y - y.mean(axes, keepdims=True)) ** 2)

        def ascend(at: _Dual) -> _Dual:
            new = self._project(at.ahead + rate * D.of(y - D.back(at.ahead)), bound)
            after = (1 + jnp.sqrt(1 + 4 * at.t**2)) / 2
            ahead = new + (at.t - 1) / after * (new - at.p)
            x = y - D.back(new)
            d = D.of(x)
            # primal minus dual value at (x, p) is step R(x) - <D x, p>: both terms per point, none negative together
            gap = jax.lax.stop_gradient(jnp.sum(bound * self._sizes(d)) - jnp.sum(d * new))
            return _Dual(new, ahead, after, gap <= jax.lax.stop_gradient(aim))

        zero = jnp.zeros((ndim, *y.shape), y.dtype)
        begun = _Dual(zero, zero, jnp.ones((), y.dtype), jnp.zeros((), bool))
        at = bounded_loop(ascend, lambda at: at.done, begun, self.max_steps)
        return y - D.back(at.p)


class _Dual(NamedTuple):
    p: Array
    ahead: Array
    t: Array
    done: Array


class _Differences:
    """`maps.Gradient` with the axes of differentiation in front: `(axes, channels, *grid)`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.map, self.shape = Gradient(shape), (len(shape) - 1, *shape)

    def of(self, x: Field) -> Float[Array, "axes channels *grid"]:
        return self.map.apply(x).reshape(self.shape)

    def back(self, p: Float[Array, "axes channels *grid"]) -> Field:
        return self.map.apply_adjoint(p.reshape(self.map.out_shape))
