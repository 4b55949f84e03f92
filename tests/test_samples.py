"""Samples: indexed like an array, a pytree like any other, and refused where the arrays do not fit."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.data import Samples, check_samples, pad, select
from neuralops.data.samples import as_samples

RNG = np.random.default_rng(0)
N, POINTS = 5, 4
KINDS = pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray], ids=["numpy", "jax"])


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def cloud(asarray=np.asarray, **more):
    """Everything that samples can hold: points of the inputs for each sample, those of the outputs for all."""
    mask = np.ones((N, POINTS), bool)
    mask[1, 2:] = False
    fields = {"inputs": draw(N, 2, POINTS), "outputs": draw(N, 1, 3), "coords": draw(N, 2, POINTS),
              "query": draw(2, 3), "mask": mask, "query_mask": np.array([True, True, False])}  # fmt: skip
    return Samples(**{k: asarray(v) for k, v in fields.items()}, extras={"t": asarray(np.arange(N))}, **more)


INDICES = {
    "slice": slice(1, 4),
    "backwards": slice(None, None, -2),
    "list": [3, 1],
    "repeated": [0, 0, -1],
    "truths": [True, False, True, False, False],
    "range": range(2),
    "numpy numbers": np.array([4, 0]),
    "numpy truths": np.arange(N) % 2 == 0,
    "jax numbers": jnp.array([2, 2]),
    "jax truths": jnp.arange(N) < 2,
    "nothing": [],
    "last": -1,
    "numpy integer": np.int64(3),
    "jax integer": jnp.int32(3),
    "array of no axes": np.array(2),
}


@KINDS
def test_indexing_is_that_of_each_array(asarray):
    samples = cloud(asarray)
    assert samples.shared == ("query", "query_mask")
    for index in INDICES.values():
        rows = np.arange(N)[np.asarray(index, None if index else int) if isinstance(index, list) else index]
        taken = samples[index]
        for name in ("inputs", "outputs", "coords", "mask"):
            np.testing.assert_array_equal(getattr(taken, name), np.asarray(getattr(samples, name))[rows])
        np.testing.assert_array_equal(taken.extras["t"], np.arange(N)[rows])
        assert taken.query is samples.query
        assert taken.residual_norm is None
        if rows.ndim:
            assert len(taken) == len(rows)
            assert taken.shared == samples.shared


@KINDS
def test_iteration_ends(asarray):
    samples = cloud(asarray)
    each = list(samples)  # JAX clamps an index beyond the end instead of raising
    assert len(each) == len(samples) == N
    np.testing.assert_array_equal(each[-1].inputs, samples.inputs[N - 1])
    for index in (N, -N - 1, np.int32(N), jnp.int32(N), [0, N], np.array([-N - 1]), [True] * (N + 1)):
        with pytest.raises(IndexError, match="index: expected"):
            samples[index]


@pytest.mark.parametrize(
    "index", ["inputs", (0, 1), None, ..., True, np.True_, 1.0, [0.5], [[0, 1]], np.zeros((2, N), bool)], ids=repr
)
def test_other_indices_are_refused(index):
    with pytest.raises(ValueError, match="index: expected sample numbers, a slice or truth values"):
        cloud()[index]


def test_a_pytree():
    samples = cloud(jnp.asarray)
    leaves, structure = jax.tree.flatten(samples)
    again = jax.tree.unflatten(structure, leaves)
    assert again.shared == samples.shared
    assert jax.tree.structure(again) == structure
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(samples)}
    assert ".inputs" in names
    assert ".extras['t']" in names

    @jax.jit
    def run(samples, row):
        one = lambda s: jnp.sum(s.inputs * s.mask) + jnp.sum(s.query * s.outputs) + s.extras["t"]
        return jax.vmap(one, in_axes=(samples.axes,))(samples), samples[row], len(samples)

    values, third, count = run(samples, jnp.int32(3))
    x, y, q, m = (np.asarray(v) for v in (samples.inputs, samples.outputs, samples.query, samples.mask))
    wanted = (x * m[:, None]).sum((1, 2)) + (q * y).sum((1, 2)) + np.arange(N)
    np.testing.assert_allclose(values, wanted, rtol=1e-5)
    np.testing.assert_array_equal(third.coords, samples.coords[3])
    assert count == N


@pytest.mark.parametrize("way", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy, copy.copy])
def test_copies(way):
    samples = cloud()
    again = way(samples)
    assert again.shared == samples.shared
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(samples), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_shared_is_found_by_rank_also_where_the_counts_agree():
    """Two samples in the plane: (2, points) could be either, were it not for its rank."""
    x = draw(2, 1, 6)
    assert Samples(x, coords=draw(2, 6), mask=np.ones(6, bool)).shared == ("coords", "mask")
    assert Samples(x, coords=draw(2, 2, 6), mask=np.ones((2, 6), bool)).shared == ()
    square = draw(2, 1, 2, 2)  # samples, points and dimensions all two
    assert Samples(square, square, coords=draw(2, 2, 2), query=draw(2, 2, 2, 2)).shared == ("coords",)
    both = check_samples(Samples(square, square, coords=draw(2, 2, 2), mask=np.ones((2, 2, 2), bool)))
    assert both[0].coords.shape == (2, 2, 2)
    assert both[0].mask.shape == (2, 2)
    assert Samples(x, coords=draw(2, 6), shared=()).shared == ()
    assert Samples(draw(5, 1, 4, 4), query=draw(5, 2, 9)).shared == ()  # without outputs by the count
    assert Samples(draw(5, 1, 4, 4), query=draw(2, 3, 3)).shared == ("query",)


def good(**changes):
    fields = {"inputs": draw(N, 2, POINTS), "outputs": draw(N, 1, POINTS)}
    return lambda: check_samples(Samples(**fields | changes))


def hole(x, where=(1, 0, 3)):
    x = np.array(x)
    x[where] = np.nan
    return x


INSIDE = np.ones((N, POINTS), bool)
INSIDE[1, 3] = False
BAD = {
    "no inputs": (good(inputs=None), r"samples\.inputs: expected an array .*got NoneType"),
    "no outputs": (good(outputs=None), r"samples\.outputs: expected what the operator"),
    "no channels": (good(inputs=draw(N, POINTS)), r"samples\.inputs: .*add the channel axis"),
    "a list": (good(inputs=[draw(2, POINTS)] * N), r"samples\.inputs: .*got list; stack"),
    "a ragged list": (good(inputs=[draw(2, 3), draw(2, 4)]), r"samples\.inputs: .*got list; stack"),
    "integers": (good(outputs=np.ones((N, 1, POINTS), int)), r"samples\.outputs: expected a real floating dtype"),
    "complex": (good(inputs=np.ones((N, 1, POINTS), complex)), r"samples\.inputs: expected a real floating dtype"),
    "no samples": (good(inputs=draw(0, 2, 4), outputs=draw(0, 1, 4)), "expected at least one sample, channel"),
    "no points": (good(inputs=draw(N, 2, 0)), "expected at least one sample, channel and point"),
    "unpaired": (good(outputs=draw(N + 1, 1, POINTS)), "expected as many inputs as outputs"),
    "unpaired extras": (good(extras={"t": np.arange(3)}), "expected as many inputs as outputs"),
    "an extra number": (good(extras={"t": 3.0}), r"samples\.extras\['t'\]: expected an array with the samples first"),
    "residuals of points": (good(residual_norm=draw(N, 2)), r"samples\.residual_norm: .*got shape \(5, 2\)"),
    "points last": (good(coords=draw(POINTS, 2)), r"samples\.coords: expected shape \(ndim, 4\)"),
    "other points": (good(coords=draw(N, 2, 3)), r"samples\.coords: expected shape \(5, ndim, 4\)"),
    "points of others": (good(coords=draw(3, 2, POINTS)), "expected as many inputs as outputs"),
    "integer points": (good(coords=np.ones((2, POINTS), int)), r"samples\.coords: expected a real floating"),
    "a list of points": (good(coords=[[0.0] * POINTS] * 2), r"samples\.coords: .*"),
    "NaN in points": (good(coords=hole(draw(N, 2, POINTS))), r"samples\.coords: expected finite numbers.*first: 1"),
    "another query": (good(query=draw(2, 7)), r"samples\.query: expected shape \(ndim, 4\) beside outputs"),
    "a mask of channels": (good(mask=np.ones((N, 2, POINTS), bool)), r"samples\.mask: expected shape \(5, 4\)"),
    "a mask of others": (good(mask=np.ones((POINTS + 1,), bool)), r"samples\.mask: expected shape \(4\)"),
    "a mask of numbers": (good(mask=np.ones((N, POINTS))), r"samples\.mask: expected truth values, got float64"),
    "a mask of the query": (
        good(outputs=draw(N, 1, 7), query=draw(2, 7), mask=np.ones((N, 7), bool)), "mask marks the points of the inputs"
    ),
    "nothing counts": (good(mask=INSIDE & (np.arange(N) != 2)[:, None]), "a point that counts .* none in sample 2"),
    "NaN": (good(inputs=hole(draw(N, 2, POINTS))), r"samples\.inputs: expected finite.*in 1 of 5 samples \(first: 1\)"),
    "NaN beside the mask": (good(outputs=hole(draw(N, 1, POINTS), (1, 0, 2)), mask=INSIDE), r"samples\.outputs: .*NaN"),
    "NaN beside a shared mask": (good(inputs=hole(draw(N, 2, POINTS)), mask=np.arange(4) != 2), "inputs: .*NaN"),
    "a masked array": (
        good(inputs=np.ma.masked_less(draw(N, 2, POINTS), 0)), r"inputs: .*mask would be lost"
    ),
    "one array": (lambda: check_samples(draw(N, 1, 4)), "expected Samples or a pair"),
    "other names": (lambda: check_samples({"a": 1, "u": 2}), r"got \['a', 'u'\]; say which is which with data.select"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_what_does_not_fit_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert ";" in str(error.value)


def test_nan_where_nothing_counts_is_taken():
    fields = {"inputs": hole(draw(N, 2, POINTS)), "outputs": hole(draw(N, 1, POINTS)),
              "coords": hole(draw(N, 2, POINTS))}  # fmt: skip
    check_samples(Samples(**fields, mask=INSIDE))
    check_samples(Samples(**fields, mask=np.arange(POINTS) != 3))
    on_query = Samples(draw(N, 2, 6), fields["outputs"], query=hole(draw(2, POINTS), (0, 3)),
                       query_mask=np.arange(POINTS) != 3)  # fmt: skip
    check_samples(on_query)
    check_samples(Samples(draw(N, 1, 4)), labels=False)


def test_names_of_others():
    x, y = draw(N, 1, 4), draw(N, 1, 4)
    for data in ({"x": x, "y": y}, {"inputs": x, "outputs": y}, (x, y), [x, y], Samples(x, y)):
        samples = as_samples(data)
        assert samples.inputs is x
        assert samples.outputs is y
    rich = as_samples({"x": x, "y": y, "coords": draw(2, 4), "extras": {"t": np.arange(N)}, "units": "m"})
    assert rich.shared == ("coords",)
    np.testing.assert_array_equal(rich.extras["t"], np.arange(N))


def test_select_from_files_and_from_items(tmp_path):
    a, u, nu, points = draw(N, 1, 4), draw(N, 1, 4), draw(N), draw(2, 4)
    np.savez(tmp_path / "flow.npz", coeff=a, sol=u, nu=nu, points=points)
    names = {"inputs": "coeff", "outputs": "sol", "extras": {"viscosity": "nu"}}
    with np.load(tmp_path / "flow.npz") as file:
        samples = check_samples(select(file, coords="points", **names))
        with pytest.raises(ValueError, match=r"outputs: expected 'u' in data, which is \['coeff', 'nu'"):
            select(file, inputs="coeff", outputs="u")
    np.testing.assert_array_equal(samples.outputs, u)
    np.testing.assert_array_equal(samples.extras["viscosity"], nu)
    assert samples.shared == ("coords",)

    items = [{"coeff": a[i], "sol": u[i], "nu": nu[i], "points": points} for i in range(N)]
    source = select(items, coords="points", **names)
    assert len(source) == N
    np.testing.assert_array_equal(source[3].outputs, u[3])
    assert source[3].extras["viscosity"] == nu[3]
    assert len(list(source)) == N
    pairs = select([(i, a[i], u[i]) for i in range(N)], inputs=1, outputs=2)
    np.testing.assert_array_equal(pairs[2].inputs, a[2])
    np.testing.assert_array_equal(select((nu, a, u), inputs=1, outputs=2).outputs, u)
    for call, words in (
        (lambda: select([(1, 2)], inputs=0, outputs=2)[0], r"outputs: expected 2 in data\[0\]"),
        (lambda: select(items, inputs="coeff", outputs="no")[1], r"outputs: expected 'no' in data\[1\]"),
        (lambda: select(items, inputs="coeff", weights="nu"), "fields: expected fields of Samples"),
        (lambda: select(3, inputs="coeff"), "data: expected a mapping"),
        (lambda: select(Samples(a, u), inputs="coeff")[0], r"inputs: expected 'coeff' in data\[0\], which is Samples"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()


def test_pad():
    sizes, queries = (3, 5, 1), (2, 2, 4)
    inputs, coords = [draw(2, n) for n in sizes], [draw(3, n) for n in sizes]
    outputs, query = [draw(1, n) for n in queries], [draw(3, n) for n in queries]
    samples = check_samples(pad(inputs, outputs, coords=coords, query=query, extras={"t": np.arange(3)}))
    assert samples.shared == ()
    for i, sample in enumerate(samples):
        for field, mask, part in (("inputs", "mask", inputs), ("coords", "mask", coords),
                                  ("outputs", "query_mask", outputs), ("query", "query_mask", query)):  # fmt: skip
            padded, inside = getattr(sample, field), getattr(sample, mask)
            np.testing.assert_array_equal(padded[:, inside], part[i])
            assert not padded[:, ~inside].any()
    for call, words in (
        (lambda: pad(inputs, outputs), r"outputs: expected \(channels, 3\) for sample 0"),
        (lambda: pad(inputs, coords=coords[:2]), "coords: expected one array for each of 3 samples, got 2"),
        (lambda: pad([]), "inputs: expected one array"),
        (lambda: pad([draw(2, 3), draw(1, 4)]), r"inputs: expected \(2, 4\) for sample 1, got shape \(1, 4\)"),
        (lambda: pad([draw(3)]), r"inputs: expected \(channels, 3\) for sample 0, got shape \(3,\)"),
        (lambda: pad(inputs, mask=np.ones((3, 5), bool)), "mask: expected to be made here"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
