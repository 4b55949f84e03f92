"""PyAMG and SciPy: algebraic multigrid, CG on CSR, sparse LU, sine transforms. The matrix is handed to them free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse.linalg as spl

from rivals.clock import Refused, Steps
from rivals.problems import Problem

__all__ = ["METHODS"]

LARGEST_LU = 300_000  # unknowns, in two dimensions


def _as_is(result: tuple[np.ndarray, int, str]) -> tuple[np.ndarray, int, str]:
    return result


def _pyamg(builder: str, **options: Any) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        import pyamg

        matrix, b = p.matrix(), p.b.ravel()[p.inside]

        def compile(hierarchy: Any, rtol: float) -> Callable[[], Any]:
            def run() -> tuple[np.ndarray, int, str]:
                history: list[float] = []
                x = hierarchy.solve(b, tol=rtol, accel="cg", maxiter=300, residuals=history)
                return x, len(history) - 1, ""

            return run

        return Steps(lambda: getattr(pyamg, builder)(matrix, **options), compile, _as_is, compiled=False)

    return make


def _cg(p: Problem) -> Steps:
    matrix, b = p.matrix(), p.b.ravel()[p.inside]

    def compile(_: None, rtol: float) -> Callable[[], Any]:
        def run() -> tuple[np.ndarray, int, str]:
            steps = 0

            def tick(_: Any) -> None:
                nonlocal steps
                steps += 1

            x, info = spl.cg(matrix, b, rtol=rtol, maxiter=20_000, callback=tick)
            return x, steps, f"info {info}"

        return run

    return Steps(lambda: None, compile, _as_is, compiled=False)


def _lu(p: Problem) -> Steps:
    if p.singular or p.ndim > 2 or p.b.size > LARGEST_LU:
        raise Refused(f"only tried on regular 2-D systems of at most {LARGEST_LU} unknowns")
    matrix, b = p.matrix().tocsc(), p.b.ravel()
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}

    def compile(factors: Any, _: float) -> Callable[[], Any]:
        return lambda: (factors.solve(b), 1, "")

    return Steps(lambda: spl.splu(matrix, **options), compile, _as_is, compiled=False)


def _sine(workers: int) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        if p.a is not None or p.mask is not None or p.singular:
            raise Refused("Dirichlet boxes with unit coefficient only")
        kind, n = (2, p.points[0]) if p.centering == "cell" else (1, p.points[0])
        angle = np.pi * np.arange(1, n + 1) / (2 * n if kind == 2 else 2 * (n + 1))
        profile = (2 * np.sin(angle) / p.spacing) ** 2

        def build() -> np.ndarray:
            return 1 / sum(profile.reshape([-1 if i == axis else 1 for i in range(p.ndim)]) for axis in range(p.ndim))

        def compile(symbol: np.ndarray, _: float) -> Callable[[], Any]:
            def run() -> tuple[np.ndarray, int, str]:
                modes = scipy.fft.dstn(p.b, type=kind, workers=workers)
                modes *= symbol
                return scipy.fft.idstn(modes, type=kind, overwrite_x=True, workers=workers), 1, ""

            return run

        return Steps(build, compile, _as_is, compiled=False)

    return make


# Cheaper than its symmetric sweeps, and symmetric as a cycle; candidates of a scalar problem need no improving.
SWEEPS = {
    side + "smoother": ("gauss_seidel", {"sweep": way}) for side, way in (("pre", "forward"), ("post", "backward"))
}

METHODS: dict[str, Callable[[Problem], Steps]] = {
    "pyamg-rs": _pyamg("ruge_stuben_solver"),
    "pyamg-sa": _pyamg("smoothed_aggregation_solver"),
    "pyamg-rs-fb": _pyamg("ruge_stuben_solver", **SWEEPS),
    "pyamg-sa-fb": _pyamg("smoothed_aggregation_solver", improve_candidates=None, **SWEEPS),
    "scipy-dstn": _sine(1),
    "scipy-dstn-2": _sine(2),
    "scipy-splu": _lu,
    "scipy-cg": _cg,
}
