"""`solve` and `CG` against dense solves, SciPy's iterates and finite differences; every status code is met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as spl

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, Solution, solve
from neuralops.solvers.solution import MESSAGES, Result

GRID = Grid((7, 6), (1.0, 1.3), ("dirichlet", ("neumann", "dirichlet")), ("cell", "node"))


@jax.jit
def operator(a):
    return Diffusion.from_coefficient(GRID, a)


def problem(grid=GRID, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(np.exp(rng.normal(size=grid.shape))), jnp.asarray(rng.normal(size=grid.shape))


def dense_solution(a, b, grid=GRID):
    return jnp.linalg.solve(Diffusion.from_coefficient(grid, a).as_matrix(), b.ravel()).reshape(grid.shape)


def spd_matrix(n=30, seed=0):
    """A matrix with eigenvalues from 1 to 100, and a right-hand side."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return q @ np.diag(np.geomspace(1, 100, n)) @ q.T, rng.normal(size=n)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_iterates_are_scipys(x64, preconditioned):
    grid = Grid((15, 14), boundary="dirichlet", centering="cell")
    a, b = problem(grid)
    a, b = jnp.sqrt(a) if preconditioned else np.random.default_rng(1).uniform(1, 2, grid.shape), 37.3 * b
    A = Diffusion.from_coefficient(grid, a)
    P = FastPoisson(grid) if preconditioned else None
    matrix = np.asarray(jax.jit(A.as_matrix)())
    M = None if P is None else np.asarray(jax.jit(P)(np.eye(b.size).reshape(-1, *grid.shape))).reshape(b.size, -1)
    expected = []
    spl.cg(matrix, np.ravel(b), rtol=1e-30, maxiter=20, M=M, callback=lambda x: expected.append(x.copy()))

    run = jax.jit(lambda method: solve(A, b, method))
    for k, x in enumerate(expected, start=1):
        s = run(CG(rtol=0.0, max_steps=k, preconditioner=P))
        assert int(s.result) == Result.max_steps
        assert int(s.num_steps) == k
        np.testing.assert_allclose(s.value.ravel(), x, rtol=0, atol=1e-12 * np.abs(x).max())
        residual = np.linalg.norm(np.ravel(b) - matrix @ x) / np.linalg.norm(b)
        np.testing.assert_allclose(s.residual_norm, residual, rtol=1e-6)


def test_finite_termination_and_pytrees(x64):
    """Three distinct eigenvalues take three steps, whatever the containers."""
    b = {"u": jnp.arange(1.0, 5.0), "v": (jnp.ones((2, 3)), jnp.asarray(2.0))}
    s = solve(lambda v: {"u": v["u"], "v": (5 * v["v"][0], 9 * v["v"][1])}, b, CG(1e-12))
    assert bool(s.converged)
    assert int(s.num_steps) == 3
    np.testing.assert_allclose(s.value["u"], b["u"], rtol=1e-12)
    np.testing.assert_allclose(s.value["v"][0], 0.2, rtol=1e-12)
    np.testing.assert_allclose(s.value["v"][1], 2 / 9, rtol=1e-12)


def test_stops_at_the_tolerance_it_promises(x64):
    a, b = problem()
    A = operator(a)
    norm = float(jnp.linalg.norm(b))
    run = jax.jit(lambda method: solve(A, b, method))
    for rtol, atol in ((1e-4, 0.0), (0.0, 1e-3 * norm), (1e-9, 1e-3 * norm)):
        s, bound = run(CG(rtol, atol)), max(rtol, atol / norm)
        true = float(jnp.linalg.norm(b - A(s.value))) / norm
        assert bool(s.converged)
        np.testing.assert_allclose(s.residual_norm, true, rtol=1e-6)
        assert 0.01 * bound < true <= bound
        before = run(CG(rtol, atol, max_steps=int(s.num_steps) - 1))
        assert float(before.residual_norm) > bound  # not a step too many


