"""Every public object pickles, copies and compares: what a worker process sends back is what was there.

Exempt are objects that hold functions of the user: a lambda has no name to be found by. Nor have the functions that
flowjax keeps in a bijection: a `Flow` is copied, but not pickled.
"""

import copy
import inspect
import multiprocessing
import pickle

import equinox as eqx
import flowjax.bijections
import flowjax.distributions
import flowjax.flows
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from test_operators import EXAMPLES

import neuralops as no
from neuralops import data, inverse, models, nn, pde, solvers, training, wrappers
from neuralops.training import losses, objectives

ROOMS = (no, data, inverse, inverse.maps, models, nn, pde, solvers, training, wrappers)
GRID = no.Grid((4, 5), boundary="dirichlet")
FIELD = np.ones((3, 1, 4, 5), np.float32)
SQUARE = ((0.0, 1.0), (0.0, 1.0))
ABSTRACT = {
    "AbstractLinearMap", "AbstractOperator", "AbstractPrior", "AbstractRegularizer", "AbstractSplitting", "NullSpace",
    "Operator", "Problem",
}  # fmt: skip
KEY = jax.random.key(0)
CODES = np.random.default_rng(0).uniform(-0.9, 0.9, (30, 2))


def network():
    return no.DirectionNet((1, 1, 1), 2, ndim=2, key=KEY)


def source(folder):
    words = {"name": "ones", "input_fields": ["a"], "output_fields": ["u"]}
    return data.write(folder / "x.h5", (FIELD, FIELD), grid=GRID, **words)


def solved():
    return no.solve(no.Diffusion(GRID), jnp.asarray(FIELD[0]), no.CG(1e-3))


def reconstructed():
    A = inverse.maps.Identity((1, 4))
    return inverse.reconstruct(A, jnp.ones((1, 4)), inverse.L1(0.1), inverse.PGD(0.5, max_steps=4), monitor=2)


def history():
    best = nn.Linear(1, 1, key=KEY)
    return training.History(np.ones(2), None, {"l2": np.ones(2)}, np.ones(2), 1, best)


def disc(x):
    return x[0] ** 2 + x[1] ** 2 < 0.5


def roughness(model, code):
    return jnp.sum(code**2)


class Line(eqx.Module):
    """A latent model of two numbers, u = a = z_0 + z_1 x."""

    def decode(self, code, query):
        return (code[0] + code[1] * query[0])[None]

    decode_input = decode


def seen(mask=None):
    blank = inverse.PointMeasurement(np.linspace(0, 1, 5)[None], noise=0.1, mask=mask)
    return blank.simulate(np.arange(5.0), key=KEY)


def posterior():
    return inverse.Posterior(Line(), inverse.Normal(2), seen(), physics=roughness, physics_weight=1)


def draws():
    return inverse.Draws(jax.random.normal(KEY, (2, 20, 2)), "exact", divergent=jnp.zeros((2, 20), bool))


def told():
    return inverse.summary(draws(), posterior(), np.linspace(0, 1, 4)[None], truth=np.ones((1, 4)))


def calibration():
    ranks = np.arange(6).reshape(3, 2)
    return inverse.Calibration(0.9, 0.8, 0.1, np.full(3, 0.8), ranks, 19, np.full(2, 0.5))


