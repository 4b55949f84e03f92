"""Files that are whole or absent, and disks that take no more."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NO_ROOM = {
    getattr(errno, name): words
    for name, words in (
        ("ENOSPC", "the disk is full"),
        ("EDQUOT", "the quota is used up"),
        ("EROFS", "the file system is read-only"),
        ("EFBIG", "the file is larger than the system lets it be"),
    )
    if hasattr(errno, name)
}


def no_room(error: BaseException | None) -> int | None:
    """The system's number for a disk that takes no more, where that is what `error` came from.

    HDF5 hides it: in the words of its error, and behind the error of closing the file.
    """
    while error is not None:
        found = re.search(r"errno = (\d+)", str(error))
        for number in (getattr(error, "errno", None), int(found[1]) if found else None):
            if number in _NO_ROOM:
                return number
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def atomic(path: Path, folder: Path) -> Iterator[Path]:
    """A temporary name in `folder` that becomes `path`, complete and on disk, when the block ends well.

    **Raises:** `OSError` that says so where the disk is full, a quota used up or the file system read-only.
    """
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        number = no_room(error)
        if number is None:
            raise
        raise OSError(
            number,
            f"path: {_NO_ROOM[number]}: {str(path)!r} was not written, and what was there before is as it was; make "
            "room and write it again, or give a path on another disk",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # a disk gone read-only
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name itself is on disk only after this
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Patient:
    """A new file for HDF5 to write to, which keeps the first error of the disk to itself until it is asked.

    HDF5 does not survive an error while it writes: its file cannot be closed any more, and the process ends in a
    crash. So what comes after an error is dropped, and HDF5 closes in peace. In a `with` block the error is raised
    at the end.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """**Raises:** the `OSError` that was met, if any."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self._error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = 0
        while found < len(view) and (more := self._file.readinto(view[found:])):
            found += more
        view[found:] = bytes(len(view) - found)  # what was dropped
        return len(view)

    def read(self, size: int = -1) -> bytes:  # h5py knows a file by this
        return self._file.read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0

    def flush(self) -> None:
        pass  # nothing is buffered here

    def __enter__(self) -> Patient:
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        self._file.close()
        if kind is None:
            self.check()
