"""Hostile and awkward problems: every one must end with the right answer or the right code, never a silent wrong one.

The probes are those on which other JAX solvers were seen to fail: residuals that drift in single precision, norms that
underflow, cotangents that vanish, backward solves that stop short, preconditioners that are not what CG assumes.
"""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from neuralops.grid import Grid
from neuralops.solvers import (
    CG,
    DerivativeWarning,
    Diffusion,
    FastPoisson,
    FlexibleCG,
    Inverse,
    Jacobi,
    NullSpace,
    Refinement,
    Result,
    Solution,
    solve,
)  # fmt: skip
from neuralops.solvers.algebra import programs

BOX = Grid((12, 10), (1.0, 0.9), "dirichlet", "cell")
rng = np.random.default_rng(0)
FIELD = np.exp(0.5 * rng.normal(size=BOX.shape))
RHS = rng.normal(size=BOX.shape)


def true_residual(matrix, x, b):
    b = np.ravel(np.asarray(b, np.float64))
    return np.linalg.norm(b - np.asarray(matrix, np.float64) @ np.ravel(np.asarray(x, np.float64))) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def dense():
    with jax.enable_x64(True):
        return np.asarray(jax.jit(Diffusion.from_coefficient(BOX, jnp.asarray(FIELD)).as_matrix)())


@pytest.mark.parametrize("n", [64, 144, pytest.param(256, marks=pytest.mark.slow)])
def test_single_precision_claims_are_true(x64, n):
    """The recursed residual passes every tolerance; what is claimed must be the truth to a few per cent."""
    grid = Grid((n, n), boundary="dirichlet", centering="cell")
    A = Diffusion(grid)
    run = jax.jit(lambda b, rtol: solve(A, b, CG(rtol)))
    apply = jax.jit(A)
    for b in (rng.normal(size=grid.shape), np.ones(grid.shape)):
        b = jnp.asarray(b, jnp.float32)
        wide = np.asarray(b, np.float64)
        for rtol in (1e-3, 1e-5, 1e-7):
            s = run(b, rtol)
            true = np.linalg.norm(wide - apply(np.asarray(s.value, np.float64))) / np.linalg.norm(wide)
            assert bool(s.converged) == (true <= rtol)
            np.testing.assert_allclose(s.residual_norm, true, rtol=0.05)
            if not bool(s.converged):
                assert int(s.result) == Result.stagnated


METHODS = {
    "cg": lambda A: CG(1e-6, preconditioner=Jacobi(A)),
    "flexible": lambda A: FlexibleCG(1e-6, preconditioner=FastPoisson(BOX)),
    "refinement": lambda A: Refinement(Inverse(A, CG(1e-2)), 1e-6),
}


