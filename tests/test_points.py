"""What every operator with points promises: neither their order nor what lies on masked ones changes anything.

A public operator that names `coords` joins by itself: it is found in `EXAMPLES` of the shared test, as it is or fixed
by `at`. The kernel integral below stands for those to come, and shows that the test has teeth.
"""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_operators import EXAMPLES, built, public_operators

import neuralops as no
from neuralops import losses
from neuralops.data import Samples, pad
from neuralops.operator import check_field, keywords_of
from neuralops.wrappers import At

KEY = jax.random.key(3)
POINTS, WANTED = 7, 5


class KernelIntegral(no.AbstractOperator):
    """v(y) = Q mean_j k(y - x_j) f(u_j, x_j) over the points that count, with k and f of one hidden layer."""

    lift: jax.Array
    kernel: jax.Array
    mix: jax.Array
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)

    def __init__(self, in_channels, out_channels, ndim, *, key):
        shapes = ((8, in_channels + ndim), (8, ndim), (out_channels, 8))
        keys = jax.random.split(key, 3)
        self.lift, self.kernel, self.mix = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
        self.in_channels, self.out_channels, self.ndim = in_channels, out_channels, ndim

    @property
    def envelope(self):
        return no.operator.Envelope((self.ndim,), ("periodic", "dirichlet", "neumann"), "consistent", order=0.5)

    def encode(self, u, coords, mask=None):
        check_field(u, channels=self.in_channels, ndim=1, where="KernelIntegral")
        mask = jnp.ones(u.shape[-1], bool) if mask is None else mask
        u, coords = jnp.where(mask, u, 0), jnp.where(mask, coords, 0)
        features = jnp.tanh(self.lift @ jnp.concatenate([u, coords]))
        return coords, jnp.where(mask, features, 0) / jnp.sum(mask)

    def decode(self, code, query):
        coords, features = code
        kernel = jnp.cos(jnp.einsum("hd,dqp->hqp", self.kernel, query[:, :, None] - coords[:, None]))
        return self.mix @ jnp.einsum("hqp,hp->hq", kernel, features)

    def __call__(self, u, /, *, coords, query=None, mask=None, key=None):
        return self.decode(self.encode(u, coords, mask), coords if query is None else query)


def inner(op):
    """The examples of the shared test take one argument."""
    return op.op if isinstance(op, At) else op


def takes_clouds(op):
    """Some read fixed sensors instead, and some take the places of a structured grid, whose order matters."""
    return "coords" in keywords_of(op) and op.envelope.refinement != "spacing-locked"


def point_operators():
    """Makers of the public operators that name `coords`, with a count of channels each takes."""
    found = [(lambda: KernelIntegral(2, 1, 2, key=KEY), 2, "KernelIntegral")]
    for name, cls in public_operators().items():
        if "coords" in inspect.signature(cls.__call__).parameters:
            found += [
                (make, shape[0], f"{name}-{i}")
                for i, (make, shape) in enumerate(EXAMPLES[name])
                if takes_clouds(inner(eqx.filter_eval_shape(make)))
            ]
    return found


SLOW = ("GeoOperator-0",)  # to compile; its sibling stays

every_point_operator = pytest.mark.parametrize(
    ("make", "channels"),
    [
        pytest.param(make, channels, id=name, marks=pytest.mark.slow if name in SLOW else ())
        for make, channels, name in point_operators()
    ],
)


class Case:
    """An operator and a cloud for it: `POINTS` that count, `WANTED` where the output is asked for."""

    def __init__(self, make, channels):
        self.op = inner(built(make))
        rng, ndim = np.random.default_rng(1), max(self.op.envelope.ndim)
        draw = lambda *shape: rng.uniform(-1, 1, size=shape).astype(np.float32)
        self.u, self.coords, self.query = draw(channels, POINTS), draw(ndim, POINTS), draw(ndim, WANTED)

    @property
    def at_home(self):
        """Whether the outputs lie on the points of the input when nothing is said; a code lies nowhere."""
        try:
            return jax.eval_shape(lambda u, x: self.op(u, coords=x), self.u, self.coords).shape[1:] == (POINTS,)
        except ValueError as error:
            if not str(error).startswith("query: "):
                raise
            return False

    def asked(self, **more):
        """Where the outputs are wanted, if that can be said."""
        return more | ({"query": self.query} if "query" in keywords_of(self.op) else {})


@pytest.fixture
def case(make, channels):
    return Case(make, channels)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(b).max())))


