"""How wrong a spectral layer is on a band-limited function, grid by grid: ours and those of other libraries.

    python benchmarks/right_on_every_grid.py --out table.md \
        --python neuraloperator=/path/to/env/bin/python --python norax=/path/to/other/env/bin/python

Each library runs in its own process, with the interpreter given for it or with the current one, and is left
out with a note when it cannot be imported there. The first table holds all layers to one standard: functions
of random waves, all that the grid resolves and the layer keeps, go through one layer with its initial random
weights, and the answer is compared with that of the same layer, with the same weights, on a grid several times
finer, read at the shared points. A layer that is a map between functions gives rounding. The second table compares
ours with the convolution worked out in NumPy, in double precision, from the weights and the coefficients of the
function, for every boundary and centring.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

MODES, OUT = 6, 16  # modes per sign; output channels, so that no single random weight decides
FIELDS = 8  # random functions per grid
# Column title: pairs (grid in, points out); None means the input's own grid.
COLUMNS: dict[str, list[tuple[tuple[int, int], tuple[int, int] | None]]] = {
    "even: 16, 48, 64": [((16, 16), None), ((48, 48), None), ((64, 64), None)],
    "odd: 17, 31, 65": [((17, 17), None), ((31, 31), None), ((65, 65), None)],
    "11": [((11, 11), None)],
    "10": [((10, 10), None)],
    "9": [((9, 9), None)],
    "8": [((8, 8), None)],
    "8 x 16": [((8, 16), None)],
    "16 to 32": [((16, 16), (32, 32))],
    "32 to 16": [((32, 32), (16, 16))],
}
# Fields (FIELDS, *grid) and the points wanted, None for the same; answers (FIELDS, OUT, *grid_out).
Layer = Callable[[np.ndarray, tuple[int, int] | None], Any]


class NoSuchOption(Exception):
    """The layer cannot answer on another grid."""


# ---- one constructor per library: the names in the table and the layers


def ours() -> list[tuple[str, Layer]]:
    import jax

    from neuralops.nn import SpectralConv

    layer = SpectralConv(1, OUT, (2 * MODES, 2 * MODES), use_bias=False, key=jax.random.key(0))
    return [("**neuralops**", in_jax(lambda m: lambda u: layer(u[None], num_points=m)))]


def neuraloperator() -> list[tuple[str, Layer]]:
    import torch
    from neuralop.layers.spectral_convolution import SpectralConv

    torch.manual_seed(0)
    layer = SpectralConv(1, OUT, (2 * MODES, 2 * MODES), bias=False)

    def call(u: np.ndarray, m: tuple[int, int] | None) -> np.ndarray:
        with torch.no_grad():
            return layer(torch.from_numpy(u)[:, None], output_shape=m).numpy()

    return [("neuraloperator", call)]


def pdequinox() -> list[tuple[str, Layer]]:
    import jax
    from pdequinox.conv import SpectralConv

    layer = SpectralConv(2, 1, OUT, MODES, key=jax.random.key(0))
    # The wheel shapes its weight (in, out) and contracts it as (out, in); unequal counts need the swap.
    layer = jax.tree.map(lambda x: jax.numpy.swapaxes(x, 1, 2) if hasattr(x, "shape") else x, layer)
    return [("pdequinox", in_jax(on_own_grid(lambda u: layer(u[None]))))]


def norax() -> list[tuple[str, Layer]]:
    import jax
    from norax.layers import SpectralConv

    layer = SpectralConv(jax.random.key(0), 1, OUT, (MODES, MODES))
    return [("norax", in_jax(on_own_grid(lambda u: jax.numpy.moveaxis(layer(u[..., None]), -1, 0))))]


def opifex() -> list[tuple[str, Layer]]:
    from flax import nnx
    from opifex.neural.operators.fno.base import FourierLayer

    layer = FourierLayer(1, OUT, MODES, spatial_dims=2, rngs=nnx.Rngs(0))
    # The spectral branch alone: the linear map beside it is right on every grid and would dilute the error.
    return [("opifex", in_jax(on_own_grid(lambda u: layer._apply_spectral_transform(u[None, None])[0])))]


def neojax() -> list[tuple[str, Layer]]:
    import jax
    from neojax.nn.spectral_conv import SpectralConvNd

    layers = {
        factor: SpectralConvNd(jax.random.key(0), 1, OUT, (MODES, MODES), resolution_scaling_factor=factor)
        for factor in (None, 2.0, 0.5)  # the changes of grid in COLUMNS
    }

    def make(m: tuple[int, int] | None) -> Callable[[Any], Any]:
        return lambda u: layers[None if m is None else m[0] / len(u)](u[None])

    return [("neojax", in_jax(make))]


def foundax() -> list[tuple[str, Layer]]:
    import jax
    from foundax.architectures.fno import SpectralConv2d

    def make(linear_conv: bool) -> Layer:
        layer = SpectralConv2d(1, OUT, MODES, MODES, linear_conv=linear_conv, key=jax.random.key(0))
        return in_jax(on_own_grid(lambda u: jax.numpy.moveaxis(layer(u[..., None]), -1, 0)))

    return [("foundax, `linear_conv=False`", make(False)), ("foundax, its default", make(True))]


def in_jax(make: Callable[[tuple[int, int] | None], Callable[[Any], Any]]) -> Layer:
    """A batched, compiled layer from one that takes a single field, given the points wanted."""
    import jax

    return lambda u, m: jax.jit(jax.vmap(make(m)))(u)


def on_own_grid(f: Callable[[Any], Any]) -> Callable[[tuple[int, int] | None], Callable[[Any], Any]]:
    def make(m: tuple[int, int] | None) -> Callable[[Any], Any]:
        if m is not None:
            raise NoSuchOption
        return f

    return make


# Name: constructor, and the packages whose versions are stated.
LIBRARIES: dict[str, tuple[Callable[[], list[tuple[str, Layer]]], tuple[str, ...]]] = {
    "neuralops": (ours, ("jax",)),
    "neuraloperator": (neuraloperator, ("neuraloperator", "torch")),
    "pdequinox": (pdequinox, ("pdequinox", "jax")),
    "norax": (norax, ("norax", "jax")),
    "opifex": (opifex, ("opifex", "jax")),
    "neojax": (neojax, ("neojax-operators", "jax")),
    "foundax": (foundax, ("foundax", "jax")),
}


# ---- the first table: every layer against itself on a finer grid


def random_fields(n: tuple[int, int], top: list[int]) -> np.ndarray:
    """The same random functions with frequencies up to `top` on any grid, (FIELDS, *n)."""
    k, m = np.arange(-top[0], top[0] + 1), np.arange(top[1] + 1)
    coefficients = np.random.default_rng(0).normal(size=(2, FIELDS, len(k), len(m)))
    ex, ey = (np.exp(2j * np.pi * np.outer(np.arange(p) / p, f)) for p, f in zip(n, (k, m), strict=True))
    return (ex @ (coefficients[0] + 1j * coefficients[1]) @ ey.T).real.astype(np.float32)


def relative_error(layer: Layer, n: tuple[int, int], m: tuple[int, int] | None) -> float:
    """The relative 2-norm error over all fields, from the grid `n` to the grid `m`."""
    out = m or n
    top = [min(MODES - 1, (p - 1) // 2) for p in n]  # kept by every layer, and resolved by the grid
    steps = [math.lcm(a, b, 2) for a, b in zip(n, out, strict=True)]
    fine = tuple(step * -(-64 // step) for step in steps)  # even, 64 or more, and holds the points of the answer
    answer = np.asarray(layer(random_fields(fine, top), None), np.float64)
    truth = answer[..., :: fine[0] // out[0], :: fine[1] // out[1]]
    got = np.asarray(layer(random_fields(n, top), m), np.float64)
    return float(np.linalg.norm(got - truth) / np.linalg.norm(truth))


def run_worker(name: str) -> dict[str, Any]:
    make, packages = LIBRARIES[name]
    rows = []
    for title, layer in make():
        cells = []
        for pairs in COLUMNS.values():
            try:
                cells.append(shown(max(relative_error(layer, n, m) for n, m in pairs)))
            except NoSuchOption:
                cells.append("no option")
            except Exception as error:  # whatever a library raises on a grid it does not take
                print(f"{title}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
                cells.append("raises")
        rows.append((title, cells))
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return {"rows": rows, "versions": versions, "boundaries": boundary_rows() if name == "neuralops" else None}


def shown(error: float) -> str:
    return f"{error:.0e}" if error < 1e-3 else f"**{error:.0%}**"


# ---- the second table: ours against the convolution worked out in NumPy


def points(n: int, boundary: Any, centering: str) -> np.ndarray:
    """The sample positions in units of the extent (`Grid`'s convention, written out)."""
    if centering == "cell":
        return (np.arange(n) + 0.5) / n
    return {
        "periodic": lambda: np.arange(n) / n,
        "dirichlet": lambda: np.arange(1, n + 1) / (n + 1),
        "neumann": lambda: np.arange(n) / (n - 1),
        ("dirichlet", "neumann"): lambda: np.arange(1, n + 1) / n,
        ("neumann", "dirichlet"): lambda: np.arange(n) / n,
    }[boundary]()


def basis(x: np.ndarray, boundary: Any, frequencies: np.ndarray) -> np.ndarray:
    """The basis functions at `x`, (points, frequencies)."""
    angle = np.pi * x[:, None] * frequencies
    return {
        "periodic": lambda: np.exp(2j * angle),
        "dirichlet": lambda: np.sin(angle + np.pi * x[:, None]),
        "neumann": lambda: np.cos(angle),
        ("dirichlet", "neumann"): lambda: np.sin(angle + np.pi * x[:, None] / 2),
        ("neumann", "dirichlet"): lambda: np.cos(angle + np.pi * x[:, None] / 2),
    }[boundary]()


def field(coefficients: np.ndarray, frequencies: list[np.ndarray], boundary: tuple, xs: list[np.ndarray]) -> np.ndarray:
    """The real function with these coefficients at the points; the half axis counts both signs."""
    half = half_axis(boundary)
    for a, (x, b, f) in enumerate(zip(xs, boundary, frequencies, strict=True)):
        matrix = basis(x, b, f) * (np.where(f == 0, 1, 2) if a == half else 1)
        coefficients = np.moveaxis(np.tensordot(matrix, coefficients, (1, a + 1)), 0, a + 1)
    return coefficients.real


def convolved(coefficients: np.ndarray, frequencies: list[np.ndarray], boundary: tuple, layer: Any) -> np.ndarray:
    """The coefficients after the convolution: each kept frequency times its matrix, the others zero."""
    weight = np.asarray(layer.weight.array(), np.float64)  # ([pair,] in, out, *modes)
    if "periodic" in boundary:
        weight = weight[0] + 1j * weight[1]
    half = half_axis(boundary)
    for a, (b, f) in enumerate(zip(boundary, frequencies, strict=True)):
        index = f + (layer.n_modes[a] // 2 if b == "periodic" and a != half else 0)
        kept = (index >= 0) & (index < weight.shape[2 + a])
        weight = np.take(weight, np.where(kept, index, 0), 2 + a)
        weight = weight * kept.reshape(-1, *[1] * (len(boundary) - 1 - a))
    return np.einsum("io...,i...->o...", weight, coefficients)


BOUNDARIES: dict[str, tuple] = {
    "periodic": ("periodic",),
    "dirichlet": ("dirichlet",),
    "neumann": ("neumann",),
    "(dirichlet, neumann)": (("dirichlet", "neumann"),),
    "(neumann, dirichlet)": (("neumann", "dirichlet"),),
    "periodic x periodic": ("periodic", "periodic"),
    "dirichlet x dirichlet": ("dirichlet", "dirichlet"),
    "neumann x neumann": ("neumann", "neumann"),
    "dirichlet x periodic": ("dirichlet", "periodic"),
    "periodic x neumann": ("periodic", "neumann"),
    "(dirichlet, neumann) x neumann": (("dirichlet", "neumann"), "neumann"),
    "periodic x dirichlet x periodic": ("periodic", "dirichlet", "periodic"),
}
# Column title: modes of the layer, and the points it meets; the function stays below the smallest grid's limit.
SERIES = {
    "12 modes, 16 to 65 points": (12, (16, 17, 31, 48, 64, 65)),
    "24 modes, 12 to 16 points": (24, (12, 13, 16)),
}
ELSEWHERE = {16: 24, 17: 9, 31: 64, 48: 17, 64: 31, 65: 16, 12: 33, 13: 8}  # points in: points out


def boundary_rows() -> list[tuple[str, list[str]]]:
    """The worst error per boundary over both centrings and all grids, with the answer there and elsewhere."""
    import jax

    from neuralops.nn import SpectralConv

    rows = []
    rng = np.random.default_rng(0)
    for title, boundary in BOUNDARIES.items():
        ndim = len(boundary)
        half = half_axis(boundary)
        cells = []
        for modes, counts in SERIES.values():
            top = (min(counts) - 1) // 2  # the highest frequency that the coarsest grid resolves
            frequencies = [
                np.arange(0 if a == half else -top, top + 1) if b == "periodic" else np.arange(min(counts) - 1)
                for a, b in enumerate(boundary)
            ]
            shape = (2, *map(len, frequencies))
            coefficients = rng.normal(size=shape) + (0 if half is None else 1j * rng.normal(size=shape))
            if half is not None:
                make_real(coefficients, boundary, half)
            # In 1-D every count by itself, in more dimensions unequal sides: (16, 17), (31, 48), ...
            starts = range(0, len(counts), ndim)
            grids = [tuple(counts[(i + j) % len(counts)] for j in range(ndim)) for i in starts]
            errors = []
            for centering, grid in itertools.product(("node", "cell"), grids):
                layer = SpectralConv(2, 2, (modes,) * ndim, boundary=boundary, centering=centering, use_bias=False,
                                     key=jax.random.key(1))  # fmt: skip
                answer = convolved(coefficients, frequencies, boundary, layer)
                other = tuple(ELSEWHERE[n] for n in grid)
                u = field(coefficients, frequencies, boundary, places(grid, boundary, centering))
                got = jax.jit(both, static_argnums=2)(layer, u.astype(np.float32), other)
                truth = [field(answer, frequencies, boundary, places(g, boundary, centering)) for g in (grid, other)]
                errors.append([np.linalg.norm(v - w) / np.linalg.norm(w) for v, w in zip(got, truth, strict=True)])
            cells += [shown(float(e)) for e in np.max(errors, 0)]
        rows.append((title, cells))
    return rows


def both(layer: Any, u: Any, other: tuple[int, ...]) -> tuple[Any, Any]:
    return layer(u), layer(u, num_points=other)


def half_axis(boundary: tuple) -> int | None:
    """The axis of which non-negative frequencies suffice, the last periodic one."""
    return max((a for a, b in enumerate(boundary) if b == "periodic"), default=None)


def places(sides: tuple[int, ...], boundary: tuple, centering: str) -> list[np.ndarray]:
    return [points(n, b, centering) for n, b in zip(sides, boundary, strict=True)]


def make_real(coefficients: np.ndarray, boundary: tuple, half: int) -> None:
    """Frequency 0 of the half axis holds a real function of the other axes: its two signs are conjugate."""
    zero = np.moveaxis(coefficients, half + 1, 0)[0]
    others = [a for a in range(len(boundary)) if a != half]
    signed = [1 + i for i, a in enumerate(others) if boundary[a] == "periodic"]
    zero[:] = (zero + np.conj(np.flip(zero, signed))) / 2


# ---- running and printing


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH",
                        help=f"interpreter for a library, one of {', '.join(LIBRARIES)}")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), help="run these only")
    parser.add_argument("--out", type=pathlib.Path, help="file for the Markdown tables")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(run_worker(arguments.worker)))
        return
    pythons = dict(pair.split("=", 1) for pair in arguments.python)
    root = str(pathlib.Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    rows, boundaries, left_out = [], None, []
    for name in arguments.only:
        command = [pythons.get(name, sys.executable), __file__, "--worker", name]
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        print(process.stderr[-2000:], end="", file=sys.stderr)
        if process.returncode:
            left_out.append(name)
            continue
        result = json.loads(process.stdout.splitlines()[-1])
        rows += [[title, result["versions"], *cells] for title, cells in result["rows"]]
        boundaries = result["boundaries"] or boundaries
    text = table(["layer", "versions", *COLUMNS], rows) + "\n"
    if boundaries:
        head = [f"{series}{where}" for series in SERIES for where in ("", ", answer elsewhere")]
        text += "\n" + table(["boundary", *head], [[title, *cells] for title, cells in boundaries]) + "\n"
    if left_out:
        text += f"\nNot importable here, left out: {', '.join(left_out)}.\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
