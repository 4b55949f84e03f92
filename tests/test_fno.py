"""FNO against a NumPy float64 re-derivation of its forward pass, closed-form counts and plain JAX."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_spectral import fft_reference

import neuralops as no
from neuralops.grid import Grid
from neuralops.models import FNO

erf = np.vectorize(math.erf)
run = jax.jit(lambda op, u: op(u))  # one program, not one for each operation


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def linear(layer, u):
    v = np.tensordot(np.asarray(layer.weight, np.float64), u, 1)
    return v if layer.bias is None else v + np.asarray(layer.bias, np.float64).reshape(-1, *[1] * (u.ndim - 1))


def mlp(layer, u, act=gelu):
    return linear(layer.second, act(linear(layer.first, u)))


def normalise(norm, u):
    if norm is None:
        return u
    axes = tuple(range(u.ndim)) if norm.groups == 1 else tuple(range(1, u.ndim))
    v = (u - u.mean(axes, keepdims=True)) / np.sqrt(u.var(axes, keepdims=True) + 1e-5)
    if norm.weight is None:
        return v
    shape = (-1, *[1] * (u.ndim - 1))
    return np.asarray(norm.weight, np.float64).reshape(shape) * v + np.asarray(norm.bias, np.float64).reshape(shape)


def forward(op, u):
    """The forward pass of neuraloperator's FNO, step by step, channels first, in float64."""
    act = {"gelu": gelu, "tanh": np.tanh}[op.activation]
    identity = lambda x: x
    shape = u.shape[1:]
    if op.positional_embedding:
        axes = [np.arange(n) / n for n in shape]
        u = np.concatenate([u, np.stack(np.meshgrid(*axes, indexing="ij"))])
    v = mlp(op.lifting, u, act)
    padding = [round(f * n) for f, n in zip(op.domain_padding or (0,) * len(shape), shape, strict=True)]
    v = np.pad(v, [(0, 0), *((p, p) for p in padding)])
    for layer, block in enumerate(op.blocks):
        last = act if layer < op.n_layers - 1 else identity
        weight = np.asarray(block.spectral.weight.array(), np.float64)
        bias = np.asarray(block.spectral.bias, np.float64).reshape(-1, *[1] * (v.ndim - 1))
        gate = np.asarray(block.gate.weight, np.float64).reshape(-1, *[1] * (v.ndim - 1))
        spectral = lambda x, w=weight, b=bias: fft_reference(w[0] + 1j * w[1], x, op.n_modes) + b
        if op.preactivation:
            x = normalise(block.norms[0], act(v))
            h = last(spectral(x) + linear(block.skip, x))
            v = mlp(block.mlp, normalise(block.norms[1], h)) + gate * x
        else:
            h = last(normalise(block.norms[0], spectral(v)) + linear(block.skip, v))
            v = last(normalise(block.norms[1], mlp(block.mlp, h) + gate * v))
    v = v[(slice(None), *(slice(p, p + n) for p, n in zip(padding, shape, strict=True)))]
    return mlp(op.projection, v, act)


CONFIGURATIONS = {
    "1d even": ((8,), (16,), {}),
    "1d odd grid and modes": ((7,), (17,), {}),
    "1d coarser than the modes": ((16,), (9,), {}),
    "2d even": ((6, 6), (12, 16), {}),
    "2d odd": ((5, 7), (13, 15), {}),
    "2d above Nyquist": ((16, 16), (8, 8), {}),
    "2d one block, no grid": ((6, 6), (12, 12), {"n_layers": 1, "positional_embedding": None}),
    "2d padding": ((6, 6), (12, 11), {"domain_padding": (0.25, 0.1)}),
    "2d group norm": ((6, 6), (12, 12), {"norm": "group_norm"}),
    "2d instance norm": ((6, 5), (12, 12), {"norm": "instance_norm"}),
    "2d preactivation": ((6, 6), (12, 12), {"preactivation": True, "norm": "group_norm"}),
    "2d tanh, ratios": ((6, 6), (12, 12), {"activation": "tanh", "lifting_channel_ratio": 3,
                                           "projection_channel_ratio": 1, "channel_mlp_expansion": 1.5}),
    "2d Tucker": ((6, 6), (12, 12), {"factorization": "tucker", "rank": 0.3}),
    "2d tensor train": ((6, 6), (12, 12), {"factorization": "tt", "rank": 0.3, "checkpoint_blocks": True}),
    "3d even": ((4, 4, 4), (8, 6, 8), {}),
    "3d odd": ((3, 4, 5), (7, 9, 8), {}),
}  # fmt: skip


