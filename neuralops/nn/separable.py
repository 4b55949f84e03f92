"""Convolutions that are compressed before training: built of one-way factors, which are what is trained.

After Boukraichi, Akkari, Casenave and Ryckelynck, "A priori compression of convolutional neural networks for wave
simulators" (arXiv 2304.04964), who decompose every kernel; `nn.kernel_factors` has the three forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.continuation import continued, end_rules
from neuralops.grid import BOUNDARIES, CENTERINGS, check_boundary, per_axis
from neuralops.nn import convolution
from neuralops.nn.convolution import per_sample
from neuralops.nn.kernel_factors import Counts, KernelFactors, check_rank, check_variant, conv_counts, dense_kernel
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.line_convolution import line_convolution
from neuralops.operator import Envelope, check_field

__all__ = ["SeparableConv", "check_ends", "convolve", "correlate"]

Field = Float[Array, "*grid channels"]


def convolve(u: Field, kernel: Array | KernelFactors, ghosts: Sequence[tuple[str, str]]) -> Field:
    """`nn.convolution.convolve` for a kernel of three taps that is an array or factors.

    Factors run as a chain of one-way convolutions where that is faster than their product.
    """
    if not isinstance(kernel, KernelFactors) or not kernel.is_chained:
        return convolution.convolve(u, dense_kernel(kernel), ghosts)
    line = lambda v, taps, axis: line_convolution(continued(v, axis, ghosts[axis], (1, 1)), taps, axis, 1, 1)
    dtype = jnp.result_type(u, *kernel.factors)
    return kernel.chain(u.astype(dtype), line, per_sample)


def correlate(
    u: Field,
    kernel: Array | KernelFactors,
    rules: Sequence[tuple[str, str]],
    margins: Sequence[tuple[int, int]],
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
    chained: bool,
) -> Float[Array, "*grid_out channels_out"]:
    """`nn.convolution.correlate` of a field that goes on beyond its ends, for a kernel that is an array or factors.

    Per axis the `rules` of `continuation` and how many points are read in front and behind; `chained` runs factors as a
    chain of one-way convolutions, else the kernel is rebuilt.
    """
    if chained and isinstance(kernel, KernelFactors):

        def line(v: Array, taps: Array, axis: int) -> Array:
            wide = continued(v, axis, rules[axis], margins[axis])
            return line_convolution(wide, taps.astype(v.dtype), axis, stride[axis], dilation[axis])

        return kernel.chain(u, line, per_sample)
    padding = []
    for axis, (ends, margin) in enumerate(zip(rules, margins, strict=True)):
        zeros = ends == ("zero", "zero")  # left to the convolution as padding
        padding.append(margin if zeros else (0, 0))
        u = u if zeros else continued(u, axis, ends, margin)
    return convolution.correlate(u, dense_kernel(kernel).astype(u.dtype), tuple(padding), stride, dilation)


class SeparableConv(AbstractLayer):
    """A convolution with a kernel of low rank, in 1-D to 3-D: out[p] = b + sum over taps of u[s p + d tap] K[tap].

    The kernel is a sum of `rank` products of one-way factors:

    | `variant` | rank R of | parameters, k = sum of the kernel sizes |
    | --- | --- | --- |
    | `"kernel"` | each kernel, one per pair of channels | C_in C_out R k |
    | `"cp"` | the array of all kernels, channels included | R (C_in + k + C_out) |
    | `"depthwise"` | the kernels of each input channel, combined by each output channel | C_in R (k + C_out) |

    `"kernel"` is evaluated as an ordinary convolution with the kernel rebuilt: as fast as that, with fewer parameters.
    The others can run as chains of one-way convolutions, with nothing in between. In 1-D `"kernel"` of rank 1 is the
    ordinary convolution.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of input and output.
    - `kernel_size`: points of the kernel, one number for all axes or one per axis.
    - `rank`: terms R, or a number between 0 and 1 for the most terms with that fraction of the ordinary parameters.
    - `variant`: see above.
    - `ndim`: number of space dimensions.
    - `padding`: points read beyond the edges: `"same"` (as many as keep the number of points where the stride is one,
      the odd one behind), `"valid"` (none), or numbers: one for all ends, or per axis a number or a pair (before,
      behind).
    - `boundary`: what stands there, a word for all axes or one per axis, a pair where its ends differ: `"zero"`, or as
      in `Grid` the periodic, odd (`"dirichlet"`) or even (`"neumann"`) continuation of the field.
    - `centering`: as in `Grid`: where a wall lies beside the points.
    - `stride`, `dilation`: steps between the points of the output and between the taps, for all axes or one per axis.
    - `use_bias`: a number per output channel, zero at the start.
    - `evaluation`: `"chain"`, `"rebuilt"` (the kernel), or `"auto"`, which of the two took a training step faster on a
      CPU (`docs/compressed-convolutions.md`): `"rebuilt"` for `"kernel"`, in 1-D, and for `"depthwise"` of rank above
      one in 2-D, else `"chain"`. The map is the same.

    The start has the variance 2 / (C_in times the points of the kernel) in each entry of the kernel (He), so that
    layers with ReLU between them keep the size of the field.

    Input `(in_channels, *grid)`, output `(out_channels, *grid_out)`. Refinement: *spacing-locked*.

    **Raises:** `ValueError` on arguments outside the above, on fields of wrong rank, channels or dtype, and on grids
    with fewer points than the kernel spans.
    """

    kernel: KernelFactors
    bias: Float[Array, " out"] | None
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    kernel_size: tuple[int, ...] = eqx.field(static=True)
    rank: int | float = eqx.field(static=True)
    variant: str = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    padding: str | tuple[tuple[int, int], ...] = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    stride: tuple[int, ...] = eqx.field(static=True)
    dilation: tuple[int, ...] = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)
    evaluation: str = eqx.field(static=True)

    derived = ("kernel", "bias")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        rank: int | float = 1,
        *,
        variant: Literal["kernel", "cp", "depthwise"] = "kernel",
        ndim: int = 2,
        padding: Any = "same",
        boundary: Any = "zero",
        centering: Any = "node",
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        evaluation: Literal["auto", "chain", "rebuilt"] = "auto",
        key: Array,
    ) -> None:
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.ndim = count(ndim, "ndim", most=3)
        self.variant, self.rank = check_variant(variant), check_rank(rank)
        self.kernel_size, self.stride, self.dilation = (
            tuple(count(n, name) for n in per_axis(value, self.ndim, name))
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        self.boundary = tuple(check_ends(b) for b in per_axis(boundary, self.ndim, "boundary"))
        self.centering = per_axis(centering, self.ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")
        self.padding = _check_padding(padding, self.ndim)
        self.use_bias, self.evaluation = flag(use_bias, "use_bias"), evaluation
        if evaluation not in ("auto", "chain", "rebuilt"):
            raise ValueError(
                f"evaluation: expected 'auto', 'chain' or 'rebuilt', got {evaluation!r}; use one of these words."
            )
        if evaluation == "chain" and variant == "kernel":
            raise ValueError(
                "evaluation: expected 'auto' or 'rebuilt' for variant='kernel', whose chain needs a field per pair of "
                "channels, got 'chain'; use another variant."
            )
        shape = (*self.kernel_size, self.in_channels, self.out_channels)
        variance = 2 / np.prod(shape[:-1])
        self.kernel = KernelFactors(shape, (self.variant, self.rank), variance=float(variance), key=key)
        self.bias = jnp.zeros(self.out_channels) if self.use_bias else None

    @classmethod
    def from_dense_kernel(
        cls,
        kernel: Float[Array, "*taps in out"],
        rank: int | float,
        *,
        variant: Literal["kernel", "cp", "depthwise"] = "kernel",
        bias: Float[Array, " out"] | None = None,
        num_starts: int = 8,
        max_steps: int = 1000,
        seed: int = 0,
        **options: Any,
    ) -> SeparableConv:
        """The compressed convolution whose kernel is near a given one, `(*taps, channels, channels_out)`.

        What is decomposed has one axis per one-way factor. Two axes (`"kernel"` in 2-D, `"depthwise"` in 1-D) are cut
        by a truncated singular value decomposition, the best approximation of that rank. For more the factors come
        from alternating least squares of our own in NumPy (`nn.kernel_decomposition`), the best of `num_starts` random
        starts from `seed` after at most `max_steps` rounds: a good approximation, not always the best, and there may
        be no best one. From a certain rank on (the product of all axes but the longest) it is exact.

        `options` are those of the constructor: `boundary`, `centering`, `padding`, `stride`, `dilation`,
        `evaluation`.

        **Raises:** `ValueError` on a kernel of another rank or dtype, also a traced one, and on other arguments.
        """
        if isinstance(kernel, jax.core.Tracer):
            raise ValueError("kernel: expected an array of numbers, got a traced one; decompose it outside jax.jit.")
        shape = np.shape(kernel)
        if not 3 <= len(shape) <= 5 or min(shape) < 1 or not jnp.issubdtype(jnp.asarray(kernel).dtype, jnp.floating):
            raise ValueError(
                f"kernel: expected a real floating array (*taps, channels, channels_out) of one to three axes of taps, "
                f"got shape {shape}; move the channels behind the taps."
            )
        num_starts, max_steps = count(num_starts, "num_starts"), count(max_steps, "max_steps")
        *taps, c_in, c_out = shape
        options = {"ndim": len(taps), "variant": variant, "use_bias": bias is not None, **options}
        op = cls(c_in, c_out, tuple(taps), rank, **options, key=jax.random.key(0))
        new = op.kernel.decomposed(kernel, num_starts=num_starts, max_steps=max_steps, seed=seed)
        op = eqx.tree_at(lambda op: op.kernel, op, new)
        if bias is None:
            return op
        if np.shape(bias) != (c_out,):
            raise ValueError(
                f"bias: expected one number per output channel ({c_out}), got shape {np.shape(bias)}; give that many."
            )
        return eqx.tree_at(lambda op: op.bias, op, jnp.asarray(bias))

    def to_dense_kernel(self) -> Float[Array, "*taps in out"]:
        """The kernel K, `(*kernel_size, in_channels, out_channels)`."""
        return self.kernel.array()

    def counts(self) -> Counts:
        """Parameters, and operations per point of the output, of this and of the ordinary convolution."""
        given = (self.in_channels, self.out_channels, self.kernel_size, self.rank)
        return conv_counts(*given, variant=self.variant, use_bias=self.use_bias)

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)} - {"zero"}
        needed = [
            dilation * (k - 1) + 1 - sum(margin)
            for k, dilation, margin in zip(self.kernel_size, self.dilation, self._margins(), strict=True)
        ]
        # Zeros suit any field: image networks pad so whatever the boundary.
        taken = tuple(sorted(words)) if words else BOUNDARIES
        return Envelope((self.ndim,), taken, "spacing-locked", min_points=max(1, *needed))

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid_out"]:
        check_field(u, channels=self.in_channels, ndim=self.ndim, where="SeparableConv")
        for axis, (n, k, dilation, margin) in enumerate(
            zip(u.shape[1:], self.kernel_size, self.dilation, self._margins(), strict=True)
        ):
            span = dilation * (k - 1) + 1
            if n + sum(margin) < span:
                raise ValueError(
                    f"u: SeparableConv expects at least {span - sum(margin)} points on axis {axis}, which its kernel "
                    f"spans, got {n}; give a larger field or more padding."
                )
        return super().__call__(u)

    def channels_last(self, u: Field) -> Float[Array, "*grid_out channels_out"]:
        dtype = jnp.result_type(u, *self.kernel.factors)
        u = u.astype(dtype)
        chained = self.kernel.is_chained if self.evaluation == "auto" else self.evaluation == "chain"
        out = correlate(
            u,
            self.kernel,
            [end_rules(b, c) for b, c in zip(self.boundary, self.centering, strict=True)],
            self._margins(),
            stride=self.stride,
            dilation=self.dilation,
            chained=chained,
        )
        return out if self.bias is None else out + self.bias

    def _margins(self) -> tuple[tuple[int, int], ...]:
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "valid":
            return ((0, 0),) * self.ndim
        reach = [dilation * (k - 1) for k, dilation in zip(self.kernel_size, self.dilation, strict=True)]
        return tuple((r // 2, r - r // 2) for r in reach)


def check_ends(boundary: Any) -> str | tuple[str, str]:
    """As `check_boundary`, with the further word `"zero"`."""
    ends = (boundary,) if isinstance(boundary, str) else tuple(boundary) if isinstance(boundary, Sequence) else ()
    if "zero" not in ends:
        try:
            return check_boundary(boundary)
        except ValueError as error:
            raise ValueError(str(error).replace("expected one of (", "expected one of ('zero', ")) from error
    if set(ends) == {"zero"} and len(ends) <= 2:
        return "zero"
    check_boundary(tuple("dirichlet" if end == "zero" else end for end in ends))  # of two ends, neither periodic
    return ends[0], ends[1]


def _check_padding(padding: Any, ndim: int) -> str | tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(
                f"padding: expected 'same', 'valid' or numbers of points, got {padding!r}; use one of these."
            )
        return padding
    pairs = []
    for ends in per_axis(padding, ndim, "padding"):
        both = tuple(ends) if isinstance(ends, Sequence) and not isinstance(ends, str) else (ends, ends)
        if len(both) != 2:
            raise ValueError(f"padding: expected a number or a pair (before, behind) per axis, got {ends!r}; give 1.")
        pairs.append((count(both[0], "padding", least=0), count(both[1], "padding", least=0)))
    return tuple(pairs)