VALUES = {  # equal when their content is
    "Grid": lambda p: GRID,
    "Axis": lambda p: GRID.axes[0],
    "Header": lambda p: source(p).header,
    "Normalizer": lambda p: data.Normalizer.fit(FIELD + np.arange(5)),
    "Envelope": lambda p: nn.Linear(1, 1, key=KEY).envelope,
    "Constant": lambda p: wrappers.Constant(FIELD),
    "CG": lambda p: no.CG(1e-4, max_steps=7),
    "CG, preconditioned": lambda p: no.CG(1e-4, preconditioner=no.FastPoisson(GRID)),
    "FlexibleCG": lambda p: no.FlexibleCG(memory=3),
    "DeepConjugateDirection": lambda p: no.DeepConjugateDirection(network()),
    "Refinement": lambda p: no.Refinement(no.FastPoisson(GRID)),
    "Result": lambda p: solvers.Result(0),
    "Burgers": lambda p: pde.Burgers(16),
    "Perforated": lambda p: pde.Perforated("elasticity", num_holes=(1, 2)),
    "BurgersWalls": lambda p: pde.BurgersWalls(16),
    "Darcy": lambda p: pde.Darcy((8, 8)),
    "Helmholtz": lambda p: pde.Helmholtz((21, 21)),
    "NavierStokes": lambda p: pde.NavierStokes((8, 8)),
    "NodalDarcy": lambda p: pde.NodalDarcy((8, 8)),
    "Poisson": lambda p: pde.Poisson((8,)),
    "Wave": lambda p: pde.Wave((64, 64), medium=pde.waves.Layered(), receivers=((0.5, 0.5),)),
    "Rings": lambda p: pde.waves.Rings(count=2),
    "WaveEquation": lambda p: pde.waves.WaveEquation((16, 16), max_sound_speed=1.0, walls="neumann"),
    "PoissonDirections": lambda p: pde.PoissonDirections((8, 8)),
    "GaussianRandomField": lambda p: pde.GaussianRandomField(2.0, 3.0),
    "TestFunctions": lambda p: pde.TestFunctions(SQUARE, inside=disc, refined=(((0.2, 0.6), (0.2, 0.6)), 5)),
    "BalancedDarcy": lambda p: pde.BalancedDarcy(SQUARE, particular=disc),
    "WeakDarcy": lambda p: pde.WeakDarcy(SQUARE, forcing=disc, form="primal", rule="derivative"),
    "WeakBurgers": lambda p: pde.WeakBurgers(viscosity=0.1),
    "WeakStokes": lambda p: pde.WeakStokes(num_centers=7),
    "StrongDarcy": lambda p: pde.StrongDarcy(SQUARE, num_points=7),
    "StrongBurgers": lambda p: pde.StrongBurgers(viscosity=0.1),
    "Normal": lambda p: inverse.Normal(3),
    "Uniform": lambda p: inverse.Uniform(3),
    "ADMM": lambda p: inverse.ADMM(0.5, inner=no.CG(1e-4)),
    "PGD": lambda p: inverse.PGD(0.5),
    "FISTA": lambda p: inverse.FISTA(restart=False),
    "PDHG": lambda p: inverse.PDHG(0.5, 0.1),
    "L1": lambda p: inverse.L1(0.5),
    "Box": lambda p: inverse.Box(-1.0, 1.0),
    "TotalVariation": lambda p: inverse.TotalVariation(0.5, kind="anisotropic"),
    "Wavelets": lambda p: inverse.Wavelets(0.5, wavelet="db2", levels=2),
    "Ending": lambda p: inverse.Ending(1),
    "Bound": lambda p: losses.h1(GRID),
    "Bound, without options": lambda p: losses.l2(),
    "Supervised": lambda p: objectives.supervised(losses.relative_l2),
    "WeightedSum": lambda p: objectives.weighted_sum({"a": losses.mse, "b": losses.l2()}),
    "Physics": lambda p: objectives.physics(pde.Darcy((8, 8))),
    "Denoising": lambda p: losses.denoising(losses.proximal_matching(0.2), noise=(0.1, 0.2)),
    "ProximalMatching": lambda p: losses.proximal_matching(0.2),
    "RolloutLoss": lambda p: objectives.rollout(2, losses.mse),
    "VirtualObservables": lambda p: losses.virtual_observables(pde.WeakDarcy(SQUARE), weights={"balance": 2}, top=3),
    "GridResidual": lambda p: losses.grid_residual(pde.darcy_differences),
    "Reconstruction": lambda p: losses.reconstruction(),
    "Divergence": lambda p: losses.kl(),
    "Observed": lambda p: losses.observed(np.ones((2, 3)), "input", channels=[0]),
}
THINGS = {  # equal to themselves alone, or by their arrays
    **{name: lambda p, make=makers[0][0]: make() for name, makers in EXAMPLES.items()},
    "At": lambda p: no.at(data.Normalized(network()), mask=np.ones((4, 6), bool)),
    "Rollout": lambda p: no.Rollout(network(), 2),
    "Samples": lambda p: source(p).load(),
    "ArrayLoader": lambda p: data.ArrayLoader(source(p).load(), 2, key=KEY),
    "HDF5Source": source,
    "Selected": lambda p: data.select(source(p), inputs="inputs", outputs="outputs"),
    "Solution": lambda p: solved(),
    "LanczosBasis": lambda p: solvers.lanczos(no.Diffusion(GRID), jnp.asarray(FIELD[0]), 2),
    "History": lambda p: history(),
    "Patches": lambda p: pde.WeakDarcy(SQUARE, num_centers=5).draw(KEY),
    "Gaussian": lambda p: inverse.Gaussian.fit(CODES, rank=1),
    "Ellipses": lambda p: inverse.random_ellipses(KEY, num_ellipses=3),
    "PointMeasurement": lambda p: seen(),
    "PointMeasurement, masked": lambda p: seen(np.arange(5) < 3),
    "Posterior": lambda p: posterior(),
    "Draws": lambda p: draws(),
    "PointEstimate": lambda p: inverse.PointEstimate(jnp.ones(2), jnp.ones(5), jnp.ones(())),
    "Summary": lambda p: told(),
    "Calibration": lambda p: calibration(),
    "L2": lambda p: inverse.L2(0.5, mean=np.ones((1, 4), np.float32)),
    "Learned": lambda p: inverse.Learned(nn.Linear(1, 1, key=KEY), code=0.1),
    "NonlinearReconstruction": lambda p: inverse.NonlinearReconstruction(
        jnp.ones((1, 4)), jnp.ones((), bool), jnp.ones((), jnp.int32), jnp.ones(3), jnp.ones(3), jnp.ones(2)
    ),
    "Reconstruction, of a field": lambda p: reconstructed(),
    "Trace": lambda p: reconstructed().history,
    "DerivativeWarning": lambda p: solvers.DerivativeWarning("told"),
}