@pytest.mark.parametrize("with_start", [False, True])
def test_gradients_equal_those_of_a_dense_solve(x64, with_start):
    a, b = problem()
    start = 3 * b if with_start else None

    def ours(a, b, start=start):
        A = operator(a)
        return jnp.sum(jnp.sin(solve(A, b, CG(1e-13, preconditioner=FastPoisson(GRID)), x0=start).value * 20))

    def dense(a, b):
        return jnp.sum(jnp.sin(dense_solution(a, b) * 20))

    found, expected = jax.jit(jax.grad(ours, (0, 1)))(a, b), jax.jit(jax.grad(dense, (0, 1)))(a, b)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-10 * np.abs(e).max())
    one_only = jax.jit(jax.grad(ours))(a, b)
    np.testing.assert_allclose(one_only, expected[0], rtol=0, atol=1e-10 * np.abs(expected[0]).max())
    direction = problem(seed=5)
    tangent = jax.jit(lambda a, b: jax.jvp(ours, (a, b), direction)[1])(a, b)
    np.testing.assert_allclose(
        tangent, sum(jnp.vdot(e, d) for e, d in zip(expected, direction, strict=True)), rtol=1e-9
    )
    values = jax.jit(lambda t: dense(a + t * direction[0], b + t * direction[1]))
    difference = (values(1e-6) - values(-1e-6)) / 2e-6
    np.testing.assert_allclose(tangent, difference, rtol=1e-6)
    if with_start:
        assert np.all(jax.jit(jax.grad(lambda s: ours(a, b, s)))(start) == 0)


def test_second_derivatives(x64):
    matrix, b = spd_matrix(6)

    def ours(t):
        return jnp.sum(solve(lambda v: matrix @ v + t * v, b, CG(1e-14)).value ** 2)

    def dense(t):
        return jnp.sum(jnp.linalg.solve(matrix + t * jnp.eye(6), b) ** 2)

    np.testing.assert_allclose(jax.jit(jax.hessian(ours))(0.5), jax.jit(jax.hessian(dense))(0.5), rtol=1e-9)


def test_zero_right_hand_side_and_cotangent():
    a, b = (v.astype(jnp.float32) for v in problem())

    @jax.jit
    def run(b, x0):
        return solve(Diffusion.from_coefficient(GRID, a), b, CG(history=True), x0=x0)

    s = run(jnp.zeros_like(b), b)
    assert bool(s.converged)
    assert int(s.num_steps) == 0
    assert float(s.residual_norm) == 0
    assert np.all(s.value == 0)
    pullback = jax.jit(lambda b, seed: jax.vjp(lambda b: run(b, b).value, b)[1](seed)[0])
    assert np.all(pullback(b, 0 * b) == 0)
    assert np.all(np.isnan(pullback(b, b.at[0, 0].set(jnp.nan))))  # poison stays poison
    zero_b = jax.jit(jax.grad(lambda a: jnp.sum(solve(Diffusion.from_coefficient(GRID, a), 0 * b, CG()).value)))(a)
    assert np.all(zero_b == 0)


def test_result_does_not_depend_on_the_start(x64):
    a, b = problem()
    A = operator(a)
    run = jax.jit(lambda x0: solve(A, b, CG(1e-10), x0=x0))
    exact = jax.jit(dense_solution)(a, b)
    for start in (0 * b, b, 1e12 * b, exact, b.at[0, 0].set(jnp.nan), b.at[0, 0].set(jnp.inf)):
        s = run(start)
        assert bool(s.converged)
        np.testing.assert_allclose(s.value, exact, rtol=0, atol=1e-8 * np.abs(exact).max())
    assert int(run(exact).num_steps) == 0
    assert int(run(exact * (1 + 1e-6)).num_steps) < int(run(0 * b).num_steps)


