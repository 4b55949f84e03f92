"""Generating, storing and reading samples: right numbers, the same bytes, no shard lost, no bad file believed."""

import dataclasses
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import data
from neuralops.data.files import layout, shards, store
from neuralops.grid import Grid
from neuralops.pde import Darcy, Poisson, Wave, waves

MODES = 3


@dataclasses.dataclass(frozen=True)
class Sines:
    """-Laplacian u = a on the unit square with zero walls; a is a few sines, so u is known in closed form."""

    num_points: int = 12
    spoil: float = np.inf  # samples whose first number exceeds this get a NaN label
    error: float = 0.0  # the residual to report

    input_fields = ("source",)
    output_fields = ("potential",)

    @property
    def grid(self):
        return Grid((self.num_points, self.num_points), 1.0, "dirichlet")

    def parameters(self):
        return {"num_points": self.num_points, "kind": "sines", "extents": [1.0, 1.0]}

    def _maps(self):
        x, k = self.grid.points(0), np.arange(1, MODES + 1)
        return np.sin(np.pi * np.multiply.outer(k, x)), (np.pi * k[:, None]) ** 2 + (np.pi * k) ** 2

    def sample(self, key):
        c = jax.random.normal(key, (MODES, MODES))
        return jnp.einsum("jk,jx,ky->xy", c, *2 * [jnp.asarray(self._maps()[0], c.dtype)])[None]

    def _coefficients(self, a):
        basis = jnp.asarray(self._maps()[0], a.dtype)
        return jnp.einsum("xy,jx,ky->jk", a[0], basis, basis) * (2 / (self.num_points + 1)) ** 2

    def solve(self, a):
        basis, eigenvalues = (jnp.asarray(m, a.dtype) for m in self._maps())
        u = jnp.einsum("jk,jx,ky->xy", self._coefficients(a) / eigenvalues, basis, basis)[None]
        return jnp.where(a[0, 0, 0] > self.spoil, jnp.nan, u)

    def relative_residual(self, a, u):
        eigenvalues = jnp.asarray(self._maps()[1], a.dtype)
        left = self._coefficients(u) * eigenvalues - self._coefficients(a)
        return jnp.linalg.norm(left) / jnp.linalg.norm(self._coefficients(a)) + self.error


QUIET = {"key": 5, "num_samples": 23, "progress": False}


def closed_form(i, n=12, seed=5):
    """Sample `i` by NumPy alone, but for the random numbers."""
    with jax.enable_x64(True):
        c = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), (MODES, MODES)))
    x = np.arange(1, n + 1) / (n + 1)
    a, u = np.zeros((n, n)), np.zeros((n, n))
    for j in range(MODES):
        for k in range(MODES):
            wave = np.outer(np.sin((j + 1) * np.pi * x), np.sin((k + 1) * np.pi * x))
            a += c[j, k] * wave
            u += c[j, k] * wave / (np.pi**2 * ((j + 1) ** 2 + (k + 1) ** 2))
    return a, u


@pytest.fixture
def made(tmp_path):
    return data.generate(Sines(), path=tmp_path / "set" / "sines.h5", shard_size=4, **QUIET)


def test_numbers_are_the_closed_form(tmp_path):
    single = data.generate(Sines(), **QUIET)
    double = data.generate(Sines(), store_dtype="float64", path=tmp_path / "d.h5", **QUIET).load()
    assert single.inputs.dtype == np.float32
    assert single.residual_norm.dtype == np.float64
    assert single.residual_norm.max() < 1e-13  # measured before the rounding to float32
    for i in range(QUIET["num_samples"]):
        a, u = closed_form(i)
        np.testing.assert_allclose(double.inputs[i, 0], a, rtol=0, atol=1e-14)
        np.testing.assert_allclose(double.outputs[i, 0], u, rtol=0, atol=1e-15)
        assert np.array_equal(single.outputs[i], double.outputs[i].astype(np.float32))


