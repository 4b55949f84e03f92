"""The deep conjugate direction method: what section 11 of its fact sheet demands of an implementation."""

import itertools

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import neuralops as no
from neuralops.grid import Grid
from neuralops.solvers import CG, DeepConjugateDirection, Diffusion, FastPoisson, Jacobi, Multigrid, Result, solve

GRID = Grid((16, 18), (1.0, 1.1), "dirichlet", "cell")
rng = np.random.default_rng(0)
A_FIELD = np.exp(0.5 * rng.normal(size=GRID.shape))
B_FIELD = rng.normal(size=GRID.shape)
NET = no.DirectionNet((1, 1, 1), 4, ndim=2, scaling="rms", key=jax.random.key(0))  # in float32, untrained


class Mixed(eqx.Module):
    """The residual, bent point by point by an untrained network, and a constant that leaks everywhere."""

    net: no.DirectionNet
    ndim: int = eqx.field(static=True, default=2)
    in_channels: int = eqx.field(static=True, default=1)

    def __call__(self, r):
        return r * (1 + 0.5 * jnp.tanh(self.net(r))) + 0.005


MIXED = Mixed(NET)
diffusion = jax.jit(Diffusion.from_coefficient, static_argnums=0)  # one program, not one for each operation


def spd(n, seed, condition=100.0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return q @ np.diag(np.geomspace(1, condition, n)) @ q.T


def iterates(A, b, method, count):
    """The iterates after 0, 1, ... steps, by the method's own limit."""
    run = jax.jit(lambda k: solve(A, b, method(max_steps=k)).value)
    return [np.asarray(run(k)) for k in range(count + 1)]


def textbook(matrix, b, propose, memory, count):
    """Section 2 of the sheet, line by line, in NumPy."""
    x, slots, out = np.zeros_like(b), [], []
    for _ in range(count):
        r = b - matrix @ x
        q = propose(r / np.linalg.norm(r))
        d = q - sum([p * (q @ w) / a for p, w, a in slots])
        w = matrix @ d
        slots = [*slots, (d, w, d @ w)][-memory:] if memory else []
        x = x + d * (d @ r) / (d @ w)
        out.append((x, d))
    return out


@pytest.fixture
def case(x64):
    return diffusion(GRID, A_FIELD), jnp.asarray(B_FIELD)


@pytest.mark.parametrize("memory", [1, 2, 60])
def test_identity_is_cg(x64, memory):
    """The case measured in the sheet: 115 steps to 1e-10, and the first iterates equal to rounding."""
    A, b = Diffusion(Grid((32, 32), boundary="dirichlet")), np.random.default_rng(0).normal(size=(32, 32))
    ours = iterates(A, b, lambda **k: DeepConjugateDirection(lambda r: r, 0.0, memory=memory, **k), 20)
    theirs = iterates(A, b, lambda **k: CG(0.0, **k), 20)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u, v, rtol=0, atol=1e-12 * max(np.abs(v).max(), 1e-300))
    counts = [int(solve(A, b, m).num_steps) for m in (DeepConjugateDirection(lambda r: r, 1e-10, memory=memory),
                                                      CG(1e-10))]  # fmt: skip
    assert counts[0] == counts[1] == 115


def test_without_memory_it_is_steepest_descent(case):
    A, b = case
    x, identity = np.zeros(b.shape), lambda v: v
    for u in iterates(A, b, lambda **k: DeepConjugateDirection(identity, 0.0, memory=0, **k), 5)[1:]:
        r = b - A(jnp.asarray(x))
        x = x + r * jnp.vdot(r, r) / jnp.vdot(r, A(r))
        np.testing.assert_allclose(u, x, rtol=0, atol=1e-13 * np.abs(x).max())


@pytest.mark.parametrize("factor", [1.0, -3.7, 1e-200, 1e200])
def test_any_multiple_of_the_inverse_takes_one_step(x64, factor):
    matrix = spd(40, 1)
    inverse = np.linalg.inv(matrix)
    s = solve(matrix, np.random.default_rng(2).normal(size=40), DeepConjugateDirection(lambda r: factor * inverse @ r))
    assert int(s.num_steps) == 1
    assert int(s.num_rejected) == 0
    assert float(s.residual_norm) < 1e-12


