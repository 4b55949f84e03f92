"""Forms of a step in time: residual and truncated, against loops, eigenmodes and other people's transforms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.fft

import neuralops as no
from neuralops import losses
from neuralops.data import Normalized, Normalizer
from neuralops.nn import Linear

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
U = jnp.asarray(RNG.normal(size=(5, 6)), jnp.float32)  # a constant and two frames of two channels


def settling(rate):
    return optax.adam(optax.cosine_decay_schedule(rate, 80))


def zero(u):
    return 0 * u[-1:]


def test_the_last_frames_are_found_from_the_end():
    op = Linear(5, 2, key=KEY)
    np.testing.assert_allclose(no.Residual(op)(U), U[3:] + op(U), rtol=1e-6)
    np.testing.assert_allclose(no.Residual(op, order=1)(U), 2 * U[3:] - U[1:3] + op(U), rtol=1e-6)
    slow = no.Residual(op, order=1, contraction=0.5)(U)
    np.testing.assert_allclose(slow, U[3:] - U[1:3] / 2 + op(U), rtol=1e-6)


def test_of_several_frames_each_changes_from_its_own_extrapolation():
    op = Linear(5, 6, key=KEY)
    out = no.Residual(op, order=1, frame_channels=2)(U).reshape(3, 2, 6)
    change = op(U).reshape(3, 2, 6)
    for j in range(3):
        np.testing.assert_allclose(out[j], U[3:] + (j + 1) * (U[3:] - U[1:3]) + change[j], rtol=1e-5, atol=1e-6)
    still = no.Residual(op, frame_channels=2)(U).reshape(3, 2, 6)
    np.testing.assert_allclose(still, U[3:] + change, rtol=1e-6)


def test_a_residual_of_order_one_is_leapfrog_in_a_medium(x64):
    """The step of u_tt = c^2 u_xx from two frames, the medium carried along: a discrete eigenmode for 2000 steps."""
    n, h, dt = 24, 1 / 24, 0.03
    laplacian = lambda u: (jnp.roll(u, 1, -1) - 2 * u + jnp.roll(u, -1, -1)) / h**2
    step = no.Residual(lambda u: dt**2 * u[:1] ** 2 * laplacian(u[-1:]), order=1)
    mode = np.sin(2 * np.pi * np.arange(n) / n)
    medium = np.ones(n)
    turn = 2 * np.arcsin(dt / h * np.sin(np.pi / n))  # of the phase in a step, by the discrete dispersion
    start = jnp.asarray(np.stack([medium, mode, np.cos(turn) * mode]))
    frames = no.rollout(step, start, 2000, constants=1)
    exact = np.cos(turn * np.arange(2, 2002))[:, None, None] * mode
    np.testing.assert_allclose(frames, exact, atol=1e-10)
    # In a medium that varies, beside a loop.
    medium = 0.6 + 0.3 * np.cos(2 * np.pi * np.arange(n) / n)
    frames = no.rollout(step, jnp.asarray(np.stack([medium, mode, mode])), 50, constants=1)
    before, now = mode, mode
    for frame in frames:
        new = 2 * now - before + dt**2 * medium**2 * np.asarray(laplacian(jnp.asarray(now)))
        before, now = now, new
        np.testing.assert_allclose(frame[0], new, atol=1e-12)


@pytest.mark.parametrize("c", [0.99, 0.5])
def test_a_contraction_damps_by_its_factor_or_the_root_of_it(c, x64):
    start = jnp.asarray(RNG.normal(size=(2, 3)))
    first = no.rollout(no.Residual(zero, contraction=c), start, 10)
    np.testing.assert_allclose(first[:, 0], c ** np.arange(1, 11)[:, None] * start[1], rtol=1e-12)
    second = np.asarray(no.rollout(no.Residual(zero, order=1, contraction=c), start, 200))[:, 0]
    # A recurrence with the roots sqrt(c) exp(+-i angle), fitted to the two frames of the start.
    roots = np.roots([1, -2 * c, c])
    np.testing.assert_allclose(np.abs(roots), np.sqrt(c))
    weights = np.linalg.solve(np.vander(roots, 2, increasing=True).T, np.asarray(start))
    exact = np.real(np.einsum("tr,rx->tx", roots ** np.arange(2, 202)[:, None], weights))
    np.testing.assert_allclose(second, exact, atol=1e-12)


@pytest.mark.parametrize(("factor", "found"), [(0.8, 0.8), (1.1, 1.0)], ids=["decay", "growth"])
def test_a_contraction_is_learned_and_stays_one(factor, found):
    """Frames that decay tell their factor; of frames that grow no contraction can, and one is the nearest."""
    start = RNG.normal(size=(8, 1, 1, 6)).astype(np.float32)
    frames = start * np.float32(factor) ** np.arange(4, dtype=np.float32)[:, None, None]
    pairs = no.data.windows(frames, horizon=3)
    op = no.Residual(zero, contraction=0.95)
    op, _ = no.fit(op, pairs, objective=losses.rollout(3, losses.mse), optimizer=settling(0.03), num_epochs=80,
                   batch_size=8, key=KEY, progress=False)  # fmt: skip
    assert float(op.contraction) == pytest.approx(found, abs=1e-3)
    assert float(op.contraction) <= 1


class Positive(no.AbstractOperator):
    """A factor that may not be negative."""

    factor: jax.Array

    @property
    def envelope(self):
        return no.operator.Envelope((1,), ("periodic",), "exact")

    def project(self):
        return Positive(jnp.maximum(self.factor, 0))

    def __call__(self, u, /, *, key=None):
        return self.factor * u


def test_both_projections_are_done():
    op = no.Residual(Positive(jnp.float32(-1)), contraction=1.0)
    op = eqx.tree_at(lambda op: op.contraction, op, jnp.float32(1.5))
    for wrapped, inner in ((op, lambda op: op), (no.Truncated(no.Rollout(op, 2), 3), lambda op: op.op.op)):
        projected = inner(wrapped.project())
        assert projected.contraction == 1
        assert projected.op.factor == 0
    assert not hasattr(no.Residual(Linear(1, 1, key=KEY)), "project")
    assert no.Residual(Positive(jnp.float32(-1))).project().op.factor == 0


def test_a_trained_contraction_is_saved(tmp_path):
    op = no.Residual(Linear(2, 1, key=KEY), contraction=0.9)
    op = eqx.tree_at(lambda op: op.contraction, op, jnp.float32(0.75))
    no.save(tmp_path / "op", no.Rollout(no.Truncated(op, 3), 2, constants=1))
    again = no.load(tmp_path / "op")
    assert (again.op.op.contraction, again.constants, again.op.n_modes) == (0.75, 1, (3,))


def test_changes_have_a_scale_of_their_own():
    states, changes = Normalizer((1.0, 1.0), (2.0, 2.0), 1), Normalizer((0.0,), (0.1,), 1)
    op = Linear(2, 1, key=KEY)
    u = U[:2]
    new = no.Residual(Normalized(op, states, changes))(u)
    np.testing.assert_allclose(new, u[1:] + 0.1 * op((u - 1) / 2), rtol=1e-5)


def same(u):
    return u


@pytest.mark.parametrize(("n", "m"), itertools.product((11, 12), (1, 4, 5)))
def test_truncation_is_that_of_an_fft(n, m, x64):
    u = RNG.normal(size=(2, n, n + 1))
    spectrum = np.fft.rfft2(u)
    low = (np.abs(np.fft.fftfreq(n, 1 / n))[:, None] <= m // 2) & (np.arange(n // 2 + 1 + n % 2) <= 2)
    wanted = np.fft.irfft2(np.where(low[:, : spectrum.shape[-1]], spectrum, 0), s=u.shape[1:])
    np.testing.assert_allclose(no.Truncated(same, (m, 4))(jnp.asarray(u)), wanted, atol=1e-12)


def test_truncation_between_walls_is_that_of_scipy(x64):
    u = RNG.normal(size=(1, 9, 10))
    cut = lambda x, axis, m: np.where(np.arange(x.shape[axis]).reshape(-1, *(1,) * (2 - axis)) < m, x, 0)
    for boundary, centering, there, back, kind in (
        ("dirichlet", "node", scipy.fft.dst, scipy.fft.idst, 1),
        ("neumann", "node", scipy.fft.dct, scipy.fft.idct, 1),
        ("dirichlet", "cell", scipy.fft.dst, scipy.fft.idst, 2),
        ("neumann", "cell", scipy.fft.dct, scipy.fft.idct, 2),
    ):
        wanted = u
        for axis, m in ((1, 4), (2, 3)):
            wanted = back(cut(there(wanted, kind, axis=axis), axis, m), kind, axis=axis)
        op = no.Truncated(same, (4, 3), boundary=boundary, centering=centering)
        np.testing.assert_allclose(op(jnp.asarray(u)), wanted, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", ("neumann", "dirichlet")])
@pytest.mark.parametrize("centering", ["node", "cell"])
def test_truncation_is_an_orthogonal_projection(boundary, centering, x64):
    op = no.Truncated(same, 4, boundary=(boundary,), centering=centering)
    weights = no.Grid(12, boundary=(boundary,), centering=centering).weights()
    u, v = jnp.asarray(RNG.normal(size=(2, 1, 12)))
    np.testing.assert_allclose(op(op(u)), op(u), atol=1e-13)
    assert float(jnp.sum(weights * op(u) * v)) == pytest.approx(float(jnp.sum(weights * u * op(v))), abs=1e-13)
    matrix = jax.jacobian(op)(u).reshape(12, 12)
    assert np.linalg.matrix_rank(matrix) == (5 if boundary == "periodic" else 4)
    for n in (3, 4):
        small = jnp.asarray(RNG.normal(size=(1, n)))
        np.testing.assert_allclose(op(small), small, atol=1e-13)  # a grid without more modes keeps all


def test_no_frame_of_a_truncated_rollout_has_more_modes():
    """An operator that makes waves at the scale of the grid grow: truncated, they never come back to it."""

    def rough(u):
        return u + 1.5 * (u - (jnp.roll(u, 1, -1) + 2 * u + jnp.roll(u, -1, -1)) / 4)

    wave = jnp.sin(2 * jnp.pi * jnp.arange(32) / 32)[None]
    start = wave + 1e-3 * jnp.asarray(RNG.normal(size=(1, 32)), jnp.float32)
    free = no.rollout(rough, start, 30)
    bound = no.rollout(no.Truncated(rough, 4), start, 30)
    high = np.abs(np.fft.rfft(bound, norm="forward"))[..., 3:]
    assert high.max() < 1e-6 * np.abs(bound).max()
    assert np.abs(free).max() > 1e6 > 10 > np.abs(bound).max()


def test_forms_train_together_in_a_medium():
    """c u_x in a medium of one speed per sample: the factor of the change is found through truncated rollouts."""
    speeds = np.random.default_rng(1).uniform(0.2, 0.8, size=(6, 1)).astype(np.float32)
    x = 2 * np.pi * np.arange(12) / 12
    times = np.arange(5, dtype=np.float32)[:, None]
    frames = np.sin(x - 0.2 * speeds[:, None] * times).astype(np.float32)[:, :, None]
    data = no.data.Samples(frames, extras={"speed": np.broadcast_to(speeds, (6, 12))})
    pairs = no.data.windows(data, horizon=4, constants="speed")

    class Advection(no.AbstractOperator):
        factor: jax.Array

        @property
        def envelope(self):
            return no.operator.Envelope((1,), ("periodic",), "spacing-locked")

        def __call__(self, u, /, *, key=None):
            return self.factor * u[:1] * (jnp.roll(u[1:], 1, -1) - jnp.roll(u[1:], -1, -1))

    op = no.Truncated(no.Residual(Advection(jnp.float32(0.1)), contraction=1.0), 4)
    objective = losses.rollout(4, losses.mse, constants=pairs.constants)
    op, _ = no.fit(op, pairs, objective=objective, optimizer=settling(0.03), num_epochs=80, batch_size=6, key=KEY,
                   progress=False)  # fmt: skip
    assert float(op.op.op.factor) == pytest.approx(0.2 / (2 * np.sin(2 * np.pi / 12)), rel=0.02)
    steps = {"steps": no.metrics.per_step(no.metrics.relative_l2, 4)}
    errors = no.evaluate(no.Rollout(op, 4, constants=1), pairs, metrics=steps)["steps"]
    assert errors.shape == (6, 4)
    assert errors.max() < 0.05
