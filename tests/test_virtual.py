"""Objectives without labels against sums written out, finite differences and the reference solution."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops.data import Samples
from neuralops.nn import MLPEncoder
from neuralops.training.virtual import field_functions, medium_function

key = jax.random.key(5)
SQUARE = ((0.0, 1.0), (0.0, 1.0))
FEW = {"num_centers": 6, "num_points": 5, "radius": 0.05}


def small(flux=False, dtype=jnp.float32):
    keys = jax.random.split(key, 5)
    decoder = functools.partial(no.MultiONet, 3, 1, hidden_channels=8, n_layers=3, sum_layers=2)
    op = no.DGNO(
        MLPEncoder((5, 5), 1, 3, (6,), key=keys[0]),
        decoder(1, factor="both", key=keys[1]),
        decoder(1, key=keys[2]),
        decoder(2, key=keys[3]) if flux else (),
    )
    leaves, structure = jax.tree.flatten(op)
    noise = [0.3 * jax.random.normal(k, x.shape) for k, x in zip(jax.random.split(keys[4], len(leaves)), leaves)]  # noqa: B905
    return jax.tree.unflatten(structure, [(x + e).astype(dtype) for x, e in zip(leaves, noise, strict=True)])


def run(objective, op, batch):
    """In one program: operation by operation each would compile."""
    return jax.jit(lambda op, batch: objective(op, batch, key=key))(op, batch)


def media(count=3, dtype=np.float32):
    return jnp.asarray(1 + np.random.default_rng(0).uniform(size=(count, 1, 5, 5)), dtype)


def test_virtual_observables_are_the_sums_of_the_sheet():
    op, batch = small(), Samples(media())
    weak = no.pde.WeakDarcy(SQUARE, forcing=10.0, form="primal", **FEW)
    value, report = run(no.losses.virtual_observables(weak, top=4), op, batch)
    patches = weak.draw(jax.random.split(key)[0], jnp.float32)  # the same test functions for all samples

    @jax.jit
    def residual(a):
        code = op.encode(a)
        return weak.residuals(patches, medium_function(a, SQUARE, 3), {"u": lambda x: op.decode(code, x)})["balance"]

    r = np.stack([residual(a) for a in batch.inputs])
    norms, worst = np.linalg.norm(r, axis=1).mean(), np.sort((r**2).ravel())[-4:].sum()
    np.testing.assert_allclose(value, norms + worst, rtol=1e-4)
    np.testing.assert_allclose([report["balance"], report["balance.top"]], [norms, worst], rtol=1e-4)


def test_the_mixed_form_weighs_the_balance():
    op, batch = small(flux=True), Samples(media())
    weak = no.pde.WeakDarcy(SQUARE, forcing=10.0, form="mixed", **FEW)
    objective = no.losses.virtual_observables(weak, order=0, weights={"balance": 6**0.5})
    value, report = run(objective, op, batch)
    np.testing.assert_allclose(value, report["constitutive"] + 6**0.5 * report["balance"], rtol=1e-6)
    patches = weak.draw(jax.random.split(key)[0], jnp.float32)

    @jax.jit
    def residuals(sample):
        return weak.residuals(patches, medium_function(sample.inputs, SQUARE, 0), field_functions(op, sample))

    one = residuals(batch[0])
    assert objective == no.losses.virtual_observables(weak, order=0, weights={"balance": 6**0.5})
    alone = run(objective, op, batch[:1])[1]
    np.testing.assert_allclose(alone["balance"], np.mean(one["balance"] ** 2), rtol=1e-4)
    np.testing.assert_allclose(alone["constitutive"], np.mean(one["constitutive"]), rtol=1e-4)


def test_weights_of_no_residual_are_refused():
    objective = no.losses.virtual_observables(no.pde.WeakDarcy(SQUARE, form="primal", **FEW), weights={"balanse": 2.0})
    with pytest.raises(ValueError, match="balanse"):
        objective(small(), Samples(media()), key=key)
    for points, values, word in ((np.full((2, 3), np.nan), 0.0, "NaN"), (np.zeros((2, 3)), np.zeros(3), "extras")):
        with pytest.raises(ValueError, match=word):
            no.losses.observed(points, values)


def test_dropped_test_functions_do_not_count_in_a_mean():
    op, batch = small(flux=True), Samples(media())
    right = lambda x: x[0] > 0.5
    some = no.pde.WeakDarcy(SQUARE, form="mixed", inside=right, **FEW | {"num_centers": 40})
    patches = some.draw(jax.random.split(key)[0], jnp.float32)
    kept = np.asarray(patches.weight) > 0
    assert 0 < kept.sum() < 40

    @jax.jit
    def residuals(sample):
        return some.residuals(patches, medium_function(sample.inputs, SQUARE, 0), field_functions(op, sample))

    found = [residuals(batch[i]) for i in range(3)]
    _, report = run(no.losses.virtual_observables(some, order=0), op, batch)
    mean = np.mean([r["constitutive"][kept] for r in found])
    np.testing.assert_allclose(report["constitutive"], mean, rtol=1e-4)
    np.testing.assert_allclose(report["balance"], np.mean([r["balance"][kept] ** 2 for r in found]), rtol=1e-4)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_medium_between_its_nodes(order):
    a = media(1)[0]
    box = ((-1.0, 1.0), (2.0, 2.5))
    f = medium_function(a, box, order)
    nodes = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(2, 2.5, 5), indexing="ij")).astype(np.float32)
    np.testing.assert_allclose(f(jnp.asarray(nodes)), a, rtol=2e-5)
    near = f(jnp.asarray([[-0.9], [2.02]], jnp.float32))
    if order == 0:
        assert float(near[0, 0]) == float(a[0, 0, 0])
    else:
        assert float(near[0, 0]) != float(a[0, 0, 0])


OBJECTIVES = {
    "primal": lambda: no.losses.virtual_observables(no.pde.WeakDarcy(SQUARE, form="primal", **FEW), top=3),
    "mixed": lambda: no.losses.virtual_observables(no.pde.WeakDarcy(SQUARE, form="mixed", **FEW), order=0),
    "strong": lambda: no.losses.virtual_observables(no.pde.StrongDarcy(SQUARE, num_points=5)),
    "differences": lambda: no.losses.grid_residual(
        functools.partial(no.pde.darcy_differences, grid=no.Grid((5, 5), boundary="neumann")), reduction="norm"
    ),
    "reconstruction": no.losses.reconstruction,
    "points": lambda: no.losses.observed(
        np.random.default_rng(1).uniform(size=(2, 4)), 0.3, reduction="norm"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_finite_differences(name, x64):
    """Of every objective without labels, along one direction in all parameters."""
    objective = OBJECTIVES[name]()
    op, batch = small(flux=name == "mixed", dtype=jnp.float64), Samples(media(2, np.float64))
    leaves, structure = jax.tree.flatten(op)
    rng = np.random.default_rng(2)
    along = jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=x.shape)) for x in leaves])

    def value(t):
        found = objective(jax.tree.map(lambda x, d: x + t * d, op, along), batch, key=key)
        return found[0] if isinstance(found, tuple) else found

    value_and_slope = jax.jit(jax.value_and_grad(value))
    h = 1e-6
    (high, _), (low, _), (_, exact) = (value_and_slope(t) for t in (h, -h, 0.0))
    assert float(exact) == pytest.approx(float(high - low) / (2 * h), rel=2e-6)
    assert abs(float(exact)) > 1e-3


class Known(no.AbstractOperator):
    """The solution of constant coefficients by its sine series, at any points."""

    terms: int = eqx.field(static=True)

    @property
    def envelope(self):
        return no.operator.Envelope((2,), ("dirichlet",), "exact")

    def __call__(self, u, /, *, query, key=None):
        odd = np.arange(1, 2 * self.terms, 2)
        m, n = np.meshgrid(odd, odd, indexing="ij")
        size = 16 * 10 / (np.pi**4 * m * n * (m**2 + n**2)) / u.mean()
        waves = [jnp.sin(np.pi * odd[:, None] * x.reshape(1, -1)) for x in query]
        return jnp.einsum("ij,ik,jk->k", size, *waves).reshape(1, *query.shape[1:])


def test_the_reference_solution_has_no_residual(x64):
    """Of an operator that is no DGNO, asked for through `query=`; the rest of the series is what is left."""
    batch = Samples(jnp.full((2, 1, 5, 5), 2.5))
    middle = ((0.2, 0.8), (0.2, 0.8))  # the series of the source converges slowly at the walls
    values = []
    for radius in (0.1, 0.05):
        weak = no.pde.WeakDarcy(middle, form="primal", num_centers=8, num_points=15, radius=radius)
        values.append(float(run(no.losses.virtual_observables(weak), Known(60), batch)[0]))
    scale = np.sqrt(8) * 10 * weak.tests.mean_test
    assert values[1] < 0.02 * scale
    wrong = lambda u, *, query: 1.1 * Known(60)(u, query=query)
    off = float(run(no.losses.virtual_observables(weak), jax.tree_util.Partial(wrong), batch)[0])
    assert off == pytest.approx(0.1 * scale, rel=0.2)  # 10 % of the source


@pytest.mark.slow
def test_trains_on_unlabelled_samples_with_new_test_functions():
    op, batch = small(), Samples(media(8))
    weak = no.pde.WeakDarcy(SQUARE, forcing=1.0, form="primal", **FEW)
    objective = no.losses.weighted_sum(
        {"pde": no.losses.virtual_observables(weak, top=5), "data": no.losses.reconstruction()}, {"data": 0.25}
    )
    settings = {"optimizer": optax.adam(3e-3), "batch_size": 4, "key": key, "progress": False}
    op, history = no.fit(op, batch, objective=objective, num_epochs=30, **settings)
    assert history.reports["pde"][-1] < 0.5 * history.reports["pde"][0]
    value = jax.jit(lambda key: objective(op, batch, key=key)[0])
    assert value(jax.random.key(1)) != value(jax.random.key(2))


@pytest.mark.slow
def test_label_free_darcy_falls_below_five_percent():
    """Section 9 of the sheet: the test error falls; without the equation it stays at 100 %."""
    problem = no.pde.NodalDarcy((29, 29), frequencies=(3.0, 4.0))
    train = Samples(np.asarray(jax.vmap(problem.sample)(jax.random.split(key, 500))))
    test = no.data.generate(problem, key=1, num_samples=20, progress=False).map(lambda x: np.asarray(x, np.float32))
    op = no.DGNO.paper("darcy_smooth", key=key)
    weak = no.pde.WeakDarcy(SQUARE, forcing=10.0, form="primal", num_centers=64, num_points=4)
    terms = {"pde": no.losses.virtual_observables(weak, top=640), "data": no.losses.reconstruction()}
    errors = []

    def watch(epoch, report):
        if epoch % 15 == 14:
            errors.append(float(no.evaluate(report["op"], test)["relative_l2"].mean()))

    rate = optax.cosine_decay_schedule(2e-3, 45 * 20)
    settings = {"optimizer": optax.adam(rate), "num_epochs": 45, "batch_size": 25, "key": key, "progress": False}
    no.fit(op, train, objective=no.losses.weighted_sum(terms, {"data": 0.25}), callback=watch, **settings)
    assert errors[-1] < 0.05
    assert errors == sorted(errors, reverse=True)
    blind, _ = no.fit(op, train, objective=no.losses.reconstruction(), **settings | {"num_epochs": 2})
    assert no.evaluate(blind, test)["relative_l2"].mean() == pytest.approx(1.0, abs=1e-3)