@pytest.mark.parametrize("memory", [1, 3])
def test_fixed_symmetric_map_is_preconditioned_cg(case, memory):
    A, b = case
    for M in jax.jit(lambda A: (Jacobi(A), Multigrid(A)))(A):
        count = 15 if isinstance(M, Jacobi) else 4
        ours = iterates(A, b, lambda M=M, **k: DeepConjugateDirection(M, 0.0, memory=memory, **k), count)
        theirs = iterates(A, b, lambda M=M, **k: CG(0.0, preconditioner=M, **k), count)
        for u, v in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(u, v, rtol=0, atol=1e-11 * max(np.abs(v).max(), 1e-300))


def hashed(r, n):
    """A deterministic map without structure: other directions at every residual."""
    return jnp.sin(1e5 * jnp.cumsum(r) + jnp.arange(n)) + 0.1 * jnp.roll(r, 1)


def test_full_memory_ends_after_n_steps(x64):
    n = 20
    matrix, b = spd(n, 3), np.random.default_rng(4).normal(size=n)
    s = solve(matrix, b, DeepConjugateDirection(lambda r: hashed(r, n), 1e-10, memory=n))
    assert bool(s.converged)
    assert int(s.num_steps) <= n
    points = iterates(matrix, b, lambda **k: DeepConjugateDirection(lambda r: hashed(r, n), 0.0, memory=n, **k), n)
    directions = np.stack([v - u for u, v in itertools.pairwise(points)])
    directions /= np.sqrt(np.einsum("ki,ij,kj->k", directions, matrix, directions))[:, None]
    gram = directions @ matrix @ directions.T
    assert np.abs(gram - np.eye(n)).max() < 1e-8  # directions are differences of iterates here


def test_two_directions_and_no_more(x64):
    n, count = 20, 8
    matrix, b = spd(n, 5), np.random.default_rng(6).normal(size=n)
    network = random_network(11, n)
    method = lambda **k: DeepConjugateDirection(network, 0.0, memory=2, **k)
    points = iterates(matrix, b, method, count)
    reference = textbook(matrix, b, lambda r: np.asarray(network(jnp.asarray(r))), 2, count)
    for u, (v, _) in zip(points[1:], reference, strict=True):
        np.testing.assert_allclose(u, v, rtol=0, atol=1e-9 * np.abs(v).max())
    d = [v - u for u, v in itertools.pairwise(points)]
    d = [v / np.sqrt(v @ matrix @ v) for v in d]
    product = lambda gap: max(abs(d[k] @ matrix @ d[k - gap]) for k in range(gap, count))
    assert product(1) < 1e-10
    assert product(2) < 1e-10
    assert product(3) > 1e-3


def random_network(seed, n):
    """Two layers with random weights, of random strength."""
    g = np.random.default_rng(seed)
    one, two = g.normal(size=(n, n)), g.normal(size=(n, n)) * 10.0 ** g.uniform(-6, 6)
    return lambda r: two @ jnp.tanh(3 * one @ r)


def energies(matrix, b, points):
    exact = np.linalg.solve(matrix, b)
    return [float((x - exact) @ matrix @ (x - exact)) for x in points]


@pytest.fixture(scope="module")
def walk():
    """Iterates 0 to 8 for given arrays, compiled once."""
    n, count = 12, 8

    def one(matrix, b, w1, w2, broken):
        def network(r):
            # `broken` residuals in three give NaN: which, only the residual itself can tell a pure function.
            answer = w2 @ jnp.tanh(3 * w1 @ r)
            third = jnp.mod(jnp.floor(1e6 * jnp.abs(r[0])), 3) == 0
            return jnp.where(broken & third, jnp.nan, answer)

        limits = jnp.arange(count + 1)
        run = lambda k: solve(lambda v: matrix @ v, b, DeepConjugateDirection(network, 0.0, max_steps=k))
        s = jax.vmap(run)(limits)
        return s.value, s.num_rejected

    return n, jax.jit(jax.vmap(one))


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), broken=st.booleans())
def test_the_energy_error_never_grows(walk, seed, broken):
    """A thousand random networks on random systems in all, half of them with NaN at about every third call."""
    n, run = walk
    size = 250
    with jax.enable_x64(True):
        g = np.random.default_rng(seed)
        matrices = np.stack([spd(n, int(s), 10.0 ** g.uniform(0, 4)) for s in g.integers(0, 2**31, size)])
        b, w1, w2 = g.normal(size=(size, n)), g.normal(size=(size, n, n)), g.normal(size=(size, n, n))
        w2 *= 10.0 ** g.uniform(-6, 6, size=(size, 1, 1))
        values, rejected = run(matrices, b, w1, w2, np.full(size, broken))
    assert (int(np.sum(rejected)) > 0) == broken
    assert np.isfinite(values).all()
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    error = np.asarray(values) - exact[:, None]
    energy = np.einsum("ski,sij,skj->sk", error, matrices, error)
    assert (energy[:, 1:] <= energy[:, :-1] * (1 + 1e-10) + 1e-22 * energy[:, :1]).all()
    assert (energy[:, -1] < energy[:, 0]).all()


