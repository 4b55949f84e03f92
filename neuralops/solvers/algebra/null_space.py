"""What a singular operator cannot produce and cannot see: constants on floating parts of a domain, or a given basis."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from neuralops.solvers.algebra.vectors import Dot, axpy, largest, power_of_two, ratio, sub, vary, varying, zeros_like

__all__ = ["Basis", "Constants", "NullSpace", "floating_constants"]


class NullSpace(eqx.Module):
    """The null space N of a symmetric operator, as `solve` uses it.

    The part of a right-hand side outside the range is removed, and of the solutions, which differ by N, one is chosen.
    The two projections are transposes of one another, which keeps the generalised inverse symmetric.

    A `Diffusion` knows its own. For another operator give vectors that span it:
    `solve(A, b, CG(), null_space=NullSpace.from_basis([v]))`.
    """

    @abstractmethod
    def to_range(self, b: Any) -> Any:
        """A right-hand side without what the operator cannot produce."""

    @abstractmethod
    def fix_gauge(self, x: Any) -> Any:
        """The one of the solutions that `solve` returns."""

    @abstractmethod
    def incompatibility(self, b: Any) -> Any:
        """How much of a right-hand side `to_range` removes, as a field: per floating component the 2-norm of that part
        relative to the component's 2-norm of `b`, between 0 and 1; 0 elsewhere."""

    @staticmethod
    def from_basis(vectors: Sequence[Any], mesh_axes: tuple[str, ...] = ()) -> NullSpace:
        """The span of given vectors, which need be neither orthogonal nor independent.

        Projections are orthogonal: the solution has no component in the span.

        **Arguments:**

        - `vectors`: like the right-hand side, at least one.
        - `mesh_axes`: mesh axes over which they are divided inside `jax.shard_map`.

        **Raises:** `ValueError` on no vectors, or vectors that differ in shape.
        """
        vectors = list(vectors)
        if not vectors:
            raise ValueError("vectors: expected at least one, got none; leave null_space out for a regular operator.")
        shapes = [jax.tree.map(jnp.shape, v) for v in vectors]
        if any(s != shapes[0] for s in shapes) or not all(
            jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(vectors)
        ):
            raise ValueError(f"vectors: expected real floating arrays of one shape, got {shapes}; make them like b.")
        dot = Dot(mesh_axes)
        span: list[Any] = []
        for vector in vectors:
            v = _times(1 / power_of_two(largest(vector, mesh_axes)), vector)
            size = dot.norm(v)
            for _ in range(2):  # a second pass of Gram-Schmidt removes the rounding of the first
                for other in span:
                    v = axpy(-dot(other, v), other, v)
            rest = dot.norm(v)
            # A vector in the span of the others leaves rounding only, and drops out.
            scale = jnp.where(rest > 100 * jnp.finfo(rest.dtype).eps * size, ratio(jnp.ones_like(rest), rest), 0)
            span.append(_times(scale, v))
        return Basis(tuple(span), tuple(mesh_axes))


def _times(scalar: Array, u: Any) -> Any:
    return jax.tree.map(lambda leaf: scalar.astype(leaf.dtype) * leaf, u)


class Basis(NullSpace):
    """The span of orthonormal vectors; made by `NullSpace.from_basis`."""

    vectors: tuple[Any, ...]
    mesh_axes: tuple[str, ...] = eqx.field(static=True)

    def to_range(self, b: Any) -> Any:
        dot = Dot(self.mesh_axes)
        for v in self.vectors:
            v = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), v, b)
            b = axpy(-dot(v, b), v, b)
        return b

    def fix_gauge(self, x: Any) -> Any:
        return self.to_range(x)

    def incompatibility(self, b: Any) -> Any:
        dot = Dot(self.mesh_axes)
        b = jax.tree.map(lambda leaf: leaf / power_of_two(largest(b, self.mesh_axes)), b)
        share = ratio(dot.norm(sub(b, self.to_range(b))), dot.norm(b))
        return jax.tree.map(lambda zero: zero + share.astype(zero.dtype), zeros_like(b))


