"""MgNO: the classical V cycle inside the learned one, counts, linearity, equivariance, the released code's numbers."""

import importlib.util
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import neuralops as no
from neuralops.nn import MultigridConv
from neuralops.nn.convolution import ghost_rule, refine

HERE = Path(__file__).parent
key = jax.random.key(5)
FULL = np.outer([1, 2, 1], [1, 2, 1]) / 4  # bilinear interpolation
run = jax.jit(lambda op, u: op(u))  # one program per structure; point by point the cycle compiles hundreds


def field(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def classical(n, sweeps, *, periodic=False, omega=0.8):
    """The kernels of the V cycle of the five-point Laplacian with damped Jacobi, fact sheet section 5.1."""
    h = 1 / n if periodic else 1 / (n + 1)
    levels = int(np.log2(n)) if periodic else int(np.log2(n + 1))
    op = MultigridConv(
        1, 1, [sweeps] * (levels - 1) + [(1, 0)], transfer="residual", coarse_init="zero",
        boundary="periodic" if periodic else "dirichlet", kept="even" if periodic else "odd", up_taps=3, key=key,
    )  # fmt: skip
    five = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    centre = np.outer([0, 1, 0], [0, 1, 0])

    def kernels(path, leaf):
        level = int(path[1].idx)
        name = str(path[-1].name)
        hl = 2**level * h
        damping = 1.0 if level == levels - 1 and not periodic else omega
        values = {"A": five / hl**2, "system": five / hl**2, "S": damping * centre * hl**2 / 4,
                  "restriction": FULL / 4, "prolongation": FULL}[name]  # fmt: skip
        return jnp.asarray(values, leaf.dtype).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(kernels, op)


def laplacian(n):
    one = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1]) * (n + 1) ** 2
    return (sp.kron(one, sp.eye(n)) + sp.kron(sp.eye(n), one)).tocsr()


def matrix_cycle(n, pre, post, f, omega=0.8):
    """The same V cycle written with sparse matrices."""
    A = laplacian(n)
    if n == 1:
        return f / A[0, 0]
    m = (n - 1) // 2
    one = sp.lil_matrix((n, m))
    for i in range(m):
        one[2 * i, i], one[2 * i + 1, i], one[2 * i + 2, i] = 0.5, 1, 0.5
    P = sp.kron(one, one).tocsr()
    weight = omega / A[0, 0]
    u = np.zeros_like(f)
    for _ in range(pre):
        u = u + weight * (f - A @ u)
    u = u + P @ matrix_cycle(m, pre, post, P.T @ (f - A @ u) / 4)
    for _ in range(post):
        u = u + weight * (f - A @ u)
    return u


@pytest.mark.parametrize("n", [15, 31, 63, 127])
@pytest.mark.parametrize("sweeps", [(1, 0), (1, 1), (2, 2)])
def test_the_classical_cycle_is_contained(x64, n, sweeps):
    f = field((1, n, n))
    expected = matrix_cycle(n, *sweeps, np.asarray(f).ravel()).reshape(1, n, n)
    ours = run(classical(n, sweeps), f)
    assert np.abs(ours - expected).max() < 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("n", "sweeps", "factor"),
    [(31, (1, 0), 0.592), (63, (1, 0), 0.594), (31, (1, 1), 0.360), (63, (1, 1), 0.363), (63, (2, 2), 0.190),
     pytest.param(127, (1, 0), 0.596, marks=pytest.mark.slow),
     pytest.param(127, (1, 1), 0.365, marks=pytest.mark.slow),
     pytest.param(127, (2, 2), 0.189, marks=pytest.mark.slow)],
)  # fmt: skip
def test_contraction_factors_of_the_fact_sheet(x64, n, sweeps, factor):
    W, A = classical(n, sweeps), no.Diffusion(no.Grid((n, n), boundary="dirichlet"))

    @jax.jit
    def power(e):
        def step(_, state):
            e = state[0] / jnp.linalg.norm(state[0])
            new = e - W(A(e))
            return new, jnp.linalg.norm(new)

        return jax.lax.fori_loop(0, 60, step, (e, 0.0))[1]

    assert abs(float(power(field((1, n, n)))) - factor) < 0.005


