"""A run of a scheme: many steps, what is kept of them, what receivers hear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from neuralops.pde.waves.driving import Drive, ExtendedSources, Sources, emitting, placed, prescribed
from neuralops.pde.waves.march import march
from neuralops.pde.waves.scheme import Scheme, WaveState

__all__ = ["WaveRun", "run"]


class WaveRun(NamedTuple):
    """What `WaveEquation.run` returns.

    `final`: the field at the last step, `(*grid,)`. `frames`: at the steps 0, `every`, 2 `every`, ...,
    `(frames, *grid)`, or `None`. `records`: at the receivers at the steps 0 to `num_steps`,
    `(receivers, num_steps + 1)`, or `None`. `state`: where it ended, for another run. `velocities`: those of the
    medium at the steps of the frames, `(frames, ndim, *grid)`, or `None`.
    """

    final: Any
    frames: Any
    records: Any
    state: WaveState
    velocities: Any = None


def run(
    scheme: Scheme,
    walls: Sequence[tuple[str, str]],
    initial: tuple[Array | None, Array | None, Array | None],
    state: WaveState | None,
    driven: tuple[Sources | ExtendedSources | None, Any, Any],
    num_steps: int,
    every: int | None,
    gradient: str,
    dt: float | None,
) -> WaveRun:
    """See `WaveEquation.run`; `initial`: u, dt u_t and v on the grid, `driven`: sources, traces and receivers.

    `dt`: the step, where velocities are wanted.
    """
    layout, order, dtype = scheme.layout, scheme.order, scheme.stiffness.dtype
    sources, traces, receivers = driven
    drive, emitters = emitting(sources, layout, order, num_steps, dtype)
    drive = drive._replace(known=prescribed(traces, walls, layout, order, num_steps, dtype))
    heard = None
    if receivers is not None:
        heard = placed(jnp.asarray(receivers).astype(dtype), layout, order, "receivers", spread=False)
    at_start = initial[2]
    if state is not None:
        now = state
    else:
        u, rate = (jnp.zeros(layout.shape, dtype) if x is None else layout.surrounded(x) for x in initial[:2])
        if at_start is not None and dt is not None:
            rate = layout.joined(rate + scheme.compression(jax.vmap(layout.surrounded)(at_start)) / dt)
        now = scheme.start(u, rate, jax.tree.map(lambda x: x[0], drive), emitters)
        now = now if dt is None else now._replace(impulse=jnp.zeros_like(u))

    def step(parameters: Any, state: WaveState, drive: Drive) -> tuple[WaveState, Any]:
        scheme, emitters, heard = parameters
        state = state._replace(current=layout.joined(state.current))
        output = None if heard is None else heard.read(state.current)
        return scheme.advance(state, drive, emitters), output

    def stretch(state: WaveState, drive: Drive, n: int) -> tuple[WaveState, Any]:
        return march(step, (scheme, emitters, heard), state, drive, n, gradient)

    def keep(state: WaveState) -> tuple[Array, Array | None]:
        if dt is None:
            return layout.narrow(state.current), None
        moved = dt * jax.vmap(layout.narrow)(scheme.velocity(layout.joined(state.impulse)))
        return layout.narrow(state.current), moved if at_start is None else at_start + moved

    frames: Any = None
    velocities: Any = None
    if every is None:
        now, records = stretch(now, drive, num_steps)
    else:
        whole = num_steps // every
        cut = jax.tree.map(lambda x: x[: whole * every].reshape(whole, every, *x.shape[1:]), drive)

        def to_frame(state: WaveState, drive: Drive) -> tuple[WaveState, Any]:
            state, records = stretch(state, drive, every)
            return state, (keep(state), records)

        first = keep(now)
        now, (kept, records) = lax.scan(to_frame, now, cut, length=whole)
        frames, velocities = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, kept)
        records = None if records is None else records.reshape(-1, records.shape[-1])
        if num_steps > whole * every:
            rest = jax.tree.map(lambda x: x[whole * every :], drive)
            now, last = stretch(now, rest, num_steps - whole * every)
            records = None if records is None else jnp.concatenate([records, last])
    if heard is not None:
        records = layout.summed(jnp.concatenate([records, heard.read(now.current)[None]]).T)
    return WaveRun(layout.narrow(now.current), frames, records, now, velocities)
