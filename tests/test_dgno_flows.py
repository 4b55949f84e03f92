"""Flows without labels: the benchmark's objectives at exact solutions, a stream function in all places, training."""

import argparse
import functools
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops.data import Samples
from neuralops.nn import MLPEncoder
from neuralops.training.virtual import field_functions

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import dgno_flows

key = jax.random.key(7)
ARGS = argparse.Namespace(num_centers=8, radius=1e-2, laws="center", published_outlet=False)
NU, WAVE = 0.1 / np.pi, np.pi / 2


def run(objective, op, batch):
    return jax.jit(lambda op, batch: objective(op, batch, key=key))(op, batch)


class ColeHopf(no.AbstractOperator):
    """u = -2 nu phi_x / phi with phi = 1 + c exp(-nu k^2 t) cos(k (x + 1)): zero at -1 and 1, c from the input."""

    factor: float = eqx.field(static=True)  # 1 is the solution

    @property
    def envelope(self):
        return no.operator.Envelope((1,), ("dirichlet",), "grid-locked")

    def __call__(self, u, /, *, query, key=None):
        n = u.shape[1]
        i = n // 3
        sine, cosine = (wave(WAVE * 2 * i / (n - 1)) for wave in (np.sin, np.cos))
        c = u[0, i] / (2 * NU * WAVE * sine - u[0, i] * cosine)
        x, t = query
        share = c * jnp.exp(-NU * WAVE**2 * t)
        angle = WAVE * (x + 1)
        return self.factor * (2 * NU * WAVE * share * jnp.sin(angle) / (1 + share * jnp.cos(angle)))[None]


def hopf_inputs(n=128):
    angle = WAVE * 2 * np.arange(n) / (n - 1)
    c = np.array([0.9, -0.5])[:, None]
    return (2 * NU * WAVE * c * np.sin(angle) / (1 + c * np.cos(angle)))[:, None]


def test_burgers_objective_at_the_cole_hopf_solution(x64):
    batch = Samples(jnp.asarray(hopf_inputs()))
    objective = dgno_flows.burgers_objective(argparse.Namespace(num_centers=8, radius=1e-3))
    value, report = run(objective, ColeHopf(1.0), batch)
    assert value == pytest.approx(1000 * report["pde"] + 10000 * report["initial"])
    off = run(objective, ColeHopf(1.1), batch)[1]
    assert report["initial"] < 1e-12
    assert report["pde"] < 1e-4 * off["pde"]  # what is left is that of the ball's quadrature
    np.testing.assert_allclose(off["initial"], np.linalg.norm(0.1 * batch.inputs[:, 0], axis=1).mean(), rtol=1e-9)


def test_the_points_of_the_solver_are_those_of_the_objective_less_one():
    """The solver's line begins at 0, the formula's at -1."""
    problem, a = no.pde.BurgersWalls(32, num_times=5), np.asarray(hopf_inputs(32), np.float32)
    u = jax.jit(jax.vmap(problem.solve))(a)
    query = problem.query - np.array([1.0, 0.0]).reshape(2, 1, 1)
    test = Samples(a, np.asarray(u)[:, None], query=query)
    assert no.evaluate(ColeHopf(1.0), test)["relative_l2"].max() < 2e-3  # 32 nodes of a solution that is steep
    found = no.evaluate(ColeHopf(1.1), test, metrics=dgno_flows.metrics("burgers"))
    for name in dgno_flows.FIELDS["burgers"]:
        np.testing.assert_allclose(found[name], 0.1, rtol=0.05)


class Poiseuille(no.AbstractOperator):
    """u = 4 U y (1 - y) between two walls, p = 8 mu U (2 - x), with the doors of a DGNO of a stream function."""

    lift: float = eqx.field(static=True)  # added to the pressure; 0 is the solution
    stream_function: bool = eqx.field(static=True, default=True)

    @property
    def envelope(self):
        return no.operator.Envelope((1,), ("neumann",), "grid-locked")

    def encode(self, a):
        return jnp.max(a)[None]

    def decode_stream(self, code, x):
        return 4 * code * (x[1] ** 2 / 2 - x[1] ** 3 / 3)[None]

    def decode(self, code, x):
        return jnp.stack([4 * code * x[1] * (1 - x[1]), 0 * x[0], 0.08 * code * (2 - x[0]) + self.lift])

    def decode_flux(self, code, x):
        p = 0.08 * code * (2 - x[0]) + self.lift
        return jnp.stack([-p, -p, 0.04 * code * (1 - 2 * x[1])])

    def __call__(self, u, /, *, query, key=None):
        return self.decode(self.encode(u), query)


