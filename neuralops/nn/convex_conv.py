"""Input-convex potentials made of convolutions: on the points of a grid, as published, and on functions."""

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

from neuralops.arguments import count, flag
from neuralops.grid import BOUNDARIES, check_boundary, per_axis
from neuralops.nn.convex import (
    AbstractPotential,
    ConvexLayer,
    Map,
    Stage,
    check_init,
    check_numbers,
    code_encoder,
    default_uniform,
    make_layers,
    positive,
)
from neuralops.nn.convolution import coarsen, convolve, refine
from neuralops.nn.pointwise import Linear
from neuralops.operator import Envelope, check_field

ZERO = ("zero", "zero")


class ConvexConv(AbstractPotential):
    """The convolutional potential of Fang, Buchanan and Sulam, in any dimension, on any grid, with any channels.

    The first layer is a convolution of the field with three points per axis and zero padding; each further one has
    such a convolution of the layer before (weights at least zero) and one of the field, resized to the grid of that
    layer, both to every point or to every second one. The last layer has kernels of `window` points and no padding.
    Its outputs at all places where the window fits are summed: on a larger grid psi has more terms.

    **Arguments:**

    - `in_channels`, `hidden_channels`: channels of the field and of the layers.
    - `ndim`: dimension of the grid.
    - `strides`: 1 or 2 for each further layer, (2, 1, 2, 1, 2) as published for 128 x 128.
    - `window`: points per axis of the last kernel, on the coarsest grid; as many as that has make one dense map, as
      published. 1 makes the operator the same at every place.
    - `readout_channels`: channels after the last kernel.
    - `use_bias`: a bias in the first layer and a constant in psi; the skips always have one.
    - `beta`, `alpha`, `code_range`: as in `ConvexDense`.
    - `init`: `"published"`: W_k and w are exp(N(-10, 0.01)). `"average"`: as in `ConvexDense`.

    Refinement: *spacing-locked*, its kernels count points; `ConvexIntegral` does not.

    **Raises:** `ValueError` on arguments outside the above, on fields of another rank or number of channels, and on
    grids in which the window does not fit.
    """

    layers: tuple[ConvexLayer, ...]
    readout: Float[Array, " readout"]
    constant: Float[Array, " 1"] | None
    encoder: tuple[Linear, ...]
    in_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)
    window: tuple[int, ...] = eqx.field(static=True)
    readout_channels: int = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)
    beta: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    code_range: tuple[float, float] | None = eqx.field(static=True)
    init: str = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int = 1,
        hidden_channels: int = 64,
        *,
        ndim: int = 2,
        strides: Sequence[int] = (2, 1, 2),
        window: int | Sequence[int] = 1,
        readout_channels: int = 64,
        use_bias: bool = True,
        beta: float = 10.0,
        alpha: float = 0.01,
        code_range: tuple[float, float] | None = None,
        init: str = "average",
        key: Array,
    ) -> None:
        self.in_channels, self.ndim = count(in_channels, "in_channels"), count(ndim, "ndim", most=3)
        self.hidden_channels = width = count(hidden_channels, "hidden_channels")
        self.readout_channels, self.use_bias = count(readout_channels, "readout_channels"), flag(use_bias, "use_bias")
        self.strides = tuple(count(s, "strides", most=2) for s in strides)
        self.window = tuple(count(n, "window") for n in per_axis(window, self.ndim, "window"))
        self.beta, self.alpha, self.code_range = check_numbers(beta, alpha, code_range)
        self.init = check_init(init)
        layer_key, readout_key, bias_key, code_key = jax.random.split(key, 4)
        taps, inputs, last = (3,) * self.ndim, self.in_channels, self.readout_channels
        shapes: list[Any] = [(None, (*taps, inputs, width), self.use_bias)]
        shapes += [((*taps, width, width), (*taps, inputs, width), True)] * len(self.strides)
        shapes += [((*self.window, width, last), (*self.window, inputs, last), True)]
        self.layers = make_layers(shapes, init, self.code_range, layer_key)
        self.readout = positive((last,), last, init, readout_key)
        self.constant = default_uniform((1,), last, bias_key) if self.use_bias else None
        self.encoder = code_encoder(self.code_range, last, code_key)

    @property
    def envelope(self) -> Envelope:
        least = max(self.window)
        for stride in self.strides:
            least = 2 * least - 1 if stride == 2 else least
        return Envelope((self.ndim,), BOUNDARIES, "spacing-locked", min_points=least)

    def grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """That of each hidden layer but the last."""
        found = [grid]
        for stride in self.strides:
            found.append(tuple((n + stride - 1) // stride for n in found[-1]))
        return found

    def check(self, y: Any) -> None:
        check_field(y, channels=self.in_channels, ndim=self.ndim, where="ConvexConv")
        coarsest = self.grids(tuple(y.shape[1:]))[-1]
        if any(n < w for n, w in zip(coarsest, self.window, strict=True)):
            raise ValueError(
                f"u: ConvexConv expects at least {self.window} points on its coarsest grid, got {coarsest} from a "
                f"field on {tuple(y.shape[1:])}; give a larger field, or a smaller window."
            )

    def stages(self, grid: tuple[int, ...]) -> list[Stage]:
        grids = self.grids(grid)
        first = self.layers[0]
        found = [Stage(None, _convolution(first.skip, 1, grid), first)]
        for layer, stride, points in zip(self.layers[1:-1], self.strides, grids[:-1], strict=True):
            skip = _after(resize(grid, points), _convolution(layer.skip, stride, points))
            assert layer.main is not None
            found.append(Stage(_convolution(layer.main, stride, points), skip, layer))
        last, points = self.layers[-1], grids[-1]
        assert last.main is not None
        skip = _after(resize(grid, points), _windows(last.skip, points))
        return [*found, Stage(_windows(last.main, points), skip, last)]

    def _value(self, y: Array, features: Array | None) -> Array:
        value = super()._value(y, features)
        return value if self.constant is None else value + self.constant[0]


def _after(first: Map, second: Map) -> Map:
    return Map(lambda x: second.apply(first.apply(x)), lambda z: first.transpose(second.transpose(z)))


def _convolution(kernel: Array, stride: int, grid: tuple[int, ...]) -> Map:
    """Three points per axis with zero padding, to every point or to every second one, and its transpose."""
    ghosts, axes = (ZERO,) * len(grid), tuple(range(len(grid)))
    swapped = jnp.swapaxes(kernel, -1, -2)
    if stride == 1:
        flipped = jnp.flip(swapped, axes)
        return Map(lambda x: convolve(x, kernel, ghosts), lambda z: convolve(z, flipped, ghosts))
    return Map(lambda x: coarsen(x, kernel, ghosts, "even"), lambda z: refine(z, swapped, ghosts, "even", grid))


def _windows(kernel: Array, grid: tuple[int, ...]) -> Map:
    """A kernel wherever it fits into the grid, and its transpose."""
    taps, (inputs, outputs) = kernel.shape[:-2], kernel.shape[-2:]
    matrix = kernel.reshape(-1, outputs)
    if taps == grid:
        one = (1,) * len(grid)
        return Map(
            lambda x: (x.reshape(-1) @ matrix).reshape(*one, outputs),
            lambda z: (matrix @ z.reshape(-1)).reshape(*grid, inputs),
        )
    if math.prod(taps) == 1:
        return Map(lambda x: x @ matrix, lambda z: z @ matrix.T)
    places = [range(n - t + 1) for n, t in zip(grid, taps, strict=True)]
    shifts = list(itertools.product(*map(range, taps)))

    def apply(x: Array) -> Array:
        parts = [x[tuple(slice(s, s + len(p)) for s, p in zip(shift, places, strict=True))] for shift in shifts]
        return jnp.concatenate(parts, -1) @ matrix

    def transpose(z: Array) -> Array:
        wide = (z @ matrix.T).reshape(*z.shape[:-1], len(shifts), inputs)
        total: Any = 0.0
        for i, shift in enumerate(shifts):
            margins = [(s, n - len(p) - s) for s, n, p in zip(shift, grid, places, strict=True)]
            total = total + jnp.pad(wide[..., i, :], [*margins, (0, 0)])
        return total

    return Map(apply, transpose)


def resize(grid: tuple[int, ...], points: tuple[int, ...]) -> Map:
    """Linear interpolation at the centres of `points` equal cells, without antialiasing: of a factor four or eight only
    the two middle points of each axis count. Its transpose too."""
    axes = [axis for axis, (n, m) in enumerate(zip(grid, points, strict=True)) if n != m]

    def apply(x: Array) -> Array:
        for axis in axes:
            n, m = grid[axis], points[axis]
            if n % m == 0 and n // m % 2 == 0:  # the two middle points of each cell
                k = n // m
                cells = x.reshape(*x.shape[:axis], m, k, *x.shape[axis + 1 :])
                pair = jax.lax.slice_in_dim(cells, k // 2 - 1, k // 2 + 1, axis=axis + 1)
                x = jnp.mean(pair, axis + 1)
            else:
                matrix = jnp.asarray(_linear(n, m), x.dtype)
                x = jnp.moveaxis(jnp.tensordot(matrix, x, ((1,), (axis,))), 0, axis)
        return x

    def transpose(z: Array) -> Array:
        for axis in reversed(axes):
            n, m = grid[axis], points[axis]
            if n % m == 0 and n // m % 2 == 0:
                k = n // m
                pair = jnp.stack([z / 2, z / 2], axis + 1)
                margins = [(0, 0)] * pair.ndim
                margins[axis + 1] = (k // 2 - 1, k // 2 - 1)
                cells = jnp.pad(pair, margins)
                z = cells.reshape(*z.shape[:axis], n, *z.shape[axis + 1 :])
            else:
                matrix = jnp.asarray(_linear(n, m), z.dtype)
                z = jnp.moveaxis(jnp.tensordot(matrix, z, ((0,), (axis,))), 0, axis)
        return z

    return Map(apply, transpose)


@functools.lru_cache(maxsize=256)
def _linear(n: int, m: int) -> np.ndarray:
    """The matrix `(m, n)` of linear interpolation at half-pixel centres."""
    place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    left = np.minimum(np.floor(place).astype(int), max(n - 2, 0))
    matrix, rows = np.zeros((m, n)), np.arange(m)
    matrix[rows, left] = 1 - (place - left)
    matrix[rows, np.minimum(left + 1, n - 1)] += place - left
    return matrix


class ConvexIntegral(AbstractPotential):
    """A potential on functions: the same on every grid that resolves them, so a prior learned on 32 x 32 points serves
    on 64 x 64.

    psi(y) = integral of w^T h_K(x) + alpha |y(x)|^2 over the box, with h_k as above and every W_k and H_k an integral
    operator, (K u)(x) = integral of kappa(x - x') u(x') dx'. Its kernel is a sum of hat functions, kappa = sum over j
    of k_j hat(z / H - j) / H^ndim with three j per axis and H = d h_0: d is the layer's dilation and h_0 the spacing of
    `num_points`. On that grid, with d = 1, it is the convolution with k. The gradient is that of the inner product
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