def test_every_status_code(x64):
    a, b = problem()
    A = operator(a)
    neumann = Diffusion(Grid(GRID.shape, boundary="neumann", centering="node"))
    with_nan = b.at[1, 2].set(jnp.nan)

    def nan_far_out(r):  # a preconditioner that fails after some progress
        return jnp.where(jnp.linalg.norm(r) < 0.1 * jnp.linalg.norm(b), jnp.nan, r)

    cases = {
        Result.converged: solve(A, b, CG()),
        Result.max_steps: solve(A, b, CG(max_steps=3)),
        Result.stagnated: solve(A, b, CG(rtol=0.0)),
        Result.breakdown: solve(lambda u: -A(u), b, CG()),
        Result.nonfinite: solve(A, with_nan, CG()),
        Result.incompatible: solve(neumann, b, CG(1e-9)),
    }
    for code, s in cases.items():
        assert int(s.result) == code
        assert bool(s.converged) == (code == Result.converged)
        assert s.message.startswith(MESSAGES[code])
        assert np.all(np.isfinite(s.value))
    assert float(cases[Result.stagnated].residual_norm) < 1e-13
    assert np.isnan(cases[Result.nonfinite].residual_norm)
    assert int(solve(A, b, CG(preconditioner=lambda r: -r)).result) == Result.breakdown
    late = solve(A, b, CG(1e-10, preconditioner=nan_far_out))
    assert int(late.result) == Result.nonfinite
    assert float(late.residual_norm) < 0.2  # what was reached is kept
    assert int(solve(A, b, CG(max_steps=0)).result) == Result.max_steps


def test_saddle_ends_in_breakdown_with_a_finite_iterate(x64):
    matrix, b = spd_matrix()
    s = solve(lambda v: matrix @ v - 30 * v, b, CG(1e-8))
    assert int(s.result) == Result.breakdown
    assert np.all(np.isfinite(s.value))
    np.testing.assert_allclose(s.residual_norm, np.linalg.norm(b - matrix @ s.value + 30 * s.value) / np.linalg.norm(b))


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_singular_systems(x64, boundary):
    """Without a Dirichlet end and with an obstacle: the solution of zero mean, for the part of b that has one."""
    grid = Grid((6, 7), (1.0, 1.2), boundary, "node")
    a, f = problem(grid)
    mask = np.ones(grid.shape, bool)
    mask[2:4, 3] = False
    weights = np.where(mask, grid.weights(), 0)
    f = np.where(mask, f - np.sum(f * weights) / np.sum(weights), 0)

    @jax.jit
    def run(a, f):
        A = Diffusion.from_coefficient(grid, a, mask=mask)
        return solve(A, A.load(f), CG(1e-11, preconditioner=FastPoisson(grid))), A.as_matrix(), A.load(f)

    s, matrix, b = run(a, f)
    assert bool(s.converged)
    assert abs(np.sum(s.value * weights)) < 1e-12
    assert np.all(s.value[~mask] == 0)
    expected = np.linalg.pinv(matrix, rcond=1e-10) @ b.ravel()  # by default rounding may pass for a singular value
    expected = np.where(mask, expected.reshape(grid.shape), 0)
    expected = np.where(mask, expected - np.sum(expected * weights) / np.sum(weights), 0)
    np.testing.assert_allclose(s.value, expected, atol=1e-9 * np.abs(expected).max())

    shifted, _, b = run(a, f + 0.5)
    assert int(shifted.result) == Result.incompatible
    np.testing.assert_allclose(shifted.value, s.value, atol=1e-9 * np.abs(expected).max())
    residual = np.linalg.norm(np.ravel(b) - matrix @ np.ravel(shifted.value)) / np.linalg.norm(b)
    np.testing.assert_allclose(shifted.residual_norm, residual, rtol=1e-9)
    # The adjoint: the gradient of <c, u(f)> is the solution for c, weights and projections included.
    c = jnp.asarray(np.random.default_rng(4).normal(size=grid.shape))
    found = jax.jit(jax.grad(lambda f: jnp.vdot(c, run(a, f)[0].value)))(f)
    step = 1e-4 * np.random.default_rng(6).normal(size=grid.shape)
    difference = jnp.vdot(c, run(a, f + step)[0].value - run(a, f - step)[0].value) / 2
    np.testing.assert_allclose(jnp.vdot(found, step), difference, rtol=1e-6)