def test_bytes_depend_on_the_content_alone(made, tmp_path):
    memory = data.generate(Sines(), **QUIET)
    for x, y in zip(jax.tree.leaves(made.load()), jax.tree.leaves(memory), strict=True):
        assert np.array_equal(x, y)
    time.sleep(1.1)  # a stored time would show: HDF5 keeps whole seconds
    with jax.enable_x64(True):  # the caller's own setting has no say
        again = data.generate(Sines(), path=tmp_path / "again.h5", shard_size=7, **{**QUIET, "key": jax.random.key(5)})
    assert again.path.read_bytes() == made.path.read_bytes()
    assert made.sha256() == again.sha256()
    other = data.generate(Sines(), path=tmp_path / "other.h5", **{**QUIET, "key": 6})
    assert other.sha256() != made.sha256()
    assert not list(tmp_path.rglob("*.parts"))


def test_a_batch_computes_the_same_function(tmp_path):
    one = data.generate(Sines(), **QUIET)
    eight = data.generate(Sines(), path=tmp_path / "8.h5", batch_size=8, shard_size=9, **QUIET)
    np.testing.assert_allclose(eight.load().outputs, one.outputs, rtol=1e-5, atol=1e-7)
    assert eight.header.batch_size == 8
    smaller = data.generate(Sines(), path=tmp_path / "8b.h5", batch_size=8, shard_size=1, **QUIET)
    assert smaller.path.read_bytes() == eight.path.read_bytes()


def test_compute_in_single_precision_keeps_its_true_residual():
    single = data.generate(Sines(), dtype="float32", **QUIET)
    assert 1e-8 < single.residual_norm.min() < single.residual_norm.max() < 1e-5


@pytest.mark.parametrize("problem", [Poisson(16, boundary="neumann"), Darcy((12, 11), rtol=1e-10)])
def test_library_problems(problem, tmp_path):
    source = data.generate(problem, path=tmp_path / "p.h5", key=0, num_samples=3, progress=False)
    data.validate(source.path)
    assert source.residual_norm.max() <= 1e-9
    assert source.grid == problem.grid
    again = type(problem)(**source.parameters)  # the file says how to build the problem
    with jax.enable_x64(True):
        a = jax.jit(again.sample)(jax.random.fold_in(jax.random.key(0), 2))
        u = np.asarray(jax.jit(again.solve)(a))
    np.testing.assert_allclose(source[2]["outputs"], u, rtol=1e-5, atol=1e-7 * abs(u).max())


def test_layout_is_the_wells(made, tmp_path):
    """The rules of The Well's specification, read with h5py alone."""
    grid = Grid((5, 6), (1.0, 2.0), (("dirichlet", "neumann"), "periodic"), ("cell", "node"))
    arrays = (np.random.default_rng(0).random((3, 1, 5, 6)), np.ones((3, 2, 5, 6)))
    mixed = data.write(tmp_path / "m.h5", arrays, grid=grid, name="Mine", input_fields=["a"], output_fields=["u", "v"])
    assert mixed.grid == grid
    assert np.array_equal(mixed.load().inputs, arrays[0])
    for source, conditions in (
        (made, {"x_wall", "y_wall"}),
        (mixed, {"x_low_wall", "x_high_wall", "y_periodic"}),
    ):
        with h5py.File(source.path) as file:
            n, ndim = file.attrs["n_trajectories"], file.attrs["n_spatial_dims"]
            assert (file.attrs["grid_type"], ndim) == ("cartesian", 2)
            dims = list(file["dimensions"].attrs["spatial_dims"])
            assert dims == ["x", "y"]
            shape = tuple(file["dimensions"][d].shape[0] for d in dims)
            for name in file.attrs["simulation_parameters"]:
                assert file["scalars"][name][()] == file.attrs[name]
            assert set(file["boundary_conditions"]) == conditions
            for name, item in file["boundary_conditions"].items():
                assert item.attrs["bc_type"] in name
                assert not item.attrs["time_varying"]
                assert item["mask"].shape == (shape[dims.index(item.attrs["associated_dims"][0])],)
                assert item["values"].shape == (item["mask"][:].sum(),)
                assert item["mask"][0] == ("high" not in name)
                assert item["mask"][-1] == ("low" not in name)
            fields = file["t0_fields"]
            assert set(fields.attrs["field_names"]) == set(fields)
            for field in fields.values():
                assert field.shape == (n, *shape)
                assert field.attrs["sample_varying"]
                assert not field.attrs["time_varying"]
                assert field.attrs["dim_varying"].tolist() == [True, True]
            assert file["dimensions"]["time"].shape == (1,)
            assert [list(file[f"t{i}_fields"].attrs["field_names"]) for i in (1, 2)] == [[], []]
            for name in file["scalars"].attrs["field_names"]:
                scalar = file["scalars"][name]
                assert scalar.shape == ((n,) if scalar.attrs["sample_varying"] else ())
            np.testing.assert_array_equal(file["dimensions/y"][:], source.grid.points(1).astype(np.float32))


