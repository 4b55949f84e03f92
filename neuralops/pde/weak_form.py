"""Weak forms against compactly supported test functions: Wendland functions on small balls drawn anew each step.

On the ball of radius R around a centre, xi = (x - centre)/R, the residual of an equation `source - div flux = 0` is

    r = mean(source v) + mean(flux . grad_x v)

with v = wendland(xi) and plain means over quadrature points in the ball; the volume cancels. As R goes to 0,
r / mean(v) goes to the strong residual at the centre, without the second derivatives.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count, flag

RULES = ("difference", "derivative")
Box = tuple[tuple[float, float], ...]


@jax.custom_jvp
def wendland(xi: Float[Array, " ndim *points"]) -> Float[Array, " *points"]:
    """The Wendland function of continuity C^4 in `ndim` dimensions: 1 at the centre, 0 outside the unit ball.

    With k = ndim // 2 + 3 and r = min(|xi|, 1),

        v = (1 - r)^(k + 2) ((k^2 + 4 k + 3) r^2 + (3 k + 6) r + 3) / 3.

    **Raises:** `ValueError` unless `xi` has one to three dimensions.
    """
    return _profile(*_order_and_radius(xi))


@wendland.defjvp
def _wendland_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """By the closed form, which is smooth at the centre too, so that the second derivatives are right there."""
    (xi,), (tangent,) = primals, tangents
    return wendland(xi), jnp.sum(wendland_gradient(xi) * tangent, axis=0)


def wendland_gradient(xi: Float[Array, " ndim *points"]) -> Float[Array, " ndim *points"]:
    """The gradient of `wendland` with respect to xi, in closed form; finite everywhere, 0 outside the unit ball.

    **Raises:** `ValueError` unless `xi` has one to three dimensions.
    """
    k, r = _order_and_radius(xi)
    return jnp.where(r < 1, _slope(k, r), 0) * xi


def _profile(k: int, r: Any) -> Any:
    return (1 - r) ** (k + 2) * ((k**2 + 4 * k + 3) * r**2 + (3 * k + 6) * r + 3) / 3


def _slope(k: int, r: Any) -> Any:
    """The derivative of the profile over r, finite at 0."""
    return -((1 - r) ** (k + 1)) * ((k**3 + 8 * k**2 + 19 * k + 12) * r + (k**2 + 7 * k + 12)) / 3


def _order_and_radius(xi: Any) -> tuple[int, Array]:
    xi = jnp.asarray(xi)
    if xi.ndim < 1 or xi.shape[0] not in (1, 2, 3):
        raise ValueError(
            f"xi: expected (ndim, *points) with one to three dimensions, got shape {xi.shape}; put the axes first."
        )
    square = jnp.sum(xi**2, axis=0)
    away = square > 0  # the square root has no derivative at 0, where that of v is 0
    return xi.shape[0] // 2 + 3, jnp.where(away, jnp.minimum(jnp.sqrt(jnp.where(away, square, 1)), 1), 0)


@functools.lru_cache(maxsize=64)
def quadrature(ndim: int, num_points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Points of the unit ball, test function and gradient there, and kappa, as float64 NumPy.

    The points are those of linspace(-1, 1, num_points)^ndim strictly inside the ball (in one dimension with its two
    ends, where v vanishes). kappa = -mean(xi . grad v) / (ndim mean v) is what the plain mean makes of 1.

    **Returns:** `(ndim, q)`, `(q,)`, `(ndim, q)` and a number.
    """
    xi = np.stack(np.meshgrid(*[np.linspace(-1, 1, num_points)] * ndim, indexing="ij")).reshape(ndim, -1)
    if ndim > 1:
        xi = xi[:, np.sum(xi**2, axis=0) < 1 - 1e-12]
    k, r = ndim // 2 + 3, np.minimum(np.sqrt(np.sum(xi**2, axis=0)), 1.0)
    v, gradient = _profile(k, r), _slope(k, r) * xi
    kappa = -np.mean(np.sum(xi * gradient, axis=0)) / (ndim * np.mean(v))
    for array in (xi, v, gradient):
        array.setflags(write=False)
    return xi, v, gradient, float(kappa)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TestFunctions:
    """Where the test functions of a weak form live and how their means are taken: numbers and words, no arrays.

    Points are `(ndim, *points)` in the units of the domain.

    **Arguments:**

    - `domain`: a pair (low, high) per axis.
    - `num_centers`: how many test functions a draw holds (the refined ones come on top).
    - `radius`: of each ball, a length; centres keep this distance from the walls.
    - `num_points`: quadrature points across a ball, at least 4; 7, 8, 9 are 25, 32, 45 points of a disc.
    - `corrected`: whether the mean with grad v is divided by kappa (see `quadrature`), so that the discrete Gauss
      identity is exact for fluxes linear in x. `num_points=7, corrected=False` is the rule of Zang and Koutsourelakis.
    - `rule`: how the mean of flux . grad v is taken, see `Patches.test`.
    - `inside`: a hashable function from centres `(ndim, n)` to truth values `(n,)`; where it is false the centre
      weighs 0 (and another centre is put in its place, so that no field is asked for values there).
    - `refined`: a pair (box, number of centres) for further centres in a smaller box.
    - `space`: along how many leading axes the test functions act; by default all. One less than the axes makes the
      last one time: the centres have `num_centers` uniform times, ends included, one each.

    **Raises:** `ValueError` on values out of range, balls that do not fit in the domain, unknown words.
    """

    __test__ = False  # no test case of pytest, whatever its name

    domain: Box
    num_centers: int = dataclasses.field(default=100, kw_only=True)
    radius: float = dataclasses.field(default=1e-2, kw_only=True)
    num_points: int = dataclasses.field(default=9, kw_only=True)
    corrected: bool = dataclasses.field(default=True, kw_only=True)
    rule: str = dataclasses.field(default="difference", kw_only=True)
    inside: Callable[[Array], Array] | None = dataclasses.field(default=None, kw_only=True)
    refined: tuple[Box, int] | None = dataclasses.field(default=None, kw_only=True)
    space: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("domain", check_domain(self.domain, "domain"))
        ndim = len(self.domain)
        put("num_centers", count(self.num_centers, "num_centers"))
        put("radius", check_number(self.radius, "radius", above=0.0))
        put("num_points", count(self.num_points, "num_points", least=4))
        put("corrected", flag(self.corrected, "corrected"))
        if self.rule not in RULES:
            raise ValueError(f"rule: expected one of {RULES}, got {self.rule!r}; use one of these words.")
        if self.inside is not None and not callable(self.inside):
            raise ValueError(
                f"inside: expected a function of points or None, got {self.inside!r}; give a function "
                "from (ndim, n) to truth values (n,)."
            )
        put("space", ndim if self.space is None else count(self.space, "space", least=1, most=ndim))
        if self.space not in (ndim, ndim - 1) or self.space > 3:
            raise ValueError(
                f"space: expected one to three axes of space and at most one of time, got space={self.space} on a "
                f"domain of {ndim} axes; put time last."
            )
        if self.refined is not None:
            if not isinstance(self.refined, Sequence) or len(self.refined) != 2:
                raise ValueError(
                    f"refined: expected a pair (box, number of centres), got {self.refined!r}; give for example "
                    "(((0.3, 0.7), (0.4, 0.8)), 56)."
                )
            box = check_domain(self.refined[0], "refined")
            within = len(box) == ndim and all(
                a <= lo and hi <= b for (lo, hi), (a, b) in zip(box, self.domain, strict=True)
            )
            if not within:
                raise ValueError(
                    f"refined: expected a box inside the domain {self.domain}, got {box}; give {ndim} pairs in it."
                )
            put("refined", (box, count(self.refined[1], "refined")))
        for place, _ in self._boxes:
            width = min(hi - lo for lo, hi in place[: self.space])
            if not 2 * self.radius < width:
                raise ValueError(
                    f"radius: expected less than half the shortest side of {place}, {width / 2:g}, got "
                    f"{self.radius:g}; take smaller balls."
                )

    @property
    def ndim(self) -> int:
        return len(self.domain)

    @property
    def mean_test(self) -> float:
        """The plain mean of v over the quadrature points: r / mean_test estimates the strong residual."""
        assert self.space is not None
        return float(np.mean(quadrature(self.space, self.num_points)[1]))

    @property
    def _boxes(self) -> tuple[tuple[Box, int], ...]:
        return ((self.domain, self.num_centers), *(() if self.refined is None else (self.refined,)))

    def draw(self, key: Array, dtype: Any = None) -> Patches:
        """Draws the centres: a Latin hypercube in the box less `radius` at each wall of space.

        **Arguments:**

        - `key`: a random key; another key, other centres.
        - `dtype`: of the points; by default JAX's floating type.
        """
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        assert self.space is not None
        parts = []
        for part, (box, number) in enumerate(self._boxes):
            inner = tuple((lo + self.radius, hi - self.radius) for lo, hi in box[: self.space])
            drawn = latin_hypercube(jax.random.fold_in(key, part), inner, number, dtype)
            if self.space < self.ndim:
                drawn = jnp.concatenate([drawn, jnp.linspace(*box[-1], number, dtype=dtype)[None]])
            parts.append(drawn)
        centers = jnp.concatenate(parts, axis=1)
        weight = jnp.ones(centers.shape[1], dtype)
        if self.inside is not None:
            kept = self.inside(centers)
            weight = kept.astype(dtype)
            centers = jnp.where(kept, centers, centers[:, jnp.argmax(kept)][:, None])
        return Patches(centers, weight, self)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["centers", "weight"], meta_fields=["tests"])