@pytest.mark.parametrize(("dtype", "scales"), [("float32", [1e-25, 1e-20, 1e-30, 1e25]), ("float64", [1e-200, 1e200])])
@pytest.mark.parametrize("name", METHODS)
def test_tiny_and_huge_right_hand_sides_and_cotangents(x64, dense, name, dtype, scales):
    b = jnp.asarray(RHS, dtype)

    @jax.jit
    def run(b, seed):
        A = Diffusion.from_coefficient(BOX, jnp.asarray(FIELD, dtype))
        s, pull = jax.vjp(lambda b: (lambda s: (s.value, s))(solve(A, b, METHODS[name](A))), b, has_aux=False)
        return s[1], pull((seed, jax.tree.map(zero_tangent, s[1])))[0]

    expected = np.linalg.solve(dense, np.ravel(np.asarray(b, np.float64))).reshape(BOX.shape)
    for scale in [*scales, 0.0]:
        s, gradient = run(b * scale if scale else b * 0, b * scale if scale else b * 0)
        assert bool(s.converged)
        for found in (s.value, gradient):
            if not scale:
                assert np.all(found == 0)
                continue
            back = np.asarray(found, np.float64) / scale
            np.testing.assert_allclose(back, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert int(s.num_steps) == 0


def zero_tangent(leaf):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


@pytest.fixture
def recorded():
    """Warnings of derivative solves so far, as a function."""
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")

        def count():
            jax.effects_barrier()
            found = sum(issubclass(w.category, DerivativeWarning) for w in log)
            log.clear()
            return found

        yield count


def test_a_stopped_backward_solve_is_reported(x64, recorded):
    b = jnp.asarray(RHS)

    def run(a, b, limit, warn=True, method=CG):
        A = Diffusion.from_coefficient(BOX, a)
        return jnp.sum(solve(A, b, method(1e-9, max_steps=limit), warn=warn).value ** 2)

    a = jnp.asarray(FIELD)
    gradient = jax.jit(jax.grad(run))
    gradient(a, b, 1000)
    assert recorded() == 0
    gradient(a, b, 3)  # the same program
    assert recorded() == 1
    jax.jit(run)(a, b, 3)  # a forward solve says so itself
    assert recorded() == 0
    jax.jit(jax.grad(lambda a: run(a, b, 3, warn=False)))(a)
    assert recorded() == 0
    jax.jit(lambda a: jax.jvp(lambda a: run(a, b, 3), (a,), (a,)))(a)
    assert recorded() == 1
    batch = jax.jit(jax.vmap(jax.grad(run), (None, 0, 0)))
    batch(a, jnp.stack([b, b, b]), jnp.asarray([1000, 1000, 1000]))
    assert recorded() == 0
    batch(a, jnp.stack([b, b, b]), jnp.asarray([1000, 3, 2]))
    assert recorded() == 1  # one for the batch

    def march(a, limit):
        step = lambda u, _: (solve(Diffusion.from_coefficient(BOX, a), b + u, CG(1e-9, max_steps=limit)).value, None)
        return jnp.sum(jax.lax.scan(step, 0 * b, None, length=3)[0])

    march = jax.jit(jax.grad(march))
    march(a, 1000)
    assert recorded() == 0
    march(a, 3)
    assert recorded() == 3


def test_a_gradient_through_an_asymmetric_operator_is_reported(x64, recorded):
    """CG may converge where A is only nearly symmetric; its transpose is another operator."""
    matrix = np.diag(np.linspace(1, 2, 20))
    matrix[0, -1] = 0.01
    b = rng.normal(size=20)

    @jax.jit
    def run(matrix, b):
        def value(b):
            s = solve(lambda v: matrix @ v, b, CG(1e-4))
            return jnp.sum(s.value), s

        return jax.value_and_grad(value, has_aux=True)(b)

    (_, s), _ = run(matrix, b)
    assert bool(s.converged)
    assert true_residual(matrix, s.value, b) <= 1e-4
    assert recorded() == 1
    matrix[0, -1] = 0
    run(matrix, b)
    assert recorded() == 0


def test_a_failed_solve_returns_its_best_iterate(x64):
    """A singular operator without a null space, and a source it cannot take: CG runs away after a good start."""
    grid = Grid((16, 16), boundary="neumann", centering="cell")
    neumann = Diffusion(grid)
    noise, spots = rng.normal(size=grid.shape), (rng.uniform(size=grid.shape) < 0.05).astype(float)
    run = jax.jit(lambda b, limit: solve(lambda u: neumann(u), b, CG(1e-8, max_steps=limit, history=3000)))
    for b in (noise + 0.5, spots, noise - noise.mean() + 0.3):
        for limit in (2500, 200, 60, 20):
            s = run(jnp.asarray(b), limit)
            assert not bool(s.converged)
            history = np.asarray(s.history)
            best = history.min()
            assert np.abs(s.value).max() < 1e4
            assert float(s.residual_norm) <= (2.01 if history.max() > 30 * best else 10.1) * best
    indefinite = np.diag([1.0, 2.0, 3.0, -1.0, 5.0])
    s = solve(lambda v: indefinite @ v, jnp.ones(5), CG(1e-8))
    assert int(s.result) == Result.breakdown
    assert true_residual(indefinite, s.value, np.ones(5)) <= 1


@pytest.mark.parametrize("method", [CG, FlexibleCG], ids=["cg", "flexible"])
def test_hostile_operators(x64, method):
    n = 24
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    base = q @ np.diag(np.geomspace(1, 50, n)) @ q.T
    skew = np.triu(rng.normal(size=(n, n)), 1) * 3
    cases = {
        "indefinite": (base - 10 * np.eye(n), {Result.breakdown}),
        "negative": (-base, {Result.breakdown}),
        "skew": (base + skew - skew.T, {Result.asymmetric}),
        "nan": (np.where(np.eye(n) == 1, np.nan, base), {Result.nonfinite}),
        "infinite": (np.where(np.eye(n) == 1, np.inf, base), {Result.nonfinite}),
        "zero": (0 * base, {Result.singular}),
        "overflow": (1e200 * base, {Result.converged, Result.breakdown, Result.nonfinite}),
        "tiny": (1e-200 * base, {Result.converged, Result.breakdown, Result.nonfinite}),
    }
    b = jnp.asarray(rng.normal(size=n))
    run = jax.jit(lambda matrix, b: solve(lambda v: matrix @ v, b, method(1e-8)))
    for name, (matrix, codes) in cases.items():
        s = run(matrix, b)
        assert int(s.result) in codes, (name, s.message)
        assert np.all(np.isfinite(s.value)), name
        if np.all(np.isfinite(matrix)):
            true = true_residual(matrix, s.value, b)
            assert bool(s.converged) == (true <= 1e-8), name
            assert true <= (10 if int(s.result) == Result.max_steps else 1 + 1e-12), name
    assert int(run(base, b.at[0].set(jnp.nan)).result) == Result.nonfinite
    assert int(run(base, b.at[0].set(jnp.inf)).result) == Result.nonfinite
    zero = run(base, 0 * b)
    assert bool(zero.converged)
    assert int(zero.num_steps) == 0
    assert np.all(zero.value == 0)


def test_limits_of_zero_and_one_step(x64, dense):
    A, b = Diffusion.from_coefficient(BOX, jnp.asarray(FIELD)), jnp.asarray(RHS)
    for make in (CG, FlexibleCG, lambda rtol, **k: Refinement(FastPoisson(BOX), rtol, **k)):
        run = jax.jit(lambda b, x0, limit, make=make: solve(A, b, make(1e-10, max_steps=limit), x0=x0))
        start = 0.1 * b
        none, one = run(b, start, 0), run(b, start, 1)
        assert int(none.result) == int(one.result) == Result.max_steps
        assert (int(none.num_steps), int(one.num_steps)) == (0, 1)
        np.testing.assert_array_equal(none.value, start)
        for s in (none, one):
            np.testing.assert_allclose(s.residual_norm, true_residual(dense, s.value, b), rtol=1e-9)
        zero = run(0 * b, start, 0)
        assert bool(zero.converged)
        assert np.all(zero.value == 0)
        exact = np.linalg.solve(dense, np.ravel(b)).reshape(b.shape)
        assert bool(run(b, exact, 0).converged)


def test_traced_tolerances_and_no_recompilation(x64):
    traces = []

    @jax.jit
    def run(b, rtol, limit):
        traces.append(1)
        A = Diffusion.from_coefficient(BOX, jnp.asarray(FIELD))
        flexible = solve(A, b, FlexibleCG(rtol, max_steps=limit, preconditioner=FastPoisson(BOX)))
        refined = solve(A, b, Refinement(Inverse(A, CG(rtol**0.5, max_steps=limit)), rtol, max_steps=limit))
        return flexible, refined

    for rtol in (1e-3, 1e-6, 1e-9):
        for s in run(jnp.asarray(RHS), rtol, 500):
            assert bool(s.converged)
            assert 1e-5 * rtol < float(s.residual_norm) <= rtol
    assert len(traces) == 1


def test_eager_calls_with_functions_compile_once(x64):
    def call(seed, rtol, scale=2.0):
        weight = np.random.default_rng(seed).uniform(1, 2, BOX.shape)
        A = Diffusion(BOX)
        shifted = lambda u: A(u) + weight * u
        preconditioner = lambda r: FastPoisson(BOX)(r) * scale
        return solve(shifted, jnp.asarray(RHS), CG(rtol, preconditioner=preconditioner)), shifted

    call(0, 1e-4)
    before = programs._compiled.cache_info().misses
    for seed, rtol in ((1, 1e-5), (2, 1e-6)):
        s, shifted = call(seed, rtol)
        assert bool(s.converged)
        assert float(jnp.linalg.norm(RHS - shifted(s.value)) / np.linalg.norm(RHS)) <= rtol
    assert programs._compiled.cache_info().misses == before
    call(0, 1e-4, scale=3.0)  # another program: the number is part of the function
    assert programs._compiled.cache_info().misses == before + 1


def test_batch_members_are_frozen_when_done(x64):
    """One member needs one step, another hundreds; each keeps its own count, code and value."""
    factors = jnp.asarray([0.0, 1.0, 6.0])

    def run(factor, b):
        A = Diffusion.from_coefficient(BOX, jnp.asarray(FIELD) ** factor)
        return (
            solve(A, b, FlexibleCG(1e-9, preconditioner=FastPoisson(BOX))),
            solve(A, b, Refinement(Inverse(A, CG(1e-3)), 1e-9)),
        )

    bs = jnp.stack([jnp.asarray(RHS), jnp.asarray(RHS)[::-1], jnp.asarray(RHS).at[0, 0].set(jnp.nan)])
    batch, single = jax.jit(jax.vmap(run))(factors, bs), jax.jit(run)
    for i in range(3):
        alone = single(factors[i], bs[i])
        for together, one in zip(batch, alone, strict=True):
            assert int(together.result[i]) == int(one.result)
            assert abs(int(together.num_steps[i]) - int(one.num_steps)) <= 1
            np.testing.assert_allclose(together.value[i], one.value, rtol=1e-6, atol=1e-9 * np.abs(one.value).max())
    assert int(batch[0].num_steps[0]) == 1
    assert int(batch[0].num_steps[1]) > 5


@pytest.mark.slow
def test_inside_shard_map(x64, dense):
    """Two devices with their own problems, solved by a batched call and differentiated; and one problem on both."""
    mesh = jax.make_mesh((2,), ("device",), axis_types=(AxisType.Auto,))
    bs = jnp.asarray(rng.normal(size=(4, *BOX.shape)))
    expected = np.linalg.solve(dense, np.asarray(bs).reshape(4, -1).T).T.reshape(bs.shape)
    own = jnp.asarray(FIELD)

    def run(a, bs):
        A = Diffusion.from_coefficient(BOX, a)
        return jax.vmap(lambda b: solve(A, b, CG(1e-11, preconditioner=FastPoisson(BOX))))(bs)

    apart = lambda f, out: jax.shard_map(f, mesh=mesh, in_specs=(P(), P("device")), out_specs=out)
    s = jax.jit(apart(run, P("device")))(own, bs)
    assert np.all(s.converged)
    np.testing.assert_allclose(s.value, expected, atol=1e-9 * np.abs(expected).max())
    both = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P()))(own, bs[:2])
    np.testing.assert_allclose(both.value, expected[:2], atol=1e-9 * np.abs(expected).max())

    c = jnp.asarray(rng.normal(size=bs.shape))
    split = lambda a, bs: jnp.vdot(c, apart(lambda a, b: run(a, b).value, P("device"))(a, bs))
    whole = lambda a, bs: jnp.vdot(c, run(a, bs).value)
    found, wanted = (jax.jit(jax.grad(f, (0, 1)))(own, bs) for f in (split, whole))
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=0, atol=1e-8 * np.abs(w).max())