def test_one_cycle_on_a_sine(x64):
    n = 127
    x = np.arange(1, n + 1) / (n + 1)
    exact = np.sin(np.pi * x)[:, None] * np.sin(np.pi * x)
    for sweeps, error in (((1, 0), 0.369), ((1, 1), 0.287), ((2, 2), 0.191)):
        u = run(classical(n, sweeps), jnp.asarray(2 * np.pi**2 * exact)[None])[0]
        assert abs(np.linalg.norm(u - exact) / np.linalg.norm(exact) - error) < 0.002


def test_symmetric_positive_definite_and_a_preconditioner(x64):
    n = 15
    W = classical(n, (1, 1))
    matrix = np.asarray(jax.jit(jax.vmap(W))(np.eye(n * n).reshape(-1, 1, n, n))).reshape(n * n, n * n)
    assert np.abs(matrix - matrix.T).max() < 1e-15 * np.abs(matrix).max() * n
    spectrum = np.linalg.eigvals(matrix @ laplacian(n).toarray()).real
    assert abs(spectrum.min() - 0.649) < 1e-3
    assert abs(spectrum.max() - 0.99998) < 1e-4

    A = no.Diffusion(no.Grid((63, 63), boundary="dirichlet"))
    b = A.load(field((63, 63)))
    W = classical(63, (1, 1))
    plain = no.solve(A, b, no.CG(1e-8))
    helped = no.solve(A, b, no.CG(1e-8, preconditioner=lambda r: W(r[None])[0]))
    assert bool(helped.converged)
    assert int(helped.num_steps) <= 12 < int(plain.num_steps)


@pytest.mark.parametrize(("n", "factor"), [(16, 0.368), (32, 0.370), (64, 0.371)])
def test_periodic_cycle(x64, n, factor):
    """On fields of zero mean; the coarsest level of 2 x 2 points is solved by one sweep, whose pseudo-inverse is S."""
    W = classical(n, (1, 1), periodic=True)
    A = no.Diffusion(no.Grid((n, n), boundary="periodic"))
    exact = exact_on_two_by_two(W)
    e = field((1, n, n))

    @jax.jit
    def step(e):
        e = e - e.mean()
        e = e / jnp.linalg.norm(e)
        new = e - exact(A(e))
        return new, jnp.linalg.norm(new - new.mean())

    for _ in range(60):
        e, rate = step(e)
    assert abs(float(rate) - factor) < 0.005


def exact_on_two_by_two(W):
    """The cycle whose coarsest level is solved exactly: the three modes of 2 x 2 points besides the constant.

    Three taps reach the one neighbour along an axis twice, so that a kernel of 3 x 3 taps holds any stencil there.
    """
    h = 0.5
    eigenvalue = lambda *modes: 4 / h**2 * sum(np.sin(np.pi * k / 2) ** 2 for k in modes)
    inverse = np.zeros((2, 2))
    for modes in ((0, 1), (1, 0), (1, 1)):
        inverse += np.outer(*((-1.0) ** (k * np.arange(2)) for k in modes)) / 4 / eigenvalue(*modes)
    taps = np.zeros((3, 3))
    taps[1:, 1:] = inverse  # offsets 0 and +1; offset -1 is the same point
    where = lambda op: op.levels[-1].pre[0].S
    return eqx.tree_at(where, W, jnp.asarray(taps).reshape(3, 3, 1, 1))


