"""Arithmetic of pytrees as vectors, and the inner product that every sum of a solver goes through."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.scale import power_of_two

__all__ = [
    "Dot", "add", "apply", "axpy", "cast", "largest", "power_of_two", "ratio", "same_structure", "select",
    "sized", "sub", "vary", "varying", "while_loop", "zeros_like",
]  # fmt: skip

PRECISIONS = (None, "float64", "compensated")
FOLD = 8  # parts added at once in a compensated sum


class Dot(eqx.Module):
    """The inner product of two vectors (pytrees of one structure), also when they are spread over devices.

    **Arguments:**

    - `mesh_axes`: names of the mesh axes over which the vectors are divided inside `jax.shard_map`; partial sums are
      added across them.
    - `precision`: `None` sums in the precision of the vectors; `"float64"` multiplies and adds in double precision;
      `"compensated"` does float32 in twice the digits without it: products are split exactly (Dekker 1971), and the
      rounding error of every addition is kept and added at the end (Ogita, Rump and Oishi 2005).
    """

    mesh_axes: tuple[str, ...] = eqx.field(static=True, default=())
    precision: str | None = eqx.field(static=True, default=None)

    def __call__(self, u: Any, v: Any) -> Float[Array, ""]:
        return self.many([(u, v)])[0]

    def norm(self, u: Any) -> Float[Array, ""]:
        return jnp.sqrt(self(u, u))

    def many(self, pairs: Sequence[tuple[Any, Any]]) -> list[Array]:
        """Several inner products for one exchange between devices."""
        sums = [self._local(u, v) for u, v in pairs]
        if not self.mesh_axes:
            return sums
        return list(lax.psum(jnp.stack(sums), self.mesh_axes)) if len(sums) > 1 else [self.across(sums[0])]

    def stacked(self, stack: Any, v: Any) -> Float[Array, " m"]:
        """The inner products of each of `m` vectors, kept along a leading axis, with `v`."""
        return self.across(jax.vmap(self._local, (0, None))(stack, v))

    def across(self, partial: Array) -> Array:
        """Adds what each device holds."""
        return lax.psum(partial, self.mesh_axes) if self.mesh_axes else partial

    def _local(self, u: Any, v: Any) -> Array:
        if self.precision == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
            raise ValueError(
                "dot: 'float64' expected double precision to be enabled, got JAX in single precision; use "
                "dot='compensated', or `with jax.enable_x64(True):`."
            )
        pairs = list(zip(jax.tree.leaves(u), jax.tree.leaves(v), strict=True))
        if self.precision == "compensated" and all(a.dtype != jnp.float64 for a, _ in pairs):
            total, error = jnp.float32(0), jnp.float32(0)
            for a, b in pairs:
                part, lost = _compensated(a.astype(jnp.float32).ravel(), b.astype(jnp.float32).ravel())
                total, rounding = _two_sum(total, part)
                error = error + (lost + rounding)
            return total + error
        return functools.reduce(jnp.add, [self._leaf(a, b) for a, b in pairs])

    def _leaf(self, a: Array, b: Array) -> Array:
        if self.precision == "float64" and a.dtype != jnp.float64:
            return jnp.sum(a.astype(jnp.float64) * b.astype(jnp.float64))
        return jnp.vdot(a, b, precision="highest")


def _compensated(a: Float[Array, " n"], b: Float[Array, " n"]) -> tuple[Array, Array]:
    """The sum of products rounded, and what rounding has lost."""

    def split(v: Array) -> tuple[Array, Array]:
        high = lax.reduce_precision(v, exponent_bits=8, mantissa_bits=11)  # 12 bits: products of such are exact
        return high, v - high

    (a1, a2), (b1, b2) = split(a), split(b)
    total, error = a1 * b1, a1 * b2 + a2 * b1 + a2 * b2
    while total.size > 1:
        parts, errors = (jnp.pad(v, (0, -v.size % FOLD)).reshape(FOLD, -1) for v in (total, error))
        total, error = parts[0], jnp.sum(errors, 0)
        for part in parts[1:]:
            total, lost = _two_sum(total, part)
            error = error + lost
    return jnp.sum(total), jnp.sum(error)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b rounded, and the rounding error (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def add(u: Any, v: Any) -> Any:
    return jax.tree.map(jnp.add, u, v)


def same_structure(u: Any, v: Any) -> bool:
    return bool(jax.tree.structure(u) == jax.tree.structure(v))  # type: ignore[operator]


def sub(u: Any, v: Any) -> Any:
    return jax.tree.map(jnp.subtract, u, v)


def axpy(scalar: Array, u: Any, v: Any) -> Any:
    """scalar u + v, in the dtype of v."""
    return jax.tree.map(lambda a, b: scalar.astype(b.dtype) * a + b, u, v)


def select(condition: Array, u: Any, v: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), u, v)


def zeros_like(u: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, u)


def cast(u: Any, like: Any) -> Any:
    """`u` in the dtypes of `like`."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), u, like)


