"""The parts of an unfinished file: whole shards, found again after a killed run and put together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import h5py

from neuralops.data.files.checking import violations
from neuralops.data.files.layout import Header
from neuralops.data.files.source import HDF5Source
from neuralops.data.samples import Samples

_SHARD = re.compile(r"(\d{9})-(\d{9})\.h5")
_LOCK = "lock"


def shard_path(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:09d}-{stop:09d}.h5"


def finished(folder: Path, header: Header) -> list[tuple[int, int]]:
    """The ranges of samples that lie in whole shards. What a killed run left half written is removed.

    **Raises:** `ValueError` when a shard belongs to another run.
    """
    done: list[tuple[int, int]] = []
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if match is None:
            if path.name.endswith(".tmp"):
                path.unlink()
            continue
        start, stop = int(match[1]), int(match[2])
        try:
            with h5py.File(path, "r") as file:
                there = Header.of(file)
                whole = not violations(file, there) and file.attrs["n_trajectories"] == stop - start
        except (OSError, RuntimeError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:  # renaming is atomic, so only a failing disk or a stranger leaves such a file: make it again
            path.unlink()
            continue
        found = there.differences(header)
        if found:
            raise ValueError(
                f"path: the unfinished shards in {str(folder)!r} belong to another run ({'; '.join(found)}); "
                "delete that folder or give another path."
            )
        if done and start < done[-1][1]:
            raise ValueError(f"path: shards in {str(folder)!r} overlap at sample {start}; delete that folder.")
        done.append((start, stop))
    return done


def missing(done: list[tuple[int, int]], num_samples: int, shard_size: int) -> Iterator[tuple[int, int]]:
    """The ranges still to compute: the gaps between finished shards, cut into shards."""
    at = 0
    for start, stop in [*done, (num_samples, num_samples)]:
        for first in range(at, start, shard_size):
            yield first, min(first + shard_size, start)
        at = stop


def read(folder: Path, done: list[tuple[int, int]]) -> Iterator[Samples]:
    for start, stop in done:
        with HDF5Source(shard_path(folder, start, stop)) as shard:
            yield shard.load()


def clear(folder: Path) -> None:
    """Removes the parts of a file that is whole, and nothing that this module did not write."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _SHARD.fullmatch(path.name) or path.name.endswith(".tmp") or path.name == _LOCK:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # someone put a file of their own there
        folder.rmdir()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the same parts; the system lifts the lock when the process dies.

    **Raises:** `ValueError` when another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"path: another process is generating into {str(folder)!r}; wait for it or give another path."
            ) from error
        yield
