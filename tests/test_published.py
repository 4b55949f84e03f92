"""Published data sets: small files of the same layout come back in the splits of the papers, channels first."""

import numpy as np
import pytest
import scipy.io
from test_data_formats import write_v5, write_v73

from neuralops import data
from neuralops.data.published import PUBLISHED

rng = np.random.default_rng(0)


def numbers(*shape):
    return rng.standard_normal(shape, np.float32)


def save(path, x):
    path.parent.mkdir(exist_ok=True)
    np.save(path, x)


def read(name, folder, **options):
    return data.check_samples(data.read_published(name, folder, **options))


@pytest.fixture(params=[write_v5, write_v73], ids=["v5", "v7.3"])
def write_mat(request):
    return request.param


def test_darcy(tmp_path, write_mat):
    arrays = [{"coeff": numbers(n, 9, 5), "sol": numbers(n, 9, 5), "Kcoeff": numbers(3, 2)} for n in (1010, 210)]
    for number, x in enumerate(arrays, 1):
        write_mat(tmp_path / f"piececonst_r421_N1024_smooth{number}.mat", **x)
    train, test = (read("darcy", tmp_path, split=split, stride=(4, 2)) for split in ("train", "test"))
    for samples, x, size in ((train, arrays[0], 1000), (test, arrays[1], 200)):
        np.testing.assert_array_equal(samples.inputs, x["coeff"][:size, None, ::4, ::2])
        np.testing.assert_array_equal(samples.outputs, x["sol"][:size, None, ::4, ::2])
    np.testing.assert_array_equal(train.inputs[:, 0, -1, -1], arrays[0]["coeff"][:1000, -1, -1])  # ends stay
    some = read("darcy", tmp_path, num_samples=7, dtype="float64")
    assert some.inputs.dtype == np.float64
    np.testing.assert_array_equal(some.outputs[:, 0], arrays[0]["sol"][:7])


@pytest.mark.parametrize(
    ("name", "file", "out"),
    [
        ("navier_stokes_1e-5", "NavierStokes_V1e-5_N1200_T20.mat", 10),
        ("navier_stokes_1e-4", "ns_V1e-4_N10000_T30.mat", 20),
        ("navier_stokes_1e-3", "ns_V1e-3_N5000_T50.mat", 40),
    ],
)
def test_navier_stokes(tmp_path, write_mat, name, file, out):
    u = numbers(1203, 4, 2, 10 + out)
    write_mat(tmp_path / file, u=u, a=u[..., 0], t=np.arange(20.0))
    test = read(name, tmp_path, split="test", stride=2)
    np.testing.assert_array_equal(test.inputs, np.moveaxis(u, -1, 1)[-200:, :10, ::2, ::2])
    np.testing.assert_array_equal(test.outputs, np.moveaxis(u, -1, 1)[-200:, 10:, ::2, ::2])
    train = read(name, tmp_path)
    np.testing.assert_array_equal(train.inputs, np.moveaxis(u, -1, 1)[:1000, :10])


@pytest.mark.parametrize(
    ("name", "files", "channel"), [("airfoil", "NACA_Cylinder_{}.npy", 4), ("pipe", "Pipe_{}.npy", 0)]
)
def test_structured_meshes(tmp_path, name, files, channel):
    x, y, q = numbers(1250, 7, 4), numbers(1250, 7, 4), numbers(1250, 5, 7, 4)
    for word, array in (("X", x), ("Y", y), ("Q", q)):
        save(tmp_path / files.format(word), array.astype(np.float64))
    for split, rows in (("train", slice(1000)), ("test", slice(1000, 1200))):
        samples = read(name, tmp_path, split=split, stride=(2, 3))
        np.testing.assert_array_equal(samples.inputs, np.stack([x, y], 1)[rows, :, ::2, ::3])
        np.testing.assert_array_equal(samples.coords, samples.inputs)
        np.testing.assert_array_equal(samples.outputs, q[rows, channel : channel + 1, ::2, ::3])
        assert samples.inputs.dtype == np.float32
        assert samples.shared == ()


