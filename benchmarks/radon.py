"""The Radon transform beside scikit-image's and scico's: accuracy against exact line integrals, and speed.

    python benchmarks/radon.py
    python benchmarks/radon.py --scico /path/to/python      # an interpreter that has scico (0.0.7 was tried)

The phantom is that of Shepp and Logan in pixels that are means over 8 x 8 points; errors are in the 2-norm of the
sinogram, relative. Each library has its own detectors: scikit-image's and ours are rays a pixel apart, scico's are bins
of sqrt(2) pixels (it takes no narrower ones), judged by means over bins, its unknown factor fitted. Sizes are odd there
because scikit-image turns about pixel n // 2. Times are ms in float32, each library in a process of its own, in
turns: the median of a turn, and the least of the turns' medians; with all cores that the process may use. "Back" is
the adjoint, for scikit-image (which has none) `iradon` without a filter. scico is timed inside `jax.jit`, as ours is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ACCURACY, SPEED = (65, 129, 257), ((128, 60), (128, 180), (256, 60), (256, 200))
VIEWS = 60
# value, semi-axes, centre, degrees, on [-1, 1]^2
HEAD = np.array(
    [
        (1.0, 0.69, 0.92, 0.0, 0.0, 0), (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0), (-0.2, 0.11, 0.31, 0.22, 0.0, -18),
        (-0.2, 0.16, 0.41, -0.22, 0.0, 18), (0.1, 0.21, 0.25, 0.0, 0.35, 0), (0.1, 0.046, 0.046, 0.0, 0.1, 0),
        (0.1, 0.046, 0.046, 0.0, -0.1, 0), (0.1, 0.046, 0.023, -0.08, -0.605, 0), (0.1, 0.023, 0.023, 0.0, -0.606, 0),
        (0.1, 0.023, 0.046, 0.06, -0.605, 0),
    ]
)  # fmt: skip


def image(n: int, fine: int = 8) -> np.ndarray:
    """Rows go along x, columns along y, on [-1, 1]^2."""
    line = (np.arange(n * fine) + 0.5) / (n * fine) * 2 - 1
    x, y = np.meshgrid(line, line, indexing="ij")
    total = np.zeros_like(x)
    for value, a, b, x0, y0, degrees in HEAD:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u, v = c * (x - x0) + s * (y - y0), c * (y - y0) - s * (x - x0)
        total += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return total.reshape(n, fine, n, fine).mean((1, 3)).astype(np.float32)


def exact(theta: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Integrals over the lines x cos theta + y sin theta = s, `(angles, positions)`."""
    total = np.zeros((len(theta), len(s)))
    for value, a, b, x0, y0, degrees in HEAD:
        turned = theta - np.deg2rad(degrees)
        half = np.sqrt((a * np.cos(turned)) ** 2 + (b * np.sin(turned)) ** 2)[:, None]
        away = s - (x0 * np.cos(theta) + y0 * np.sin(theta))[:, None]
        total += value * 2 * a * b / half**2 * np.sqrt(np.maximum(half**2 - away**2, 0))
    return total


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def median_ms(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def ours(repeats: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from neuralops.grid import Grid
    from neuralops.inverse.maps import FilteredBackProjection, Radon, half_turn

    errors, times = {}, {}
    for n in ACCURACY:
        radon = Radon(Grid((n, n), 2.0, centering="cell"), half_turn(VIEWS), n)
        found = np.asarray(radon(jnp.asarray(image(n))[None]))[0]
        errors[str(n)] = error(found, exact(np.asarray(radon.angles), radon.positions))
    for n, views in SPEED:
        radon = Radon(Grid((n, n), 2.0, centering="cell"), half_turn(views), n)
        x, y = jnp.asarray(image(n, 1))[None], jnp.ones(radon.out_shape, jnp.float32)
        inverse = FilteredBackProjection(radon)
        forward, back = jax.jit(lambda x, A=radon: A(x)), jax.jit(lambda y, A=radon: A.adjoint(y))
        filtered = jax.jit(lambda y, B=inverse: B(y))
        runs = {"forward": (forward, x), "back": (back, y), "filtered": (filtered, y)}
        times[f"{n} {views}"] = {
            name: median_ms(lambda f=f, v=v: jax.block_until_ready(f(v)), repeats) for name, (f, v) in runs.items()
        }
    return {"errors": errors, "times": times}


def skimage(repeats: int) -> dict[str, Any]:
    from skimage.transform import iradon, radon

    errors, times = {}, {}
    for n in ACCURACY:
        degrees = np.arange(VIEWS) * 180 / VIEWS
        found = radon(image(n), degrees, circle=True).T * (2 / n)
        theta = np.pi / 2 + np.deg2rad(degrees)
        errors[str(n)] = error(found, exact(theta, (np.arange(n) - n // 2) * 2 / n))
    for n, views in SPEED:
        degrees, x = np.arange(views) * 180 / views, image(n, 1)
        y = np.ones((n, views), np.float32)
        runs = {
            "forward": lambda x=x, t=degrees: radon(x, t, circle=True),
            "back": lambda y=y, t=degrees: iradon(y, t, filter_name=None, circle=True),
            "filtered": lambda y=y, t=degrees: iradon(y, t, filter_name="ramp", circle=True),
        }
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pixels outside the circle
            times[f"{n} {views}"] = {name: median_ms(run, max(repeats // 4, 3)) for name, run in runs.items()}
    return {"errors": errors, "times": times}


def scico(repeats: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    from scico.linop.xray import XRayTransform2D

    errors, times = {}, {}
    for n in ACCURACY:
        theta = np.arange(VIEWS) * np.pi / VIEWS
        found = np.asarray(XRayTransform2D((n, n), theta)(jnp.asarray(image(n))))
        bins, width = found.shape[1], 2 * np.sqrt(2) / n
        s = (np.arange(16 * bins) + 0.5 - 8 * bins) * width / 16
        tries = []
        for turned in (theta, -theta, theta + np.pi / 2, -theta + np.pi / 2):  # whichever its convention is
            for sign in (1, -1):
                mean = exact(turned, sign * s).reshape(VIEWS, bins, 16).mean(2)
                tries.append(error(found * np.vdot(found, mean) / np.vdot(found, found), mean))
        errors[str(n)] = min(tries)
    for n, views in SPEED:
        A = XRayTransform2D((n, n), np.arange(views) * np.pi / views)
        x = jnp.asarray(image(n, 1))
        y = jnp.ones(A.output_shape, jnp.float32)
        forward, back = jax.jit(lambda x, A=A: A(x)), jax.jit(lambda y, A=A: A.adj(y))
        times[f"{n} {views}"] = {
            "forward": median_ms(lambda f=forward, v=x: jax.block_until_ready(f(v)), repeats),
            "back": median_ms(lambda f=back, v=y: jax.block_until_ready(f(v)), repeats),
        }
    return {"errors": errors, "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scico", help="the interpreter of an environment with scico; left out without")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each library")
    parser.add_argument("--repeats", type=int, default=20, help="calls per turn")
    parser.add_argument("--worker", choices=("ours", "skimage", "scico"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps({"ours": ours, "skimage": skimage, "scico": scico}[arguments.worker](arguments.repeats)))
        return
    libraries = {"ours": sys.executable, "skimage": sys.executable}
    libraries |= {"scico": arguments.scico} if arguments.scico else {}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in libraries}
    for _ in range(arguments.rounds):
        for name, python in libraries.items():
            command = [python, __file__, "--worker", name, "--repeats", str(arguments.repeats)]
            done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"| points | {' | '.join(f'{name}, error' for name in libraries)} |\n" + "| --- " * (len(rounds) + 1) + "|")
    for n in ACCURACY:
        print(f"| {n} x {n} | " + " | ".join(f"{rounds[name][0]['errors'][str(n)]:.4f}" for name in libraries) + " |")
    kinds = ("forward", "back", "filtered")
    heads = [f"{name}, {kind}" for kind in kinds for name in libraries if not (name == "scico" and kind == "filtered")]
    print(f"\n| points, angles | {' | '.join(heads)} |\n" + "| --- " * (len(heads) + 1) + "|")
    for n, views in SPEED:
        cells = []
        for head in heads:
            name, kind = head.split(", ")
            cells.append(f"{min(turn['times'][f'{n} {views}'][kind] for turn in rounds[name]):.1f}")
        print(f"| {n} x {n}, {views} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