def test_a_public_family_joins_by_itself(monkeypatch):
    monkeypatch.setattr(no.nn, "KernelIntegral", KernelIntegral, raising=False)
    monkeypatch.setattr(no.nn, "__all__", [*no.nn.__all__, "KernelIntegral"])
    make = lambda: no.at(KernelIntegral(2, 1, 2, key=KEY), coords=np.zeros((2, 4), np.float32))
    monkeypatch.setitem(EXAMPLES, "KernelIntegral", [(make, (2, 4))])
    assert {"KernelIntegral", "KernelIntegral-0"} <= {name for _, _, name in point_operators()}
    assert isinstance(Case(make, 2).op, KernelIntegral)


def forgetful(make, forget):
    """The operator with a fault: the test has to see it."""

    class Faulty(no.AbstractOperator):
        op: KernelIntegral

        @property
        def envelope(self):
            return self.op.envelope

        def __call__(self, u, /, *, coords, query=None, mask=None, key=None):
            if forget == "mask":
                mask = None if mask is None else jnp.ones_like(mask)
            if forget == "order":
                u = u * jnp.arange(u.shape[-1])
            return self.op(u, coords=coords, query=query, mask=mask)

    return lambda: Faulty(make())


@pytest.mark.parametrize("forget", ["mask", "order"])
def test_faults_are_seen(forget):
    case = Case(forgetful(lambda: KernelIntegral(2, 1, 2, key=KEY), forget), 2)
    check = test_masked_points_change_nothing if forget == "mask" else test_the_order_of_points_changes_nothing
    with pytest.raises(AssertionError):
        check(case)


@every_point_operator
def test_the_order_of_points_changes_nothing(case):
    order = np.random.default_rng(2).permutation(POINTS)
    mask = np.arange(POINTS) != 3
    masked = {"mask": mask} if "mask" in keywords_of(case.op) else {}
    moved = {"mask": mask[order]} if masked else {}
    run = jax.jit(lambda u, coords, more: case.op(u, coords=coords, **more))
    before = run(case.u, case.coords, case.asked(**masked))
    after = run(case.u[:, order], case.coords[:, order], case.asked(**moved))
    on_query = "query" in keywords_of(case.op)
    close(after, before if on_query or not case.at_home else before[:, order])
    if not case.at_home:
        return
    there, again = run(case.u, case.coords, masked), run(case.u[:, order], case.coords[:, order], moved)
    close(again[:, moved["mask"]] if masked else again, there[:, order[moved["mask"]]] if masked else there[:, order])


@every_point_operator
def test_masked_points_change_nothing(case):
    if "mask" not in keywords_of(case.op):
        pytest.skip("takes no mask")
    padding = ((0, 0), (0, 4))
    u, coords = (np.pad(x, padding, constant_values=np.nan) for x in (case.u, case.coords))
    mask = np.arange(POINTS + 4) < POINTS

    lies_with_input = case.at_home and "query" not in keywords_of(case.op)

    def energy(op, u, coords, mask):
        out = op(u, coords=coords, mask=mask, **case.asked())
        inside = mask if lies_with_input else True
        return jnp.sum(jnp.sin(jnp.where(inside, out, 0))), out

    run = jax.jit(jax.value_and_grad(energy, argnums=(0, 1), has_aux=True))
    (value, out), (gradient, slope) = run(case.op, case.u, case.coords, np.ones(POINTS, bool))
    (padded, more), (same, zero) = run(case.op, u, coords, mask)
    close(padded, value)
    close(more[:, : out.shape[1]], out)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(gradient), strict=True):
        close(a, b)
    close(zero[:, :POINTS], slope)
    np.testing.assert_array_equal(zero[:, POINTS:], 0)
    close(case.op(case.u, coords=case.coords, **case.asked()), out)  # no mask: all count