def test_source_reads_like_an_array(made):
    whole = made.load()
    assert len(made) == len(list(made)) == 23  # iteration ends by IndexError
    for index in (0, -1, np.int64(7)):
        sample = made[index]
        assert np.array_equal(sample["inputs"], whole.inputs[index])
        assert np.array_equal(sample["outputs"], whole.outputs[index])
    for index in (slice(2, 9), slice(None, None, 5), slice(20, 3, -4), slice(4, 4), slice(-3, None)):
        assert np.array_equal(made[index]["outputs"], whole.outputs[index])
        assert made[index]["inputs"].shape == whole.inputs[index].shape
    mask = np.arange(23) % 3 == 1
    several = (
        [7, 2, 2, -1],
        [],
        np.array([22, 0], np.uint8),
        jnp.array([3, 4, 9]),
        range(5, 2, -1),
        mask,
        [False] * 23,
    )
    for index in (*several, jnp.array(mask), jnp.int32(4), np.array(6), jnp.int32(-3)):
        expected = np.asarray(index) if np.size(index) else np.zeros(0, int)
        for name in ("inputs", "outputs"):
            assert np.array_equal(made[index][name], getattr(whole, name)[expected])
    for index in (23, -24, [0, 23], np.ones(22, bool)):
        with pytest.raises(IndexError):
            made[index]
    for index in (1.5, "a", None, (0, 1), [[0]], [1.0], True, np.True_, [[1], [1, 2]], np.zeros(0)):
        with pytest.raises(ValueError, match="index: expected an integer, a slice"):
            made[index]
    assert (made.problem, made.input_fields, made.output_fields) == ("Sines", ("source",), ("potential",))
    assert made.parameters == Sines().parameters()
    copy = pickle.loads(pickle.dumps(made))
    with copy:
        assert np.array_equal(copy[3]["inputs"], whole.inputs[3])
    made.close()
    assert np.array_equal(made[3]["inputs"], whole.inputs[3])  # opens again


def test_compression_keeps_the_numbers(made, tmp_path):
    packed = data.generate(Sines(), path=tmp_path / "z.h5", compression=4, **QUIET)
    assert packed.sha256() == made.sha256()
    data.validate(packed.path)


def test_array_loader(made):
    samples = made.load()
    loader = data.ArrayLoader(samples, 5, key=jax.random.key(1))
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    seen = np.concatenate([batch.residual_norm for batch in batches])
    assert len(np.unique(seen)) == len(seen) == 20
    rows = [int(np.flatnonzero(samples.residual_norm == r)[0]) for r in batches[1].residual_norm]
    assert np.array_equal(batches[1].inputs, samples.inputs[rows])
    assert rows != sorted(rows)
    assert all(np.array_equal(a.inputs, b.inputs) for a, b in zip(loader, batches, strict=True))  # a pass repeats
    kept = list(data.ArrayLoader({"x": np.arange(7)}, 3, drop_last=False))
    assert np.array_equal(np.concatenate([batch["x"] for batch in kept]), np.arange(7))