def content(x):
    """What an object holds, down to numbers and words."""
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x).tolist()
    if not jax.tree_util.all_leaves([x]):
        return str(jax.tree.structure(x)), [content(leaf) for leaf in jax.tree.leaves(x)]
    held = {name: value for name, value in getattr(x, "__dict__", {}).items() if name != "_handle"}
    return {name: content(value) for name, value in held.items()} or str(x)


def copies(x):
    return {"pickle": pickle.loads(pickle.dumps(x)), "deepcopy": copy.deepcopy(x), "copy": copy.copy(x)}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_equal_to_their_copies(tmp_path, name):
    x = VALUES[name](tmp_path)
    for how, y in copies(x).items():
        assert type(y) is type(x)
        assert bool(x == y), how
        assert not bool(x != y), how
        assert hash(x) == hash(y), how
        assert len({x, y}) == 1
        assert jax.tree.structure(x) == jax.tree.structure(y), how
    assert not bool(x == "another kind of thing")


@pytest.mark.parametrize("name", THINGS)
def test_things_have_copies_with_the_same_content(tmp_path, name):
    x = THINGS[name](tmp_path)
    assert bool(x == x)
    for how, y in copies(x).items():
        assert type(y) is type(x)
        assert content(x) == content(y), how
        if not jax.tree_util.all_leaves([x]):  # the same program serves both
            assert jax.tree.structure(x) == jax.tree.structure(y), how
        assert isinstance(bool(x == y), bool)
        assert bool(x == y) != bool(x != y)
    assert not bool(x == "another kind of thing")


def test_a_copied_inverse_solves_without_another_compile(counted):
    op, _ = EXAMPLES["Inverse"][0]
    op = op()
    fn, traces = counted(lambda op, r: op(r))
    run = jax.jit(fn)
    r = jnp.ones((1, 6, 7))
    for y in (op, *copies(op).values()):
        assert jnp.array_equal(run(y, r), run(op, r))
    assert len(traces) == 1


def test_every_public_class_has_its_case():
    classes = {
        name
        for room in ROOMS
        for name in getattr(room, "__all__", dir(room))
        if inspect.isclass(getattr(room, name)) and getattr(room, name).__module__.startswith("neuralops")
    }
    tested = {name.split(",")[0] for name in {**VALUES, **THINGS}}
    assert classes - ABSTRACT - {"DivergedError", "Flow"} <= tested


# with inverse/flow.py
def test_a_flow_is_copied_though_not_pickled():
    base = flowjax.distributions.StandardNormal((2,))
    spline = flowjax.bijections.RationalQuadraticSpline(knots=3, interval=5)
    options = {"base_dist": base, "transformer": spline, "flow_layers": 1, "nn_width": 4, "invert": False}
    bijection = paramax.unwrap(flowjax.flows.coupling_flow(KEY, **options)).bijection
    flow = inverse.Flow(bijection, inverse.Gaussian.fit(CODES), (("train", (1.0,)),))
    for y in (copy.copy(flow), copy.deepcopy(flow)):
        assert type(y) is inverse.Flow
        assert y.losses == flow.losses
        for a, b in zip(*(jax.tree.leaves(eqx.filter(x, eqx.is_array)) for x in (y, flow)), strict=True):
            assert np.array_equal(a, b)
    code = copy.deepcopy(flow)(jnp.array([0.3, -0.7]))
    assert code.shape == (2,)
    assert np.abs(code).max() < 1
    with pytest.raises(AttributeError, match="pickle"):
        pickle.dumps(flow)  # when this works, a Flow belongs to THINGS


def diverge():
    raise training.DivergedError(3, None, nn.Linear(1, 1, key=KEY), history())


# with training/state.py
def test_a_diverged_run_can_say_so_from_a_worker(tmp_path):
    error = training.DivergedError(3, 5, nn.Linear(1, 1, key=KEY), history())
    for y in copies(error).values():
        assert str(y) == str(error)
        assert (y.epoch, y.step) == (3, 5)
        assert content(y.op) == content(error.op)
        assert np.array_equal(y.history.loss, error.history.loss)
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(training.DivergedError, match="epoch 3"):
        pool.apply(diverge)
