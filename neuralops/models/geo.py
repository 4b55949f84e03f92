"""Operators on a latent grid, brought to clouds of points (Geo-FNO, Li, Huang, Liu and Anandkumar 2022).

A Fourier transform at the points of the input, deformed so that they lie well in a periodic box, gives a function on
a uniform grid; any operator works there; its Fourier series is sampled at the points of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import per_axis
from neuralops.nn import nonuniform
from neuralops.nn.assignment import cleared, measure_of
from neuralops.nn.deformation import Deformation
from neuralops.nn.latent import ANY
from neuralops.nn.pointwise import ChannelMLP, Linear, gelu
from neuralops.nn.spectral import SpectralConv, check_modes
from neuralops.operator import AbstractOperator, Envelope, check_field

TRANSFORMS = ("integral", "published")


class GeoOperator(AbstractOperator):
    """An operator on a uniform latent grid, between clouds of points.

    With the values v = L u at points x, the places y = phi(x) and the kept frequencies k

        w_k = R_k (sum_n q_n v_n exp(-2 pi i k . y_n)),   z = gelu(series of w on the grid + G grid coordinates),
        out(x) = P(series of S_k (modes of body(z))_k at phi(x) + D x),

    L, G, D linear at each point, R and S matrices of the channels per frequency, P a two-layer perceptron. With a
    `LatentUNet` as its body it is the latent spectral model on points, with an `FNO` it is Geo-FNO.

    It is called as `op(u, coords=x)`, with `query=` for other points of the output, `mask=` for padded points,
    `weights=` for quadrature weights (without them each point counts alike) and `code=` for the deformation. In two
    halves: `latent = op.encode(u, coords=x)`, once for an input, and `op.decode(latent, query)`.

    **Arguments:**

    - `body`: an operator from `hidden_channels` to `hidden_channels` channels on a periodic grid.
    - `in_channels`, `out_channels`: channels of the input and output functions.
    - `n_modes`: frequencies per axis, both signs counted, as in `SpectralConv`; their number is the dimension.
    - `latent_points`: points per axis of the latent grid, at least `n_modes`.
    - `deformation`: a `Deformation`, or `None` for y = x.
    - `domain`: the box that becomes the periodic unit box, `((low, high), ...)`. The series is periodic in it: give a
      box somewhat larger than the cloud, or a deformation.
    - `projection_channels`: width of P.
    - `transform`: `"integral"` takes q with the sum one, so that a finer mesh converges and coefficients do not depend
      on the grids. `"published"` is the authors' code, for their weights: q = 1 over the latent points, latent modes
      unscaled, the start and the partner frequencies as there (see `nonuniform.sample`).
    - `chunk_size`: most points at a time, to bound memory; `None` takes them all.

    Input `(in_channels, *points)` with `coords` `(ndim, *points)`, output `(out_channels, *points_out)`.

    Refinement: *consistent*, of the order of the quadrature, given `weights` on meshes that are not uniform. The order
    of points and what masked points hold change nothing.

    **Raises:** `ValueError` on parts that do not fit together, missing coordinates, and shapes that do not fit.
    """

    body: Any
    deformation: Deformation | None
    lifting: Linear
    encoder: SpectralConv
    decoder: SpectralConv
    grid_skip: Linear
    point_skip: Linear
    projection: ChannelMLP
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    n_modes: tuple[int, ...] = eqx.field(static=True)
    latent_points: tuple[int, ...] = eqx.field(static=True)
    domain: tuple[tuple[float, float], ...] = eqx.field(static=True)
    projection_channels: int = eqx.field(static=True)
    transform: str = eqx.field(static=True)
    chunk_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        body: Any,
        in_channels: int,
        out_channels: int,
        *,
        n_modes: Sequence[int] = (24, 23),
        latent_points: int | Sequence[int] = 96,
        deformation: Deformation | None = None,
        domain: Sequence[Sequence[float]] | None = None,
        projection_channels: int = 128,
        transform: str = "integral",
        chunk_size: int | None = None,
        key: Array,
    ) -> None:
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.n_modes = check_modes(n_modes)
        ndim = len(self.n_modes)
        self.latent_points = tuple(
            count(n, "latent_points", least=m, hint=f"give at least n_modes={self.n_modes}.")
            for n, m in zip(per_axis(latent_points, ndim, "latent_points"), self.n_modes, strict=True)
        )
        width = getattr(body, "in_channels", None)
        if width is None or getattr(body, "out_channels", width) != width:
            raise ValueError(
                f"body: expected an operator with as many output as input channels, got {type(body).__name__}; give "
                "LatentUNet(32, key=key) or FNO(n_modes, 32, 32, 32, key=key)."
            )
        dimensions = getattr(getattr(body, "envelope", None), "ndim", (ndim,))
        if ndim not in dimensions:
            raise ValueError(
                f"body: expected an operator on {ndim} dimensions, as many as n_modes has, got one for {dimensions}; "
                "give one count per axis in n_modes."
            )
        if deformation is not None and (not isinstance(deformation, Deformation) or deformation.ndim != ndim):
            raise ValueError(
                f"deformation: expected a Deformation with ndim={ndim} or None, got {deformation!r}; build one."
            )
        if transform not in TRANSFORMS:
            raise ValueError(f"transform: expected one of {TRANSFORMS}, got {transform!r}; use one of these words.")
        self.body, self.deformation, self.transform = body, deformation, transform
        self.domain = check_box(domain, ndim)
        self.projection_channels = count(projection_channels, "projection_channels")
        self.chunk_size = None if chunk_size is None else count(chunk_size, "chunk_size")
        keys = jax.random.split(key, 6)
        self.lifting = Linear(self.in_channels, width, key=keys[0])
        convolution = lambda key: SpectralConv(width, width, self.n_modes, use_bias=False, key=key)
        self.encoder, self.decoder = convolution(keys[1]), convolution(keys[2])
        if transform == "published":
            start = lambda key, op: jax.random.uniform(key, op.weight.core.shape, maxval=1 / width**2)
            place = lambda op: op.weight.core
            self.encoder = eqx.tree_at(place, self.encoder, start(keys[1], self.encoder))
            self.decoder = eqx.tree_at(place, self.decoder, start(keys[2], self.decoder))
        self.grid_skip, self.point_skip = Linear(ndim, width, key=keys[3]), Linear(ndim, width, key=keys[4])
        self.projection = ChannelMLP(width, self.out_channels, self.projection_channels, key=keys[5])

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.n_modes),), ANY, "consistent", order=1)

    @property
    def keywords(self) -> frozenset[str]:
        coded = self.deformation is not None and self.deformation.code_channels is not None
        return frozenset({"coords", "query", "mask", "weights", "key"} | ({"code"} if coded else set()))

    def __call__(
        self,
        u: Float[Array, " channels *points"],
        /,
        *,
        coords: Float[Array, " ndim *points"] | None = None,
        query: Float[Array, " ndim *points_out"] | None = None,
        mask: Any = None,
        weights: Float[Array, "*points"] | None = None,
        code: Float[Array, " numbers"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, " channels_out *points_out"]:
        if query is not None:
            self._check_places(query, "query", tuple(jnp.shape(query)[1:]))
        latent = self.encode(u, coords=coords, mask=mask, weights=weights, code=code)
        if query is None:  # what masked points hold must reach neither values nor gradients there
            query = coords if mask is None else jnp.where(jnp.asarray(mask).astype(bool), jnp.asarray(coords), 0)
        return self.decode(latent, query, code=code)  # type: ignore[arg-type]  # checked

    def encode(
        self,
        u: Float[Array, " channels *points"],
        *,
        coords: Float[Array, " ndim *points"] | None = None,
        mask: Any = None,
        weights: Float[Array, "*points"] | None = None,
        code: Float[Array, " numbers"] | None = None,
    ) -> Float[Array, "*modes hidden 2"]:
        """All that the output is made of, whatever its points: the coefficients of the last series."""
        check_field(u, channels=self.in_channels, ndim=None, where="GeoOperator")
        measure = measure_of(weights, mask, tuple(u.shape[1:]), u.dtype)  # refuses masks of other shapes: first
        place = self._places(coords, code, "coords", tuple(u.shape[1:]), mask)
        values = self.lifting.channels_last(cleared(u.reshape(self.in_channels, -1).T, mask))
        measure = jnp.ones(len(values), u.dtype) if measure is None else measure
        published = self.transform == "published"
        size = int(np.prod(self.latent_points))
        total = size if published else jnp.maximum(jnp.sum(measure), 1e-30)
        z = nonuniform.to_modes(values, place, self.n_modes, measure / total, chunk_size=self.chunk_size)
        z = self.encoder.from_modes(self.encoder.mixed(z), self.latent_points)
        places = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in self.latent_points), indexing="ij"), -1)
        z = gelu(z + self.grid_skip.channels_last(jnp.asarray(places, u.dtype)))
        z = jnp.moveaxis(self.body(jnp.moveaxis(z, -1, 0)), 0, -1)
        z = self.decoder.mixed(self.decoder.to_modes(z))
        return z * size if published else z

    def decode(
        self,
        latent: Float[Array, "*modes hidden 2"],
        query: Float[Array, " ndim *points_out"],
        *,
        code: Float[Array, " numbers"] | None = None,
    ) -> Float[Array, " channels_out *points_out"]:
        """The output at the points `query`, of an input whose code is `latent`."""
        shape = None if query is None else tuple(jnp.shape(query)[1:])
        place = self._places(query, code, "query", shape, None)
        v = nonuniform.sample(
            latent, place, self.n_modes, published=self.transform == "published", chunk_size=self.chunk_size
        )
        v = v + self.point_skip.channels_last(self._boxed(query))
        return self.projection.channels_last(v).T.reshape(self.out_channels, *(shape or ()))

    def _boxed(self, x: Any) -> Float[Array, "points ndim"]:
        """Points in the unit box, one axis of them."""
        low, width = (jnp.asarray(side, x.dtype) for side in zip(*((a, b - a) for a, b in self.domain), strict=True))
        return (jnp.asarray(x).reshape(len(self.n_modes), -1).T - low) / width

    def _places(self, x: Any, code: Any, name: str, points: tuple[int, ...] | None, mask: Any) -> Array:
        """Where points lie in the periodic box, deformed; masked ones at the corner."""
        self._check_places(x, name, points)
        place = cleared(self._boxed(x), mask)
        if self.deformation is None:
            if code is not None:
                raise ValueError(
                    "code: expected None, because there is no deformation to take it, got one; leave it out."
                )
            return place
        return self.deformation(place.T, code=code).T

    def _check_places(self, x: Any, name: str, points: tuple[int, ...] | None) -> None:
        ndim = len(self.n_modes)
        if x is None or tuple(jnp.shape(x)) != (ndim, *(points or ())):
            came = "none" if x is None else f"shape {tuple(jnp.shape(x))}"
            raise ValueError(
                f"{name}: GeoOperator expects places {(ndim, *(points or ('points',)))}, got {came}; give "
                "op(u, coords=...), or fix them with no.at(op, coords=...)."
            )


def check_box(domain: Any, ndim: int) -> tuple[tuple[float, float], ...]:
    """Low and high end per axis; the unit box by default.

    **Raises:** `ValueError` on another number of axes and on ends that do not increase.
    """
    box = ((0.0, 1.0),) * ndim if domain is None else tuple(tuple(float(end) for end in axis) for axis in domain)
    if len(box) != ndim or not all(len(ends) == 2 and ends[0] < ends[1] for ends in box):
        raise ValueError(
            f"domain: expected {ndim} pairs (low, high), got {domain!r}; give e.g. {((0.0, 1.0),) * ndim}."
        )
    return box  # type: ignore[return-value]
