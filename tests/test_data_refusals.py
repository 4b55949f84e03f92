"""Every wrong argument, wrong sample and wrong file is refused with the promised words, before it does harm."""

import dataclasses

import h5py
import numpy as np
import pytest
from test_data_store import QUIET, Sines

from neuralops import data
from neuralops.grid import Grid


@pytest.fixture
def made(tmp_path):
    return data.generate(Sines(), path=tmp_path / "sines.h5", **QUIET)


class Lacking:
    grid = Grid((4,))


@dataclasses.dataclass(frozen=True)
class SameNames(Sines):
    output_fields = ("source",)


@dataclasses.dataclass(frozen=True)
class TwoNames(Sines):
    input_fields = ("source", "more")


@dataclasses.dataclass(frozen=True)
class Unstorable(Sines):
    def parameters(self):
        return {"array": np.ones(3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": Lacking()}, "lacks"),
        ({"problem": Sines}, "problem: expected a Problem"),
        ({"problem": SameNames()}, "distinct names"),
        ({"problem": TwoNames()}, "expected sample to return shape"),
        ({"problem": Unstorable()}, "parameters"),
        ({"key": "seed"}, "key"),
        ({"key": -1}, "key: expected a seed"),
        ({"key": 1.5}, "key"),
        ({"key": True}, "key"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 2.0}, "num_samples"),
        ({"shard_size": 0}, "shard_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"dtype": "float16"}, "dtype"),
        ({"store_dtype": "int8"}, "store_dtype"),
        ({"max_residual": -1.0}, "max_residual"),
        ({"compression": 11}, "compression"),
        ({"path": 3}, "path"),
        ({"path": "."}, "the folder"),
        ({"problem": Sines(error=1e-3)}, r"residual of at most 1.0e-06, got 1.0e-03 for sample 0"),
        ({"max_residual": 1e-30}, "max_residual"),
    ],
)
def test_generate_refuses(change, message):
    arguments = {"problem": Sines(), **QUIET, **change}
    with pytest.raises(ValueError, match=message):
        data.generate(arguments.pop("problem"), **arguments)


def test_generate_names_the_bad_sample(tmp_path):
    first = data.generate(Sines(), **QUIET).inputs[:, 0, 0, 0]
    bad = int(np.argmax(first > np.sort(first)[-3]))
    with pytest.raises(ValueError, match=rf"NaN or infinity in the output of sample {bad};"):
        data.generate(Sines(spoil=float(np.sort(first)[-3])), path=tmp_path / "bad.h5", shard_size=1, **QUIET)
    assert len(list((tmp_path / "bad.h5.parts").glob("*.h5"))) == bad  # what was good before it is kept


def test_existing_file_is_used_or_refused(made):
    stamp = made.path.stat().st_mtime_ns
    assert data.generate(Sines(), path=made.path, **QUIET).path.stat().st_mtime_ns == stamp
    for change in ({"key": 6}, {"num_samples": 24}, {"store_dtype": "float64"}):
        with pytest.raises(ValueError, match="already holds other data"):
            data.generate(Sines(), path=made.path, **{**QUIET, **change})
    with pytest.raises(ValueError, match="already holds other data"):
        data.generate(Sines(num_points=13), path=made.path, **QUIET)


def test_truncated_anywhere(made, tmp_path):
    raw = made.path.read_bytes()
    for cut in np.linspace(0, len(raw) - 1, 40).astype(int):
        (tmp_path / "cut.h5").write_bytes(raw[:cut])
        with pytest.raises(ValueError, match="path: expected an HDF5 file"):
            data.open(tmp_path / "cut.h5")


