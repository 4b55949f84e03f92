"""The literature's files: what MATLAB and NumPy wrote is what comes back, channels first, and damage is refused."""

import os
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from neuralops import data

REAL = Path(os.environ.get("NEURALOPS_DATA", Path(__file__).parents[2] / "shared" / "data"))
rng = np.random.default_rng(3)
COEFF = rng.integers(0, 2, (5, 9, 13)).astype(bool)
SOL = rng.standard_normal((5, 9, 13))
TIMES = rng.standard_normal((5, 9, 13, 4))


def write_v5(path, **arrays):
    scipy.io.savemat(path, arrays)


def write_v73(path, **arrays):
    """As MATLAB does: a text header of 512 bytes, axes in reverse order, truth values as bytes with a class."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")
        for name, x in arrays.items():
            stored = x.astype(np.uint8) if x.dtype == bool else x
            file[name] = np.ascontiguousarray(stored.transpose())
            kinds = {"b": "logical", "f": "double"}
            file[name].attrs["MATLAB_class"] = np.bytes_(kinds.get(x.dtype.kind, "int64"))
    with Path(path).open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_npz(path, **arrays):
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)


def write_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, x in arrays.items():
            file[name] = x


READERS = {
    "v5": (write_v5, data.read_mat, "file.mat"),
    "v7.3": (write_v73, data.read_mat, "file.mat"),
    "npz": (write_npz, data.read_npz, "file.npz"),
    "hdf5": (write_hdf5, data.read_hdf5, "file.h5"),
}
NAMES = {"inputs": "coeff", "outputs": "sol"}


@pytest.fixture(params=READERS)
def kind(request, tmp_path):
    write, read, name = READERS[request.param]
    return write, read, tmp_path / name


def test_arrays_come_back_channels_first(kind):
    write, read, path = kind
    write(path, coeff=COEFF, sol=SOL, extra=np.zeros(2))
    samples = read(path, **NAMES)
    assert samples.inputs.dtype == samples.outputs.dtype == np.float32
    assert np.array_equal(samples.inputs, COEFF[:, None].astype(np.float32))
    assert np.array_equal(samples.outputs, SOL[:, None].astype(np.float32))
    assert samples.residual_norm is None
    assert np.array_equal(read(path, **NAMES, dtype="float64").outputs[:, 0], SOL)
    assert samples.inputs.flags.c_contiguous


def test_stride_and_stored_times(kind):
    write, read, path = kind
    write(path, coeff=COEFF, sol=TIMES)
    samples = read(path, **NAMES, stride=4, channel_axis=(None, -1))
    assert np.array_equal(samples.inputs, COEFF[:, None, ::4, ::4].astype(np.float32))
    assert np.array_equal(samples.outputs, np.moveaxis(TIMES, -1, 1)[:, :, ::4, ::4].astype(np.float32))


def test_names_default_to_the_darcy_files(tmp_path):
    write_v73(tmp_path / "d.mat", coeff=COEFF, sol=SOL)
    write_npz(tmp_path / "d.npz", x=COEFF, y=SOL)
    both = data.read_mat(tmp_path / "d.mat"), data.read_npz(tmp_path / "d.npz")
    for x, y in zip(*map(jax.tree.leaves, both), strict=True):
        assert np.array_equal(x, y)


@pytest.mark.skipif(not REAL.is_dir(), reason="the Darcy files are not beside the checkout (set NEURALOPS_DATA)")
def test_darcy_files_of_neuraloperator():
    for name, count in (("darcy_train_16.npz", 1000), ("darcy_test_16.npz", 50)):
        samples = data.read_npz(REAL / name)
        assert samples.inputs.shape == samples.outputs.shape == (count, 1, 16, 16)
        assert set(np.unique(samples.inputs)) == {0.0, 1.0}
        with np.load(REAL / name) as raw:
            assert np.array_equal(raw["y"], samples.outputs[:, 0])
        data.check_samples(samples)


def spoiled(x, index=(2, 0, 0), value=np.nan):
    x = np.array(x, float)
    x[index] = value
    return x


BAD_ARRAYS = {
    "missing input": ({"sol": SOL}, {}, r"inputs: expected an array 'coeff' .* which holds \['sol'\]"),
    "missing output": ({"coeff": COEFF}, {}, r"outputs: expected an array 'sol' .* which holds \['coeff'\]"),
    "sample counts": ({"coeff": COEFF, "sol": SOL[:4]}, {}, "expected as many samples in both, got 5 in 'coeff' and 4"),
    "NaN": ({"coeff": COEFF, "sol": spoiled(SOL)}, {}, r"outputs \('sol' in .*1 of 5 samples \(first: 2"),
    "infinite": ({"coeff": spoiled(COEFF, value=np.inf), "sol": SOL}, {}, r"inputs \('coeff' in .*\(first: 2"),
    "too large": ({"coeff": COEFF, "sol": spoiled(SOL, value=1e300)}, {}, r"infinity in 1 of 5"),
    "complex": ({"coeff": COEFF + 1j, "sol": SOL}, {}, "real numbers"),
    "words": ({"coeff": np.array(["a", "b"]), "sol": SOL}, {}, "real numbers"),
    "no axis": ({"coeff": COEFF, "sol": TIMES}, {"channel_axis": 4}, "channel_axis"),
    "sample axis": ({"coeff": COEFF, "sol": TIMES}, {"channel_axis": 0}, "channel_axis"),
    "three axes": ({"coeff": COEFF, "sol": SOL}, {"channel_axis": (1, 2, 3)}, "channel_axis"),
    "stride": ({"coeff": COEFF, "sol": SOL}, {"stride": 0}, "stride"),
    "dtype": ({"coeff": COEFF, "sol": SOL}, {"dtype": "float16"}, "dtype"),
    "name": ({"coeff": COEFF, "sol": SOL}, {"inputs": 3}, "inputs: expected the name"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused(kind, case):
    write, read, path = kind
    arrays, options, message = BAD_ARRAYS[case]
    if write in (write_v73, write_hdf5) and any(x.dtype.kind == "U" for x in arrays.values()):
        pytest.skip("words are stored as numbers there")
    write(path, **arrays)
    with pytest.raises(ValueError, match=message):
        read(path, **{**NAMES, **options})


def test_damaged_files_are_refused(kind):
    write, read, path = kind
    write(path, coeff=COEFF, sol=SOL)
    raw = path.read_bytes()
    for cut in np.linspace(0, len(raw) - 1, 25).astype(int):
        path.write_bytes(raw[:cut])
        with pytest.raises(ValueError, match=r"inputs|outputs|damaged, cut short"):
            read(path, **NAMES)
    path.write_bytes(b"<html>404</html>" * 50)
    with pytest.raises(ValueError, match="damaged, cut short or of another format"):
        read(path, **NAMES)
    with pytest.raises(FileNotFoundError, match="check the name"):
        read(path.with_name("nothing"), **NAMES)
    with pytest.raises(ValueError, match="expected a path"):
        read(None)


def test_nothing_is_executed(tmp_path):
    """Pickled objects run code when they are loaded; they are refused unread."""

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    np.savez(tmp_path / "bomb.npz", x=np.array([Bomb()], dtype=object), y=SOL)
    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object))
    for name, words in (("bomb.npz", "could not be read"), ("bomb.npy", "a single NumPy array")):
        with pytest.raises(ValueError, match=words):
            data.read_npz(tmp_path / name)
    assert not (tmp_path / "boom").exists()


def test_other_kinds_of_content_are_refused(tmp_path):
    scipy.io.savemat(tmp_path / "s.mat", {"coeff": scipy.sparse.eye(4).tocsc(), "sol": {"a": 1}})
    np.save(tmp_path / "bare.npz", SOL)
    os.rename(tmp_path / "bare.npz.npy", tmp_path / "bare.npz")
    write_v73(tmp_path / "g.mat", sol=SOL)
    with h5py.File(tmp_path / "g.mat", "r+") as file:
        file.create_group("coeff").attrs["MATLAB_sparse"] = 4  # how MATLAB stores a sparse matrix
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    for name, message in (("s.mat", "dense array of real numbers"), ("g.mat", "dense array of real numbers")):
        with pytest.raises(ValueError, match=message):
            data.read_mat(tmp_path / name)
    with pytest.raises(ValueError, match="expected an array 'elsewhere'"):
        data.read_mat(tmp_path / "g.mat", inputs="elsewhere")
    with pytest.raises(ValueError, match="a single NumPy array"):
        data.read_npz(tmp_path / "bare.npz")


WRITERS = {"v5": write_v5, "v7.3": write_v73, "npz": write_npz, "hdf5": write_hdf5}
WRONG_READERS = [
    ("hdf5", data.read_mat, r"plain HDF5, without the head of a MATLAB 7.3 file; use read_hdf5"),
    ("npz", data.read_mat, r"a NumPy .npz archive; use read_npz"),
    ("v5", data.read_npz, r"a MATLAB 5 file; use read_mat"),
    ("v7.3", data.read_npz, r"a MATLAB 7.3 file, whose axes are reversed; use read_mat"),
    ("hdf5", data.read_npz, r"use read_hdf5"),
    ("v5", data.read_hdf5, r"a MATLAB 5 file; use read_mat"),
    ("v7.3", data.read_hdf5, r"whose axes are reversed; use read_mat"),
    ("npz", data.read_hdf5, r"use read_npz"),
]


@pytest.mark.parametrize(("kind", "read", "message"), WRONG_READERS)
def test_a_file_goes_by_its_content_not_its_name(tmp_path, kind, read, message):
    """The wrong reader names the right one: a plain (10, 32, 48) array is never 48 samples."""
    path = tmp_path / ("file.npz" if read is data.read_npz else "file.mat")
    WRITERS[kind](path, coeff=np.ones((10, 32, 48)), sol=np.ones((10, 32, 48)))
    with pytest.raises(ValueError, match=message):
        read(path, **NAMES)


def test_one_sign_of_matlab_is_not_two(tmp_path):
    """A head without `MATLAB_class`, a class without a head, a head without HDF5: the axes' order would be a guess."""
    path = tmp_path / "file.mat"
    write_v73(path, coeff=COEFF, sol=SOL)
    with h5py.File(path, "r+") as file:
        del file["sol"].attrs["MATLAB_class"]
    with pytest.raises(ValueError, match="'sol' has no MATLAB_class"):
        data.read_mat(path)
    write_v73(path, coeff=COEFF, sol=SOL)
    whole = path.read_bytes()
    path.write_bytes(b"my own words".ljust(512) + whole[512:])
    with pytest.raises(ValueError, match="without the head of a MATLAB 7"):
        data.read_mat(path)
    path.write_bytes(whole[:512] + b"nothing" * 9)
    with pytest.raises(ValueError, match=r"MATLAB 7.3 by its head .* cut short"):
        data.read_mat(path)


