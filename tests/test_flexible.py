"""FlexibleCG against CG, Notay's bound and dense solves; with preconditioners that plain CG must refuse."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, FlexibleCG, Inverse, Jacobi, Result, solve

GRID = Grid((20, 18), (1.0, 0.9), "dirichlet", "cell")
rng = np.random.default_rng(0)
A_FIELD = np.exp(0.5 * rng.normal(size=GRID.shape))
B_FIELD = rng.normal(size=GRID.shape)


def spd(n=30, seed=0):
    """Eigenvalues from 1 to 100."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return q @ np.diag(np.geomspace(1, 100, n)) @ q.T


@pytest.fixture
def case(x64):
    return jax.jit(Diffusion.from_coefficient, static_argnums=0)(GRID, A_FIELD), jnp.asarray(B_FIELD)


@pytest.mark.slow
def test_memory_one_is_preconditioned_cg(case):
    A, b = case

    @jax.jit
    def run(preconditioner, b, k):
        methods = (CG, lambda *a, **k: FlexibleCG(*a, memory=1, **k))
        return [solve(A, b, M(0.0, max_steps=k, preconditioner=preconditioner)) for M in methods]

    for preconditioner in (FastPoisson(GRID), Jacobi(A)):
        for rhs in (b, jnp.ones_like(b)):  # rough and smooth
            for k in (1, 2, 5, 10, 20):
                plain, flexible = run(preconditioner, rhs, k)
                scale = np.abs(plain.value).max()
                np.testing.assert_allclose(flexible.value, plain.value, rtol=0, atol=1e-11 * scale)
                assert int(flexible.num_steps) == k
                assert int(flexible.num_rejected) == 0


@pytest.mark.parametrize("memory", [1, 3])
def test_every_step_keeps_notays_bound(x64, memory):
    """If ||B(r) - A^-1 r||_A <= e ||A^-1 r||_A, the energy error falls by e or more at every step."""
    matrix, e = spd(), 0.3
    values, vectors = np.linalg.eigh(matrix)
    inverse, half = np.linalg.inv(matrix), vectors / np.sqrt(values)

    def rough(r):
        exact = inverse @ r
        noise = half @ jnp.sin(1e3 * r / jnp.linalg.norm(r))  # any nonlinear map will do
        size = lambda v: jnp.sqrt(v @ (matrix @ v))
        return exact + e * size(exact) / size(noise) * noise

    b = np.random.default_rng(1).normal(size=30)
    exact = np.linalg.solve(matrix, b)
    run = jax.jit(lambda k: solve(lambda v: matrix @ v, b, FlexibleCG(0.0, memory=memory, max_steps=k,
                                                                     preconditioner=rough)).value)  # fmt: skip
    errors = [exact] + [run(k) - exact for k in range(1, 9)]
    sizes = [float(np.sqrt(v @ matrix @ v)) for v in errors]
    assert all(after <= e * (1 + 1e-6) * before for before, after in itertools.pairwise(sizes)), sizes


def one_sided(A):
    """Two Gauss-Seidel sweeps in red-black order: linear, not symmetric."""
    i, j = np.indices(GRID.shape)
    diagonal = A.diagonal()

    def sweep(r):
        x = jnp.zeros_like(r)
        for colour in (0, 1, 0, 1):
            x = jnp.where((i + j) % 2 == colour, x + (r - A(x)) / diagonal, x)
        return x

    return sweep


def test_what_plain_cg_must_refuse(case):
    A, b = case
    maps = {
        "sign": lambda r: jnp.where(r > 0, 1.5 * r, 0.5 * r),
        "sweeps": one_sided(A),  # mild enough for CG
        "shift": lambda r: r + 2 * jnp.roll(r, 1, 0),  # linear, its symmetric part indefinite
    }

    @jax.jit
    def run(which):
        M = lambda r: jax.lax.switch(which, list(maps.values()), r)
        return [solve(A, b, m(1e-8, preconditioner=M)) for m in (CG, FlexibleCG)]

    for which, name in enumerate(maps):
        plain, flexible = run(which)
        for s in (plain, flexible):
            true = float(jnp.linalg.norm(b - A(s.value)) / jnp.linalg.norm(b))
            assert bool(s.converged) == (true <= 1e-8), name
            np.testing.assert_allclose(s.residual_norm, true, rtol=1e-6)
        assert bool(flexible.converged), name
        if name != "sweeps":
            assert int(plain.result) == Result.breakdown, name
            assert int(plain.num_steps) < 200
            assert float(plain.residual_norm) <= 1


def test_inner_iterations(case):
    A, b = case
    s = jax.jit(lambda: solve(A, b, FlexibleCG(1e-9, preconditioner=Inverse(A, CG(0.0, max_steps=8)))))()
    alone = jax.jit(lambda: solve(A, b, CG(1e-9)))()
    assert bool(s.converged)
    assert int(s.num_steps) < int(alone.num_steps) / 4
    np.testing.assert_allclose(s.value, alone.value, atol=1e-7 * np.abs(alone.value).max())


