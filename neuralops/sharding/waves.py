"""Waves on many devices: `WaveEquation.run` on a grid divided into blocks, with one exchange a step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from neuralops.arguments import flag
from neuralops.pde.waves.checks import check_run, state_like
from neuralops.pde.waves.driving import ExtendedSources, Sources, emitting, placed
from neuralops.pde.waves.equation import WaveEquation
from neuralops.pde.waves.running import WaveRun
from neuralops.pde.waves.scheme import WaveState
from neuralops.pde.waves.stencils import taps
from neuralops.sharding.blocks import BlockLayout, Part
from neuralops.sharding.solving import divided, on_blocks

__all__ = ["run"]


def run(
    equation: WaveEquation,
    sound_speed: Any,
    initial: Any = None,
    *,
    mesh: Mesh,
    axes: Sequence[str | None],
    num_steps: int,
    density: Any = None,
    initial_rate: Any = None,
    initial_velocity: Any = None,
    state: WaveState | None = None,
    sources: Sources | ExtendedSources | None = None,
    receivers: Any = None,
    mask: Any = None,
    every: int | None = None,
    velocities: bool = False,
    gradient: str = "recomputed",
) -> WaveRun:
    """`WaveEquation.run` on a grid divided over the devices of a mesh.

    ```python
    mesh = jax.make_mesh((4,), ("x",))
    run = sharding.run(equation, c, u, num_steps=400, mesh=mesh, axes=("x", None))
    ```

    Every device holds its block of all fields, and the layers next to it that a step reaches: `order / 2`, or
    `order - 1` with densities, layers or rigid obstacles, and twice as many with `time_order=4`. These are exchanged
    once a step, along one divided axis after the other; the shares in the records are summed at the end. The results
    are those of `equation.run` to rounding, differentiable in the same ways.

    **Arguments:** as in `WaveEquation.run`, divided already or not, and

    - `mesh`, `axes`: the mesh, and for each axis of the grid the mesh axis that divides it, or `None`.

    **Returns:** a `WaveRun` whose fields are divided like the grid. Its `state` continues a run that is divided in the
    same way. It is that of `equation.run`, except along a divided axis that absorbs: there each device's part has room
    for the layers of both ends, which is filled at the walls.

    **Raises:** `ValueError` as `WaveEquation.run`, and where the equation or the grid cannot be divided that way.
    """
    parts = _parts(equation, mesh, axes, flag(velocities, "velocities"))
    layout = BlockLayout.of(equation._layout, parts)
    medium, initials = (sound_speed, density, mask), (initial, initial_rate, initial_velocity)
    like, driven = _like(equation, layout, velocities), (sources, None, receivers)
    medium, initials, state, driven, *rest = check_run(
        equation, medium, initials, state, driven, num_steps, every, gradient, velocities, like
    )
    _check_places(equation, sources, receivers, rest[0], medium[0].dtype)
    return _run(equation, layout, mesh, tuple(axes), (medium, initials, state, sources, receivers), tuple(rest))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 5))
def _run(
    equation: WaveEquation, layout: BlockLayout, mesh: Mesh, axes: tuple[str | None, ...], given: Any,
    rest: tuple[int, int | None, str, bool],
) -> WaveRun:  # fmt: skip
    _, _, state, sources, receivers = given
    _, every, _, velocities = rest
    field: Any = P(*axes)
    fields, vectors, nothing = P(None, *axes), P(None, None, *axes), P()
    memory = tuple((fields, fields) for ends in equation.layer_points if any(ends))
    stored = WaveState(field, field, memory, field if velocities else None)
    emitting = ExtendedSources(fields, nothing) if isinstance(sources, ExtendedSources) else nothing
    specs = ((field,) * 3, (field, field, fields), nothing if state is None else stored, emitting, nothing)
    records, frames = None if receivers is None else nothing, None if every is None else fields
    out = WaveRun(field, frames, records, stored, vectors if velocities else None)

    def on_block(medium: Any, initials: Any, state: Any, sources: Any, receivers: Any) -> WaveRun:
        scheme = equation._scheme(medium, layout)
        # Where a window holds no points of the box, nothing moves.
        scheme = dataclasses.replace(scheme, stiffness=jnp.where(layout.alive(), scheme.stiffness, 0))
        state = None if state is None else layout.restored(state)
        run = equation._go(scheme, initials, state, (sources, None, receivers), *rest)
        return run._replace(state=layout.stored(run.state))

    return on_blocks(on_block, mesh, given, specs, out)


def _parts(equation: WaveEquation, mesh: Mesh, axes: Sequence[str | None], velocities: bool) -> tuple[Part | None, ...]:
    """How each axis is divided."""
    if not isinstance(equation, WaveEquation):
        raise ValueError(f"equation: expected a WaveEquation, got {type(equation).__name__}; build one.")
    placement = [place if place and place[1] > 1 else None for place in divided(equation.num_points, mesh, axes)]
    if not any(placement):
        return (None,) * len(placement)
    if isinstance(equation.order, str):
        raise ValueError("order: modes reach over the whole axis, got 'spectral' on a divided grid; take order=8.")
    if any("prescribed" in ends for ends in equation.walls):
        raise ValueError(
            "walls: prescribed values are not divided over devices, got 'prescribed'; take a larger box, or one device."
        )
    m = taps(equation.order)
    reach = m if equation.compact else 2 * m - 1
    halo = max(reach if equation.time_order == 2 else 2 * reach, (2 * m - 1) * velocities)
    parts: list[Part | None] = []
    for a, (place, n, ends) in enumerate(zip(placement, equation.num_points, equation.walls, strict=True)):
        if place is None:
            parts.append(None)
            continue
        (name, count), periodic = place, "periodic" in ends
        # On a ring of two one neighbour is on both sides. A source of the fourth-order step, which acts in the layers
        # too, has one place in the window.
        least = 2 * halo if periodic and count == 2 and equation.time_order == 4 else halo
        if n // count < least:
            raise ValueError(
                f"axes: expected blocks of at least {least} points along axis {a}, as a step of this equation reaches "
                f"{halo}, got {n // count}; take fewer devices there, or a lower order."
            )
        parts.append(Part(name, count, n // count, halo, equation.layer_points[a], periodic))
    return tuple(parts)


def _like(equation: WaveEquation, layout: BlockLayout, velocities: bool) -> WaveState:
    """The shapes of a state between runs, of all devices together."""
    shape = tuple(p.devices * p.stored if p else n for p, n in zip(layout.parts, layout.whole.shape, strict=True))
    like, memory = state_like(equation, shape, velocities), []
    layered = [a for a, ends in enumerate(equation.layer_points) if any(ends)]
    for a, kept in zip(layered, like.memory, strict=True):
        count = part.devices if (part := layout.parts[a]) else 1
        each = lambda x, a=a, count=count: (*x.shape[: a + 1], count * x.shape[a + 1], *x.shape[a + 2 :])
        memory.append(jax.tree.map(lambda x, each=each: jax.ShapeDtypeStruct(each(x), x.dtype), kept))
    return like._replace(memory=tuple(memory))


def _check_places(equation: WaveEquation, sources: Any, receivers: Any, num_steps: int, dtype: Any) -> None:
    """What is found wrong with sources and receivers is told of the whole grid, before that is divided."""
    layout, order = equation._layout, equation.order

    def see() -> None:
        emitting(sources, layout, order, num_steps, dtype)
        if receivers is not None:
            placed(jnp.asarray(receivers).astype(dtype), layout, order, "receivers", spread=False)

    jax.eval_shape(see)