def test_stokes_objective_at_poiseuille_flow(x64):
    y = np.linspace(0, 1, 256)
    most = np.array([1.0, 2.0])[:, None, None]
    batch = Samples(jnp.asarray(most * (y * (1 - y) / np.max(y * (1 - y)))))
    objective = dgno_flows.stokes_objective(ARGS)
    report = run(objective, Poiseuille(0.0), batch)[1]
    assert "pde.divergence" not in report  # a stream function has none
    for name in ("pde", "straight", "outlet"):
        assert report[name] < 1e-20, name
    assert report["inflow"] < 1e-8  # the largest of 256 values stands for the largest of all
    around = 2 * np.pi * np.arange(64) / 64
    heights = 0.6 + 0.1 * np.sin(around)  # the flow knows no cylinder: it slips there, and on no wall
    slip = np.mean((most[:, 0] * 4 * heights * (1 - heights)) ** 2) * 64 / (64 + 2 * 129) / 2
    np.testing.assert_allclose(report["walls"], slip, rtol=1e-4)
    value, off = run(objective, Poiseuille(1.0), batch)
    assert off["outlet"] == pytest.approx(0.5)  # one of two channels
    assert off["pde"] < 1e-20  # a constant belongs to no balance
    total = 10 * off["pde"] + 2 * (off["inflow"] + off["straight"]) + 4 * (off["walls"] + off["outlet"])
    assert value == pytest.approx(float(total))


def stream(dtype=jnp.float32):
    keys = jax.random.split(key, 6)
    decoder = functools.partial(no.MultiONet, 4, 1, hidden_channels=6, n_layers=2, sum_layers=1)
    decoder = functools.partial(decoder, domain=((0.0, 2.0), (0.0, 1.0)))
    op = no.DGNO(
        MLPEncoder(256, 1, 4, (6,), key=keys[0]),
        (decoder(1, key=keys[1]), decoder(1, key=keys[2])),
        flux=decoder(3, variant="x", key=keys[3]),
        stream_function=True,
        code="identity",
    )
    leaves, structure = jax.tree.flatten(op)
    noise = [0.1 * jax.random.normal(k, x.shape) for k, x in zip(jax.random.split(keys[4], len(leaves)), leaves)]  # noqa: B905
    return jax.tree.unflatten(structure, [(x + e).astype(dtype) for x, e in zip(leaves, noise, strict=True)])


@pytest.mark.slow
def test_a_stream_function_through_the_objective():
    op, batch = stream(), Samples(jax.random.normal(key, (3, 1, 256)))
    whole = dgno_flows.stokes_objective(ARGS)
    terms = {name: term for name, term in zip(whole.names, whole.terms, strict=True) if name in ("pde", "walls")}
    objective = no.losses.weighted_sum(terms)
    (value, report), slope = jax.jit(
        jax.value_and_grad(lambda op: objective(op, batch, key=key), has_aux=True)
    )(op)  # fmt: skip
    assert set(report) > {"pde.momentum", "pde.constitutive"}
    assert np.isfinite(value)
    for leaf in jax.tree.leaves(slope):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0 or leaf.size == 1  # psi has a constant that nothing asks for


def test_the_stream_function_of_a_velocity():
    op, sample = stream(), Samples(jax.random.normal(key, (3, 1, 256)))[0]
    fields = field_functions(op, sample)
    x = jax.random.uniform(key, (2, 5), minval=0.1, maxval=0.9)
    velocity = jax.jit(lambda x: (no.pde.value_and_gradient(fields["psi"], x)[1], fields["velocity"](x)))
    ((psi_x, psi_y), found) = velocity(x)
    np.testing.assert_allclose(found, [psi_y[0], -psi_x[0]], atol=1e-6)