class Constants(NullSpace):
    """Functions constant on each floating component of a grid, and zero elsewhere.

    A component is a set of points joined by conducting faces; it floats when nothing holds its value: no Dirichlet wall
    conducts to it. The solution is given zero mean on each.

    **Fields:**

    - `weights`: relative control volumes, 0 at points of components that do not float; `None` if none does, up to
      isolated points.
    - `isolated`: points that no face reaches, each a floating component by itself; `None` if there are none.
    - `labels`: the component of each point, a number below the count of points; `None` if there is only one.
    - `connected`: whether there is only one component after all.
    - `mesh_axes`: mesh axes over which the grid is divided inside `jax.shard_map`.
    """

    weights: Float[Array, "*grid"] | None
    isolated: Bool[Array, "*grid"] | None = None
    labels: Int[Array, "*grid"] | None = None
    connected: Bool[Array, ""] | None = None
    mesh_axes: tuple[str, ...] = eqx.field(static=True, default=())

    def to_range(self, b: Any) -> Any:
        def one(b: Array) -> Array:
            b = self._without_isolated(b)
            if self.weights is None:
                return b
            weights = self.weights.astype(b.dtype)
            return b - weights * self._per_component(b, weights)

        return jax.tree.map(one, b)

    def fix_gauge(self, x: Any) -> Any:
        def one(x: Array) -> Array:
            if self.weights is not None:
                weights = self.weights.astype(x.dtype)
                x = jnp.where(weights > 0, x - self._per_component(weights * x, weights), x)
            return self._without_isolated(x)

        return jax.tree.map(one, x)

    def incompatibility(self, b: Any) -> Any:
        def one(b: Array) -> Array:
            b = b / power_of_two(largest(b, self.mesh_axes))
            share = jnp.zeros_like(b)
            if self.weights is not None:
                removed = b - self.to_range(b)
                share = jnp.where(self.weights > 0, jnp.sqrt(self._per_component(removed**2, b**2)), 0)
            return share if self.isolated is None else jnp.where(self.isolated, b != 0, share)

        return jax.tree.map(one, b)

    def _without_isolated(self, u: Array) -> Array:
        return u if self.isolated is None else jnp.where(self.isolated, 0, u)

    def _per_component(self, u: Array, v: Array) -> Array:
        """The sum of u over the sum of v on each point's component, 0 for 0/0; both over the grid's axes."""
        assert self.weights is not None
        axes = tuple(range(-self.weights.ndim, 0))

        def whole(u: Array, v: Array) -> Array:
            total, size = (self._across(jnp.sum(w, axes, keepdims=True)) for w in (u, v))
            return jnp.broadcast_to(ratio(total, size), u.shape)

        if self.labels is None or self.connected is None:
            return whole(u, v)
        labels = self.labels.ravel()
        count = labels.size * math.prod(lax.axis_size(axis) for axis in self.mesh_axes)

        def apart(u: Array, v: Array) -> Array:
            def sums(w: Array) -> Array:
                return self._across(jax.vmap(lambda row: jax.ops.segment_sum(row, labels, count))(w))

            shares = ratio(*(sums(w.reshape(-1, labels.size)) for w in (u, v)))
            return shares[:, labels].reshape(u.shape)

        u, v = (vary(jnp.broadcast_to(w, u.shape), varying((u, v, labels, self.weights))) for w in (u, v))
        return lax.cond(self.connected, whole, apart, u, v)

    def _across(self, partial: Array) -> Array:
        return lax.psum(partial, self.mesh_axes) if self.mesh_axes else partial


def floating_constants(faces: Sequence[Array], periodic: Sequence[bool], volumes: Float[Array, "*grid"]) -> Constants:
    """The null space of a diffusion operator, from which faces conduct.

    **Arguments:**

    - `faces`: per axis the conductances, from the low wall to the high wall; on a periodic axis face i lies below
      point i. A wall that conducts is a Dirichlet wall.
    - `periodic`: per axis.
    - `volumes`: the relative control volume of each point.

    When every face between two points conducts there is one component, and this costs one look at the faces. Else
    points are labelled by component in a logarithmic number of rounds.
    """
    shape = volumes.shape
    index = jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)
    nobody = index.size
    below, above, held, joined = [], [], jnp.zeros(shape, bool), jnp.asarray(True)
    for a, (c, wraps) in enumerate(zip(faces, periodic, strict=True)):
        n, open_ = shape[a], c != 0
        joined = joined & jnp.all(open_ if wraps else lax.slice_in_dim(open_, 1, n, axis=a))
        position = lax.broadcasted_iota(jnp.int32, shape, a)
        low = lax.slice_in_dim(open_, 0, n, axis=a)
        high = jnp.roll(low, -1, a) if wraps else lax.slice_in_dim(open_, 1, n + 1, axis=a)
        if not wraps:
            held = held | (low & (position == 0)) | (high & (position == n - 1))
            low, high = low & (position > 0), high & (position < n - 1)
        below.append(low)
        above.append(high)
    # Points held by a wall count as one component, named by the first of them.
    holder = jnp.min(jnp.where(held, index, nobody))
    labels = lax.cond(
        joined,
        lambda: jnp.where(holder < nobody, holder, 0) + 0 * index,
        lambda: _label(below, above, jnp.where(held, holder, index)),
    )
    floats = (holder == nobody) | (labels != labels.ravel()[jnp.minimum(holder, nobody - 1)])
    return Constants(jnp.where(floats, volumes, 0), None, labels, joined)


def _label(below: Sequence[Array], above: Sequence[Array], labels: Int[Array, "*grid"]) -> Int[Array, "*grid"]:
    """The smallest label in each point's component.

    Every round a point takes the smallest label among its neighbours and passes it to the point that its own label
    names (hooking), then labels are replaced by the labels of the points they name (pointer jumping; Shiloach and
    Vishkin 1982): 5 to 10 rounds at 1024^2, on a spiral too.
    """
    shape, nobody = labels.shape, labels.size

    def smallest_around(labels: Array) -> Array:
        out = labels
        for a, (low, high) in enumerate(zip(below, above, strict=True)):
            out = jnp.minimum(out, jnp.where(low, jnp.roll(labels, 1, a), nobody))
            out = jnp.minimum(out, jnp.where(high, jnp.roll(labels, -1, a), nobody))
        return out

    def round_(state: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, around = state
        labels = jnp.minimum(labels.at[labels].min(around, mode="promise_in_bounds"), around)
        for _ in range(2):
            labels = labels.at[labels].get(mode="promise_in_bounds")
        # Carried to the next round: fused into the scatter it would be computed entry by entry, ten times slower.
        return labels, smallest_around(labels.reshape(shape)).ravel()

    flat = labels.ravel()
    around = smallest_around(labels).ravel()
    return lax.while_loop(lambda state: jnp.any(state[1] < state[0]), round_, (flat, around))[0].reshape(shape)