@dataclasses.dataclass(frozen=True, eq=False)
class Patches:
    """A draw of test functions: their centres `(ndim, centers)` and the weight, 1 or 0, of each, `(centers,)`.

    Nothing here depends on a sample: under `jax.vmap` over samples it stays unbatched.
    """

    centers: Float[Array, " ndim centers"]
    weight: Float[Array, " centers"]
    tests: TestFunctions

    @property
    def points(self) -> Float[Array, " ndim centers q"]:
        """Where fields are evaluated: centre + R xi; with `rule="derivative"` centre + R/sqrt(3) xi."""
        return self.centers[:, :, None] + self._reach * self._directions[:, None, :]

    def mean(self, values: Float[Array, " *lead centers q"]) -> Float[Array, " *lead centers"]:
        """The plain mean over the points of each ball; 0 where the weight is."""
        return jnp.mean(values, axis=-1) * self.weight

    def test(self, terms: Callable[[Array], tuple[Any, Any, Any]]) -> tuple[Array, Any]:
        """r = mean(source v) + mean(flux . grad_x v) on each ball, the weak form of `source - div flux`.

        The second mean is of order 1/R and cancels over the ball. `rule="difference"` is the plain mean. The points are
        symmetric, so that G(s) = mean(flux(centre + s xi) . grad_xi v) is odd in s; `rule="derivative"` takes
        G(R)/R = G'(R/sqrt(3)) + O(R^4) from one forward derivative of the flux along xi, where nothing cancels, and for
        the mean M of source v likewise M(R) = M(s) + s M'(s) + O(R^4) at s = R/sqrt(3). Noise of `float32`, in units of
        mean(source v), measured on a smooth Darcy problem:

        | R | 1e-4 | 1e-3 | 1e-2 | 1e-1 |
        | --- | --- | --- | --- | --- |
        | `"difference"` | 1.2e-3 | 9e-5 | 1.0e-5 | 1.4e-6 |
        | `"derivative"` | 3e-7 | 3e-7 | 3e-7 | 3e-7 |

        The derivative costs 1.4 times (mixed form) to 2 times (primal form) the operations. It does not see a jump of
        the flux inside a ball: there take `"difference"`.

        **Arguments:**

        - `terms`: a function of points `(ndim, centers, q)` that returns `source` `(*equations, centers, q)` (or a
          number), `flux` `(space, *equations, centers, q)` and anything else that is wanted at the points.

        **Returns:** r, `(*equations, centers)`, 0 where the weight is, and what `terms` gave third.
        """
        tests, x = self.tests, self.points
        assert tests.space is not None
        _, v, gradient, kappa = quadrature(tests.space, tests.num_points)
        gradient = gradient / kappa if tests.corrected else gradient
        if tests.rule == "difference":
            source, flux, more = terms(x)
            slope = flux
            gradient = gradient / tests.radius
        else:
            pair = lambda y: (lambda s, f, more: ((jnp.asarray(s, y.dtype), f), more))(*terms(y))
            along = jnp.broadcast_to(self._directions[:, None, :], x.shape)
            (source, flux), (rate, slope), more = jax.jvp(pair, (x,), (along,), has_aux=True)
            source = source + self._reach * rate
        if jnp.ndim(flux) < 3 or flux.shape[0] != tests.space:
            raise ValueError(
                f"terms: expected a flux of shape ({tests.space}, *equations, centers, q), got {jnp.shape(flux)}; give "
                "one component per axis of space."
            )
        weights = jnp.asarray(gradient, x.dtype).reshape(tests.space, *[1] * (slope.ndim - 2), -1)
        return self.mean(source * jnp.asarray(v, x.dtype) + jnp.sum(slope * weights, axis=0)), more

    @property
    def _reach(self) -> float:
        return self.tests.radius / (1.0 if self.tests.rule == "difference" else math.sqrt(3.0))

    @property
    def _directions(self) -> Array:
        """xi, with a zero along time, `(ndim, q)`."""
        assert self.tests.space is not None
        xi = quadrature(self.tests.space, self.tests.num_points)[0]
        still = np.zeros((self.tests.ndim - self.tests.space, xi.shape[1]))
        return jnp.asarray(np.concatenate([xi, still]), self.centers.dtype)