def test_the_energy_falls_by_what_the_step_gains(x64):
    """||e||_A^2 - ||e'||_A^2 = (r.d)^2 / (d.A d)."""
    n = 15
    matrix, b = spd(n, 7), np.random.default_rng(8).normal(size=n)
    network = random_network(9, n)
    points = iterates(matrix, b, lambda **k: DeepConjugateDirection(network, 0.0, **k), 8)
    e = energies(matrix, b, points)
    for k, (x, y) in enumerate(itertools.pairwise(points)):
        d, r = y - x, b - matrix @ x
        np.testing.assert_allclose(e[k] - e[k + 1], (r @ d) ** 2 / (d @ matrix @ d), rtol=1e-9, atol=1e-12 * e[0])


def test_neither_size_nor_sign_of_the_answer_matters(case):
    A, b = case
    six = lambda network: iterates(A, b, lambda **k: DeepConjugateDirection(network, 0.0, **k), 6)
    plain = six(MIXED)
    for scale in (lambda r: 1e-30, lambda r: -1e25 * (1 + jnp.abs(r[0, 0]))):
        scaled = lambda r, scale=scale: scale(r) * MIXED(r[None].astype(jnp.float32))[0].astype(r.dtype)
        for u, v in zip(plain, six(scaled), strict=True):
            np.testing.assert_allclose(u, v, rtol=0, atol=1e-5 * max(np.abs(u).max(), 1e-300))
    base = solve(A, b, DeepConjugateDirection(FastPoisson(GRID), 1e-8))
    for power in (-12, 9):
        s = solve(A, 10.0**power * b, DeepConjugateDirection(FastPoisson(GRID), 1e-8))
        assert int(s.num_steps) == int(base.num_steps)
        np.testing.assert_allclose(s.value / 10.0**power, base.value, rtol=0, atol=1e-9 * np.abs(base.value).max())


def test_the_network_sees_a_unit_residual(case):
    A, b = case
    linear = lambda r: r * jnp.sum(r * r)  # for a unit residual the identity
    cubic = solve(A, b, DeepConjugateDirection(linear, 1e-6))
    assert int(cubic.num_steps) == int(solve(A, b, DeepConjugateDirection(lambda r: r, 1e-6)).num_steps)
    seen = lambda r: jnp.where(jnp.abs(jnp.sum(r * r) - 1) < 1e-12, r, jnp.nan)
    assert int(solve(A, b, DeepConjugateDirection(seen, 1e-6)).num_rejected) == 0
    raw = solve(A, b, DeepConjugateDirection(seen, 1e-6, normalize=False))
    assert int(raw.num_rejected) == int(raw.num_steps)


def test_useless_answers_give_way_to_the_residual(case):
    A, b = case
    plain = solve(A, b, CG(1e-8))
    for answer in (lambda r: jnp.full_like(r, jnp.nan), jnp.zeros_like, lambda r: jnp.full_like(r, jnp.inf)):
        s = solve(A, b, DeepConjugateDirection(answer, 1e-8))
        assert bool(s.converged)
        assert int(s.num_rejected) == int(s.num_steps)
        assert abs(int(s.num_steps) - int(plain.num_steps)) <= 1


def test_an_indefinite_operator_is_a_breakdown(x64):
    matrix = np.diag([1.0, -1.0, -2.0])
    s = solve(matrix, np.array([0.1, 1.0, 1.0]), DeepConjugateDirection(lambda r: r))
    assert int(s.result) == Result.breakdown


