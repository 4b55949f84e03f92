"""One code that steps waves, in an environment of its own: it reads tasks on its input and answers on its output.

    python wave_codes.py devito --threads 1     # started by `wave_peers.py`, once for each code

Needs NumPy and that code. One line of JSON each way: {"do": "prepare", "shape", "order", "walls", "steps", "start"}
compiles and warms up, {"do": "time"} answers with seconds, {"do": "field", "path"} saves the last field. Between two
tasks the process sleeps, so several may wait beside each other.

All step u_tt = c^2 Laplace u in float32 with the same step. Second-order codes take two levels of time; j-Wave takes
pressure, velocities and one density per axis. `walls` is "own", the cheapest that a code has (ours, NumPy's and those
of j-Wave's modes periodic, j-Wave's differences reflecting, Devito and deepwave zero outside), or "absorbing": `LAYER`
points outside the box on every side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

LAYER = 20
FACTOR = 0.5  # dt over h / (c_max sqrt(ndim)), which all of them allow
PAGE = 4096
WIDTH = {2: 8.0, 3: 4.0}  # of the pulse, in points

Run = Callable[[], Any]


class Refused(Exception):
    """The code has no such scheme."""


def medium(shape: tuple[int, ...]) -> np.ndarray:
    """A smooth sound speed from 0.5 to 1, periodic."""
    waves = [np.sin(2 * np.pi * (np.arange(n) / n + 0.1)) for n in shape]
    product = waves[0]
    for w in waves[1:]:
        product = np.multiply.outer(product, w)
    return (0.75 + 0.25 * product).astype(np.float32)


def start(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Noise, which never is so small that arithmetic slows down, to take times; a pulse in the middle to compare."""
    if kind == "noise":
        return np.random.default_rng(0).random(shape).astype(np.float32)
    squares = [((np.arange(n) - n // 2) / WIDTH[len(shape)]) ** 2 for n in shape]
    total = squares[0]
    for s in squares[1:]:
        total = np.add.outer(total, s)
    return np.exp(-total / 2).astype(np.float32)


def spacing(shape: tuple[int, ...]) -> float:
    return 1.0 / shape[0]


def time_step(shape: tuple[int, ...]) -> float:
    return FACTOR * spacing(shape) / len(shape) ** 0.5


def before(u: np.ndarray, c: np.ndarray, order: int) -> np.ndarray:
    """The level before a start from rest: u + dt^2/2 c^2 Laplace u."""
    weights = {2: (1.0,), 4: (4 / 3, -1 / 12), 8: (8 / 5, -1 / 5, 8 / 315, -1 / 560)}[order]
    v, total = u.astype(np.float64), np.zeros(u.shape)
    for axis in range(u.ndim):
        for k, w in enumerate(weights, 1):
            total += w * (np.roll(v, k, axis) + np.roll(v, -k, axis) - 2 * v)
    return (v + 0.5 * (time_step(u.shape) / spacing(u.shape)) ** 2 * c.astype(np.float64) ** 2 * total).astype(u.dtype)


def ours(task: dict[str, Any], density: bool = False) -> Run:
    import jax.numpy as jnp

    from neuralops.pde.waves import AbsorbingLayer, WaveEquation

    shape, h = tuple(task["shape"]), spacing(tuple(task["shape"]))
    absorbing = task["walls"] == "absorbing"
    layer = AbsorbingLayer(wavelength=LAYER * h, reflection=1e-4) if absorbing else None
    equation = WaveEquation(
        shape, domain_extent=tuple(n * h for n in shape), max_sound_speed=1.0, dt=time_step(shape), order=task["order"],
        walls="absorbing" if absorbing else "periodic", layer=layer, density="variable" if density else "constant",
    )  # fmt: skip
    if absorbing and set(sum(equation.layer_points, ())) != {LAYER}:
        raise SystemExit(f"layer: expected {LAYER} points, got {equation.layer_points}.")
    c, u = jnp.asarray(medium(shape)), jnp.asarray(start(shape, task["start"]))
    rho = jnp.ones_like(c) if density else None
    return lambda: np.asarray(equation.run(c, u, num_steps=task["steps"], density=rho, gradient="stored").final)


def numpy_slices(task: dict[str, Any]) -> Run:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from waves import leapfrog

    shape = tuple(task["shape"])
    if task["order"] == "spectral" or task["walls"] == "absorbing":
        raise Refused("not written")
    k, u = (np.float32(time_step(shape)) * medium(shape)) ** 2, start(shape, task["start"])
    return lambda: leapfrog(k, u, task["order"], task["steps"], spacing(shape))


def jwave(task: dict[str, Any]) -> Run:
    import jax
    import jax.numpy as jnp
    from jaxdf import FiniteDifferences, FourierSeries
    from jwave import Domain, Medium
    from jwave.acoustics.time_varying import TimeWavePropagationSettings, simulate_wave_propagation
    from jwave.geometry import TimeAxis

    shape, h, dt = tuple(task["shape"]), spacing(tuple(task["shape"])), time_step(tuple(task["shape"]))
    pad = LAYER if task["walls"] == "absorbing" else 0  # its layer lies inside the box
    inside = tuple(slice(pad, n + pad) for n in shape)
    if task["order"] not in (8, "spectral"):
        raise Refused("0.2.1 drops the order of its differences within a step and goes on with 8")
    domain = Domain(tuple(n + 2 * pad for n in shape), (h,) * len(shape))
    if task["order"] == "spectral":
        field = lambda x: FourierSeries(x[..., None], domain)
    else:
        field = lambda x: FiniteDifferences(x[..., None], domain)
    axis = TimeAxis(dt=dt, t_end=(task["steps"] - 0.5) * dt)
    settings = TimeWavePropagationSettings(c_ref=lambda m: 1.0, checkpoint=False, smooth_initial=False)
    whole = task["start"] == "pulse"
    heard = (lambda p, u, rho: p.on_grid[..., 0]) if whole else (lambda p, u, rho: p.on_grid[(1,) * len(shape)])

    @jax.jit
    def run(c: Any, u: Any) -> Any:
        around = Medium(domain, sound_speed=field(c), density=1.0, pml_size=pad)
        out = simulate_wave_propagation(around, axis, settings=settings, p0=field(u), sensors=heard)
        return out[-1]

    c = jnp.asarray(np.pad(medium(shape), pad, mode="edge"))
    u = jnp.asarray(np.pad(start(shape, task["start"]), pad))
    if int(axis.Nt) != task["steps"]:
        raise SystemExit(f"steps: expected {task['steps']}, got {axis.Nt}.")
    return lambda: np.asarray(run(c, u))[inside] if whole else np.asarray(run(c, u))


def devito(task: dict[str, Any]) -> Run:
    from devito import Eq, Function, Grid, Operator, TimeFunction, solve

    shape, h, order, n = tuple(task["shape"]), spacing(tuple(task["shape"])), task["order"], task["steps"]
    if order == "spectral" or task["walls"] == "absorbing":
        raise Refused("not there")  # its examples damp the field in a sponge
    grid = Grid(shape=shape, extent=tuple((m - 1) * h for m in shape), dtype=np.float32)
    m = Function(name="m", grid=grid)
    u = TimeFunction(name="u", grid=grid, time_order=2, space_order=order)
    c, now = medium(shape), start(shape, task["start"])
    m.data[:] = 1 / c**2
    operator = Operator([Eq(u.forward, solve(m * u.dt2 - u.laplace, u.forward))])
    settings = {"time_m": 1, "time_M": n, "dt": np.float32(time_step(shape))}

    def fill() -> None:
        u.data[0], u.data[1] = before(now, c, order), now

    fill()
    if len(shape) == 3:  # its loops are in blocks, of the size that turns out fastest
        operator.apply(**settings, autotune="aggressive")
        settings.update(operator._state["autotuning"][-1]["tuned"])

    def run() -> Any:
        operator.apply(**settings)
        return u.data[(n + 1) % 3]

    run.fill = fill  # type: ignore[attr-defined]
    return run


def deepwave(task: dict[str, Any]) -> Run:
    import torch
    from deepwave import scalar

    shape, h, order = tuple(task["shape"]), spacing(tuple(task["shape"])), task["order"]
    if order == "spectral":
        raise Refused("not there")
    c, u = medium(shape), start(shape, task["start"])
    back = before(u, c, order)
    more = {"origin": (0,) * len(shape), "pml_freq": 1 / (LAYER * h), "max_vel": 1.0}
    if task["walls"] == "absorbing":
        more["pml_width"], u, back = LAYER, np.pad(u, LAYER), np.pad(back, LAYER)
    else:
        more["pml_width"], more["boundary"] = 0, "free"
    v, now, previous = torch.from_numpy(c), torch.from_numpy(u)[None], torch.from_numpy(back)[None]

    def run() -> Any:
        with torch.no_grad():
            out = scalar(
                v, h, time_step(shape), wavefield_0=now, wavefield_m1=previous, accuracy=order, nt=task["steps"], **more
            )
        last = out[0][0].numpy()
        return last[tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(last.shape, shape, strict=True))]

    return run


CODES: dict[str, tuple[Callable[[dict[str, Any]], Run], str]] = {
    "ours": (ours, "jax"),
    "ours, density": (lambda task: ours(task, density=True), "jax"),
    "NumPy": (numpy_slices, "numpy"),
    "j-Wave": (jwave, "jwave"),
    "Devito": (devito, "devito"),
    "deepwave": (deepwave, "deepwave"),
}


def copying(points: int) -> Run:
    """One copy of a field in NumPy, from one half of pages to the other: where both have the same place in a page, or
    nearly, some processors are 20 times slower."""
    size = 4 * points
    memory = np.ones(2 * size + 4 * PAGE, np.uint8)
    first = -memory.ctypes.data % PAGE
    second = first + -(-size // PAGE) * PAGE + PAGE // 2
    source, target = (memory[at : at + size] for at in (first, second))
    return lambda: np.copyto(target, source)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("code", choices=list(CODES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some libraries greet
    make, package = CODES[arguments.code]
    if package == "deepwave":
        import torch

        torch.set_num_threads(arguments.threads)
    run: Run = lambda: None
    say = lambda **answer: print(json.dumps(answer), file=answers, flush=True)
    say(version=metadata.version(package))
    for line in sys.stdin:
        task = json.loads(line)
        if task["do"] == "prepare":
            try:
                run = make(task)
                run()
            except Refused as reason:
                say(refused=str(reason))
                continue
            say(ready=True)
        elif task["do"] == "time":
            began, used = time.perf_counter(), time.process_time()
            run()
            say(seconds=time.perf_counter() - began, used=time.process_time() - used)
        elif task["do"] == "copy":
            copy = copying(task["points"])
            copy()
            began = time.perf_counter()
            for _ in range(task["times"]):
                copy()
            say(seconds=(time.perf_counter() - began) / task["times"])
        else:
            if hasattr(run, "fill"):  # a code that goes on from where it is
                run.fill()
            np.save(task["path"], run())
            say(saved=True)


if __name__ == "__main__":
    main()