def spoil(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(group, name, value, **attributes):
    kept = {**group[name].attrs, **attributes}
    del group[name]
    group[name] = value
    group[name].attrs.update(kept)


def without(name):
    return lambda file: file.__delitem__(name)


SPOILED = {
    "no schema": (lambda f: f.attrs.__delitem__("neuralops_schema_version"), "no file of neuralops.data.generate"),
    "next schema": (lambda f: f.attrs.modify("neuralops_schema_version", 3), "schema is 3"),
    "no parameters": (lambda f: f.attrs.__delitem__("neuralops_parameters"), "header is damaged"),
    "bad JSON": (lambda f: f.attrs.__setitem__("neuralops_parameters", "{"), "header is damaged"),
    "bad boundary": (lambda f: f.attrs.__setitem__("neuralops_boundary", '["wet", "dry"]'), "boundary"),
    "bad points": (lambda f: f.attrs.__setitem__("neuralops_num_points", np.array([12, -1])), "num_points"),
    "no group": (without("scalars"), "group 'scalars' is missing"),
    "no field": (without("t0_fields/potential"), "t0_fields/potential is missing"),
    "no coordinates": (without("dimensions/y"), "dimensions/y is missing"),
    "no boundary": (without("boundary_conditions/x_wall"), "x_wall is missing"),
    "no count": (lambda f: f.attrs.__delitem__("n_trajectories"), "'n_trajectories' is missing"),
    "wrong count": (lambda f: f.attrs.modify("n_trajectories", 22), "has shape"),
    "silly count": (lambda f: f.attrs.__setitem__("n_trajectories", "many"), "not a positive integer"),
    "other points": (lambda f: replace(f["dimensions"], "x", np.linspace(0, 1, 12)), "does not hold the points"),
    "other shape": (lambda f: replace(f["t0_fields"], "source", np.zeros((23, 12), np.float32)), "has shape"),
    "other dtype": (lambda f: replace(f["t0_fields"], "source", np.zeros((23, 12, 12), int)), "has dtype int64"),
    "short residual": (lambda f: replace(f["scalars"], "residual_norm", np.zeros(3)), "residual_norm has shape"),
    "soft link": (
        lambda f: (f["t0_fields"].__delitem__("source"), f["t0_fields"].__setitem__("source", h5py.SoftLink("/x"))),
        "t0_fields/source is missing",
    ),
    "other file": (
        lambda f: (
            f["t0_fields"].__delitem__("source"),
            f["t0_fields"].create_dataset("source", (23, 12, 12), "f4", external=[("raw.bin", 0, 23 * 144 * 4)]),
        ),
        "in another file",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_open_refuses(made, name):
    change, message = SPOILED[name]
    made.close()
    spoil(made.path, change)
    with pytest.raises(ValueError, match=message):
        data.open(made.path)
    with pytest.raises(ValueError, match=message):
        data.validate(made.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f["t0_fields/source"].__setitem__((4, 0, 0), np.nan),
            r"NaN or infinity in 1 of 23 samples \(first: 4",
        ),
        (lambda f: f["t0_fields/source"].__setitem__((4, 0, 0), 0.0), "t0_fields/source does not have the digest"),
        (lambda f: f["scalars/residual_norm"].__setitem__(3, -1.0), "no residuals"),
        (lambda f: f.attrs.modify("neuralops_num_samples", 30), "holds 23 samples, its header promises 30"),
    ],
)
def test_validate_refuses(made, change, message):
    data.validate(made.path)
    made.close()
    spoil(made.path, change)
    data.open(made.path).close()  # the header is sound
    with pytest.raises(ValueError, match=message):
        data.validate(made.path)


def test_open_refuses_what_is_no_data(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["tensor"] = np.zeros((3, 4))
    for name, message in (("text.h5", "expected an HDF5 file"), ("foreign.h5", "no file of neuralops.data.generate")):
        with pytest.raises(ValueError, match=message):
            data.open(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="make it with generate"):
        data.open(tmp_path / "nothing.h5")
    with pytest.raises(ValueError, match="expected a path"):
        data.open(None)


def test_write_and_samples_refuse(tmp_path):
    x = np.ones((3, 1, 8), np.float32)
    good = {"grid": Grid((8,)), "name": "mine", "input_fields": ("a",), "output_fields": ("u",)}
    cases = [
        ((x[:, 0], x), {}, "add the channel axis"),
        ((x, x[:2]), {}, "as many inputs as outputs"),
        ((x, x.astype(int)), {}, "floating dtype"),
        ((x, np.where(x, np.nan, x)), {}, "NaN or infinity in 3 of 3"),
        ((x[:0], x[:0]), {}, "at least one sample"),
        (x, {}, "expected Samples or a pair"),
        (("a", "b"), {}, "got str"),
        ((x, x), {"grid": Grid((9,))}, "on this grid"),
        ((x, x), {"input_fields": ("a", "b")}, "name each channel"),
        ((x, x), {"output_fields": ("a",)}, "distinct names"),
        ((x, x), {"output_fields": ("u/v",)}, "plain names"),
        ((x, x), {"parameters": {"dataset_name": 1}}, "layout leaves free"),
        ((x, x), {"parameters": {"nu": float("nan")}}, "JSON"),
        ((x[..., None, None, None],) * 2, {"grid": Grid((8, 1, 1, 1))}, "1 to 3 space dimensions"),
    ]
    for samples, change, message in cases:
        with pytest.raises(ValueError, match=message):
            data.write(tmp_path / "w.h5", samples, **{**good, **change})
    data.write(tmp_path / "w.h5", (x, x), **good)
    with pytest.raises(ValueError, match="expected a new file"):
        data.write(tmp_path / "w.h5", (x, x), **good)


@pytest.mark.parametrize(
    ("arrays", "batch_size", "message"),
    [
        ((), 1, "arrays"),
        ((np.ones(3), np.ones(4)), 1, "arrays"),
        (np.ones(3), 0, "batch_size"),
        (np.ones(3), 4, "at most"),
    ],
)
def test_array_loader_refuses(arrays, batch_size, message):
    with pytest.raises(ValueError, match=message):
        data.ArrayLoader(arrays, batch_size)