def test_version_4_is_read(tmp_path):
    scipy.io.savemat(tmp_path / "old.mat", {"coeff": SOL[:, :, 0], "sol": SOL[:, :, 1]}, format="4")
    samples = data.read_mat(tmp_path / "old.mat", dtype="float64")
    assert np.array_equal(samples.inputs[:, 0], SOL[:, :, 0])
    assert np.array_equal(samples.outputs[:, 0], SOL[:, :, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b" + b"0" * 600, "gzip archive; unpack"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"CDF\x01" + b"0" * 600, "netCDF 3"),
    ],
)
def test_strangers_are_named(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    for read in (data.read_mat, data.read_npz, data.read_hdf5):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "x")


def test_hdf5_members_are_read_from_the_file_itself(tmp_path):
    write_hdf5(tmp_path / "other.h5", u=SOL)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["fields/u"], file["fields/v"] = SOL.astype(">f8"), SOL + 1  # foreign byte order
        file["linked"] = h5py.ExternalLink("other.h5", "/u")
        layout = h5py.VirtualLayout(SOL.shape, float)
        layout[:] = h5py.VirtualSource("other.h5", "u", SOL.shape)
        file.create_virtual_dataset("virtual", layout)
    read = data.read_hdf5(tmp_path / "file.h5", inputs="fields/u", outputs="/fields/v", dtype="float64")
    assert np.array_equal(read.inputs[:, 0], SOL)
    assert np.array_equal(read.outputs[:, 0], SOL + 1)
    assert read.inputs.dtype.isnative
    for name in ("linked", "fields", "virtual"):
        with pytest.raises(ValueError, match=r"which holds \['fields/u'|in another file"):
            data.read_hdf5(tmp_path / "file.h5", inputs=name, outputs="fields/v")