def test_shift_equivariance_of_a_periodic_model(x64):
    sweeps = ((1, 1),) * 3 + ((2, 0),)
    op = no.MgNO(1, 1, 3, n_layers=1, sweeps=sweeps, boundary="periodic", key=key)
    op = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), op)
    u = field((1, 32, 48))
    moved = lambda op, by: np.abs(np.roll(run(op, u), by, (1, 2)) - run(op, np.roll(u, by, (1, 2)))).max()
    size = np.abs(run(op, u)).max()
    assert moved(op, (8, -16)) < 1e-14 * size * 10
    assert moved(op, (2, 0)) > 1e-4 * size
    released = no.MgNO(1, 1, 3, n_layers=1, sweeps=sweeps, boundary="periodic", up_taps=4, up_ghosts="zero", key=key)
    assert moved(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), released), (8, -16)) > 1e-3 * size


def test_a_periodic_field_repeated_gives_the_output_repeated(x64):
    """What spacing-locked means: more points at the same spacing are the same operator."""
    op = MultigridConv(2, 3, [(1, 0), (1, 1), (1, 0)], boundary="periodic", key=key)
    u = field((2, 8, 12))
    np.testing.assert_allclose(run(op, np.tile(u, (1, 2, 3))), np.tile(run(op, u), (1, 2, 3)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("boundary", "centering", "options"),
    [
        ("periodic", "node", {}),
        ("dirichlet", "cell", {"sharing": "levels"}),
        ("neumann", "node", {"transfer": "residual", "coarse_init": "zero"}),
        ((("dirichlet", "neumann"), "periodic"), "cell", {"sharing": "sweeps", "transfer": "residual"}),
    ],
)
def test_linear_to_rounding(x64, boundary, centering, options):
    op = MultigridConv(2, 3, [(1, 0), (2, 1), (1, 1), (1, 0)], boundary=boundary, centering=centering,
                       **options, key=key)  # fmt: skip
    u, v = field((2, 17, 24)), field((2, 17, 24), 1)
    size = np.abs(run(op, u)).max()
    assert np.abs(run(op, 2 * u - 3 * v) - 2 * run(op, u) + 3 * run(op, v)).max() < 1e-13 * size * 10


def test_impulse_reaches_every_point(x64):
    op = MultigridConv(1, 1, [(1, 0)] * 5 + [(2, 0)], key=key)
    u = np.zeros((1, 64, 64), np.float32)
    u[0, 3, 60] = 1
    assert np.all(run(op, u) != 0)
    short = MultigridConv(1, 1, [(1, 0), (1, 0)], key=key)
    assert not np.all(run(short, u) != 0)


@pytest.mark.parametrize(("ndim", "grid"), [(1, (37,)), (3, (9, 8, 7)), (2, (3, 50)), (2, (1, 1))])
def test_any_size_and_dimension(ndim, grid):
    op = no.MgNO(1, 2, 4, n_layers=2, ndim=ndim, sweeps=[(1, 1)] * 3 + [(1, 0)], key=key)
    v = run(op, np.ones((1, *grid), np.float32))
    assert v.shape == (2, *grid)
    assert np.all(np.isfinite(v))


@pytest.mark.parametrize(
    ("name", "count"),
    [("darcy_rough", 572_661), ("darcy_smooth", 678_093), ("pipe", 783_876), ("navier_stokes", 2_885_194),
     ("helmholtz", 5_351_806)],
)  # fmt: skip
def test_published_parameter_counts(name, count):
    op = eqx.filter_eval_shape(lambda: no.MgNO.paper(name, key=key))
    assert sum(leaf.size for leaf in jax.tree.leaves(op)) == count


def test_count_of_one_cycle():
    count = lambda op: sum(leaf.size for leaf in jax.tree.leaves(op))
    sweeps = [(1, 0)] * 5 + [(2, 0)]
    assert count(MultigridConv(24, 24, sweeps, up_taps=4, key=key)) == 165_312
    assert count(MultigridConv(1, 24, sweeps, up_taps=4, key=key)) == 74_853


SLOWER = [pytest.param(variant, marks=pytest.mark.slow) for variant in ("pipe", "navier_stokes", "helmholtz")]


@pytest.mark.parametrize("variant", ["darcy_rough", "darcy_smooth", *SLOWER])
def test_numbers_of_the_released_code(variant):
    """Same weights by a formula; `benchmarks/parity/mgno_official.py` ran the released code and kept some numbers."""
    spec = importlib.util.spec_from_file_location("parity", HERE.parent / "benchmarks/parity/mgno_official.py")
    parity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parity)
    expected = json.loads((HERE / "fixtures/mgno_official.json").read_text())[variant]
    op = parity.patterned(eqx.filter_eval_shape(lambda: no.MgNO.paper(variant, key=key)))
    ours = parity.digest(np.asarray(jax.jit(op)(jnp.asarray(parity.source((op.in_channels, *expected["grid"]))))))
    scale = max(map(abs, expected["values"]))
    np.testing.assert_allclose(ours["values"], expected["values"], atol=1e-5 * scale, rtol=0)
    np.testing.assert_allclose([ours["rms"], ours["mean"]], [expected["rms"], expected["mean"]], atol=1e-5 * scale)