def test_a_stream_function_on_disk(tmp_path):
    op, a = stream(), jax.random.normal(key, (1, 256))
    no.save(tmp_path / "a.safetensors", op)
    again = no.load(tmp_path / "a.safetensors")
    assert (again.stream_function, again.code) == (True, "identity")
    x = jax.random.uniform(key, (2, 5))
    both = jax.jit(lambda op: (op(a, query=x), op.decode_flux(op.encode(a), x)))
    jax.tree.map(np.testing.assert_array_equal, both(again), both(op))
    with pytest.raises(ValueError, match="stream_function"):
        no.DGNO(op.encoder, op.solution).decode_stream(jnp.zeros(4), x)


def test_the_trunk_is_evaluated_once_for_a_batch():
    op = jax.eval_shape(lambda: no.DGNO.paper("burgers", key=key))
    objective = dgno_flows.burgers_objective(argparse.Namespace(num_centers=100, radius=1e-2))
    step = jax.jit(jax.value_and_grad(lambda op, batch: objective(op, batch, key=key)[0]))
    one, many = (
        step.lower(op, Samples(jax.ShapeDtypeStruct((n, 1, 128), jnp.float32))).cost_analysis()["flops"]
        for n in (1, 32)
    )
    assert many < 1.5 * one


def test_many_points_in_little_memory():
    """A batch of `evaluate` at all points of the reference: the trunk functions are held for a chunk alone."""
    options = {"domain": ((-1.0, 1.0), (0.0, 1.0)), "factor": ("both", None)}
    chunked, whole = (
        no.DGNO.paper("burgers", key=key, solution=no.MultiONet.paper("width100_l5", key=key, **options, **more))
        for more in ({"chunk_size": 1000}, {})
    )
    a = jax.random.normal(key, (32, 1, 128))
    query = no.pde.BurgersWalls().query - np.array([1.0, 0.0]).reshape(2, 1, 1)
    started = lambda op: eqx.tree_at(lambda op: op.solution[0].weight, op, jnp.ones((5, 1)))
    at_all = jax.jit(lambda op, a: jax.vmap(lambda a: op(a, query=jnp.asarray(query, a.dtype)))(a))
    found, room = [], []
    for op in (started(chunked), started(whole)):
        compiled = at_all.lower(op, a).compile()
        room.append(compiled.memory_analysis().temp_size_in_bytes)
        found.append(compiled(op, a))
    assert found[0].shape == (32, 1, 101, 128)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    assert room[0] < 16e6 < room[1]


@pytest.mark.slow
def test_label_free_burgers_falls_below_twenty_percent():
    problem = no.pde.BurgersWalls(32, num_times=11, tau=3.0)
    query = np.asarray(problem.query - np.array([1.0, 0.0]).reshape(2, 1, 1), np.float32)
    draws = jax.jit(jax.vmap(problem.sample))(jax.random.split(key, 600))
    train, held = np.asarray(draws[:550], np.float32), np.asarray(draws[550:], np.float32)
    test = Samples(held, np.asarray(jax.jit(jax.vmap(problem.solve))(held))[:, None], query=query)
    keys = jax.random.split(key, 2)
    solution = no.MultiONet(
        32, 1, 1, 48, n_layers=4, sum_layers=3, domain=((-1.0, 1.0), (0.0, 1.0)), factor=("both", None),
        branch_activation="silu_id", key=keys[1],
    )  # fmt: skip
    op = no.DGNO(MLPEncoder(32, 1, 32, (64,), key=keys[0]), solution)
    weak = no.pde.WeakBurgers(num_centers=50, num_points=5)
    x = query[:, 0]
    terms = {
        "pde": no.losses.virtual_observables(weak, top=1000),
        "initial": no.losses.observed(x, "input", reduction="norm"),
    }
    objective = no.losses.weighted_sum(terms, {"pde": 1.0, "initial": 10.0})
    epochs = 120
    rate = optax.cosine_decay_schedule(3e-3, epochs * 11)
    op, _ = no.fit(
        op, Samples(train), objective=objective, optimizer=optax.adam(rate), num_epochs=epochs, batch_size=50, key=key,
        progress=False,
    )  # fmt: skip
    standing = lambda a: jnp.broadcast_to(a[:, None], (1, *query.shape[1:]))
    assert no.evaluate(standing, test)["relative_l2"].mean() > 0.35
    assert no.evaluate(op, test)["relative_l2"].mean() < 0.2
