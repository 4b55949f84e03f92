"""Input-convex potentials made of convolutions on the points of a grid, as published."""

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
GHOSTS = {"periodic": "wrap", "dirichlet": "zero", "neumann": "even"}  # names in `nn.convolution`


class ConvexConv(AbstractPotential):
    """The convolutional potential of Fang, Buchanan and Sulam, in any dimension, on any grid, with any channels.

    The first layer is a convolution of the field with three points per axis; each further one has such a convolution of
    the layer before (weights at least zero) and one of the field, resized to the grid of that
    layer, both to every point or to every second one. The last layer has kernels of `window` points and no padding.
    Its outputs at all places where the window fits are summed: on a larger grid psi has more terms.

    **Arguments:**

    - `in_channels`, `hidden_channels`: channels of the field and of the layers.
    - `ndim`: dimension of the grid.
    - `boundary`: how fields and layers continue beyond the edge, a word per axis or a pair where its ends differ:
      `"neumann"` as their mirror image, `"periodic"`, or `"dirichlet"` as zeros, as published.
    - `strides`: 1 or 2 for each further layer, (2, 1, 2, 1, 2) as published for 128 x 128.
    - `window`: points per axis of the last kernel, on the coarsest grid; as many as that has make one dense map, as
      published. 1 makes the operator the same at every place.
    - `readout_channels`: channels after the last kernel.
    - `use_bias`: a bias in the first layer and a constant in psi; the skips always have one.
    - `beta`, `alpha`, `code_range`: as in `ConvexDense`.
    - `init`: `"sparse"`, `"average"`: as in `ConvexDense`; means over many taps differ little from each other, and
      networks of 24 channels that start so learned more slowly, those of 8 faster. `"published"`: W_k and w are
      exp(N(-10, 0.01)).

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
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
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
        boundary: Any = "neumann",
        strides: Sequence[int] = (2, 1, 2),
        window: int | Sequence[int] = 1,
        readout_channels: int = 64,
        use_bias: bool = True,
        beta: float = 10.0,
        alpha: float = 0.01,
        code_range: tuple[float, float] | None = None,
        init: str = "sparse",
        key: Array,
    ) -> None:
        self.in_channels, self.ndim = count(in_channels, "in_channels"), count(ndim, "ndim", most=3)
        self.hidden_channels = width = count(hidden_channels, "hidden_channels")
        self.readout_channels, self.use_bias = count(readout_channels, "readout_channels"), flag(use_bias, "use_bias")
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, self.ndim, "boundary"))
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
        grids, edges = self.grids(grid), self._edges()
        first = self.layers[0]
        found = [Stage(None, _convolution(first.skip, 1, grid, edges), first)]
        for layer, stride, points in zip(self.layers[1:-1], self.strides, grids[:-1], strict=True):
            skip = _after(resize(grid, points), _convolution(layer.skip, stride, points, edges))
            assert layer.main is not None
            found.append(Stage(_convolution(layer.main, stride, points, edges), skip, layer))
        last, points = self.layers[-1], grids[-1]
        assert last.main is not None
        skip = _after(resize(grid, points), _windows(last.skip, points))
        return [*found, Stage(_windows(last.main, points), skip, last)]

    def _edges(self) -> tuple[tuple[str, str], ...]:
        ends = ((b, b) if isinstance(b, str) else b for b in self.boundary)
        return tuple((GHOSTS[low], GHOSTS[high]) for low, high in ends)

    def _value(self, y: Array, features: Array | None) -> Array:
        value = super()._value(y, features)
        return value if self.constant is None else value + self.constant[0]


def _after(first: Map, second: Map) -> Map:
    return Map(lambda x: second.apply(first.apply(x)), lambda z: first.transpose(second.transpose(z)))


def _convolution(kernel: Array, stride: int, grid: tuple[int, ...], edges: tuple[tuple[str, str], ...]) -> Map:
    """Three points per axis, to every point or to every second one, and its transpose.

    Where ghost points are read, the transpose spreads onto them too, and adds them to the points that they copy.
    """
    ghosts, axes = (ZERO,) * len(grid), tuple(range(len(grid)))
    swapped, plain = jnp.swapaxes(kernel, -1, -2), edges == ghosts
    flipped = jnp.flip(swapped, axes)
    wide = tuple(n + 3 for n in grid)  # two points before the first, the outer of them for parity, and one behind

    def spread(z: Array) -> Array:
        if stride == 1:
            return convolve(z if plain else _padded(z, 1, 1), flipped, ghosts)
        if plain:
            return refine(z, swapped, ghosts, "even", grid)
        return refine(_padded(z, 1, 0), swapped, ghosts, "even", wide)[(slice(1, None),) * len(grid)]

    apply = (lambda x: convolve(x, kernel, edges)) if stride == 1 else (lambda x: coarsen(x, kernel, edges, "even"))
    return Map(apply, spread if plain else lambda z: _folded(spread(z), edges))


def _padded(z: Array, before: int, behind: int) -> Array:
    return jnp.pad(z, [(before, behind)] * (z.ndim - 1) + [(0, 0)])


def _folded(z: Array, edges: tuple[tuple[str, str], ...]) -> Array:
    """The first and the last point of each axis, which are ghosts, added to what they are copies of."""
    for axis, ends in enumerate(edges):
        pick = functools.partial(jax.lax.index_in_dim, axis=axis, keepdims=False)
        inner = jax.lax.slice_in_dim(z, 1, z.shape[axis] - 1, axis=axis)
        here = lambda i, axis=axis: (slice(None),) * axis + (i,)
        for ghost, end, near, far in ((0, ends[0], 0, -1), (-1, ends[1], -1, 0)):
            if end != "zero":
                inner = inner.at[here(near if end == "even" else far)].add(pick(z, ghost % z.shape[axis]))
        z = inner
    return z


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