# --- interruption ------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_finished_shards(made, tmp_path, monkeypatch, capsys):
    path, writes = tmp_path / "c.h5", []

    def interrupted(*args, **kwargs):
        if len(writes) == 3:
            raise KeyboardInterrupt
        writes.append(args[0])
        return layout.write_file(*args, **kwargs)

    monkeypatch.setattr(store, "write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.generate(Sines(), path=path, shard_size=4, **QUIET)
    monkeypatch.undo()
    assert "12 of 23 samples safe" in capsys.readouterr().err
    folder = tmp_path / "c.h5.parts"
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.h5")}
    assert len(before) == 3
    with pytest.raises(ValueError, match="belong to another run"):
        data.generate(Sines(), path=path, **{**QUIET, "key": 6})
    (folder / "000000004-000000008.h5").unlink()  # a lost shard is a gap, made again
    (folder / "000000008-000000012.h5").write_bytes(b"damaged")
    (folder / ".000000012-000000016.h5.1.tmp").write_bytes(b"half written")
    (folder / "notes.txt").write_text("not ours")
    monkeypatch.setattr(store.shards, "clear", lambda folder: None)
    again = data.generate(Sines(), path=path, shard_size=3, **QUIET)
    monkeypatch.undo()
    assert (folder / "000000000-000000004.h5").stat().st_mtime_ns == before["000000000-000000004.h5"]
    assert again.path.read_bytes() == made.path.read_bytes()
    data.generate(Sines(), path=path, **QUIET)  # complete: opened as it is, what is left of the parts is removed
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_missing_ranges():
    assert list(shards.missing([], 7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(shards.missing([(2, 4), (4, 6)], 9, 2)) == [(0, 2), (6, 8), (8, 9)]
    assert list(shards.missing([(0, 9)], 9, 2)) == []


def test_two_runs_do_not_mix(tmp_path):
    folder = tmp_path / "l.h5.parts"
    folder.mkdir()
    with shards.lock(folder), pytest.raises(ValueError, match="another process"):
        data.generate(Sines(), path=tmp_path / "l.h5", **QUIET)
    data.generate(Sines(), path=tmp_path / "l.h5", **QUIET)


KILLED = {
    "sines": lambda: (Sines(), {}),
    "waves": lambda: (
        Wave(
            (24,), walls="neumann", medium=waves.Layered(density=(1.0, 2.0)), initial=waves.Rings(width=0.2),
            final_time=0.3, num_times=4, velocities=True, receivers=((0.5,),),
        ),
        {"trajectories": ("pressure", "velocity_x")},
    ),
}  # fmt: skip


def drive(folder, kills, seed, kind):
    """Runs in a process of its own that has imported everything and started nothing, so that its forks are quick.

    Kills `generate` at random moments, prints what lay in the parts after each kill, then lets it finish.
    """
    rng, path = np.random.default_rng(seed), Path(folder) / "killed.h5"
    parts, rounds = Path(folder) / "killed.h5.parts", []

    def start(target):
        pid = os.fork()
        if pid == 0:
            problem, options = KILLED[kind]()
            data.generate(problem, key=1, num_samples=240, path=target, shard_size=4, progress=False, **options)
            os._exit(0)
        return pid

    def finished():
        return {p.name: [p.stat().st_ino, p.stat().st_mtime_ns] for p in parts.glob("[0-9]*.h5")}

    def wait_for(condition, pid):
        while not condition() and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.001)

    assert os.waitpid(start(Path(folder) / "whole.h5"), 0)[1] == 0
    for kill in range(kills + 1):
        known = len(finished())
        pid = start(path)
        if kill == kills:  # the last one dies while the shards are put together
            wait_for(lambda: list(parts.glob(".killed.h5.*.tmp")), pid)
        elif kill:  # one dies at start-up, the others in the middle of the work
            wait_for(lambda known=known: len(finished()) > known, pid)
            time.sleep(rng.uniform(0, 0.03))
        else:
            time.sleep(rng.uniform(0, 0.3))
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        rounds.append(finished())
    assert os.waitpid(start(path), 0)[1] == 0
    source = data.open(path)
    first, pid = source[0]["inputs"], os.fork()  # a handle opened before a fork
    if pid == 0:
        os._exit(0 if np.array_equal(source[0]["inputs"], first) and source._handle[0] == os.getpid() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    print(json.dumps(rounds))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("kills", "kind"),
    [(2, "sines"), *(pytest.param(10, kind, marks=pytest.mark.slow) for kind in KILLED)],
)
def test_killed_runs_lose_nothing_finished(tmp_path, kills, kind):
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}; "
    code += f"import test_data_store as t; t.drive({str(tmp_path)!r}, kills={kills}, seed={os.getpid()}, kind={kind!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    rounds = json.loads(run.stdout.splitlines()[-1])
    assert len(rounds) == kills + 1
    for before, after in itertools.pairwise(rounds):
        if after:  # empty only when the last run finished before it could be killed
            assert before.items() <= after.items()  # the same files, bit for bit untouched
    assert max(map(len, rounds)) > kills  # they died at work
    assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    data.validate(tmp_path / "killed.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]
