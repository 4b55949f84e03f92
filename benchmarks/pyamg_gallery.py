"""Matrices nobody here made: all of PyAMG's example gallery, by our CG and SciPy's, both with Jacobi.

    python benchmarks/pyamg_gallery.py --seeds 5 --rtol 1e-8

The files of `pyamg.gallery.load_example` and what its generators make. Symmetric positive definite matrices are solved
to the same tolerance with the same stopping rule, for random right-hand sides: steps of both, the worst difference, and
the true relative residual that each left. The others must be refused before any work, or end with a code that says what
is wrong. Needs pyamg (pip install pyamg). Float64.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from pyamg import gallery

from neuralops.solvers import CG, solve
from neuralops.solvers.algebra.null_space import NullSpace
from neuralops.solvers.krylov.preconditioners import Jacobi
from neuralops.solvers.solution import Result


def definite() -> dict[str, sp.csr_array]:
    """The symmetric positive definite ones."""
    files = {
        name: gallery.load_example(name)["A"]
        for name in ("airfoil", "bar", "knot", "local_disc_galerkin_diffusion", "unit_cube")
    }
    stretched = gallery.diffusion_stencil_2d(type="FE", epsilon=0.001, theta=np.pi / 3)
    generated = {
        "poisson 100 x 100": gallery.poisson((100, 100)),
        "poisson 20 x 20 x 20": gallery.poisson((20, 20, 20)),
        "rotated anisotropy 0.001, FE": gallery.stencil_grid(stretched, (100, 100)),
        "rotated anisotropy 0.01, FD": gallery.stencil_grid(
            gallery.diffusion_stencil_2d(type="FD", epsilon=0.01, theta=np.pi / 6), (60, 60)
        ),
        "linear elasticity 30 x 30": gallery.linear_elasticity((30, 30))[0],
        "gauge Laplacian 30 x 30, real form": real_form(gauge(30)),
    }
    return {name: sp.csr_array(A) for name, A in (files | generated).items()}


def singular() -> dict[str, tuple[sp.csr_array, np.ndarray]]:
    """Symmetric positive semidefinite ones, with a basis of the null space: constants, and rigid motions."""
    A = gallery.load_example("unit_square")["A"]
    body, motions = gallery.linear_elasticity_p1(*gallery.regular_triangle_mesh(20, 20))
    return {
        "unit_square": (sp.csr_array(A), np.ones((A.shape[0], 1))),
        "free elastic body": (sp.csr_array(body), motions),
    }


def unsuitable() -> dict[str, sp.csr_array]:
    """Not real, or not symmetric."""
    files = {name: gallery.load_example(name)["A"] for name in ("helmholtz_2D", "recirc_flow")}
    generated = {
        "gauge Laplacian 30 x 30": gauge(30),
        "advection 30 x 30": gallery.advection_2d((30, 30))[0],
        "sprand 200 x 200": gallery.sprand(200, 200, 0.05),
    }
    return {name: sp.csr_array(A) for name, A in (files | generated).items()}


def gauge(n: int) -> Any:
    np.random.seed(0)  # noqa: NPY002 (PyAMG draws from the global stream)
    return gallery.gauge_laplacian(n, 1.0, 0.2)


def real_form(A: Any) -> sp.csr_array:
    """A Hermitian matrix as a symmetric one of twice the size."""
    return sp.block_array([[A.real, -A.imag], [A.imag, A.real]]).tocsr()


def compare(A: sp.csr_array, b: np.ndarray, rtol: float, basis: np.ndarray | None = None) -> dict[str, Any]:
    """Steps and true relative residuals of SciPy's CG and ours, both with Jacobi; ours may be told the null space."""
    steps: list[Any] = []
    x, info = spl.cg(A, b, rtol=rtol, M=sp.diags_array(1 / A.diagonal()), callback=lambda _: steps.append(None))
    with jax.enable_x64(True):
        null_space = None if basis is None else NullSpace.from_basis(list(jnp.asarray(basis.T)))
        s = solve(A, jnp.asarray(b), CG(rtol, preconditioner=Jacobi(A)), null_space=null_space)
    true = lambda x: float(np.linalg.norm(b - A @ np.asarray(x)) / np.linalg.norm(b))
    return {
        "theirs": len(steps),
        "ours": int(s.num_steps),
        "their_residual": true(x),
        "our_residual": true(s.value),
        "said": float(s.residual_norm),
        "info": info,
        "result": Result(int(s.result)),
    }


def refusal(A: sp.csr_array, b: np.ndarray) -> str:
    """What our solver says to a matrix it is not for; empty when it says nothing."""
    try:
        with jax.enable_x64(True):
            solve(A, jnp.asarray(b), CG(1e-8))
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rtol", type=float, default=1e-8)
    arguments = parser.parse_args()
    draw = lambda A, seed: np.random.default_rng(seed).normal(size=A.shape[0])

    print(
        "| matrix | n | entries | SciPy steps | our steps | worst difference | SciPy residual | our residual | code |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    cases = definite() | {f"{name}, compatible": A for name, (A, _) in singular().items()}
    for name, A in cases.items():
        b = [draw(A, seed) for seed in range(arguments.seeds)]
        if name not in definite():
            b = [A @ v for v in b]
        runs = [compare(A, v, arguments.rtol) for v in b]
        worst = max(abs(r["ours"] - r["theirs"]) / r["theirs"] for r in runs)
        span = lambda key, runs=runs: f"{min(r[key] for r in runs)}-{max(r[key] for r in runs)}"
        most = lambda key, runs=runs: f"{max(r[key] for r in runs):.2e}"
        codes = ", ".join(sorted({r["result"].name for r in runs}))
        print(
            f"| {name} | {A.shape[0]} | {A.nnz} | {span('theirs')} | {span('ours')} | {100 * worst:.1f} % | "
            f"{most('their_residual')} | {most('our_residual')} | {codes} |"
        )

    print("\n| matrix | n | what was said |")
    print("|---|---|---|")
    for name, (A, basis) in singular().items():
        for told, given in (("", None), (", null space given", basis)):
            r = compare(A, draw(A, 0), arguments.rtol, given)
            print(f"| {name}, incompatible{told} | {A.shape[0]} | {r['result'].name}, residual {r['said']:.2g} |")
    for name, A in unsuitable().items():
        print(f"| {name} | {A.shape[0]} | refused: {refusal(A, draw(A, 0)) or 'NOTHING'} |")


if __name__ == "__main__":
    main()