@pytest.mark.parametrize("folder", ["Meshes", "."])
def test_elasticity_points(tmp_path, folder):
    xy, stress, radii = numbers(6, 2, 2000), numbers(6, 2000), numbers(3, 2000)
    for word, x in (("XY", xy), ("sigma", stress), ("rr", radii)):
        save(tmp_path / folder / f"Random_UnitCell_{word}_10.npy", x)
    for split, rows in (("train", slice(1000)), ("test", slice(1800, 2000))):
        samples = read("elasticity", tmp_path, split=split)
        np.testing.assert_array_equal(samples.inputs, xy.transpose(2, 1, 0)[rows])
        np.testing.assert_array_equal(samples.coords, samples.inputs)
        np.testing.assert_array_equal(samples.outputs[:, 0], stress.T[rows])
        np.testing.assert_array_equal(samples.extras["code"], radii.T[rows])


def test_elasticity_grid(tmp_path):
    inside = (rng.uniform(size=(5, 5, 2000)) < 0.7).astype(float)
    stress = np.where(inside, numbers(5, 5, 2000), np.nan)  # nobody looks at what lies in the hole
    for word, x in (("mask", inside), ("sigma", stress)):
        save(tmp_path / "Interp" / f"Random_UnitCell_{word}_10_interp.npy", x)
    samples = read("elasticity_grid", tmp_path, split="test", stride=2)
    rows = np.moveaxis(inside, -1, 0)[1800:, ::2, ::2]
    np.testing.assert_array_equal(samples.inputs[:, 0], rows)
    np.testing.assert_array_equal(samples.mask, rows == 1)
    expected = np.moveaxis(stress, -1, 0)[1800:, ::2, ::2].astype(np.float32)
    np.testing.assert_array_equal(samples.outputs[:, 0][samples.mask], expected[samples.mask])


def test_plasticity(tmp_path, write_mat):
    die, output = numbers(987, 5), numbers(987, 5, 3, 2, 4)
    write_mat(tmp_path / "plas_N987_T20.mat", input=die, output=output)
    for split, rows in (("train", slice(900)), ("test", slice(907, 987))):
        samples = read("plasticity", tmp_path, split=split, stride=2)
        np.testing.assert_array_equal(samples.outputs, np.moveaxis(output, -1, 1)[rows, :, ::2, ::2])
        assert samples.inputs.shape == (len(samples), 1, 3, 2, 2)
        for i, j in np.ndindex(2, 2):
            np.testing.assert_array_equal(samples.inputs[:, 0, :, i, j], die[rows, ::2])


# Refusals.


@pytest.fixture
def folder(tmp_path):
    for word in "XY":
        save(tmp_path / f"Pipe_{word}.npy", np.ones((1200, 4, 3)))
    save(tmp_path / "Pipe_Q.npy", np.ones((1200, 1, 4, 3)))
    save(tmp_path / "NACA_Cylinder_X.npy", np.ones((1200, 4, 3)))
    write_v5(tmp_path / "plas_N987_T20.mat", input=np.ones((987, 3)), results=np.ones(2))
    write_v73(tmp_path / "ns_V1e-3_N5000_T50.mat", u=np.ones((1200, 2, 2, 20)))
    write_v5(tmp_path / "ns_V1e-4_N10000_T30.mat", u=np.ones((9, 2, 2, 30)))
    write_v73(tmp_path / "NavierStokes_V1e-5_N1200_T20.mat", u=np.ones((1200, 3, 3, 20)))
    return tmp_path


