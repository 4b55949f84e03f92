"""Steps in time in other forms: as a change of the last frame, and cut to the lowest modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_number, count
from neuralops.grid import CENTERINGS, check_boundary, per_axis
from neuralops.nn.spectral import check_modes
from neuralops.operator import AbstractWrapper, Envelope, as_operator, check_field, envelope_of

__all__ = ["Residual", "Truncated"]


class Residual(AbstractWrapper):
    """A step in time whose network makes the change: u_next = c e(u) + op(u), e what the last frames would become.

    The input holds frames in its channels, the oldest first, and in front of them what else there is, such as a medium;
    the frames are found from the end, so nothing has to be said of the rest.

    | `order` | e(u), one step after the last frame | |
    | --- | --- | --- |
    | 0 | u | no change: the step of a first-order equation |
    | 1 | 2 u - u_before | the line through two frames: the leapfrog step of a wave, u_next - 2 u + u_before = op(u) |

    With `op` zero, a factor c < 1 makes frames decay: by c a step for `order=0`, by sqrt(c) for `order=1` (the roots of
    z^2 - 2 c z + c have that magnitude), where c = 1 keeps them, and lets them grow linearly for `order=1`. Errors of
    earlier steps are damped likewise, which is what a long rollout may need.

    **Arguments:**

    - `op`: an operator from frames, and what stands in front of them, to the change.
    - `order`: degree in time of the extrapolation, 0 or 1.
    - `contraction`: `None` for c = 1, or the start of c, above 0 and at most 1: one number that is trained with `op`;
      `fit` keeps it between 0 and 1, by `project`.
    - `frame_channels`: channels of one frame; by default all that `op` returns. Where `op` returns several frames, the
      j-th is the change from the extrapolation over j steps, u + j (u - u_before) for `order=1`.

    `Residual(Normalized(op, states, changes))` scales the change by its own deviation, not by that of the frames.

    Input `(channels, *grid)`, output as that of `op`, whose envelope it has.

    **Raises:** `ValueError` on other arguments; in the call, when `op` changes the grid or there are too few channels.
    """

    op: Any
    contraction: Float[Array, ""] | None
    order: int = eqx.field(static=True)
    frame_channels: int | None = eqx.field(static=True)

    def __init__(
        self,
        op: Any,
        *,
        order: Literal[0, 1] = 0,
        contraction: float | Float[Array, ""] | None = None,
        frame_channels: int | None = None,
    ) -> None:
        self.op = as_operator(op)
        self.order = count(order, "order", least=0, most=1, hint="use 0, or 1 for two frames.")
        self.contraction = None if contraction is None else _factor(contraction)
        self.frame_channels = None if frame_channels is None else count(frame_channels, "frame_channels")

    @property
    def project(self) -> Any:
        """Brings c back between 0 and 1, and what `op` projects."""
        if self.contraction is None:
            return super().project
        op = self.op.project if hasattr(self.op, "project") else lambda: self.op
        where = lambda wrapper: (wrapper.op, wrapper.contraction)
        return lambda: eqx.tree_at(where, self, (op(), jnp.clip(self.contraction, 0, 1)))

    def __call__(self, u: Float[Array, " channels *grid"], /, **keywords: Any) -> Float[Array, " channels_out *grid"]:
        change = self.op(u, **keywords)
        frame = self.frame_channels or len(change)
        if change.shape[1:] != u.shape[1:] or len(change) % frame:
            raise ValueError(
                f"op: expected an operator to frames of {frame} channel(s) on {u.shape[1:]}, got one that makes "
                f"{change.shape} of {u.shape}; resample its output, or say frame_channels=."
            )
        if len(u) < (self.order + 1) * frame:
            raise ValueError(
                f"u: expected {self.order + 1} frame(s) of {frame} channel(s) at the end, got shape {u.shape}; give "
                "more frames, a lower order, or say frame_channels=."
            )
        last = u[-frame:]
        expected = last[None]
        if self.order:
            steps = np.arange(1, len(change) // frame + 1).reshape(-1, *(1,) * u.ndim)
            expected = expected + jnp.asarray(steps, u.dtype) * (last - u[-2 * frame : -frame])
        expected = jnp.broadcast_to(expected, (len(change) // frame, *last.shape)).reshape(change.shape)
        if self.contraction is not None:
            expected = self.contraction.astype(expected.dtype) * expected
        return expected + change


class Truncated(AbstractWrapper):
    """An operator whose output is cut to its lowest modes, in the basis of the boundary: no aliases pile up.

    An orthogonal projection of each output on Fourier, sine or cosine functions. In a rollout of a `Truncated` step no
    frame has more than these modes, so errors at the scale of the grid, which a network makes in every step, are not
    fed back to it. What the solution itself has there is lost: take more modes than matter.

    **Arguments:**

    - `op`: an operator whose output lies on a grid.
    - `n_modes`: modes per axis, their number is the dimension. On a periodic axis the frequencies up to `n_modes // 2`
      of both signs, as `SpectralConv` counts on its last axis; on others the first `n_modes` functions. A grid that has
      no more keeps all.
    - `boundary`, `centering`: as in `Grid`, one for all axes or one per axis.

    Input as for `op`, output `(channels_out, *grid)`. Refinement: that of `op`.

    **Raises:** `ValueError` on other arguments; in the call, when the output has another dimension.
    """

    op: Any
    n_modes: tuple[int, ...] = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self, op: Any, n_modes: Sequence[int] | int, *, boundary: Any = "periodic", centering: Any = "node"
    ) -> None:
        self.op, self.n_modes = as_operator(op), check_modes(n_modes)
        ndim = len(self.n_modes)
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, ndim, "boundary"))
        self.centering = per_axis(centering, ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        return dataclasses.replace(envelope_of(self.op), ndim=(len(self.n_modes),), boundary=tuple(sorted(words)))

    def __call__(self, u: Float[Array, " channels *grid"], /, **keywords: Any) -> Float[Array, " channels_out *grid"]:
        v = self.op(u, **keywords)
        check_field(v, channels=None, ndim=len(self.n_modes), name="op(u)", where="Truncated")
        for a, (m, n) in enumerate(zip(self.n_modes, v.shape[1:], strict=True)):
            axis = transforms.Axis(n, self.boundary[a], self.centering[a])
            kept = 2 * (m // 2) + 1 if axis.boundary == "periodic" else m
            if kept < n:
                modes = jax.lax.slice_in_dim(transforms.to_modes(v, a + 1, axis), 0, kept, axis=a + 1)
                v = transforms.from_modes(modes, a + 1, axis)
        return v


def _factor(contraction: Any) -> Array:
    """The start of c as an array; one without a value, of a skeleton, as it is."""
    traced = isinstance(contraction, jax.core.Tracer | jax.ShapeDtypeStruct)
    if traced and contraction.shape == () and jnp.issubdtype(contraction.dtype, jnp.floating):
        return contraction
    hint = "give e.g. 0.99, or None for no contraction."
    number = check_number(contraction, "contraction", above=0, hint=hint)
    if number > 1:
        raise ValueError(f"contraction: expected a number above 0 and at most 1, got {number!r}; {hint}")
    is_array = hasattr(contraction, "dtype") and jnp.issubdtype(contraction.dtype, jnp.floating)
    return jnp.asarray(contraction) if is_array else jnp.asarray(number, float)