def apply(name: str, function: Any, r: Any) -> Any:
    """A preconditioner's answer in the dtypes of the residual; it may compute in others.

    **Raises:** `ValueError` when the answer has other shapes than the residual.
    """
    z = function(r)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (r, z)]
    if not same_structure(r, z) or shapes[0] != shapes[1]:
        raise ValueError(
            f"{name}: expected a map from a residual to the same shapes {shapes[0]}, got {shapes[1]}; make "
            "preconditioner and right-hand side agree."
        )
    return cast(z, r)


def ratio(size: Array, norm: Array) -> Array:
    """size / norm, and 0 for a zero right-hand side."""
    return jnp.where(norm == 0, 0, size / jnp.where(norm == 0, 1, norm))


def largest(u: Any, mesh_axes: tuple[str, ...] = ()) -> Array:
    """The largest magnitude of all entries; NaN if there is one."""
    value = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(u) if leaf.size])
    return lax.pmax(value, mesh_axes) if mesh_axes else value


def sized(u: Any, mesh_axes: tuple[str, ...] = ()) -> tuple[Any, Array]:
    """The same vector with entries of at most about 1, so that its squares are numbers, and the power of two it lacks.

    A constant of differentiation: right for what does not depend on the size in the end.
    """
    unit = power_of_two(lax.stop_gradient(largest(u, mesh_axes)))
    return jax.tree.map(lambda leaf: leaf / unit.astype(leaf.dtype), u), unit


# Inside jax.shard_map every value has a type that says over which mesh axes it may differ, and loops want it stable.


def varying(tree: Any) -> frozenset[str]:
    """The mesh axes over which some leaf of the pytree (of arrays or their types) may differ between devices."""
    axes: frozenset[str] = frozenset()
    for leaf in jax.tree.leaves(tree):
        aval = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        kind = getattr(aval, "manual_axis_type", None)
        axes |= getattr(kind, "varying", None) or getattr(aval, "vma", None) or frozenset()
    return axes


def vary(tree: Any, axes: frozenset[str]) -> Any:
    """The same values, typed as differing over `axes` too."""
    if not axes:
        return tree

    def one(leaf: Any) -> Any:
        missing = tuple(sorted(axes - varying(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, tree)


def while_loop(condition: Callable, body: Callable, start: Any) -> Any:
    """`lax.while_loop`, also for a state that comes to differ between devices of a mesh as it goes on."""
    if jax.sharding.get_abstract_mesh().manual_axes:
        leaves, tree = jax.tree.flatten(start)
        for _ in range(len(leaves)):
            after = jax.tree.leaves(jax.eval_shape(body, jax.tree.unflatten(tree, leaves)))
            wider = [vary(leaf, varying(out)) for leaf, out in zip(leaves, after, strict=True)]
            if all(new is old for new, old in zip(wider, leaves, strict=True)):
                break
            leaves = wider
        start = jax.tree.unflatten(tree, leaves)
    return lax.while_loop(condition, body, start)