def latin_hypercube(key: Array, box: Box, number: int, dtype: Any) -> Float[Array, " ndim number"]:
    """Points in a box, one in each of `number` equal slices of every axis."""
    columns = []
    for axis, (lo, hi) in enumerate(box):
        slices, jitter = jax.random.split(jax.random.fold_in(key, axis))
        place = (jax.random.permutation(slices, number) + jax.random.uniform(jitter, (number,), dtype)) / number
        columns.append(lo + (hi - lo) * place.astype(dtype))
    return jnp.stack(columns)


def check_domain(domain: Any, name: str) -> Box:
    """Pairs (low, high) of finite numbers, one per axis, as tuples of floats, or a `ValueError`."""
    pairs = tuple(domain) if isinstance(domain, Sequence) and not isinstance(domain, str) else ()
    if not pairs or any(not isinstance(p, Sequence) or isinstance(p, str) or len(p) != 2 for p in pairs):
        raise ValueError(
            f"{name}: expected a pair (low, high) per axis, got {domain!r}; give for example ((0.0, 1.0), (0.0, 1.0))."
        )
    box = tuple((check_number(lo, name), check_number(hi, name)) for lo, hi in pairs)
    if any(not lo < hi for lo, hi in box):
        raise ValueError(f"{name}: expected low < high on every axis, got {domain!r}; swap the ends.")
    return box