SLOWER = {"1d odd grid and modes", "2d one block, no grid", "2d group norm", "2d tensor train", "3d even"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOWER else []) for name in CONFIGURATIONS]


@pytest.mark.parametrize("name", NAMES)
def test_forward_equals_the_numpy_derivation(getkey, name):
    n_modes, shape, options = CONFIGURATIONS[name]
    op = FNO(n_modes, 2, 3, 8, key=getkey(), **options)
    rng = np.random.default_rng(0)  # gates and norms off their start
    op = jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), op)
    u = jax.random.normal(getkey(), (2, *shape))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), op)
        expected = forward(wide, np.asarray(u, np.float64))
        error = np.abs(jax.jit(wide)(jnp.asarray(u, jnp.float64)) - expected).max() / np.abs(expected).max()
    assert error < 1e-12
    assert np.linalg.norm(jax.jit(op)(u) - expected) / np.linalg.norm(expected) < 1e-6


def test_paper_counts(getkey):
    counts = {"darcy_small": 191_881, "darcy": 4_769_473, "nns_to_nos": 65_013_187}
    for name, count in counts.items():
        shapes = eqx.filter_eval_shape(lambda key, name=name: FNO.paper(name, key=key), jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_count_formula(getkey, ndim):
    m, c_in, c_out, h, layers = (6, 5, 4)[:ndim], 2, 3, 8, 3
    op = FNO(m, c_in, c_out, h, n_layers=layers, key=getkey())
    modes = math.prod(m[:-1]) * (m[-1] // 2 + 1)
    block = 2 * h * h * modes + h + h * h + (h * 4 + 4) + (4 * h + h) + h
    ends = (2 * h) * (c_in + ndim) + 2 * h + h * 2 * h + h + 2 * h * h + 2 * h + c_out * 2 * h + c_out
    assert sum(leaf.size for leaf in jax.tree.leaves(op)) == layers * block + ends


def test_plain_jax(getkey):
    """jit, grad, vmap, scan, checkpoint, jvp and optax, without a filter; one trace for equal shapes."""
    op = FNO((4, 4), 1, 1, 8, n_layers=2, key=getkey())
    x, y = jax.random.normal(getkey(), (2, 4, 1, 10, 10))
    np.testing.assert_allclose(jax.jit(op)(x[0]), op(x[0]), atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.checkpoint(op))(x[0]), op(x[0]), atol=1e-6)
    traces = 0

    def loss(op, x, y):
        nonlocal traces
        traces += 1
        return jnp.mean((jax.vmap(op)(x) - y) ** 2)

    optimizer = optax.adam(1e-2)

    @jax.jit
    def epoch(op, state):
        def step(carry, batch):
            op, state = carry
            value, grads = jax.value_and_grad(loss)(op, *batch)
            updates, state = optimizer.update(grads, state, op)
            return (optax.apply_updates(op, updates), state), value

        return jax.lax.scan(step, (op, state), (x.reshape(2, 2, 1, 10, 10), y.reshape(2, 2, 1, 10, 10)))

    state = optimizer.init(op)
    (op, state), first = epoch(op, state)
    before = traces
    for _ in range(80):
        (op, state), last = epoch(op, state)
    assert traces == before
    assert last.mean() < 0.9 * first.mean()
    with jax.enable_x64(True):
        wide, u, v = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), (op, x[0], y[0]))
        tangent = jax.jit(lambda op, u, v: jax.jvp(op, (u,), (v,))[1])(wide, u, v)
        difference = (run(wide, u + 1e-5 * v) - run(wide, u - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(tangent, difference, rtol=1e-6, atol=1e-7)


def test_checkpointing_changes_nothing(getkey):
    key = getkey()
    plain, saved = (FNO((4, 4), 1, 1, 8, checkpoint_blocks=flag, key=key) for flag in (False, True))
    u = jax.random.normal(getkey(), (1, 8, 8))
    gradients = [jax.jit(jax.grad(lambda op: jnp.sum(op(u) ** 2)))(op) for op in (plain, saved)]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, 1),
        ({"positional_embedding": None}, 2),
        ({"boundary": "neumann", "centering": "cell"}, 2),
        ({"boundary": "dirichlet", "centering": "cell"}, 2),
    ],
)
def test_refinement_is_as_declared(x64, options, order):
    """Outputs on n, 2n, 4n points, compared as functions, converge at least with the declared order."""
    op = FNO((6,), 1, 1, 8, n_layers=2, key=jax.random.key(1), **options)
    op = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), op)
    assert (op.envelope.refinement, op.envelope.order) == ("consistent", order)
    grids = [Grid(n, boundary=op.boundary, centering=op.centering) for n in (32, 96, 288, 864)]
    f = {"dirichlet": lambda x: np.sin(np.pi * x), "neumann": lambda x: np.cos(np.pi * x)}.get(
        op.boundary[0], lambda x: np.sin(2 * np.pi * x)
    )
    outputs = [np.asarray(run(op, f(g.points(0))[None]))[0] for g in grids]
    start = 1 if op.centering[0] == "cell" else 0  # tripling keeps the coarse points
    restricted = [v[(start * (3**i) // 2 if start else 0) :: 3**i][:32] for i, v in enumerate(outputs)]
    errors = [np.abs(r - restricted[-1]).max() for r in restricted[:-1]]
    measured = np.log(errors[0] / errors[1]) / np.log(3)
    assert measured > order - 0.25 or errors[1] < 1e-9


def test_equivariance_and_memory_of_boundaries(getkey):
    """Periodic without coordinates: equivariant to shifts. Neumann: equivariant to reflection."""
    u = jax.random.normal(getkey(), (1, 12, 9))
    op = FNO((5, 4), 1, 1, 8, positional_embedding=None, key=getkey())
    np.testing.assert_allclose(run(op, np.roll(u, (3, 2), (1, 2))), np.roll(run(op, u), (3, 2), (1, 2)), atol=1e-5)
    cosine = FNO((5, 4), 1, 1, 8, positional_embedding=None, boundary="neumann", centering="cell", key=getkey())
    np.testing.assert_allclose(run(cosine, u[:, ::-1]), run(cosine, u)[:, ::-1], atol=1e-5)


def test_pair_and_protocol(getkey):
    init, apply = no.as_pair(FNO, n_modes=(4,), in_channels=1, out_channels=1, hidden_channels=4)
    params = init(jax.random.key(3))
    op = FNO((4,), 1, 1, 4, key=jax.random.key(3))
    assert "blocks.0.spectral.weight.core" in params
    u = jax.random.normal(getkey(), (1, 8))
    np.testing.assert_array_equal(apply(params, u), op(u))
    assert isinstance(op, no.Operator)
    assert all(name.count(".") for name in params)
    assert {key: value for key, value in no.operator.config_of(op).items() if key in ("n_modes", "n_layers")} == {
        "n_modes": (4,), "n_layers": 4
    }  # fmt: skip


assert len(CONFIGURATIONS) >= 12
