"""Paths and disks: a wrong path is refused before any compute, and a full disk says what is safe and how to go on."""

import errno
import os
import resource

import jax
import numpy as np
import pytest

from neuralops import checkpoint, data
from neuralops.data.files import disk, layout, store
from neuralops.data.normalize import Normalizer
from neuralops.grid import Grid
from neuralops.pde import Poisson

OP = jax.tree_util.Partial(lambda w, u: w * u, np.ones(3, np.float32))
SAMPLES = (np.ones((3, 1, 4), np.float32), np.ones((3, 1, 4), np.float32))
ABOUT = {"grid": Grid(4), "name": "ones", "input_fields": ["a"], "output_fields": ["u"]}

WRITERS = {
    "save": lambda path: checkpoint.save(path, Normalizer((0.0,), (1.0,), 1)),
    "write": lambda path: data.write(path, SAMPLES, **ABOUT),
    "generate": lambda path: data.generate(Poisson((8,)), key=0, num_samples=2, path=path, progress=False),
}
READERS = {
    "load": checkpoint.load,
    "open": data.open,
    "validate": data.validate,
    "read_mat": data.read_mat,
    "read_npz": data.read_npz,
    "read_hdf5": data.read_hdf5,
}
EVERY = {**WRITERS, **READERS}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def idle(monkeypatch):
    """Nothing may be computed or described."""
    for module, name in ((store, "_prepare"), (checkpoint.files, "describe"), (layout, "write_file")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("went to work on a bad path"))


@pytest.mark.parametrize("function", WRITERS)
def test_home_is_home(home, function):
    WRITERS[function]("~/deep/file")
    assert [p.name for p in (home / "deep").iterdir()] == ["file"]
    assert not os.path.lexists("~")
    if function == "save":
        assert checkpoint.load("~/deep/file") == Normalizer((0.0,), (1.0,), 1)
    else:
        data.validate("~/deep/file")
        assert data.open("~/deep/file").path == home / "deep" / "file"


@pytest.mark.parametrize("function", READERS)
def test_readers_look_at_home(home, function):
    (home / "file").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"~/file|home/file"):
        READERS[function]("~/file")


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "path: expected a path, got ''; give a name"),
        ("a\0b", "path: expected a path, got 'a.x00b'; give a name, without NUL"),
        (b"bytes", "path: expected a path, got bytes"),
        (".", "got the folder '.'"),
        ("n" * 300, "path: expected a path, got 'n*' .File name too long.; give another"),
    ],
)
def test_what_is_no_file_name_is_refused(home, idle, function, path, message):
    with pytest.raises((ValueError, OSError), match=message):
        EVERY[function](path)


@pytest.mark.parametrize("function", WRITERS)
def test_a_place_that_takes_no_file_is_refused_before_any_work(home, idle, function, monkeypatch):
    (home / "file").write_text("precious")
    with pytest.raises(ValueError, match=r"path: expected a path in a folder, .*home/file' is a file"):
        WRITERS[function]("~/file/deep/er")
    with pytest.raises(ValueError, match="the folder 'new/'; add a file name"):
        WRITERS[function]("new/")
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((str(path), mode)))  # root may write anywhere
    with pytest.raises(PermissionError, match="path: expected a folder that may be written, got '~/a/b'"):
        WRITERS[function]("~/a/b")
    assert asked == [(str(home), os.W_OK | os.X_OK)]
    assert (home / "file").read_text() == "precious"
    assert len(list(home.rglob("*"))) == 1


@pytest.mark.parametrize("function", READERS)
def test_a_file_that_may_not_be_read_is_refused(home, function, monkeypatch):
    (home / "file").write_bytes(b"secret")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.R_OK)
    with pytest.raises(PermissionError, match="path: expected a file that may be read"):
        READERS[function]("~/file")
    with pytest.raises(FileNotFoundError, match="path: expected a file, got '~/file/deep'"):
        READERS[function]("~/file/deep")


def test_the_folder_of_the_parts_may_be_no_file(home, idle):
    (home / "x.h5.parts").write_text("mine")
    with pytest.raises(ValueError, match=r"x.h5.parts' to be free for a folder"):
        WRITERS["generate"]("~/x.h5")


# --- full disks: the system's own limit on a file's size stands for them, its error comes the same way ---------------


@pytest.fixture
def limited():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_save_on_a_full_disk_keeps_the_old_file(tmp_path, limited):
    with pytest.warns(UserWarning, match="like="):
        checkpoint.save(tmp_path / "op", WIDE)
    before = (tmp_path / "op").read_bytes()
    limited(4096)
    with pytest.raises(OSError, match=r"path: .* was not written, and what was there before is as it was; make room"):
        checkpoint.save(tmp_path / "op", WIDE)
    assert (tmp_path / "op").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["op"]


def test_write_on_a_full_disk_leaves_nothing(tmp_path, limited):
    big = np.ones((3, 1, 4096), np.float32)
    limited(20000)
    with pytest.raises(OSError, match="path: the file is larger than the system lets it be") as caught:
        data.write(tmp_path / "x.h5", (big, big), **{**ABOUT, "grid": Grid(4096)})
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


WIDE = jax.tree_util.Partial(lambda w, u: w * u, np.ones(10000, np.float32))


NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS]


@pytest.mark.parametrize("number", NUMBERS)
def test_generate_on_a_full_disk_goes_on_where_it_stopped(tmp_path, monkeypatch, number):
    """The disk fills within the third shard; with room again, nothing is made twice."""
    options = {"key": 0, "num_samples": 5, "shard_size": 1, "path": tmp_path / "x.h5", "progress": False}
    opened = []

    class Filling(disk.Patient):
        def __init__(self, path):
            super().__init__(path)
            opened.append(path)
            if len(opened) == 3:
                self._file = Full(self._file)

    class Full:
        def __init__(self, file):
            self.file, self.room = file, 2

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.room -= 1
            if self.room < 0:
                raise OSError(number, os.strerror(number))
            return self.file.write(data)

    monkeypatch.setattr(layout, "Patient", Filling)
    with pytest.raises(OSError, match=r"with 2 of 5 samples safe in .*x\.h5\.parts; call generate again") as caught:
        data.generate(Poisson((8,)), **options)
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    assert len(list((tmp_path / "x.h5.parts").glob("*.h5"))) == 2
    source = data.generate(Poisson((8,)), **options)
    assert len(opened) == 3 + 3 + 1  # three shards and the whole
    assert np.array_equal(source.load().inputs, data.generate(Poisson((8,)), **{**options, "path": None}).inputs)


@pytest.mark.parametrize("number", NUMBERS)
def test_hdf5s_own_words_for_a_full_disk_are_understood(number):
    hidden = RuntimeError(f"Can't decrement id ref count (file write failed: errno = {number}, error message = 'x')")
    assert disk.no_room(hidden) == number
    outer = OSError("closing failed")
    outer.__context__ = hidden
    assert disk.no_room(outer) == number
    assert disk.no_room(OSError(errno.EACCES, "x")) is None
