"""Acoustic waves as a problem: from an initial pressure, or a source, and a medium to the pressure at many times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count, flag
from neuralops.grid import Grid, resample
from neuralops.operator import check_field
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField
from neuralops.pde.waves import (
    AbsorbingLayer,
    ExtendedSources,
    Homogeneous,
    Medium,
    Rings,
    WaveEquation,
    WaveRun,
    media,
    ricker,
)

_COMPONENTS = ("velocity_x", "velocity_y", "velocity_z")


class Wave(Problem):
    """Solution operator of (1/K) u_tt = div((1/rho) grad u) + s, K = rho c^2: from field and medium to later fields.

    Input: the pressure u at time 0, which rests there, and the medium, channels `initial_pressure`, `sound_speed` and,
    where the law of the medium has one other than 1, `density`; `(2 or 3, *grid)`. With a `frequency` the first channel
    is `source` instead: nothing is there at time 0, and s = source(x) w(t) with Ricker's wavelet w. Output: u at
    `num_times` equidistant times from 0 to `final_time`, one channel a time, `(num_times, *grid)`; with `velocities`
    each time has the components of the velocity too, `(num_times * (1 + ndim), *grid)`, time by time.

    What `receivers` hear is kept beside the solution: `label(a)` returns it as `records`, and so does `data.generate`.

    The scheme is that of `WaveEquation`, points in the middle of cells; the medium is constant in each.
    `residual(a, u)` is u minus a run with twice the points, in the same medium, at half the step; `relative_residual`
    divides it by u, over all times. It is an estimate of the discretisation error, which jumps of the medium keep at
    first to second order, and costs 2^(ndim + 1) times the solution.

    **Arguments:**

    - `num_points`, `domain_extent`: the grid, cells along each of one to three axes.
    - `walls`: `"absorbing"`, `"neumann"` (rigid), `"dirichlet"` or `"periodic"`, per axis and end.
    - `medium`: the law of speed and density, such as `waves.Inclusions()`.
    - `initial`: the law of the first channel, with `sample(key, grid)` of shape `(1, *grid)`: `waves.Rings()` or
      a `GaussianRandomField`.
    - `frequency`: peak of the wavelet, in 1 / time, or `None` for a field at time 0.
    - `final_time`, `num_times`: as above, the first and the last time included.
    - `order`, `time_order`, `cfl`: as in `WaveEquation`; the step divides the time between two frames.
    - `rigid_above`: a density from which on a cell is an obstacle, without flux through its faces and without pressure
      in it, such as the walls of `waves.Maze()`; `None` for none. What the first channel says inside of one does not
      count. Solutions with `refine` above 1 are then means over the cells.
    - `layer`: what absorbs; by default it is made for waves as long as a third of the shortest side, with an echo of
      1e-3.
    - `refine`: cells of the solver along a side of one of the grid.
    - `velocities`: whether outputs hold them.
    - `receivers`: positions in the units of the box, one tuple each.
    - `records_per_frame`: how often receivers are read between two frames.
    - `rtol`: what is expected of `relative_residual`; `data.generate` refuses samples that miss it tenfold.

    Laws and the layer may also be given as `parameters()` writes them, a dictionary with their `name`, so that
    `Wave(**source.parameters)` is the problem of a file.

    Warns (`UserWarning`) where the shortest waves that the laws make have too few points for the scheme.

    **Raises:** `ValueError` on arguments out of range.
    """

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    walls: tuple[Any, ...] = eqx.field(static=True)
    medium: Medium = eqx.field(static=True)
    initial: Any = eqx.field(static=True)
    frequency: float | None = eqx.field(static=True)
    final_time: float = eqx.field(static=True)
    num_times: int = eqx.field(static=True)
    order: int | str = eqx.field(static=True)
    time_order: int = eqx.field(static=True)
    cfl: float = eqx.field(static=True)
    rigid_above: float | None = eqx.field(static=True)
    layer: AbsorbingLayer | None = eqx.field(static=True)
    refine: int = eqx.field(static=True)
    velocities: bool = eqx.field(static=True)
    receivers: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    records_per_frame: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int] = (64, 64),
        *,
        domain_extent: float | Sequence[float] = 1.0,
        walls: Any = "absorbing",
        medium: Medium | None = None,
        initial: Any = None,
        frequency: float | None = None,
        final_time: float = 1.0,
        num_times: int = 2,
        order: int | str = 8,
        time_order: int = 2,
        cfl: float = 0.5,
        rigid_above: float | None = None,
        layer: AbsorbingLayer | None = None,
        refine: int = 1,
        velocities: bool = False,
        receivers: Sequence[Sequence[float]] = (),
        records_per_frame: int = 1,
        rtol: float = 5e-3,
    ) -> None:
        self.medium = Homogeneous() if medium is None else _law(medium, "medium")
        self.initial = Rings() if initial is None else _law(initial, "initial")
        if not isinstance(self.medium, Medium):
            raise ValueError(f"medium: expected a law such as waves.Inclusions(), got {medium!r}; build one.")
        if isinstance(self.initial, type) or not callable(getattr(self.initial, "sample", None)):
            raise ValueError(f"initial: expected a law such as waves.Rings(), got {initial!r}; build one.")
        self.frequency = None if frequency is None else check_number(frequency, "frequency", above=0.0)
        self.final_time = check_number(final_time, "final_time", above=0.0)
        self.num_times = count(num_times, "num_times", least=2)
        self.refine, self.velocities = count(refine, "refine"), flag(velocities, "velocities")
        self.records_per_frame = count(records_per_frame, "records_per_frame")
        self.rtol = check_number(rtol, "rtol", above=0.0)
        self.order, self.time_order, self.cfl = order, time_order, cfl
        self.rigid_above = None if rigid_above is None else check_number(rigid_above, "rigid_above", above=0.0)
        self.layer = None if layer is None else _law(layer, "layer")
        grid = Grid(num_points, domain_extent, centering="cell")  # type: ignore[arg-type]
        if layer is None and "absorbing" in str(walls):
            self.layer = AbsorbingLayer(wavelength=min(grid.domain_extent) / 3, reflection=1e-3)
        equation = WaveEquation(
            grid.num_points,
            max_sound_speed=self.medium.speeds[1],
            domain_extent=grid.domain_extent,
            walls=walls,
            cfl=cfl,
            order=order,
            time_order=time_order,
            layer=self.layer,
        )
        if any("prescribed" in ends for ends in equation.walls):
            raise ValueError(
                "walls: expected 'absorbing', 'neumann', 'dirichlet' or 'periodic', got 'prescribed'; traces are given "
                "to WaveEquation.run."
            )
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        self.walls = tuple(low if low == high else (low, high) for low, high in equation.walls)
        self.receivers = tuple(tuple(float(x) for x in place) for place in receivers)
        outside = [
            place
            for place in self.receivers
            if len(place) != grid.ndim or not all(0 <= x <= L for x, L in zip(place, grid.domain_extent, strict=False))
        ]
        if outside:
            raise ValueError(
                f"receivers: expected {grid.ndim} numbers inside the box {grid.domain_extent} for each, got "
                f"{outside[0]}; give one tuple a receiver."
            )
        if math.isfinite(self.highest_frequency):
            self._equation(self.refine).points_per_wavelength(self.highest_frequency, self.medium.speeds[0])

    @property
    def input_fields(self) -> tuple[str, ...]:  # type: ignore[override]  # a density where there is one
        return ("initial_pressure" if self.frequency is None else "source", *self.constant_fields)

    @property
    def constant_fields(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("sound_speed", "density") if self._dense else ("sound_speed",)

    @property
    def output_fields(self) -> tuple[str, ...]:  # type: ignore[override]  # as many as there are times
        return tuple(f"{name}_{i}" for i in range(self.num_times) for name in self.frame_fields)

    @property
    def frame_fields(self) -> tuple[str, ...]:
        """The channels of one time."""
        return ("pressure", *(_COMPONENTS[: self.grid.ndim] if self.velocities else ()))

    @property
    def grid(self) -> Grid:
        """Ends that absorb count as Neumann."""
        return self._equation(1).grid

    @property
    def times(self) -> np.ndarray:
        """When the outputs are taken, `(num_times,)`, as float64 NumPy."""
        return np.linspace(0.0, self.final_time, self.num_times)

    @property
    def record_times(self) -> np.ndarray:
        """When the receivers are read, `((num_times - 1) * records_per_frame + 1,)`, as float64 NumPy."""
        return np.linspace(0.0, self.final_time, (self.num_times - 1) * self.records_per_frame + 1)

    @property
    def highest_frequency(self) -> float:
        """Of what the laws send out: 2.6 times the wavelet's peak, or that of the shortest waves at time 0 in the
        slowest medium; infinity when the law does not say."""
        if self.frequency is not None:
            return 2.6 * self.frequency
        shortest = getattr(self.initial, "shortest_wavelength", 0.0)
        return self.medium.speeds[0] / shortest if shortest > 0 else math.inf

    @property
    def _dense(self) -> bool:
        return self.medium.densities != (1.0, 1.0)

    def _equation(self, refine: int) -> WaveEquation:
        """On `refine` times the cells; its step divides the time between two records."""
        equation = WaveEquation(
            tuple(refine * n for n in self.num_points),
            max_sound_speed=self.medium.speeds[1],
            domain_extent=self.domain_extent,
            walls=self.walls,
            cfl=self.cfl,
            order=self.order,
            time_order=self.time_order,
            density="variable" if self._dense else "constant",
            layer=self.layer,
            obstacle=None if self.rigid_above is None else "neumann",
        )
        between = self.final_time / (len(self.record_times) - 1)
        # Twice the cells take twice the steps, so that the two errors are in proportion.
        steps = math.ceil(between / (refine * equation.dt) - 1e-9) * refine
        return dataclasses.replace(equation, dt=between / steps)

    def sample(self, key: Array) -> Float[Array, " channels *grid"]:
        field, medium = jax.random.split(key)
        a, drawn = self.initial.sample(field, self.grid), self.medium.sample(medium, self.grid)
        return jnp.concatenate([a, drawn[: 1 + self._dense].astype(a.dtype)])

    def solve(self, a: Float[Array, " channels *grid"]) -> Float[Array, " channels_out *grid"]:
        return self.label(a)[0]

    def label(self, a: Float[Array, " channels *grid"]) -> tuple[Float[Array, " channels_out *grid"], dict[str, Array]]:
        """The solution, and `records`, `(receivers, times of records)`, where there are receivers."""
        frames, records = self._run(self._checked(a), self.refine)
        return frames, {} if records is None else {"records": records}

    def residual(
        self, a: Float[Array, " channels *grid"], u: Float[Array, " channels_out *grid"]
    ) -> Float[Array, " channels_out *grid"]:
        self._check(u, len(self.output_fields), "u")
        return jnp.asarray(u) - self._run(self._checked(a), 2 * self.refine)[0]

    def reference(
        self, a: Float[Array, " channels *grid"], u: Float[Array, " channels_out *grid"]
    ) -> Float[Array, " channels_out *grid"]:
        return u

    def _checked(self, a: Any) -> Array:
        check_field(a, channels=len(self.input_fields), ndim=self.grid.ndim, name="a", where=type(self).__name__)
        self.grid.check(a, "a")
        return jnp.asarray(a)

    def _run(self, a: Array, refine: int) -> tuple[Array, Array | None]:
        """Frames with their channels, and records."""
        coarse, equation = self.grid, self._equation(refine)
        fine = equation.grid
        first, medium = resample(a[0], coarse, fine), a[1:]
        for axis in range(1, medium.ndim):
            medium = jnp.repeat(medium, refine, axis=axis)
        density, mask = medium[1] if self._dense else None, None
        if self.rigid_above is not None:
            open_ = jnp.ones(fine.shape, bool) if density is None else density < self.rigid_above
            density = None if density is None else jnp.where(open_, density, 1)
            first, mask = jnp.where(open_, first, 0), open_.astype(a.dtype)
        between = self.records_per_frame * round(self.final_time / (len(self.record_times) - 1) / equation.dt)
        num_steps, sources = (self.num_times - 1) * between, None
        if self.frequency is not None:
            wavelet = ricker(equation.dt * np.arange(num_steps), self.frequency).astype(a.dtype)
            sources, first = ExtendedSources(first[None], wavelet[None]), jnp.zeros_like(first)
        run: WaveRun = equation.run(
            medium[0],
            first,
            density=density,
            mask=mask,
            num_steps=num_steps,
            sources=sources,
            receivers=np.array(self.receivers, a.dtype).T if self.receivers else None,
            every=between,
            velocities=self.velocities,
        )
        frames = run.frames[:, None]
        frames = jnp.concatenate([frames, run.velocities], axis=1) if self.velocities else frames
        frames = frames.reshape(-1, *fine.shape)
        if mask is None:
            frames = resample(frames, fine, coarse)
        else:  # jumps at the obstacles
            cells = [size for n in coarse.shape for size in (n, refine)]
            frames = frames.reshape(-1, *cells).mean(axis=tuple(range(2, 2 * coarse.ndim + 1, 2)))
        records = None if run.records is None else run.records[:, :: between // self.records_per_frame]
        return frames, records


_MEDIA = [getattr(media, name) for name in media.__all__ if name != "Medium"]
_LAWS = {law.__name__: law for law in (GaussianRandomField, AbsorbingLayer, Rings, *_MEDIA)}


def _law(value: Any, argument: str) -> Any:
    """A law, built where it is given by its name and numbers."""
    if not isinstance(value, Mapping):
        return value
    arguments = dict(value)
    law = _LAWS.get(arguments.pop("name", None))
    if law is None:
        raise ValueError(
            f"{argument}: expected a law, or a dictionary with a name among {sorted(_LAWS)}, got {value!r}; build one."
        )
    return law(**arguments)