REFUSED = {
    "word": ("burgers", {}, r"name: expected one of \('darcy', .*got 'burgers'"),
    "split": ("pipe", {"split": "valid"}, r"split: expected one of \('train', 'test'\), got 'valid'"),
    "dtype": ("pipe", {"dtype": "int8"}, r"dtype: expected one of"),
    "too many": ("pipe", {"num_samples": 1001}, "num_samples: expected an integer from 1 to 1000, got 1001"),
    "stride word": ("pipe", {"stride": "2"}, "stride: expected a positive integer"),
    "strides": ("pipe", {"stride": (1, 1, 1)}, "stride: expected one number or one for each of 2 axes"),
    "lost end": ("pipe", {"stride": 2}, r"stride: expected a divisor of 3 for the 4 points of Pipe_X.npy"),
    "not periodic": ("navier_stokes_1e-5", {"stride": 2}, r"expected a divisor of 3 .* as the grid is periodic, got 2"),
    "stride of points": (
        "elasticity",
        {"stride": 2},
        r"stride: expected 1 for the points of 'elasticity', which lie",
    ),
    "array": ("plasticity", {}, r"expected an array 'output' in plas_N987_T20.mat, which holds \['input', 'results'\]"),
    "frames": ("navier_stokes_1e-3", {}, r"at least 50 entries along axis 3 of ns_V1e-3.*got shape \(1200, 2, 2, 20\)"),
    "samples": ("navier_stokes_1e-4", {}, r"at least 1200 samples in ns_V1e-4_N10000_T30.mat, .*got 9; fetch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(folder, case):
    name, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        data.read_published(name, folder, **options)


def test_missing_files_are_named(folder):
    with pytest.raises(
        FileNotFoundError, match=r"expected NACA_Cylinder_Y.npy of the data set 'airfoil' .*NACA_Cyl.*_X"
    ):
        data.read_published("airfoil", folder)
    with pytest.raises(FileNotFoundError, match="folder: expected a folder"):
        data.read_published("airfoil", folder / "elsewhere")


def test_damaged_files_are_refused(folder):
    path = folder / "Pipe_Y.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"path: expected a readable .npy file, got .*Pipe_Y.npy.*fetch it again"):
        data.read_published("pipe", folder)
    save(path, np.ones((1200, 3, 4)))
    with pytest.raises(ValueError, match="files of 'pipe' on the same points"):
        data.read_published("pipe", folder)
    save(path, np.ones((1200, 3)))
    with pytest.raises(ValueError, match=r"expected an array with 3 axes in Pipe_Y.npy, got shape \(1200, 3\)"):
        data.read_published("pipe", folder)
    save(path, np.full((1200, 4, 3), np.nan))
    with pytest.raises(ValueError, match="inputs of 'pipe': expected finite numbers"):
        data.read_published("pipe", folder)
    save(path, np.full((1200, 4, 3), "word"))
    with pytest.raises(ValueError, match=r"expected real numbers in Pipe_Y.npy, got dtype <U4"):
        data.read_published("pipe", folder)
    with path.open("wb") as file:
        np.savez(file, x=np.ones(3))
    with pytest.raises(ValueError, match="an archive of arrays, not one"):
        data.read_published("pipe", folder)
    np.savez(folder / "a.npz", x=np.ones(3))
    (folder / "a.npz").rename(folder / "plas_N987_T20.mat")
    with pytest.raises(ValueError, match=r"expected a MATLAB file, got .*which is a NumPy .npz archive"):
        data.read_published("plasticity", folder)


def test_every_data_set_is_described():
    for name, published in PUBLISHED.items():
        assert f'`"{name}"`' in data.read_published.__doc__
        assert published.num_train >= 900
        assert published.test in ("next", "last", "file")


def test_only_the_part_is_read(tmp_path, monkeypatch):
    u = numbers(1200, 2, 2, 50)
    write_v73(tmp_path / "ns_V1e-3_N5000_T50.mat", u=u)
    monkeypatch.setattr(scipy.io, "loadmat", None)
    import h5py

    shapes, take = [], h5py.Dataset.__getitem__

    def watched(self, index, **options):
        out = take(self, index, **options)
        shapes.append(out.shape)
        return out

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    samples = data.read_published("navier_stokes_1e-3", tmp_path, split="test", num_samples=3)
    assert shapes == [(50, 2, 2, 3)]
    np.testing.assert_array_equal(samples.inputs, np.moveaxis(u, -1, 1)[1000:1003, :10])
