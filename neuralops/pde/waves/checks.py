"""What a run of the wave equation is given, checked before any computation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neuralops.arguments import count, flag
from neuralops.pde.waves.march import GRADIENTS
from neuralops.pde.waves.scheme import WaveState

if TYPE_CHECKING:
    from neuralops.pde.waves.equation import WaveEquation

__all__ = ["check_medium", "check_run", "check_state", "state_like"]


def check_run(
    equation: WaveEquation, medium: Any, initials: Any, state: Any, driven: Any, num_steps: Any, every: Any,
    gradient: str, velocities: Any, like: WaveState | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """What `run` was given, as its program takes it; `like`: shapes of a state."""
    num_steps, velocities = count(num_steps, "num_steps"), flag(velocities, "velocities")
    every = None if every is None else count(every, "every", most=num_steps)
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient: expected one of {GRADIENTS}, got {gradient!r}; use one of these.")
    if gradient == "reversed" and equation.absorbs:
        raise ValueError(
            "gradient: 'reversed' needs steps that run back, which an absorbing wall does not; use 'recomputed'."
        )
    medium = check_medium(equation, *medium)
    dtype = medium[0].dtype
    fields = [
        None if x is None else _field(equation, x, name).astype(dtype)
        for x, name in zip(initials, ("initial", "initial_rate"), strict=False)
    ]
    if state is not None:
        if any(x is not None for x in fields):
            raise ValueError("state: expected it alone, got initial values too; leave them out.")
        like = state_like(equation, equation._layout.shape, velocities) if like is None else like
        state = check_state(state, dtype, like)
    if velocities:
        _check_velocities(equation, every, gradient)
    fields.append(_check_velocity(equation, initials[2], velocities, dtype))
    return medium, tuple(fields), state, driven, num_steps, every, gradient, velocities


def check_medium(
    equation: WaveEquation, sound_speed: Any, density: Any, mask: Any
) -> tuple[Array, Array | None, Array | None]:
    """Speed, density and mask on the grid, each there if and only if the equation says so."""
    given = lambda x: "None" if x is None else "a field"
    if (density is None) != (equation.density == "constant"):
        raise ValueError(
            f"density: expected {'None' if equation.density == 'constant' else 'a field'}, as that of the equation is "
            f"{equation.density!r}, got {given(density)}; build it with density='variable'."
        )
    if (mask is None) != (equation.obstacle is None):
        raise ValueError(
            f"mask: expected {'None' if equation.obstacle is None else 'a field'}, as the equation's obstacle is "
            f"{equation.obstacle!r}, got {given(mask)}; build it with obstacle='neumann'."
        )
    c = _field(equation, sound_speed, "sound_speed")
    for x, name, most in ((c, "sound_speed", equation.max_sound_speed), (density, "density", math.inf)):
        if x is None or isinstance(x, jax.core.Tracer):
            continue
        low, high = float(np.asarray(x).min()), float(np.asarray(x).max())  # under jit jnp.min would be traced
        if not (low > 0 and high <= most * (1 + 1e-6) and math.isfinite(high)):
            more = f", for which dt = {equation.dt:g} is stable" if math.isfinite(most) else ""
            raise ValueError(
                f"{name}: expected values in (0, {most:g}]{more}, got {low:g} to {high:g}; "
                f"{'raise max_sound_speed' if low > 0 and high < math.inf else 'give positive numbers'}."
            )
    rho = None if density is None else _field(equation, density, "density").astype(c.dtype)
    return c, rho, None if mask is None else _field(equation, mask, "mask").astype(c.dtype)


def _field(equation: WaveEquation, x: Any, name: str) -> Array:
    x = jnp.asarray(x)
    if x.shape != equation.num_points:
        raise ValueError(
            f"{name}: expected a field on the grid {equation.num_points}, got shape {x.shape}; use jax.vmap for a "
            "batch, and x[0] for a field with a channel axis."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating) and name != "mask":
        raise ValueError(f"{name}: expected floating numbers, got {x.dtype}; convert with astype.")
    return x


def _check_velocities(equation: WaveEquation, every: int | None, gradient: str) -> None:
    if every is None:
        raise ValueError("every: expected a number of steps beside velocities=True, got None; say how many.")
    if any("prescribed" in ends for ends in equation.walls):
        raise ValueError(
            "velocities: expected walls that are not prescribed, got True; take differences of the frames there."
        )
    if gradient == "reversed":
        raise ValueError("gradient: velocities cannot be run back, got 'reversed'; take 'recomputed'.")


def _check_velocity(equation: WaveEquation, v: Any, velocities: bool, dtype: Any) -> Array | None:
    if v is None:
        return None
    if not velocities or set(equation.centering) != {"cell"}:
        raise ValueError(
            f"initial_velocity: expected velocities=True and centering='cell', got {velocities} and "
            f"{equation.centering}; give initial_rate = -rho c^2 div v instead."
        )
    v, shape = jnp.asarray(v, dtype), (len(equation.num_points), *equation.num_points)
    if v.shape != shape:
        raise ValueError(f"initial_velocity: expected shape {shape}, got {v.shape}; put the components first.")
    return v


def state_like(equation: WaveEquation, shape: tuple[int, ...], velocities: bool) -> WaveState:
    """The shapes of a state whose fields have this one."""
    memory = jax.eval_shape(lambda: tuple(slabs.memory(shape, float) for slabs in equation._slabs(equation._layout)))
    field: Any = jax.ShapeDtypeStruct(shape, float)
    return WaveState(field, field, memory, field if velocities else None)


def check_state(state: Any, dtype: Any, like: WaveState) -> WaveState:
    velocities = like.impulse is not None
    if isinstance(state, WaveState) and state.impulse is not None and not velocities:
        state = state._replace(impulse=None)
    shapes = lambda tree: [*map(jnp.shape, jax.tree.leaves(tree))]
    if not isinstance(state, WaveState) or shapes(state) != shapes(like):
        raise ValueError(
            f"state: expected that of a run of such an equation, two fields of shape {like.current.shape} and what "
            f"its layers remember{', with velocities' * velocities}, got {type(state).__name__}; take `state` of "
            "what `run` returned."
        )
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), state)
