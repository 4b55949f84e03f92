"""The learned cycle: at zero the classical one; symmetric positive definite whatever the network; it can learn."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops.grid import Grid
from neuralops.models import MultigridDirection
from neuralops.solvers import CG, Diffusion, FlexibleCG, Multigrid, solve
from neuralops.solvers.learning.direction_losses import angle_loss
from neuralops.solvers.learning.energy_decay import energy_decay
from neuralops.solvers.multigrid.learned_levels import _from_blocks, _parities, _to_blocks, features

WALLS = (("dirichlet", "neumann"), "periodic")
diffusion = jax.jit(Diffusion.from_coefficient, static_argnums=0)  # as one program, not one for each operation
as_matrix = jax.jit(Diffusion.as_matrix)
slow = pytest.mark.slow
GRIDS = [
    (Grid((12, 11), boundary="dirichlet", centering="cell"), "nodes", 2),
    (Grid((13, 12), boundary=WALLS, centering="cell"), "nodes", 1),
    pytest.param(Grid((11, 15), boundary="neumann"), "nodes", 2, marks=slow),
    pytest.param(Grid((18, 12), boundary=("periodic", "dirichlet")), "nodes", 2, marks=slow),
    (Grid((13, 12), boundary=WALLS, centering="cell"), "cells", 2),
    (Grid((100,), boundary="dirichlet"), "nodes", 2),
    pytest.param(  # as far apart along every axis, so that the finest level coarsens all of them and is corrected
        Grid((6, 5, 4), (5.0, 6.0, 4.0), boundary=("neumann", "dirichlet", "periodic")), "nodes", 2, marks=slow
    ),
    (Grid((9, 11), boundary="periodic"), "nodes", 2),  # points of one colour become neighbours
    pytest.param(Grid((20, 18), boundary="dirichlet", centering="cell"), "nodes", 1, marks=slow),
]


@functools.lru_cache
def maker(*channels, **options):
    return jax.jit(lambda key: MultigridDirection(*channels, **options, key=key))


def network(grid, size=0.0, seed=0, hidden=8, **options):
    """A network for a cycle on the grid; its last layer is random of some size."""
    channels = Multigrid.learned_channels(grid.ndim, **options)
    words = tuple("periodic" if word == "periodic" else "dirichlet" for word in grid.boundary)
    net = maker(*channels, hidden, ndim=grid.ndim, boundary=words)(jax.random.key(seed))
    last = lambda n: (n.last.weight, n.last.bias)
    rng = np.random.default_rng(seed)
    random = [jnp.asarray(size * rng.normal(size=p.shape), p.dtype) for p in last(net)]
    return eqx.tree_at(last, net, tuple(random))


def coefficient(shape, seed=0, sigma=2.0):
    return jnp.asarray(np.exp(sigma * np.random.default_rng(seed).normal(size=shape)))


def operators(grid):
    """Constant, variable and masked, all with arrays of faces, so that one program serves the three."""
    mask = np.random.default_rng(5).uniform(size=grid.shape) > 0.2
    a = coefficient(grid.shape)
    make = functools.partial(diffusion, grid)
    made = {"constant": make(np.ones(grid.shape)), "variable": make(a), "masked": make(a, mask=mask)}
    return {kind: Diffusion(grid, A.faces) for kind, A in made.items()}


def matrices(grid, **options):
    """The matrix of the cycle, compiled: of an operator and a network or None."""
    n = int(np.prod(grid.shape))
    basis = jnp.eye(n).reshape(n, *grid.shape)
    return jax.jit(lambda A, net: Multigrid(A, learned=net, **options)(basis).reshape(n, n).T)


def levels(A, **options):
    """Those of the cycle, without their numbers."""
    return jax.eval_shape(lambda: Multigrid(A, **options)).levels


def noise(A, seed=1):
    return jax.jit(Diffusion.to_range)(A, np.random.default_rng(seed).normal(size=A.grid.shape))


@pytest.mark.parametrize(("grid", "coarsening", "sweeps"), GRIDS)
def test_starts_at_the_classical_cycle_and_stays_symmetric_and_positive(x64, grid, coarsening, sweeps):
    options = dict(pre=sweeps, post=sweeps, coarsening=coarsening)
    matrix = matrices(grid, **options)
    for A in operators(grid).values():
        classical, start = matrix(A, None), matrix(A, network(grid, **options))
        np.testing.assert_allclose(start, classical, rtol=0, atol=1e-12 * np.abs(classical).max())
        values, vectors = np.linalg.eigh(as_matrix(A))
        range_ = values > 1e-9 * values[-1]
        root = vectors[:, range_] * np.sqrt(values[range_])
        for size in (0.3, 3.0):
            B = np.asarray(matrix(A, network(grid, size, **options)))
            np.testing.assert_allclose(B, B.T, rtol=0, atol=1e-9 * np.abs(B).max())
            assert np.linalg.eigvalsh(root.T @ B @ root)[0] > 1e-5  # the spectrum of B A on its range
            assert np.abs(B - classical).max() > 1e-3 * np.abs(classical).max()


def test_constants_without_arrays_and_the_free_cycle_start_classical_too(x64):
    grid = Grid((12, 11), boundary="dirichlet")
    options = dict(pre=1, post=2, symmetric=False, coarsening="nodes")
    matrix = matrices(grid, **options)
    for A in (Diffusion(grid), operators(grid)["variable"]):
        classical = matrix(A, None)
        start = matrix(A, network(grid, pre=1, post=2, symmetric=False))
        np.testing.assert_allclose(start, classical, rtol=0, atol=1e-12 * np.abs(classical).max())


def test_solves_with_cg_and_the_free_one_with_flexible_cg(x64):
    grid = Grid((13, 12), boundary="dirichlet")
    A = operators(grid)["variable"]
    b = noise(A)
    expected = np.linalg.solve(as_matrix(A), b.ravel()).reshape(b.shape)
    for symmetric, method in ((True, CG), (False, functools.partial(FlexibleCG, memory=2))):
        net = network(grid, 0.1, symmetric=symmetric)
        M = jax.jit(lambda A, net, symmetric=symmetric: Multigrid(A, coarsening="nodes", symmetric=symmetric, learned=net))(A, net)  # fmt: skip  # noqa: E501
        s = jax.jit(solve)(A, b, method(1e-10, max_steps=100, preconditioner=M))
        assert bool(s.converged)
        np.testing.assert_allclose(s.value, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    u, v = noise(A, 3), noise(A, 4)
    apply = jax.jit(lambda M, v: M(v))
    assert abs(np.vdot(u, apply(M, v)) / np.vdot(v, apply(M, u)) - 1) > 1e-3  # the free one is not symmetric


@pytest.mark.parametrize("coarsening", ["nodes", "cells"])
def test_a_block_holds_the_points_that_share_a_coarse_point(coarsening):
    """Ends of every kind, even and odd counts: the one that stays is last in its block, and blocks lose no point."""
    for ends, n in itertools.product(("dirichlet", "neumann", "periodic", ("neumann", "dirichlet")), (14, 15)):
        grid = Grid((n, 5), boundary=(ends, "dirichlet"))
        lines = levels(Diffusion(grid), coarsening=coarsening)[0].lines
        numbers = 1 + np.arange(5.0 * n).reshape(n, 5)
        order = list(_parities(lines))

        @jax.jit
        def there_and_back(numbers, lines=lines, order=order):
            blocks = _to_blocks(numbers, lines)
            return blocks, [_from_blocks(channel, lines, p) for channel, p in zip(blocks, order, strict=True)]

        blocks, back = there_and_back(numbers[None])
        for channel, p in zip(back, order, strict=True):
            np.testing.assert_array_equal(channel, numbers[p[0] :: 2, p[1] :: 2])
        assert np.sum(np.asarray(blocks) > 0) == numbers.size
        if coarsening == "nodes":
            assert order[-1] == tuple(line.kept for line in lines)


def test_the_two_finest_levels_are_learned():
    grid = Grid((40, 40), boundary="dirichlet")
    net = network(grid)
    M = jax.eval_shape(lambda: Multigrid(Diffusion(grid), coarsening="nodes", learned=net))
    assert [c is not None for c in M.corrections] == [True, True, False]


def test_features_do_not_see_the_unit_of_the_coefficient(x64):
    grid = Grid((20, 18), boundary=WALLS, centering="cell")
    a = coefficient(grid.shape)
    lines = levels(Diffusion(grid))[0].lines
    see = jax.jit(lambda a: features(lines, Diffusion.from_coefficient(grid, a).all_faces()))
    np.testing.assert_allclose(see(a), see(1e4 * a), rtol=0, atol=1e-6)
    net = network(grid, 0.3)
    r = noise(Diffusion(grid))
    cycle = jax.jit(lambda a: Multigrid(Diffusion.from_coefficient(grid, a), coarsening="nodes", learned=net)(r))
    small, large = cycle(a), cycle(1e4 * a)
    np.testing.assert_allclose(small, 1e4 * large, rtol=1e-5, atol=1e-6 * float(jnp.abs(small).max()))


@pytest.mark.parametrize("boundary", ["dirichlet", pytest.param("neumann", marks=slow)])
def test_gradient_against_finite_differences(x64, boundary):
    grid = Grid((12, 11), boundary=boundary, centering="cell")
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
    through = lambda A: jnp.sum(Multigrid(A, coarsening="nodes", pre=2, post=2, learned=net)(e))
    by_faces = jax.jit(jax.grad(through))(A)  # the coefficient gets none
    assert max(float(jnp.abs(c).max()) for c in by_faces.faces) == 0


@pytest.mark.parametrize("symmetric", [True, False])
def test_energy_decay_is_that_of_the_solver(x64, symmetric):
    grid = Grid((12, 11), boundary="dirichlet")
    A = operators(grid)["variable"]
    matrix = np.asarray(as_matrix(A))
    M = jax.jit(lambda A: Multigrid(A, symmetric=symmetric))(A)
    method = CG if symmetric else functools.partial(FlexibleCG, memory=1)
    b = noise(A)
    e = jnp.asarray(np.linalg.solve(matrix, b.ravel()).reshape(b.shape))
    decay = jax.jit(energy_decay, static_argnames=("steps", "skip"))
    lost = jax.jit(lambda A, M, e, b: angle_loss(A, e, M(b)))(A, M, e, b)
    np.testing.assert_allclose(decay(A, M, e, steps=1, skip=0), np.log(lost), rtol=1e-8)

    def energy(k):
        error = np.ravel(e - solve(A, b, method(0.0, atol=0.0, max_steps=k, preconditioner=M)).value)
        return error @ matrix @ error

    expected = 0.5 * np.log(energy(4) / energy(1)) / 3
    np.testing.assert_allclose(decay(A, M, e, steps=4, skip=1), expected, rtol=1e-6)


def test_built_anew_inside_jit_without_recompilation(x64):
    grid = Grid((12, 14), boundary="neumann", centering="cell")
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


@pytest.mark.slow
def test_float32_cycle_in_a_float64_solve(x64):
    grid = Grid((13, 12), boundary="dirichlet", centering="cell")
    A, net = operators(grid)["variable"], network(grid, 0.1)
    build = jax.jit(lambda A, dtype: Multigrid(A, coarsening="nodes", dtype=dtype, learned=net), static_argnums=1)
    run = jax.jit(lambda M: solve(A, noise(A), CG(1e-8, preconditioner=M)).num_steps)
    assert abs(int(run(build(A, "float32"))) - int(run(build(A, "float64")))) <= 1


@slow
def test_levels_that_coarsen_one_axis_stay_classical(x64):
    grid = Grid((16, 32), (1.0, 1.0), boundary="dirichlet", centering="cell")
    A = operators(grid)["variable"]
    build = jax.jit(lambda A: Multigrid(A, coarsening="nodes", learned=network(grid, 0.1)))
    M = build(A)
    assert M.corrections[0] is None
    assert M.corrections[1] is not None
    assert bool(jax.jit(solve)(A, noise(A), CG(1e-8, preconditioner=M, max_steps=100)).converged)


@slow
def test_it_learns_a_family_and_more_than_by_chance():
    """On unseen coefficients of contrast 10^4 fewer steps than the classical cycle after some seconds of training."""
    grid = Grid((16, 16), boundary="dirichlet", centering="cell")
    fields = lambda key, count: jnp.exp(np.log(1e4) * jax.random.uniform(key, (count, *grid.shape)))

    def decay(net, a, key):
        A = Diffusion.from_coefficient(grid, a)
        M = Multigrid(A, coarsening="nodes", learned=net)
        e = jax.lax.stop_gradient(M(jax.random.normal(key, grid.shape)))
        return energy_decay(A, M, e, steps=4)

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
    assert after < 1.1 * before < 0  # logarithms per step: a tenth more digits with every step


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"smoother": "jacobi"}, "smoother: expected 'red_black' with learned, got 'jacobi';"),
        ({"cycle": "W"}, "cycle: expected 'V' with learned, got 'W';"),
        ({"pre": 2}, "post: expected 2, .* got 1;"),
        (
            {"coarsening": "cells"},
            "learned: expected a map from .* make the network with the channels .17, 6. of Multigrid.learned_channels",
        ),
        ({"learned": 3}, "learned: expected a callable, .* got int;"),
    ],
)
def test_refusals_of_the_cycle(arguments, word):
    grid = Grid((20, 20), boundary="dirichlet")
    options = {"learned": network(grid), "coarsening": "nodes"} | arguments
    with pytest.raises(ValueError, match=word):
        jax.eval_shape(lambda: Multigrid(Diffusion(grid), **options))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"hidden_channels": 1.5}, "hidden_channels"),
        ({"n_layers": -1}, "n_layers"),
        ({"n_spatial": 4}, "n_spatial: expected at most n_layers . 1 = 2, got 4;"),
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
    cycle = jax.jit(lambda net: Multigrid(A, coarsening="nodes", learned=net)(r))
    one, other = cycle(net), cycle(no.load(tmp_path / "net.safetensors"))
    np.testing.assert_array_equal(one, other)