def test_useless_answers_are_rejected_and_counted(case):
    A, b = case
    norm = jnp.linalg.norm(b)
    answers = {
        "own": lambda r: r,
        "nan": lambda r: r.at[2, 2].set(jnp.nan),
        "zero": jnp.zeros_like,
        "huge": lambda r: 1e300 * r,
        "late": lambda r: jnp.where(jnp.linalg.norm(r) < 1e-3 * norm, jnp.nan, FastPoisson(GRID)(r)),
        "turned": lambda r: -FastPoisson(GRID)(r),
    }

    @jax.jit
    def run(which):
        return solve(A, b, FlexibleCG(1e-8, preconditioner=lambda r: jax.lax.switch(which, list(answers.values()), r)))

    for which, name in enumerate(answers):
        s = run(which)
        steps, rejected = int(s.num_steps), int(s.num_rejected)
        assert bool(s.converged), name
        if name == "own":
            count = steps
            assert rejected == 0
        elif name == "huge":  # a direction has no size
            assert (steps, rejected) == (count, 0)
        elif name in ("nan", "zero"):  # every other step is plain CG
            assert rejected == steps // 2
            assert abs(steps - 2 * count) <= 4
        elif name == "late":
            assert 0 < rejected < steps / 2
        else:  # the sign of a direction does not matter
            assert rejected == 0
            assert steps < count


def test_indefinite_operators_end_in_breakdown(x64):
    matrix = spd() - 30 * np.eye(30)
    b = np.random.default_rng(2).normal(size=30)
    run = jax.jit(
        lambda matrix, M: solve(lambda v: matrix @ v, b, FlexibleCG(1e-8, preconditioner=M)), static_argnums=1
    )
    for M in (None, jnp.tanh):
        s = run(matrix, M)
        assert int(s.result) == Result.breakdown
        true = np.linalg.norm(b - matrix @ s.value) / np.linalg.norm(b)
        np.testing.assert_allclose(s.residual_norm, true, rtol=1e-9)
        assert true <= 1
    assert int(run(-np.eye(30), jnp.tanh).result) == Result.breakdown
    assert int(run(np.nan * np.eye(30), jnp.tanh).result) == Result.nonfinite


def test_a_long_memory_ends_in_as_many_steps_as_unknowns(x64):
    matrix = spd(12)
    b = np.random.default_rng(3).normal(size=12)
    M = lambda r: r + 0.5 * jnp.abs(r)
    run = lambda m: solve(lambda v: matrix @ v, b, FlexibleCG(1e-10, memory=m, preconditioner=M))
    long, short = jax.jit(lambda: (run(12), run(1)))()
    assert bool(long.converged)
    assert int(long.num_steps) <= 12
    assert int(short.num_steps) > 12


def test_a_network_may_propose_directions(x64):
    """Random weights: useless advice slows the solve down and cannot spoil it. Batched, with gradients."""
    matrix = spd(16)
    weights = np.random.default_rng(4).normal(size=(2, 16, 16)) / 4
    bs = np.random.default_rng(5).normal(size=(3, 16)) * np.asarray([[1.0], [1e-30], [0.0]])

    def run(weights, b):
        def network(r):
            unit = r / jnp.maximum(jnp.linalg.norm(r), 1e-300)
            return unit + weights[1] @ jnp.tanh(weights[0] @ unit)

        return solve(
            lambda v: matrix @ v, b, FlexibleCG(1e-11, memory=4, max_steps=300, preconditioner=network, history=400)
        )

    batch = jax.jit(jax.vmap(run, (None, 0)))(weights, bs)
    assert np.all(batch.converged)
    np.testing.assert_allclose(batch.value.T, np.linalg.solve(matrix, bs.T), rtol=1e-8, atol=1e-300)
    steps = np.asarray(batch.num_steps)
    assert steps[2] == 0
    assert steps[0] > 0
    for k, history in zip(steps, batch.history, strict=True):
        assert np.all(np.isfinite(history[: k + 1]))
        assert np.all(history[k + 1 :] == history[k])
    value, (to_weights, to_b) = jax.jit(
        jax.value_and_grad(lambda w, b: jnp.sum(run(w, b).value[::2]), (0, 1))
    )(weights, bs[0])  # fmt: skip
    assert np.all(to_weights == 0)  # the solution does not depend on how it was found
    np.testing.assert_allclose(to_b, np.linalg.solve(matrix, np.arange(16) % 2 == 0), rtol=1e-8)
    assert np.isfinite(value)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: FlexibleCG(memory=0), "memory: expected a positive integer, got 0"),
        (lambda: FlexibleCG(memory=1.5), "memory: expected a positive integer"),
        (lambda: FlexibleCG(memory=True), "memory: expected a positive integer"),
        (lambda: FlexibleCG(preconditioner=CG), "preconditioner: expected a callable"),
        (lambda: FlexibleCG(dot="double"), "dot: expected None, 'float64' or 'compensated'"),
        (lambda: FlexibleCG(-1.0), "rtol: expected a number not below zero"),
        (lambda: solve(abs, jnp.ones(3), FlexibleCG(preconditioner=lambda r: r[:2])), "preconditioner: expected a map"),
    ],
)  # fmt: skip
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