class Spread(eqx.Module):
    """A graph Laplacian of a ring plus a diagonal, its nodes divided over the devices of a mesh."""

    d: jax.Array
    mesh_axes: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, v):
        if not self.mesh_axes:
            return self.d * v + 2 * v - jnp.roll(v, 1) - jnp.roll(v, -1)
        n = jax.lax.axis_size(self.mesh_axes[0])
        shift = lambda u, k: jax.lax.ppermute(u, self.mesh_axes[0], [(i, (i + k) % n) for i in range(n)])
        before, after = shift(v[-1:], 1), shift(v[:1], -1)
        padded = jnp.concatenate([before, v, after])
        return self.d * v + 2 * v - padded[:-2] - padded[2:]


@pytest.mark.parametrize("floating", [pytest.param(False, marks=pytest.mark.slow), True])
def test_one_system_over_several_devices(x64, floating):
    """`mesh_axes` of the operator: sums go across devices, so steps and values are those of one device."""
    mesh = jax.make_mesh((2,), ("device",), axis_types=(AxisType.Auto,))
    n = 64
    d = jnp.zeros(n) if floating else jnp.asarray(rng.uniform(0.1, 1, n))
    b = jnp.asarray(rng.normal(size=n))

    def run(d, b, mesh_axes=()):
        A = Spread(d, mesh_axes)
        null_space = NullSpace.from_basis([jnp.ones_like(b)], mesh_axes) if floating else None
        methods = [CG(1e-10), FlexibleCG(1e-10, memory=3, preconditioner=Inverse(A, CG(max_steps=3)))]
        return [solve(A, b, method, null_space=null_space) for method in methods[: 1 if floating else 2]]

    spec = P("device")
    scalars = Solution(value=spec, result=P(), converged=P(), num_steps=P(), residual_norm=P(), history=None,
                       num_rejected=P())  # fmt: skip
    spread = lambda d, b: jax.shard_map(
        lambda d, b: run(d, b, ("device",)), mesh=mesh, in_specs=spec, out_specs=[scalars] * (1 if floating else 2)
    )(d, b)
    for apart, alone in zip(jax.jit(spread)(d, b), jax.jit(run)(d, b), strict=True):
        assert int(apart.result) == int(alone.result) == (Result.incompatible if floating else Result.converged)
        assert abs(int(apart.num_steps) - int(alone.num_steps)) <= 1
        np.testing.assert_allclose(apart.value, alone.value, atol=1e-8 * np.abs(alone.value).max())
        np.testing.assert_allclose(apart.residual_norm, alone.residual_norm, rtol=1e-3 if floating else 0.9)
    total = lambda f: jax.jit(jax.grad(lambda d, b: jnp.sum(f(d, b)[0].value[::3] ** 2), (0, 1)))(d, b)
    for f, w in zip(total(spread), total(run), strict=True):
        np.testing.assert_allclose(f, w, atol=1e-7 * np.abs(w).max())
