"""Gauss-Newton reconstruction against the linear one and against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from neuralops.inverse import ADMM, L2, Learned, reconstruct_nonlinear

random = np.random.default_rng(0)
M, B = random.normal(size=(6, 5)) / 2, random.normal(size=6)


def bent(x):
    return jnp.exp(0.5 * jnp.asarray(M) @ x[0]) + jnp.asarray(M) @ x[0]


METHOD = {"rtol": 1e-11, "max_steps": 500}


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_a_linear_map_needs_one_step(x64, dense):
    method = ADMM(1.0, **METHOD)
    wanted = jnp.linalg.solve(M.T @ M + 0.3 * jnp.eye(5), M.T @ B)
    linear = lambda x: jnp.asarray(M) @ x[0]
    found = reconstruct_nonlinear(linear, B, L2(0.3), method, x0=jnp.ones((1, 5)), rtol=1e-8, dense=dense)
    assert found.converged
    assert found.num_steps == 2
    assert jnp.abs(found.value[0] - wanted).max() < 1e-8


@pytest.mark.slow
def test_a_bent_map_has_the_solution_of_scipy_and_the_objective_never_rises(x64):
    run = lambda y: reconstruct_nonlinear(
        bent, y, L2(0.3), ADMM(1.0, **METHOD), x0=3 * jnp.ones((1, 5)), max_steps=40, rtol=1e-9
    )
    found = jax.jit(jax.vmap(run))(jnp.stack([jnp.asarray(B), jnp.asarray(B) + 1]))
    for i, y in enumerate((B, B + 1)):
        f = lambda x, y=y: np.concatenate([np.exp(0.5 * M @ x) + M @ x - y, np.sqrt(0.3) * x])
        wanted = scipy.optimize.least_squares(f, np.zeros(5), xtol=1e-14, ftol=1e-14, gtol=1e-14)
        assert np.abs(found.value[i, 0] - wanted.x).max() < 1e-6
        assert float(found.objective[i, -1]) == pytest.approx(wanted.cost, rel=1e-9)
    assert found.converged.all()
    assert (np.diff(found.objective) <= 1e-10).all()
    assert found.misfit[0, 0] > 2 * found.misfit[0, -1]


def test_bad_arguments_are_refused():
    x0, y, good = jnp.ones((1, 5)), jnp.asarray(B, jnp.float32), ADMM(1.0)
    ridge = L2(0.3)
    run = lambda forward=bent, y=y, r=ridge, m=good, **o: reconstruct_nonlinear(forward, y, r, m, **{"x0": x0, **o})
    with pytest.raises(ValueError, match="forward: expected"):
        run(forward=1.0)
    with pytest.raises(ValueError, match="regularizer: expected"):
        run(r=0.1)
    with pytest.raises(ValueError, match="method: expected"):
        run(m=ADMM)
    with pytest.raises(ValueError, match="y: expected shape"):
        run(y=y[:3])
    with pytest.raises(ValueError, match="max_steps: expected"):
        run(max_steps=0)
    with pytest.raises(ValueError, match="line_search: expected False"):
        run(r=Learned(lambda x: x))
    with pytest.raises(ValueError, match="rho"):
        run(r=Learned(lambda x: x), m=ADMM(), line_search=False)