def test_fewer_levels_and_shared_kernels(x64):
    op = MultigridConv(1, 2, [(1, 1), (2, 0), (1, 1), (1, 0)], key=key)
    silent = eqx.tree_at(lambda op: op.levels[1].prolongation, op, jnp.zeros_like(op.levels[1].prolongation))
    u = field((1, 20, 21))
    np.testing.assert_allclose(run(op.with_levels([(1, 1), (2, 0)]), u), run(silent, u), rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="sharing='levels'"):
        op.with_levels([(1, 1)] * 5 + [(1, 0)])

    shared = MultigridConv(1, 2, [(1, 1), (1, 0)], sharing="levels", key=key)
    more = shared.with_levels([(2, 1)] * 4 + [(3, 0)])
    assert jax.tree.map(jnp.shape, jax.tree.leaves(more)) == jax.tree.map(jnp.shape, jax.tree.leaves(shared))
    assert jax.eval_shape(more, u).shape == (2, 20, 21)
    again = more.with_levels([(1, 1), (1, 0)])
    np.testing.assert_array_equal(run(again, u), run(shared, u))


def test_shared_kernels_hold_the_laplacian_on_every_level(x64):
    """In units of the spacing, with R = P^T, one set of kernels is the V cycle for any number of levels."""
    op = MultigridConv(1, 1, [(1, 1)] * 3 + [(1, 0)], transfer="residual", coarse_init="zero", kept="odd", up_taps=3,
                       sharing="levels", key=key)  # fmt: skip
    five, centre = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]]), np.outer([0, 1, 0], [0, 1, 0])
    values = {"A": five, "system": five, "S": 0.2 * centre, "restriction": FULL, "prolongation": FULL}
    op = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(values[str(path[-1].name)], leaf.dtype).reshape(leaf.shape), op
    )
    rates = []
    for n, levels in ((15, 4), (31, 5), (63, 6)):
        W, A = op.with_levels([(1, 1)] * (levels - 1) + [(4, 0)]), no.Diffusion(no.Grid((n, n), boundary="dirichlet"))
        step = jax.jit(lambda e, W=W, A=A, n=n: e - W(A(e) / (n + 1) ** 2))
        e = field((1, n, n))
        for _ in range(40):
            e = step(e / jnp.linalg.norm(e))
        rates.append(float(jnp.linalg.norm(e)))
    assert max(rates) < 0.38


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sweeps": [(1, 0), (1, 1)]}, "coarsest"), ({"sweeps": []}, "pair of counts"), ({"transfer": "R"}, "transfer"),
     ({"kept": "odd", "boundary": "periodic"}, "kept"), ({"up_taps": 5}, "up_taps"),
     ({"multiples": (2, 1)}, "multiples"),
     ({"norm": "layer_norm"}, "num_points"), ({"centering": "vertex"}, "centering"),
     ({"in_channels": 0}, "in_channels"),
     ({"sharing": "levels", "multiples": (1, 2)}, "sharing")],
)  # fmt: skip
def test_bad_arguments(change, message):
    arguments = {"in_channels": 1, "out_channels": 1, "sweeps": [(1, 0), (1, 0)], **change}
    with pytest.raises(ValueError, match=message) as error:
        MultigridConv(**arguments, key=key)
    assert ";" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"norm": "layer"}, "num_points"), ({"head": "mlp"}, "head"), ({"residual": True}, "residual"),
     ({"skip": "soft"}, "skip"), ({"activation": "x"}, "activation"), ({"n_layers": 0}, "n_layers")],
)  # fmt: skip
def test_bad_model_arguments(change, message):
    with pytest.raises(ValueError, match=message) as error:
        no.MgNO(1, 2, 4, **change, key=key)
    assert ";" in str(error.value)


