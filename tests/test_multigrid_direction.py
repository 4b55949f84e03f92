"""The learned cycle: at zero the classical one; symmetric positive definite whatever the network; it can learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops.grid import Grid
from neuralops.models import MultigridDirection
from neuralops.solvers import CG, Diffusion, FlexibleCG, Multigrid, solve
from neuralops.solvers.direction_losses import angle_loss
from neuralops.solvers.energy_decay import energy_decay
from neuralops.solvers.learned_levels import features
from neuralops.solvers.multigrid import _generalised_inverse, _lines

WALLS = (("dirichlet", "neumann"), "periodic")
GRIDS = [
    (Grid((20, 18), boundary="dirichlet", centering="cell"), "nodes"),
    (Grid((21, 18), boundary=WALLS, centering="cell"), "nodes"),
    (Grid((19, 23), boundary="neumann"), "nodes"),
    (Grid((18, 20), boundary=("periodic", "dirichlet")), "nodes"),
    (Grid((21, 18), boundary=WALLS, centering="cell"), "cells"),
    (Grid((100,), boundary="dirichlet"), "nodes"),
    (Grid((9, 8, 7), boundary=("neumann", "dirichlet", "periodic")), "nodes"),
    (Grid((15, 17), boundary="periodic"), "nodes"),  # points of one colour become neighbours
    (Grid((15, 17), boundary="periodic", centering="cell"), "cells"),
]
IDS = [f"{g.shape}-{g.boundary}-{c}" for g, c in GRIDS]


def network(grid, size=0.0, seed=0, hidden=8, **options):
    """A network for a cycle on the grid; its last layer is random of some size."""
    channels = Multigrid.learned_channels(grid.ndim, **options)
    words = tuple("periodic" if word == "periodic" else "dirichlet" for word in grid.boundary)
    net = MultigridDirection(*channels, hidden, ndim=grid.ndim, boundary=words, key=jax.random.key(seed))
    noise = lambda p, k: size * jax.random.normal(jax.random.key(seed + k), p.shape, p.dtype)
    last = [noise(net.last.weight, 1), noise(net.last.bias, 2)]
    return net_with(net, last)


def net_with(net, last):
    import equinox as eqx

    return eqx.tree_at(lambda n: (n.last.weight, n.last.bias), net, tuple(last))


def coefficient(shape, seed=0, sigma=2.0):
    return jnp.asarray(np.exp(sigma * np.random.default_rng(seed).normal(size=shape)))


def operators(grid):
    """Constant, variable and masked."""
    mask = np.random.default_rng(5).uniform(size=grid.shape) > 0.2
    a = coefficient(grid.shape)
    return {
        "constant": Diffusion(grid),
        "variable": Diffusion.from_coefficient(grid, a),
        "masked": Diffusion.from_coefficient(grid, a, mask=jnp.asarray(mask)),
    }


def as_matrix(M, grid):
    n = int(np.prod(grid.shape))
    return np.asarray(jax.jit(M)(jnp.eye(n).reshape(n, *grid.shape))).reshape(n, n).T


def noise(A, seed=1):
    return A.to_range(jnp.asarray(np.random.default_rng(seed).normal(size=A.grid.shape)))


@pytest.mark.parametrize(("grid", "coarsening"), GRIDS, ids=IDS)
@pytest.mark.parametrize("kind", ["constant", "variable", "masked"])
def test_it_starts_at_the_classical_cycle(x64, grid, coarsening, kind):
    A = operators(grid)[kind]
    for sweeps, symmetric in ((1, True), (2, True), (2, False)):
        options = dict(pre=sweeps, post=sweeps, symmetric=symmetric, coarsening=coarsening)
        net = network(grid, **options)
        r = noise(A)
        expected = jax.jit(lambda r: Multigrid(A, **options)(r))(r)
        found = jax.jit(lambda net, r: Multigrid(A, learned=net, **options)(r))(net, r)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * float(jnp.abs(expected).max()))
        other = jax.jit(lambda net, r: Multigrid(A, learned=net, **options)(r))(network(grid, 0.3, **options), r)
        assert float(jnp.linalg.norm(other - expected)) > 1e-3 * float(jnp.linalg.norm(expected))


@pytest.mark.parametrize(("grid", "coarsening"), GRIDS, ids=IDS)
@pytest.mark.parametrize(("size", "sweeps"), [(0.3, 1), (3.0, 2)])
def test_symmetric_positive_definite_whatever_the_network(x64, grid, coarsening, size, sweeps):
    A = operators(grid)["variable"]
    options = dict(pre=sweeps, post=sweeps, coarsening=coarsening)
    B = as_matrix(Multigrid(A, learned=network(grid, size, **options), **options), grid)
    np.testing.assert_allclose(B, B.T, rtol=0, atol=1e-9 * np.abs(B).max())
    matrix = np.asarray(A.as_matrix())
    values, vectors = np.linalg.eigh(matrix)
    root = vectors[:, values > 1e-9 * values[-1]] * np.sqrt(values[values > 1e-9 * values[-1]])
    assert np.linalg.eigvalsh(root.T @ B @ root)[0] > 1e-4  # all of the spectrum of B A on the range


def test_positive_on_a_masked_grid(x64):
    grid = Grid((40, 36), boundary="neumann", centering="cell")
    A = operators(grid)["masked"]
    M = jax.jit(lambda net: Multigrid(A, coarsening="nodes", learned=net))(network(grid, 1.0))
    for seed in range(5):
        u, v = noise(A, seed), noise(A, seed + 100)
        Mu, Mv = M(u), M(v)
        assert float(jnp.vdot(u, Mu)) > 0
        assert abs(float(jnp.vdot(u, Mv) - jnp.vdot(v, Mu))) < 1e-10 * float(jnp.linalg.norm(u) * jnp.linalg.norm(Mv))


def test_solves_with_cg_and_the_free_one_with_flexible_cg(x64):
    grid = Grid((31, 26), boundary="dirichlet")
    A = operators(grid)["variable"]
    b = noise(A)
    expected = np.linalg.solve(A.as_matrix(), b.ravel()).reshape(b.shape)
    for symmetric, method in ((True, CG), (False, functools.partial(FlexibleCG, memory=2))):
        options = dict(pre=2, post=2, symmetric=symmetric, coarsening="nodes")
        del_coarsening = {k: v for k, v in options.items() if k != "coarsening"}
        net = network(grid, 0.1, **del_coarsening)
        M = Multigrid(A, learned=net, **options)
        s = jax.jit(solve)(A, b, method(1e-10, max_steps=100, preconditioner=M))
        assert bool(s.converged)
        np.testing.assert_allclose(s.value, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    free = as_matrix(M, grid)
    assert np.abs(free - free.T).max() > 1e-3 * np.abs(free).max()


def test_features_do_not_see_the_unit_of_the_coefficient(x64):
    grid = Grid((20, 18), boundary=WALLS, centering="cell")
    a = coefficient(grid.shape)
    one, other = (Multigrid(Diffusion.from_coefficient(grid, s * a)).levels[0] for s in (1.0, 1e4))
    np.testing.assert_allclose(features(one), features(other), rtol=0, atol=1e-6)
    net = network(grid, 0.3)
    r = noise(Diffusion(grid))
    small, large = (
        Multigrid(Diffusion.from_coefficient(grid, s * a), coarsening="nodes", learned=net)(r) for s in (1.0, 1e4)
    )
    np.testing.assert_allclose(small, 1e4 * large, rtol=1e-5, atol=1e-6 * float(jnp.abs(small).max()))


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_gradient_against_finite_differences(x64, boundary):
    grid = Grid((20, 17), boundary=boundary, centering="cell")
    A = operators(grid)["variable"]
    e = noise(A)
    net = jax.tree.map(lambda p: p.astype(jnp.float64), network(grid, 0.2, pre=2, post=2))
    loss = jax.jit(
        lambda net: energy_decay(A, Multigrid(A, coarsening="nodes", pre=2, post=2, learned=net), e, steps=3)
    )
    gradient = jax.jit(jax.grad(loss))(net)
    for seed in range(3):
        leaves, treedef = jax.tree.flatten(net)
        rng = np.random.default_rng(seed)
        way = jax.tree.unflatten(treedef, [jnp.asarray(rng.normal(size=p.shape)) for p in leaves])
        step = 1e-5
        ahead, behind = (loss(jax.tree.map(lambda p, d, s=s: p + s * d, net, way)) for s in (step, -step))
        slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, way)))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=2e-5)
    # the coefficient gets none
    by_a = jax.grad(lambda a: jnp.sum(Multigrid(Diffusion.from_coefficient(grid, a), learned=network(grid, 0.2, coarsening="cells"))(e)))(jnp.ones(grid.shape))  # fmt: skip
    assert float(jnp.abs(by_a).max()) == 0


def test_energy_decay_is_that_of_cg(x64):
    grid = Grid((12, 11), boundary="dirichlet")
    A = operators(grid)["variable"]
    matrix = np.asarray(A.as_matrix())
    M = Multigrid(A)
    b = noise(A)
    e = jnp.asarray(np.linalg.solve(matrix, b.ravel()).reshape(b.shape))
    np.testing.assert_allclose(energy_decay(A, M, e, steps=1, skip=0), jnp.log(angle_loss(A, e, M(b))), rtol=1e-8)
    energy = lambda k: float(
        jnp.vdot(d := e - solve(A, b, CG(0.0, atol=0.0, max_steps=k, preconditioner=M)).value, A(d))
    )
    expected = 0.5 * np.log(energy(4) / energy(1)) / 3
    np.testing.assert_allclose(energy_decay(A, M, e, steps=4, skip=1), expected, rtol=1e-6)


def test_built_anew_inside_jit_without_recompilation(x64):
    grid = Grid((40, 36), boundary="neumann", centering="cell")
    traces = []

    @jax.jit
    def run(net, mask, b):
        traces.append(1)
        A = Diffusion.from_coefficient(grid, jnp.ones(grid.shape), mask=mask)
        M = Multigrid(A, coarsening="nodes", learned=net)
        return solve(A, A.to_range(b), CG(1e-8, preconditioner=M, max_steps=100))

    rng = np.random.default_rng(3)
    b = jnp.asarray(rng.normal(size=grid.shape))
    masks = jnp.asarray(rng.uniform(size=(3, *grid.shape)) > 0.1)
    alone = [run(network(grid, 0.1, seed), mask, b) for seed, mask in enumerate(masks)]
    assert len(traces) == 1
    assert all(bool(s.converged) for s in alone)
    nets = jax.tree.map(lambda *p: jnp.stack(p), *[network(grid, 0.1, seed) for seed in range(3)])
    together = jax.jit(jax.vmap(run, (0, 0, None)))(nets, masks, b)
    for k, s in enumerate(alone):
        scale = float(jnp.abs(s.value).max())
        np.testing.assert_allclose(together.value[k], s.value, rtol=0, atol=1e-6 * scale)


def test_float32_cycle_in_a_float64_solve(x64):
    grid = Grid((31, 33), boundary="dirichlet", centering="cell")
    A = operators(grid)["variable"]
    steps = [
        int(solve(A, noise(A), CG(1e-8, preconditioner=Multigrid(A, coarsening="nodes", dtype=dtype, learned=network(grid, 0.1)))).num_steps)
        for dtype in ("float32", "float64")
    ]  # fmt: skip
    assert abs(steps[0] - steps[1]) <= 1


def test_anisotropic_levels_stay_classical(x64):
    """Semicoarsened levels first, learned ones after."""
    grid = Grid((64, 16), (1.0, 0.05), boundary="dirichlet", centering="cell")
    A = Diffusion.from_coefficient(grid, coefficient(grid.shape, sigma=1.0))
    M = Multigrid(A, coarsening="nodes", anisotropy=(1.0, 1.0), learned=network(grid, 0.1))
    assert None in M.corrections
    assert bool(solve(A, noise(A), CG(1e-8, preconditioner=M, max_steps=100)).converged)


def test_it_learns_a_family_and_more_than_by_chance():
    """On unseen coefficients of contrast 10^4 fewer steps than the classical cycle after some seconds of training."""
    grid = Grid((16, 16), boundary="dirichlet", centering="cell")
    fields = lambda key, count: jnp.exp(
        np.log(1e4) * jax.random.uniform(key, (count, *grid.shape))
    )

    def decay(net, a, key):
        A = Diffusion.from_coefficient(grid, a)
        M = Multigrid(A, coarsening="nodes", learned=net)
        e = jax.lax.stop_gradient(M(jax.random.normal(key, grid.shape)))
        return energy_decay(A, M, e, steps=5)

    mean = lambda net, a, keys: jnp.mean(jax.vmap(decay, (None, 0, 0))(net, a, keys))
    net = network(grid, hidden=24)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(net, key):
        def step(carry, key):
            net, state = carry
            one, two = jax.random.split(key)
            value, slope = jax.value_and_grad(mean)(net, fields(one, 16), jax.random.split(two, 16))
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(net, updates), state), value

        return jax.lax.scan(step, (net, optimizer.init(net)), jax.random.split(key, 300))

    (trained, _), _ = train(net, jax.random.key(1))
    a, keys = fields(jax.random.key(2), 64), jax.random.split(jax.random.key(3), 64)
    before, after = (float(jax.jit(mean)(n, a, keys)) for n in (net, trained))
    assert after < 1.25 * before < 0  # logarithms per step: a quarter more digits per step


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"smoother": "jacobi"}, "smoother: expected 'red_black' with learned, got 'jacobi';"),
        ({"cycle": "W"}, "cycle: expected 'V' with learned, got 'W';"),
        ({"pre": 2}, "post: expected 2, .* got 1;"),
        ({"coarsening": "cells"}, "learned: expected a map from .* learned_channels"),
        ({"learned": 3}, "op: expected a callable"),
    ],
)
def test_refusals_of_the_cycle(arguments, word):
    grid = Grid((20, 20), boundary="dirichlet")
    with pytest.raises(ValueError, match=word):
        Multigrid(Diffusion(grid), **{"learned": network(grid), "coarsening": "nodes"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"hidden_channels": 1.5}, "hidden_channels"),
        ({"n_layers": -1}, "n_layers"),
        ({"n_spatial": 4}, "n_spatial: expected at most n_layers . 1 = 3, got 4;"),
        ({"ndim": 4}, "ndim"),
        ({"boundary": "wall"}, "boundary"),
        ({"boundary": ("periodic",)}, "boundary"),
        ({"activation": "step"}, "activation"),
    ],
)
def test_refusals_of_the_network(arguments, word):
    with pytest.raises(ValueError, match=word):
        MultigridDirection(**{"in_channels": 17, "out_channels": 14, "key": jax.random.key(0)} | arguments)


def test_saved_and_loaded(tmp_path):
    grid = Grid((20, 18), boundary=WALLS, centering="cell")
    net = network(grid, 0.3)
    no.save(tmp_path / "net.safetensors", net)
    A, r = Diffusion(grid), jnp.ones(grid.shape)
    one, other = (Multigrid(A, coarsening="nodes", learned=n)(r) for n in (net, no.load(tmp_path / "net.safetensors")))
    np.testing.assert_array_equal(one, other)
