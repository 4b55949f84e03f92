"""Splitting algorithms against closed forms, their theorems on random problems, and cases in which they fail."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from neuralops import solvers
from neuralops.inverse import ADMM, FISTA, L1, L2, PDHG, PGD, Ending, Learned, maps, reconstruct


class Matrix(eqx.Module):
    """A dense linear map from `(1, n)` to `(m,)`."""

    entries: jax.Array

    def __call__(self, x):
        return self.entries @ x[0]

    def adjoint(self, y):
        return (self.entries.T @ y)[None]

    def norm(self):
        return jnp.linalg.norm(self.entries, 2)


class Quadratic(eqx.Module):
    """The proximal network with the potential y.Qy / 2: f(y) = Q y, R(x) = x.(Q^-1 - 1)x / 2."""

    matrix: jax.Array

    def potential(self, y):
        return 0.5 * y[0] @ self.matrix @ y[0]

    def __call__(self, y):
        return (self.matrix @ y[0])[None]


METHODS = {
    "ADMM": lambda **o: ADMM(**o),
    "PGD": lambda **o: PGD(**o),
    "FISTA": lambda **o: FISTA(**o),
    "PDHG": lambda **o: PDHG(**o),
}


def problem(seed=0, m=6, n=5):
    random = np.random.default_rng(seed)
    return Matrix(jnp.asarray(random.normal(size=(m, n)) / 2)), jnp.asarray(random.normal(size=m))


def symmetric(seed, n=5, low=0.2, high=0.9):
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(n, n)))[0]
    return jnp.asarray(basis * random.uniform(low, high, n) @ basis.T)


@pytest.mark.parametrize("name", METHODS)
def test_a_quadratic_potential_has_the_closed_form(x64, name):
    A, y = problem()
    Q = symmetric(1)
    M, bound = A.entries, float(A.norm()) ** 2
    rho = 1.3 * bound  # of PDHG and PGD: 1 / step
    options = {"ADMM": {"rho": rho}}.get(name, {"step": 1 / rho})
    found = reconstruct(A, y, Learned(Quadratic(Q)), METHODS[name](**options, rtol=1e-11, max_steps=3000))
    assert found.converged
    wanted = jnp.linalg.solve(M.T @ M + rho * (jnp.linalg.inv(Q) - jnp.eye(5)), M.T @ y)
    assert jnp.abs(found.value[0] - wanted).max() < 1e-8 * jnp.abs(wanted).max()
    if name == "ADMM":  # one program a test; the next has a regulariser for it
        return
    # a regulariser that heeds the step: its weight alone counts
    options = {"step": 0.2 / rho}
    found = reconstruct(A, y, L2(0.3, mean=0.5), METHODS[name](**options, rtol=1e-11, max_steps=3000), scale=1.5)
    wanted = jnp.linalg.solve(3 * M.T @ M + 0.3 * jnp.eye(5), 3 * M.T @ y + 0.15)
    assert jnp.abs(found.value[0] - wanted).max() < 1e-8 * jnp.abs(wanted).max()


@pytest.mark.parametrize("name", METHODS)
def test_sparse_solutions_are_those_of_scipy(x64, name):
    A, y = problem(3, 8, 6)
    M, b = np.asarray(A.entries), np.asarray(y)
    loss = lambda v: 0.5 * np.sum((M @ (v[:6] - v[6:]) - b) ** 2) + 0.4 * v.sum()
    slope = lambda v: np.concatenate([g := M.T @ (M @ (v[:6] - v[6:]) - b), -g]) + 0.4
    options = {"ftol": 1e-16, "gtol": 1e-12}
    wanted = scipy.optimize.minimize(loss, np.zeros(12), jac=slope, bounds=[(0, None)] * 12, options=options)
    found = reconstruct(A, y, L1(0.4), METHODS[name](rtol=1e-10, max_steps=2000), monitor=1)
    assert found.converged
    assert found.within_theorem
    assert np.abs(found.value[0] - (wanted.x[:6] - wanted.x[6:])).max() < 1e-6
    assert float(found.history.objective[-1]) == pytest.approx(wanted.fun, rel=1e-10)


class Bumps(eqx.Module):
    """The gradient of a sum of softplus over directions: a proximal map whose function is not convex."""

    directions: jax.Array

    def potential(self, y):
        return 0.05 * jnp.sum(y**2) + jnp.sum(jax.nn.softplus(4 * self.directions @ y[0])) / 4

    def __call__(self, y):
        return jax.grad(self.potential)(y)


@pytest.mark.parametrize(
    "kind",
    ["quadratic", "l1", "bumps"],
)
@pytest.mark.slow
def test_admm_within_the_theorem_on_a_hundred_problems(x64, kind):
    """Residuals to 1e-5, and the augmented Lagrangian never rises; `bumps` is no convex regulariser."""
    random = np.random.default_rng(0)
    A, y = Matrix(jnp.asarray(random.normal(size=(100, 6, 5)) / 2)), jnp.asarray(random.normal(size=(100, 6)))
    basis = np.linalg.qr(random.normal(size=(100, 5, 5)))[0]
    Q = jnp.asarray((basis * random.uniform(0.3, 0.9, (100, 1, 5))) @ np.swapaxes(basis, 1, 2))

    def one(A, y, Q):
        regularizer = {"quadratic": Learned(Quadratic(Q)), "l1": L1(0.2), "bumps": Learned(Bumps(2 * Q))}[kind]
        return reconstruct(A, y, regularizer, ADMM(1.05 * A.norm() ** 2, max_steps=3000), monitor=1)

    found = jax.vmap(one)(A, y, Q)
    assert found.converged.all(), found.message
    assert found.within_theorem.all()
    assert jnp.maximum(found.primal_residual, found.dual_residual).max() <= 1e-5
    assert found.merit_rises.max() == 0
    merit, objective = np.asarray(found.history.merit), np.asarray(found.history.objective)
    assert (np.diff(merit, axis=1) <= 1e-12 * np.abs(merit[:, 1:])).all()
    assert (np.diff(objective, axis=1) <= 1e-9 * np.abs(objective[:, 1:])).all()


class Threshold(eqx.Module):
    """A proximal map that is steep at 1/2: its function has two wells, at 0 and 1."""

    sharp: float = 40.0

    def potential(self, y):
        return 0.05 * jnp.sum(y**2) + jnp.sum(jax.nn.softplus(self.sharp * (y - 0.5))) / self.sharp

    def __call__(self, y):
        return jax.grad(self.potential)(y)


def test_admm_outside_the_theorem_goes_round_and_the_monitor_says_so(x64):
    A, y = Matrix(jnp.eye(2)), jnp.array([0.45, 0.7])
    run = lambda rho: reconstruct(A, y, Learned(Threshold()), ADMM(rho, max_steps=300), monitor=1)
    outside, inside = run(0.2), run(1.05)
    assert not outside.within_theorem
    assert Ending(int(outside.result)) is Ending.cycling
    assert outside.merit_rises > 50
    assert "merit rose" in outside.message
    assert "outside" in outside.message
    assert inside.within_theorem
    assert inside.converged
    assert inside.merit_rises == 0
    # with one step between: converges, though the theorem does not say so, and the merit rises on the way
    between = run(0.8)
    assert between.converged
    assert not between.within_theorem
    assert between.merit_rises > 0


def test_proximal_gradient_outside_the_theorem_goes_round(x64):
    A, y = Matrix(3 * jnp.eye(1)), jnp.ones(1)
    run = lambda step: reconstruct(A, y, Learned(Threshold()), PGD(step, max_steps=300), monitor=1)
    outside, inside = run(0.2), run(0.1)
    assert Ending(int(outside.result)) is Ending.cycling
    assert outside.merit_rises > 100
    assert inside.converged
    assert inside.within_theorem
    assert inside.merit_rises == 0


def test_a_divergence_is_no_convergence_and_keeps_the_best_iterate(x64):
    A, y = Matrix(jnp.eye(2)), jnp.array([0.4, 0.7])
    turn = 1.02 * jnp.array([[np.cos(2.5), -np.sin(2.5)], [np.sin(2.5), np.cos(2.5)]])
    spiral = Learned(Turn(turn))  # a denoiser that is no gradient of anything
    outside = reconstruct(A, y, spiral, ADMM(0.3, max_steps=200))
    assert Ending(int(outside.result)) is Ending.diverged
    assert jnp.abs(outside.value).max() < 1
    assert outside.history.primal[-1] > 0.5
    assert reconstruct(A, y, spiral, ADMM(3.0, max_steps=200)).converged


def test_what_is_not_finite_is_never_returned(x64):
    A, y = Matrix(jnp.eye(2)), jnp.array([0.4, 0.7])
    broken = reconstruct(A, y, Learned(Turn(jnp.full((2, 2), jnp.nan))), PGD(0.5, max_steps=20))
    assert Ending(int(broken.result)) is Ending.nonfinite
    assert broken.num_steps == 1
    assert jnp.isfinite(broken.value).all()


class Turn(eqx.Module):
    matrix: jax.Array

    def __call__(self, u):
        return (self.matrix @ u[0])[None]


def test_new_numbers_do_not_compile_again(x64):
    traces = []

    class Counted(eqx.Module):
        entries: jax.Array

        def __call__(self, x):
            traces.append(1)
            return self.entries @ x[0]

        def adjoint(self, y):
            return (self.entries.T @ y)[None]

    A, y = problem()
    counted = Counted(A.entries)
    reconstruct(counted, y, L1(0.1), PGD(0.2), scale=0.5, norm=2.0)
    first = len(traces)
    for weight, step, scale in ((0.2, 0.1, 0.5), (0.3, 0.05, 1.5), (jnp.asarray(0.1), jnp.asarray(0.2), 2)):
        reconstruct(Counted(A.entries + step), 2 * y, L1(weight), PGD(step), scale=scale, norm=3.0)
    assert len(traces) == first


@pytest.mark.parametrize("name", [pytest.param("ADMM", marks=pytest.mark.slow), "PGD", "FISTA", "PDHG"])
def test_gradients_through_a_reconstruction(x64, name):
    A, y = problem()
    other = {"ADMM": "rho"}.get(name, "step")
    inner = {"inner": solvers.CG(1e-13, max_steps=50)} if name == "ADMM" else {}

    @jax.jit
    def outcome(numbers):
        A, y, sharp, strength = numbers
        method = METHODS[name](**{other: strength}, max_steps=25, rtol=1e-14, **inner)
        return jnp.sum(jnp.sin(reconstruct(Matrix(A), y, Learned(Threshold(sharp)), method, norm=2.0).value))

    at = (A.entries, y, jnp.asarray(6.0), jnp.asarray(3.0 if name == "ADMM" else 0.2))
    slope = jax.jit(jax.grad(outcome))(at)
    random = np.random.default_rng(0)
    towards = jax.tree.map(lambda u: jnp.asarray(random.normal(size=u.shape)), at)
    shifted = lambda h: jax.tree.map(lambda u, d: u + h * d, at, towards)
    wanted = (outcome(shifted(1e-5)) - outcome(shifted(-1e-5))) / 2e-5
    found = sum(jnp.sum(g * d) for g, d in zip(slope, towards, strict=True))
    assert float(found) == pytest.approx(float(wanted), rel=1e-7)


def test_batches_are_the_single_runs(x64):
    A, y = problem()
    ys = jnp.stack([y, -2 * y, jnp.zeros_like(y)])
    one = lambda y: reconstruct(A, y, L1(0.1), FISTA(max_steps=200), norm=A.norm())
    batch = jax.vmap(one)(ys)
    for i in range(3):
        single = one(ys[i])
        assert jnp.allclose(batch.value[i], single.value, atol=1e-12)
        assert batch.num_steps[i] == single.num_steps
        assert batch.result[i] == single.result
    assert "3 of 3 converged" in batch.message


def test_a_map_from_outside_meets_a_compiled_function(x64):
    """Methods of modules are compared by the arrays of the module, which inside a compiled function have no truth."""
    A, y = 0.5 * maps.Identity((1, 6, 6)), jnp.sin(jnp.arange(36.0)).reshape(1, 6, 6)
    one = lambda weight, y: reconstruct(A, y, L2(weight), PGD(max_steps=3), norm=0.5).value
    found = jax.jit(lambda weight, y: jax.vmap(lambda y: one(weight, y))(y))(0.1, y[None])
    assert jnp.allclose(found[0], one(0.1, y))