def test_locked_to_its_grid():
    op = no.MgNO(1, 1, 4, n_layers=1, sweeps=[(1, 0), (1, 0)], norm="cycle", num_points=8, key=key)
    assert op.envelope.refinement == "grid-locked"
    with pytest.raises(ValueError, match="resample"):
        jax.eval_shape(op, jnp.ones((1, 16, 16)))


def test_checkpointing_changes_nothing():
    make = lambda flag: no.MgNO(1, 1, 4, n_layers=2, sweeps=[(1, 0), (1, 0)], checkpoint_layers=flag, key=key)
    u = field((1, 8, 8)).astype(jnp.float32)
    loss = lambda op: jnp.sum(op(u) ** 2)
    for a, b in zip(*(jax.tree.leaves(jax.jit(jax.grad(loss))(make(flag))) for flag in (False, True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_coarse_levels_are_heard_from_the_start():
    """What the four coarser of five levels add to the response to a smooth field: nothing to speak of with uniform
    kernels, a fair share with transfers that start as interpolation."""
    x = (np.arange(32) + 0.5) / 32
    f = jnp.asarray(np.sin(np.pi * x)[:, None] * np.sin(np.pi * x) * np.ones((8, 1, 1)), jnp.float32)
    shares = {}
    for init in ("uniform", "interpolation"):
        W = MultigridConv(8, 8, [(1, 0)] * 4 + [(2, 0)], centering="cell", init=init, key=jax.random.key(3))
        fine = eqx.tree_at(lambda W: W.levels[1].prolongation, W, jnp.zeros_like(W.levels[1].prolongation))
        whole = run(W, f)
        shares[init] = float(np.linalg.norm(whole - run(fine, f)) / np.linalg.norm(whole))
    assert shares["uniform"] < 0.05
    assert shares["interpolation"] > 0.3


def test_transfers_that_start_as_interpolation():
    """They keep linear functions away from the walls, on nodes and on cells, up to the random share."""
    for centering, taps in (("node", 3), ("cell", 4)):
        W = MultigridConv(2, 2, [(1, 0), (1, 0)], ndim=1, centering=centering, up_taps=taps, key=jax.random.key(0))
        V = MultigridConv(2, 2, [(1, 0), (1, 0)], ndim=1, centering=centering, up_taps=taps, init="uniform",
                          key=jax.random.key(0))  # fmt: skip
        level = jax.tree.map(lambda w, v: w - 0.3 * v, W.levels[0], V.levels[0])
        # A coarse node is every second fine one, a coarse cell lies between its two.
        coarse = jnp.stack([2 * jnp.arange(8.0) + (0.0 if centering == "node" else 0.5)] * 2, -1)
        fine = refine(coarse, level.prolongation, [ghost_rule("neumann", centering)], "even", (16,))
        np.testing.assert_allclose(fine[2:-3, 0], np.arange(16)[2:-3], atol=1e-5)