def test_batch_members_are_single_solves(x64):
    a, b = problem()
    factors = jnp.asarray([0.0, 1.0, 3.0, 0.1])  # contrast: a^0 = 1 is easiest
    bs = jnp.stack([b, b[::-1], 0 * b, b.at[0, 0].set(jnp.nan)])

    def run(factor, b, max_steps):
        A = Diffusion.from_coefficient(GRID, a**factor)
        return solve(A, b, CG(1e-9, max_steps=max_steps, preconditioner=FastPoisson(GRID), history=40))

    limits = jnp.asarray([1000, 1000, 1000, 1000])
    batch, single = jax.jit(jax.vmap(run))(factors, bs, limits), jax.jit(run)
    for i in range(4):
        alone = single(factors[i], bs[i], limits[i])
        for name in ("result", "converged"):
            assert getattr(batch, name)[i] == getattr(alone, name), name
        # A batch is summed in another order: a step on the edge of the tolerance may fall on either side.
        assert abs(int(batch.num_steps[i]) - int(alone.num_steps)) <= 1
        np.testing.assert_allclose(batch.value[i], alone.value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(batch.history[i, :10], alone.history[:10], rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(np.isnan(batch.history[i]), np.isnan(alone.history))  # where b was not finite
    assert len({int(k) for k in batch.num_steps}) >= 3
    assert batch.message.startswith("3 of 4 converged")


def test_values_do_not_recompile(x64):
    traces = []
    a, b = problem()

    @jax.jit
    def run(a, b, method, x0):
        traces.append("outer")

        def A(u):
            traces.append("A")
            return Diffusion.from_coefficient(GRID, a)(u)

        return solve(A, b, method, x0=x0).value

    run(a, b, CG(1e-5, 0.0, max_steps=50), b)
    count = len(traces)
    for k in range(1, 4):
        run(a + k, k * b, CG(10.0**-k, 1e-9 * k, max_steps=60 + k), b / k)
    assert len(traces) == count

    class Seen(Diffusion):
        def __call__(self, u):
            traces.append("outside jit")
            return super().__call__(u)

    solve(Seen.from_coefficient(GRID, a), b, CG(1e-5))
    assert len(traces) > count
    count = len(traces)
    solve(Seen.from_coefficient(GRID, 2 * a), 3 * b, CG(1e-7))
    assert len(traces) == count


def test_a_changed_closure_is_seen(x64):
    """A plain function may read variables that change between eager calls."""
    factor = 2.0
    double = lambda v: factor * v
    first = solve(double, jnp.ones(3), CG()).value
    factor = 4.0
    np.testing.assert_allclose(first, 0.5)
    np.testing.assert_allclose(solve(double, jnp.ones(3), CG()).value, 0.25)


def test_scan_carries_a_warm_start(x64):
    a, b = problem()

    @jax.jit
    def run(b):
        def advance(u, t):
            A = operator(a)
            s = solve(A, b * (1 + 0.01 * t), CG(1e-9), x0=u)
            return s.value, s

        return jax.lax.scan(advance, jnp.zeros_like(b), jnp.arange(3.0))

    last, solutions = run(b)
    assert isinstance(solutions, Solution)
    assert np.all(solutions.converged)
    assert int(solutions.num_steps[1]) < int(solutions.num_steps[0])
    np.testing.assert_allclose(last, 1.02 * dense_solution(a, b), rtol=1e-6, atol=1e-9)


def test_history_is_the_residual_of_each_step(x64):
    a, b = problem()
    A = operator(a)
    run = jax.jit(lambda method: solve(A, b, method))
    s = run(CG(1e-8, history=200))
    k = int(s.num_steps)
    assert s.history.shape == (200,)
    assert np.all(np.isfinite(s.history[: k + 1]))
    assert np.all(s.history[k + 1 :] == s.history[k])  # the last one, to the end
    assert s.history[0] == 1
    np.testing.assert_allclose(s.history[k], s.residual_norm, rtol=1e-12)
    np.testing.assert_allclose(s.history[5], run(CG(1e-8, max_steps=5)).residual_norm, rtol=1e-9)
    short = run(CG(1e-8, history=4))
    np.testing.assert_allclose(short.history, s.history[:4], rtol=1e-12)
    assert CG(history=True).history == 1000
    assert run(CG()).history is None


def test_throw():
    a, b = (v.astype(jnp.float32) for v in problem())
    A = operator(a)
    assert bool(solve(A, b, CG(1e-4), throw=True).converged)
    with pytest.raises(RuntimeError, match="max_steps was reached"):
        solve(A, b, CG(1e-4, max_steps=2), throw=True)
    for transformed in (jax.jit, jax.vmap, jax.grad):
        with pytest.raises(ValueError, match="throw: expected False"):
            transformed(lambda b: jnp.sum(solve(A, b, CG(), throw=True).value))(
                b[None] if transformed is jax.vmap else b
            )
    with pytest.raises(ValueError, match="throw: expected False"):
        jax.jit(lambda t: solve(lambda v: t * v, b, CG(), throw=True).value)(2.0)


B = np.ones((7, 6), np.float32)
IDENTITY = lambda v: v


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: solve("A", np.ones(3, np.float32), CG()), "A: expected a callable"),
        (lambda: solve(IDENTITY, np.ones(3, int), CG()), "b: expected real floating arrays, got int64"),
        (lambda: solve(IDENTITY, np.ones(3, complex), CG()), "b: expected real floating arrays, got complex"),
        (lambda: solve(IDENTITY, [1.0, 2.0], CG()), "b: expected real floating arrays, got float"),
        (lambda: solve(IDENTITY, (), CG()), "b: expected at least one array"),
        (lambda: solve(IDENTITY, (B, B.astype(np.float16)), CG()), "b: expected arrays of one dtype"),
        (lambda: solve(lambda v: v[1:], B, CG()), "A: expected a map from b to the same shapes"),
        (lambda: solve(lambda v: (v, v), B, CG()), "A: expected a map from b to the same shapes"),
        (lambda: solve(Diffusion(GRID), np.ones((6, 7), np.float32), CG()), "Diffusion is locked to the grid"),
        (lambda: solve(IDENTITY, B, CG), "method: expected an instance such as .* got CG"),
        (lambda: solve(IDENTITY, B, "cg"), "method: expected an instance"),
        (lambda: solve(IDENTITY, B, CG(), x0=B.T), "x0: expected the shapes of b"),
        (lambda: solve(IDENTITY, B, CG(), x0=(B,)), "x0: expected the shapes of b"),
        (lambda: solve(IDENTITY, B, CG(), x0=B.astype(int)), "x0: expected real floating arrays"),
        (lambda: solve(IDENTITY, B, CG(preconditioner=lambda r: r[0])), "preconditioner: expected a map"),
        (lambda: solve(IDENTITY, B, lambda r: r[0]), "inverse: expected a map"),
        (lambda: CG(rtol=-1e-3), "rtol: expected a number not below zero"),
        (lambda: CG(rtol=float("nan")), "rtol: expected a number not below zero"),
        (lambda: CG(rtol="1e-3"), "rtol: expected a number"),
        (lambda: CG(rtol=np.ones(2)), "rtol: expected a number"),
        (lambda: CG(atol=-1), "atol: expected a number not below zero"),
        (lambda: CG(max_steps=-1), "max_steps: expected an integer or None not below zero"),
        (lambda: CG(max_steps=2.5), "max_steps: expected an integer"),
        (lambda: CG(preconditioner=FastPoisson), "preconditioner: expected a callable"),
        (lambda: CG(preconditioner=np.eye(3)), "preconditioner: expected a callable"),
        (lambda: CG(history=-1), "history: expected zero or a positive integer"),
        (lambda: CG(history=1.5), "history: expected zero or a positive integer"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
