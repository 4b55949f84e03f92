"""Points, masks, extras and trajectories in files: where they lie, that they come back, that they train alike."""

import hashlib
import json
import multiprocessing
import pickle

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import data
from neuralops.grid import Grid

SIZES = (5, 7, 4, 6)


def clouds(spoil=True):
    """Ragged clouds with outputs on the same points, a mask, extras of several kinds and NaN in the padding."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(2, n)).astype("float32") for n in SIZES]
    extras = {
        "weight": rng.random(4),
        "label": np.array([3, 1, 2, 9], np.int16),
        "flag": np.array([[True, False]] * 4),
        "spectrum": (rng.normal(size=(4, 3)) + 1j).astype(np.complex64),
    }
    samples = data.pad(
        parts,
        [x[:1] * 2 for x in parts],
        coords=[rng.uniform(size=(2, n)).astype("float32") for n in SIZES],
        extras=extras,
        residual_norm=rng.random(4),
    )
    hidden = ~samples.mask[:, None]
    return samples.replace(
        inputs=np.where(hidden & spoil, np.nan, samples.inputs),
        outputs=np.where(hidden & spoil, np.nan, samples.outputs),
        coords=np.where(hidden & spoil, np.nan, samples.coords),
    )


def queried():
    """Fields on a grid with outputs at four points that all samples share, some of them masked."""
    rng = np.random.default_rng(1)
    return data.Samples(
        rng.normal(size=(5, 1, 6, 8)),
        np.where([True, True, False, True], rng.normal(size=(5, 2, 4)), np.nan),
        query=rng.random((2, 4)),
        query_mask=np.array([True, True, False, True]),
        mask=np.ones((5, 6, 8), bool),
    )


def frames(samples=3, mask=True):
    """Trajectories of two channels with one mask each and coordinates that all share; NaN under the mask."""
    rng = np.random.default_rng(2)
    counts = rng.random((samples, 6)) > 0.3
    u = rng.normal(size=(samples, 9, 2, 6)).astype("float32")
    u = np.where(counts[:, None, None], u, np.nan) if mask else u
    return data.Samples(u, coords=rng.random((1, 6)).astype("float32"), mask=counts if mask else None,
                        extras={"nu": rng.random(samples)}, shared=("coords",))  # fmt: skip


CLOUD = {"name": "Cloud", "input_fields": ["p", "q"], "output_fields": ["r"]}
QUERY = {"name": "Probe", "input_fields": ["a"], "output_fields": ["u", "v"], "grid": Grid((6, 8))}
FRAMES = {"name": "Waves", "input_fields": ["u", "v"], "grid": Grid((6,)), "times": np.linspace(0, 2, 9)}
CASES = {"clouds": (clouds, CLOUD), "queried": (queried, QUERY), "frames": (frames, FRAMES)}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    make, options = CASES[request.param]
    samples = make()
    return samples, data.write(tmp_path / "case.h5", samples, **options)


def equal(x, y):
    return jax.tree.structure(x) == jax.tree.structure(y) and all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    )


# --- where it lies -----------------------------------------------------------------------------------------------


def test_points_lie_under_names_of_our_own(tmp_path):
    samples = clouds()
    with h5py.File(data.write(tmp_path / "c.h5", samples, **CLOUD).path) as file:
        assert (file.attrs["grid_type"], file.attrs["n_spatial_dims"]) == ("points", 2)
        assert (file.attrs["neuralops_schema_version"], file.attrs["n_trajectories"]) == (2, 4)
        assert list(file["dimensions"]) == ["time"]  # no axis of a grid, no boundary, no field of The Well's
        assert not list(file["boundary_conditions"])
        assert not list(file["t0_fields"])
        assert not list(file["t0_fields"].attrs["field_names"])
        for name, x in (("p", samples.inputs[:, 0]), ("q", samples.inputs[:, 1]), ("r", samples.outputs[:, 0])):
            assert np.array_equal(file["neuralops_fields"][name][:], x, equal_nan=True)
        assert np.array_equal(file["neuralops_points/coords"][:], samples.coords, equal_nan=True)
        assert np.array_equal(file["neuralops_points/mask"][:], np.arange(7) < np.array(SIZES)[:, None])
        assert set(file["neuralops_extras"]) == {"weight", "label", "flag", "spectrum"}
        assert file["neuralops_extras/label"][:].tolist() == [3, 1, 2, 9]
        assert file["neuralops_extras/label"].dtype == np.int16
        assert file["neuralops_points/coords"].attrs["sample_varying"]
        promised = json.loads(file.attrs["neuralops_contents"])
        assert promised["points"] == [7]
        assert [entry["name"] for entry in promised["arrays"]] == [
            "coords", "mask", "flag", "label", "spectrum", "weight"]  # fmt: skip


def test_fields_on_the_grid_stay_where_the_well_has_them(tmp_path):
    samples = queried()
    with h5py.File(data.write(tmp_path / "q.h5", samples, **QUERY).path) as file:
        assert list(file["t0_fields"].attrs["field_names"]) == list(file["t0_fields"]) == ["a"]
        assert np.array_equal(file["t0_fields/a"][:], samples.inputs[:, 0])
        assert np.array_equal(file["neuralops_fields/v"][:], samples.outputs[:, 1], equal_nan=True)
        assert np.array_equal(file["neuralops_points/query"][:], samples.query)  # once for all samples
        assert not file["neuralops_points/query"].attrs["sample_varying"]
        assert file["neuralops_points/query_mask"].shape == (4,)
        assert file["neuralops_points/mask"].shape == (5, 6, 8)


@pytest.mark.parametrize("compression", [None, 3])
def test_trajectories_lie_as_the_wells(tmp_path, compression):
    samples = frames(mask=False)
    outputs = samples.inputs[:, :, :1] * 3
    both = data.Samples(samples.inputs, outputs)
    options = {**FRAMES, "output_fields": ["w"], "compression": compression}
    with h5py.File(data.write(tmp_path / "t.h5", both, **options).path) as file:
        assert np.array_equal(file["dimensions/time"][:], np.linspace(0, 2, 9))
        assert file["dimensions/time"].attrs["time_varying"]
        for name, x in (("u", samples.inputs[:, :, 0]), ("v", samples.inputs[:, :, 1]), ("w", outputs[:, :, 0])):
            field = file["t0_fields"][name]
            assert np.array_equal(field[:], x)  # (samples, time, points)
            assert (field.attrs["time_varying"], field.attrs["sample_varying"]) == (True, True)
            assert field.attrs["dim_varying"].tolist() == [True]
            assert field.chunks == (None if compression is None else (1, 1, 6))
    loaded = data.open(tmp_path / "t.h5").load()
    assert np.array_equal(loaded.outputs, outputs)
    data.validate(tmp_path / "t.h5")


def old_file(path, a, u):
    """A file of schema 1 by h5py alone: one axis from wall to wall, one field in, one out."""
    n, points = a.shape
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="mine", grid_type="cartesian", n_spatial_dims=1, n_trajectories=n)
        file.attrs["simulation_parameters"] = ["nu"]
        file.attrs["nu"] = 0.5
        words = {"schema_version": 1, "problem": "Mine", "parameters": '{"nu": 0.5}', "input_fields": ["a"],
                 "output_fields": ["u"], "num_samples": n, "key": np.array([0, 7], np.uint32),
                 "key_impl": "threefry2x32",
                 "dtype": "float64", "store_dtype": "float32", "batch_size": 1, "version": "0.1", "jax_version": "0.7",
                 "num_points": np.array([points]), "domain_extent": np.array([2.0]), "boundary": '["dirichlet"]',
                 "centering": ["node"]}  # fmt: skip
        for name, value in words.items():
            file.attrs["neuralops_" + name] = value
        file["dimensions/time"] = np.zeros(1, np.float32)
        file["dimensions"].attrs["spatial_dims"] = ["x"]
        file["dimensions/x"] = (2 * np.arange(1, points + 1) / (points + 1)).astype(np.float32)
        wall = file.create_group("boundary_conditions/x_wall")
        wall.attrs.update(bc_type="wall", neuralops_boundary="dirichlet")
        file["scalars/residual_norm"] = np.full(n, 1e-9)
        for order in range(3):
            file.create_group(f"t{order}_fields").attrs["field_names"] = ["a", "u"] if order == 0 else []
        for name, x in (("a", a), ("u", u)):
            file["t0_fields"][name] = x
            file["t0_fields"][name].attrs["neuralops_sha256"] = hashlib.sha256(x.tobytes()).hexdigest()


def test_old_files_open_and_plain_ones_stay_old(tmp_path):
    a = np.random.default_rng(0).random((3, 5)).astype("<f4")
    old_file(tmp_path / "old.h5", a, 2 * a)
    data.validate(tmp_path / "old.h5")
    old = data.open(tmp_path / "old.h5")
    assert set(old[1]) == {"inputs", "outputs"}
    assert np.array_equal(old[1]["outputs"], 2 * a[1:2])
    assert (old.shared, old.times, old.grid) == ((), None, Grid((5,), 2.0, "dirichlet"))
    assert equal(old.load(), data.Samples(a[:, None], 2 * a[:, None], np.full(3, 1e-9)))
    options = {"name": "Mine", "input_fields": ["a"], "output_fields": ["u"], "grid": old.grid}
    with h5py.File(data.write(tmp_path / "new.h5", old.load(), **options).path) as file:
        assert file.attrs["neuralops_schema_version"] == 1
        assert not [name for name in [*file, *file.attrs] if name in ("neuralops_contents", "neuralops_points")]


# --- that it comes back ------------------------------------------------------------------------------------------


def test_round_trip(case):
    samples, source = case
    data.validate(source.path)
    whole = source.load()
    assert equal(whole, samples)
    assert (whole.shared, source.shared) == (samples.shared, samples.shared)
    for index in (1, -1, slice(1, 3), slice(None, None, -2), [2, 0, 0], np.arange(len(samples)) != 1):
        item = source[index]
        assert equal(data.Samples(**item, shared=source.shared), samples[index].replace(
            residual_norm=None, shared=samples.shared))  # fmt: skip
        assert set(item) <= {"inputs", "outputs", "coords", "query", "mask", "query_mask", "extras"}
    for name in source.shared:
        assert source[0][name] is source[1][name]
    copy = pickle.loads(pickle.dumps(source))
    assert equal(copy.load(), samples)
    assert equal(jax.tree.map(np.asarray, source.lazy()), samples)


def test_digests_know_every_array(tmp_path):
    base = clouds()
    digest = data.write(tmp_path / "0.h5", base, **CLOUD).sha256()
    assert data.write(tmp_path / "same.h5", clouds(), compression=2, **CLOUD).sha256() == digest
    others = [
        base.replace(coords=base.coords + 1),
        base.replace(extras={**base.extras, "label": base.extras["label"] + 1}),
        base.replace(extras={k if k != "label" else "name": x for k, x in base.extras.items()}),
        base.replace(mask=np.arange(7) < np.array([4, 7, 4, 6])[:, None]),
    ]
    digests = {data.write(tmp_path / f"{i}.h5", x, **CLOUD).sha256() for i, x in enumerate(others, 1)}
    assert len(digests | {digest}) == 5
    headers = [data.open(tmp_path / f"{i}.h5").header for i in (0, 3)]
    assert [words.split(":")[0] for words in headers[0].differences(headers[1])] == ["contents"]
    later = data.write(tmp_path / "t1.h5", frames(), **{**FRAMES, "times": np.arange(9)})
    assert later.sha256() != data.write(tmp_path / "t0.h5", frames(), **FRAMES).sha256()


# --- windows -----------------------------------------------------------------------------------------------------


def in_child(windows, queue):
    queue.put(np.asarray(windows[4].outputs))


@pytest.mark.filterwarnings("ignore:os.fork")  # the child does not compute
def test_windows_of_a_file_are_those_of_memory(tmp_path):
    memory = data.windows(frames(), history=2, horizon=3, stride=2)
    source = data.write(tmp_path / "t.h5", frames(), **FRAMES)
    disk = data.windows(source, history=2, horizon=3, stride=2)
    u = frames().inputs  # window 4 begins at frame 2 of trajectory 1, by hand
    assert len(disk) == len(memory) == 9
    assert np.array_equal(disk[4].inputs, u[1, 2:4].reshape(4, 6), equal_nan=True)
    assert np.array_equal(disk[4].outputs, u[1, 4:7].reshape(6, 6), equal_nan=True)
    assert np.array_equal(disk[4].mask, frames().mask[1])
    for index in (0, 8, [7, 2, 2], slice(1, 6, 2)):
        assert equal(disk[index], memory[index])
    assert equal(disk.load(), memory.load())
    assert disk[0].coords is disk[5].coords
    assert equal(pickle.loads(pickle.dumps(disk))[5], memory[5])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(disk, queue))
    child.start()
    assert np.array_equal(queue.get(timeout=20), memory[4].outputs, equal_nan=True)
    child.join()


def test_windows_read_only_their_frames(tmp_path, monkeypatch):
    source = data.write(tmp_path / "t.h5", frames(), **FRAMES)
    windows = data.windows(source, history=1, horizon=2)
    read = []
    original = h5py.Dataset.__getitem__

    def spy(self, index, **options):
        values = original(self, index, **options)
        read.append((self.name, np.shape(values)))
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    windows[3]
    fields = [shape for name, shape in read if name in ("/t0_fields/u", "/t0_fields/v")]
    assert fields == [(3, 6)] * 2
    assert sum(np.prod(shape) for _, shape in read) == 2 * 18 + 6 + 1  # and one mask, one extra


def test_masks_of_each_trajectory_are_told_by_their_rank():
    """On a grid of one axis more, ranks beside the frames alone would mistake them for shared ones."""
    u, mask = np.zeros((3, 4, 1, 5, 6)), np.ones((3, 5, 6), bool)
    items = data.windows(data.Samples(u, mask=mask))
    assert items[0].mask.shape == (5, 6)
    assert items.load().mask.shape == (9, 5, 6)
    assert data.windows(data.Samples(u, mask=mask[0])).load().mask.shape == (5, 6)


# --- training ----------------------------------------------------------------------------------------------------


class Pointwise(eqx.Module):
    weight: jax.Array
    slope: jax.Array

    def __call__(self, u, /, *, coords, key=None):
        return self.weight @ u + self.slope @ coords


def train(source, channels, channels_out, ndim):
    op = Pointwise(jnp.full((channels_out, channels), 0.1), jnp.full((channels_out, ndim), 0.1))
    op, history = no.fit(
        op, source, loss=no.losses.l2(), optimizer=optax.adam(0.01), num_epochs=2, batch_size=2,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip
    error = no.evaluate(op, source, metrics={"error": no.metrics.relative_l2}, batch_size=3)["error"]
    return np.asarray(history.loss), np.asarray(error), jax.tree.leaves(op)


@pytest.mark.parametrize("kind", ["clouds", "windows"])
def test_files_train_as_memory_does(tmp_path, kind):
    if kind == "clouds":
        disk, memory, sizes = data.write(tmp_path / "c.h5", clouds(), **CLOUD), clouds(), (2, 1, 2)
    else:
        disk = data.windows(data.write(tmp_path / "t.h5", frames(), **FRAMES), history=2)
        memory, sizes = data.windows(frames(), history=2).load(), (4, 2, 1)
    from_disk, from_memory = train(disk, *sizes), train(memory, *sizes)
    assert np.isfinite(from_disk[0]).all()
    assert from_disk[0][-1] < from_disk[0][0]
    for x, y in zip(jax.tree.leaves(from_disk), jax.tree.leaves(from_memory), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_what_samples_share_reaches_training_once(tmp_path):
    """From a file with one query for all samples, a batch has one too; a loader of dictionaries stacks it."""
    source, seen = data.write(tmp_path / "q.h5", queried(), **QUERY), []

    def objective(op, batch, *, key):
        seen.append((batch.query.shape, batch.query_mask.shape, batch.mask.shape, batch.shared))
        return jnp.mean(op(batch.inputs) ** 2)

    op = jax.tree_util.Partial(jnp.multiply, jnp.ones(()))
    no.fit(op, source, objective=objective, optimizer=optax.sgd(0.1), num_epochs=1, batch_size=5, key=jax.random.key(0),
           progress=False)  # fmt: skip
    assert set(seen) == {((2, 4), (4,), (5, 6, 8), ("query", "query_mask"))}
    stacked = jax.tree.map(lambda *x: np.stack(x), *(source[i] for i in range(5)))
    assert data.Samples(**stacked).shared == ()
    assert np.array_equal(stacked["query"][3], queried().query)
