"""Input-convex potentials on functions: integral operators, and gradients in the inner product of L2."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import check_boundary, per_axis
from neuralops.nn.convex import (
    AbstractPotential,
    ConvexLayer,
    Map,
    Stage,
    check_init,
    check_numbers,
    code_encoder,
    make_layers,
    positive,
)
from neuralops.nn.pointwise import Linear
from neuralops.operator import Envelope, check_field


class ConvexIntegral(AbstractPotential):
    """A potential on functions: the same on every grid that resolves them, so a prior learned on 32 x 32 points serves
    on 64 x 64.

    psi(y) = integral of w^T h_K(x) + alpha |y(x)|^2 over the box, with h_k as in `nn.convex` and every W_k and H_k an
    integral operator, (K u)(x) = integral of kappa(x - x') u(x') dx'. Its kernel is a sum of hat functions,
    kappa = sum over j of k_j hat(z / H - j) / H^ndim with three j per axis and H = d h_0: d is the layer's dilation and
    h_0 the spacing of `num_points`. On that grid, with d = 1, it is the convolution with k. The gradient is that of the
    inner product
    of L2, integral of u v, so it too is a function that does not depend on the grid.

    **Arguments:**

    - `num_points`: points per axis of the coarsest grid, on which it is trained for instance.
    - `in_channels`, `hidden_channels`: channels of the field and of the layers.
    - `dilations`: d for the first and each further layer.
    - `boundary`: word or words, as in `Grid`. Beyond a Neumann wall fields are continued as even functions, beyond a
      Dirichlet wall as zero; an odd continuation of the hidden layers would not leave psi convex. With walls the grid
      is one of cells, where all points count alike; on a periodic axis both kinds do.
    - `domain_extent`: side lengths of the box, for the integral.
    - `beta`, `alpha`, `code_range`, `init`: as in `ConvexDense`; `"published"` is exp(N(-10, 0.01)).

    Takes grids of a multiple of `num_points` points. Refinement: *consistent* of order 2 for smooth fields.

    **Raises:** `ValueError` on arguments outside the above, and on fields that it does not take.
    """

    layers: tuple[ConvexLayer, ...]
    readout: Float[Array, " hidden"]
    encoder: tuple[Linear, ...]
    num_points: tuple[int, ...] = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    dilations: tuple[int, ...] = eqx.field(static=True)
    boundary: tuple[Any, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    beta: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    code_range: tuple[float, float] | None = eqx.field(static=True)
    init: str = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int],
        in_channels: int = 1,
        hidden_channels: int = 32,
        *,
        dilations: Sequence[int] = (1, 1, 2, 4),
        boundary: Any = "neumann",
        domain_extent: float | Sequence[float] = 1.0,
        beta: float = 10.0,
        alpha: float = 0.01,
        code_range: tuple[float, float] | None = None,
        init: str = "average",
        key: Array,
    ) -> None:
        points = num_points if isinstance(num_points, Sequence) else (num_points,)
        self.num_points = tuple(count(n, "num_points") for n in points)
        ndim = count(len(self.num_points), "ndim", most=3)
        self.in_channels = count(in_channels, "in_channels")
        self.hidden_channels = width = count(hidden_channels, "hidden_channels")
        self.dilations = tuple(count(d, "dilations") for d in dilations)
        if not self.dilations:
            raise ValueError("dilations: expected one for each layer, got (); give e.g. (1, 1, 2).")
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, ndim, "boundary"))
        extents = per_axis(domain_extent, ndim, "domain_extent")
        if any(not isinstance(L, int | float | np.number) or not 0 < L < math.inf for L in extents):
            raise ValueError(
                f"domain_extent: expected positive finite lengths, got {extents!r}; give side lengths such as 1.0."
            )
        self.domain_extent = tuple(map(float, extents))
        self.beta, self.alpha, self.code_range = check_numbers(beta, alpha, code_range)
        self.init = check_init(init)
        layer_key, readout_key, code_key = jax.random.split(key, 3)
        taps = (3,) * ndim
        shapes: list[Any] = [(None, (*taps, self.in_channels, width), True)]
        shapes += [((*taps, width, width), (*taps, self.in_channels, width), True)] * (len(self.dilations) - 1)
        self.layers = make_layers(shapes, init, self.code_range, layer_key)
        self.readout = positive((width,), width, init, readout_key)
        self.encoder = code_encoder(self.code_range, width, code_key)

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        ndim = len(self.num_points)
        return Envelope((ndim,), tuple(sorted(words)), "consistent", order=2, min_points=min(self.num_points))

    def measure(self, grid: tuple[int, ...]) -> float:
        return math.prod(L / n for L, n in zip(self.domain_extent, grid, strict=True))

    def check(self, y: Any) -> None:
        check_field(y, channels=self.in_channels, ndim=len(self.num_points), where="ConvexIntegral")
        if any(n % m for n, m in zip(y.shape[1:], self.num_points, strict=True)):
            raise ValueError(
                f"u: ConvexIntegral expects a multiple of {self.num_points} points, got {tuple(y.shape[1:])}; bring "
                "the field to such a grid (no.resample)."
            )

    def stages(self, grid: tuple[int, ...]) -> list[Stage]:
        ratios = [n // m for n, m in zip(grid, self.num_points, strict=True)]
        found = []
        for layer, dilation in zip(self.layers, self.dilations, strict=True):
            steps = [dilation * ratio for ratio in ratios]
            skip, main = (
                None if kernel is None else self._integral(kernel, steps, grid) for kernel in (layer.skip, layer.main)
            )
            assert skip is not None
            found.append(Stage(main, skip, layer))
        return found

    def _integral(self, kernel: Array, steps: Sequence[int], grid: tuple[int, ...]) -> Map:
        apply = functools.partial(hat_convolution, kernel=kernel, steps=steps, boundary=self.boundary)

        def transpose(z: Array) -> Array:  # of slices and products, fast at any order of differentiation
            return jax.linear_transpose(apply, jax.ShapeDtypeStruct((*grid, kernel.shape[-2]), z.dtype))(z)[0]

        return Map(apply, transpose)

    def _value(self, y: Array, features: Array | None) -> Array:
        return self.measure(y.shape[:-1]) * super()._value(y, features)  # all points count alike: f has no measure


def hat_convolution(
    u: Float[Array, "*grid channels"], kernel: Array, steps: Sequence[int], boundary: Sequence[Any]
) -> Float[Array, "*grid channels_out"]:
    """The integral operator with the kernel sum over j of k_j hat(z / H - j) / H^ndim on points of spacing H / steps.

    As a correlation, like every other kernel here: tap t reads about the offset (t - 1) H.
    """
    for axis, (r, rule) in enumerate(zip(steps, boundary, strict=True)):
        hats = jnp.asarray(_hats(u.shape[axis], r, rule), u.dtype)
        u = jnp.moveaxis(jnp.tensordot(hats, u, ((2,), (axis,))), (0, 1), (-2, axis))
    return u.reshape(*u.shape[: len(steps)], -1) @ kernel.reshape(-1, kernel.shape[-1])


@functools.lru_cache(maxsize=256)
def _hats(n: int, r: int, boundary: Any) -> np.ndarray:
    """For each of the three hats, r points apart, the weights of the points: `(3, n, n)`.

    Products with these matrices, although most of their entries are zero: of shifted slices XLA makes a program that
    takes it twenty times as long to compile.
    """
    ends = (boundary, boundary) if isinstance(boundary, str) else boundary
    found = np.zeros((3, n, n))
    for j, row in itertools.product(range(3), range(n)):
        for i in range(1 - r, r):
            place, weight = row + (j - 1) * r + i, (1 - abs(i) / r) / r
            while not 0 <= place < n:
                end = ends[0] if place < 0 else ends[1]
                if end == "dirichlet":
                    break
                place = place % n if end == "periodic" else -1 - place if place < 0 else 2 * n - 1 - place
            else:
                found[j, row, place] += weight
    return found