@every_point_operator
def test_the_form_with_one_argument(case):
    fixed = case.asked(coords=case.coords)
    if "mask" in keywords_of(case.op):
        fixed["mask"] = np.arange(POINTS) < POINTS - 1
    op, u = no.at(case.op, **fixed), jnp.asarray(case.u)
    told = lambda op, u: op(u, **fixed)
    wanted, slope = jax.jit(lambda op: (told(op, u), jax.grad(lambda op: jnp.sum(jnp.sin(told(op, u))))(op)))(case.op)
    assert keywords_of(op) == keywords_of(case.op) - set(fixed)
    assert [x is y for x, y in zip(jax.tree.leaves(op), jax.tree.leaves(case.op), strict=True)]
    traces = []

    @jax.jit
    def run(op, u):
        traces.append(1)
        total = lambda op: jnp.sum(jnp.sin(op(u)))
        return jax.vmap(op)(jnp.stack([u, 2 * u]))[0], jax.grad(total)(op), jax.lax.map(op, u[None])[0]

    batched, gradient, looped = run(op, u)
    close(batched, wanted)
    close(looped, wanted)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
        close(a, b, 1e-4)
    run(no.at(case.op, **{name: np.array(x) for name, x in fixed.items()}), u)  # equal arrays, the same program
    assert len(traces) == 1
    run(no.at(case.op, **fixed | {"coords": case.coords[:, ::-1]}), u)
    assert len(traces) == 2
    step = no.at(no.at(case.op, coords=case.coords), **{k: v for k, v in fixed.items() if k != "coords"})
    close(jax.jit(step)(u), wanted)


@every_point_operator
def test_outputs_are_where_they_are_wanted(case):
    if "query" not in keywords_of(case.op):
        pytest.skip("its outputs lie on the points of its input")
    if case.at_home:
        close(case.op(case.u, coords=case.coords, query=case.coords), case.op(case.u, coords=case.coords))
    away = case.op(case.u, coords=case.coords, query=case.query)
    if hasattr(case.op, "encode"):
        code = case.op.encode(case.u, coords=case.coords)
        parts = [case.op.decode(code, case.query[:, part]) for part in (slice(0, 2), slice(2, None))]  # in chunks
        close(jnp.concatenate(parts, axis=1), away)


def test_at_refuses_what_it_cannot_fix():
    op = KernelIntegral(2, 1, 2, key=KEY)
    coords = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"coords: expected one of the extra inputs that Linear names, \['key'\]"):
        no.at(no.nn.Linear(1, 1, key=KEY), coords=coords)
    with pytest.raises(ValueError, match="coords: expected one of the extra inputs that At names"):
        no.at(no.at(op, coords=coords), coords=coords)
    with pytest.raises(ValueError, match="coords: expected an array with values, got a traced one"):
        jax.jit(lambda coords: no.at(op, coords=coords)(jnp.ones((2, 3))))(coords)
    with pytest.raises(ValueError, match="mask would be lost"):
        no.at(op, coords=np.ma.masked_equal(coords, 0))


def test_clouds_of_any_size_train_alike_whatever_the_padding():
    """Wider padding that holds NaN: the same losses at every epoch, the same parameters, the same judgement."""
    rng = np.random.default_rng(5)
    sizes = (4, 7, 5, 6, 3, 7)
    coords = [rng.uniform(size=(2, n)).astype(np.float32) for n in sizes]
    inputs = [np.stack([np.sin(3 * x), np.cos(2 * y)]) for x, y in coords]
    clouds = pad(inputs, [u[:1] * u[1:] for u in inputs], coords=coords)
    wide = Samples(*(np.concatenate([x, np.full((*x.shape[:2], 3), np.nan, np.float32)], -1)
                     for x in (clouds.inputs, clouds.outputs)),
                   coords=np.concatenate([clouds.coords, np.full((6, 2, 3), np.nan, np.float32)], -1),
                   mask=np.concatenate([clouds.mask, np.zeros((6, 3), bool)], -1))  # fmt: skip
    start = KernelIntegral(2, 1, 2, key=KEY)
    runs = {}
    for name, data in {"narrow": clouds, "wide": wide}.items():
        op, history = no.fit(start, data, loss=losses.l2(), optimizer=optax.adam(1e-2), num_epochs=4, batch_size=3,
                             key=KEY, progress=False, validation=data)  # fmt: skip
        judged = no.evaluate(op, data, metrics={"error": losses.l2()}, batch_size=3)
        runs[name] = (history.loss, history.validation, judged["error"], op)
    for a, b in zip(*(run[:3] for run in runs.values()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(*(jax.tree.leaves(run[3]) for run in runs.values()), strict=True):
        close(a, b, 1e-4)
    by_hand = [
        np.linalg.norm(op(u, coords=x) - u[:1] * u[1:]) / np.linalg.norm(u[:1] * u[1:])
        for u, x in zip(inputs, coords, strict=True)
    ]
    np.testing.assert_allclose(runs["narrow"][2], by_hand, rtol=1e-4)
    assert runs["narrow"][0][-1] < runs["narrow"][0][0]