@pytest.mark.parametrize("every", [0, 3])
def test_updated_residuals_change_nothing_but_rounding(case, every):
    A, b = case
    M = FastPoisson(GRID)
    often, seldom = (solve(A, b, DeepConjugateDirection(M, 1e-9, true_residual_every=k)) for k in (1, every))
    assert abs(int(often.num_steps) - int(seldom.num_steps)) <= 1
    np.testing.assert_allclose(often.value, seldom.value, rtol=0, atol=1e-7 * np.abs(often.value).max())


def obstacles(n=24):
    """A box with two solid blocks, one of which cuts a chamber off."""
    mask = np.ones((n, n), bool)
    mask[5:9, 10:14] = False
    mask[14:20, 3:9] = False
    mask[16:18, 5:7] = True  # a chamber
    return mask


def test_masks_and_null_spaces(x64):
    """Walls all round, solid cells and a chamber: solid cells stay zero, each part is right up to a constant."""
    mask, grid = obstacles(), Grid((24, 24), 1.0, "neumann", "cell")
    A = diffusion(grid, np.ones((24, 24)), mask=mask)
    b = jax.jit(Diffusion.to_range)(A, np.where(mask, np.random.default_rng(3).normal(size=(24, 24)), 0))
    s = solve(A, b, DeepConjugateDirection(MIXED, 1e-8))
    assert bool(s.converged)
    assert (np.asarray(s.value)[~mask] == 0).all()
    inside = mask.ravel()
    exact = np.zeros(mask.size)
    matrix = np.asarray(jax.jit(Diffusion.as_matrix)(A))[np.ix_(inside, inside)]
    exact[inside] = np.linalg.lstsq(matrix, np.asarray(b).ravel()[inside], rcond=None)[0]
    np.testing.assert_allclose(s.value, exact.reshape(mask.shape), atol=1e-6 * np.abs(exact).max())


def test_jit_vmap_and_gradients(case):
    A, b = case
    method = DeepConjugateDirection(FastPoisson(GRID), 1e-11, memory=2)
    batch = jnp.stack([b, jnp.zeros_like(b), jnp.ones_like(b)])
    s = jax.jit(jax.vmap(lambda b: solve(A, b, method)))(batch)
    alone = [solve(A, v, method) for v in batch]
    assert [int(k) for k in s.num_steps] == [int(one.num_steps) for one in alone]
    assert int(s.num_steps[1]) == 0
    assert (np.asarray(s.value[1]) == 0).all()

    weight = jnp.asarray(np.random.default_rng(5).normal(size=b.shape))

    def functional(a, b, invert):
        A = Diffusion.from_coefficient(GRID, a)
        return jnp.sum(weight * invert(A, b))

    gradient = jax.jit(jax.grad(functional, (0, 1)), static_argnums=2)
    ours = gradient(jnp.asarray(A_FIELD), b, lambda A, b: solve(A, b, method).value)
    dense = lambda A, b: jnp.linalg.solve(A.as_matrix(), b.ravel()).reshape(b.shape)
    theirs = gradient(jnp.asarray(A_FIELD), b, dense)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u, v, rtol=0, atol=1e-6 * np.abs(v).max())


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
def test_a_narrow_network_in_a_wide_iteration(case, dtype):
    """What the network computes in decides on the number of steps only, not on the accuracy of the answer."""
    A, b = case
    assert NET.bias.dtype == jnp.float32
    seen = []

    def spy(r):
        seen.append(r.dtype)
        return r

    s = solve(A, b[None], DeepConjugateDirection(MIXED, 1e-10, network_dtype=dtype))
    assert bool(s.converged)
    assert s.value.dtype == jnp.float64
    solve(A, b[None], DeepConjugateDirection(spy, 1e-1, network_dtype=dtype))
    assert set(seen) == {jnp.dtype(dtype or jnp.float64)}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"network": 3}, "network"),
        ({"network": no.DirectionNet}, "network"),
        ({"memory": -1}, "memory"),
        ({"memory": 1.5}, "memory"),
        ({"true_residual_every": -1}, "true_residual_every"),
        ({"network_dtype": "float16"}, "network_dtype"),
        ({"rtol": -1.0}, "rtol"),
        ({"dot": "double"}, "dot"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ValueError, match=rf"^{word}"):
        DeepConjugateDirection(**{"network": lambda r: r, **arguments})


def test_an_answer_of_another_shape_is_refused(case):
    A, b = case
    with pytest.raises(ValueError, match="network: expected"):
        solve(A, b, DeepConjugateDirection(lambda r: r[1:]))
