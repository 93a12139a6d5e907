"""Files that are whole at any moment, and folders that can be written."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from retinanet.errors import TrainingError, UserError

_DISK_FAILURES = {errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Full, or a file over the limit (`ulimit -f`), broken, over quota."""

_NO_FILE = "Is a pipe, a socket or a device, not a file: put the file itself in its place"


@contextmanager
def replacing(path: Path, *, unique: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary name to write to; it takes the place of `path` when all went well.

    After an error, or a crash, `path` is as it was before.

    Args:
        path: Path of the file to write.
        unique: Several processes may write it at once. A crash then leaves its temporary file for
            good, where otherwise the next attempt takes it over.
        durable: This holds for a power cut, too: wait for the disk before and after the renaming.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp" if unique else f"{path.name}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    if path.is_dir() and os.name == "nt":  # Windows opens no folders, and keeps their names itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> Path:
    """Return a path that is to be read, unless it is none of a file or a folder.

    Raises:
        OSError: it does not exist, or it is a pipe, a socket or a device: reading that may wait for
            ever.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
    return path


def write_all(write: Callable[[memoryview], int], data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, whose `write` may take a part of it at a time.

    Raises:
        OSError: the disk does not take it.
    """
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[write(rest) :]


class GrowingFile:
    """A file to append to; nothing of it waits in the process, so a kill loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = FileIO(path, "ab")
        except OSError as error:
            raise write_failure(path, error) from None

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            TrainingError: the disk does not take it.
        """
        try:
            write_all(self._file.write, data)
        except OSError as error:
            raise write_failure(self._path, error) from None

    def close(self) -> None:
        self._file.close()


def write_failure(path: Path, error: OSError, *, needed: int | None = None) -> TrainingError:
    """Return the error that says why a file could not be written.

    Args:
        path: Path of the file.
        error: Error of the system.
        needed: Size of the file in bytes, where it is known.
    """
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        parent = next(p for p in path.absolute().parents if p.exists())
        free = f"{readable_size(shutil.disk_usage(parent).free)} are free; make room"
        reason += f": {free}" if needed is None else f": it needs {readable_size(needed)}, {free}"
    return TrainingError(f"{path}: could not be written: {reason}")


def is_disk_failure(error: OSError) -> bool:
    """Whether the disk is full or broken, which no other file on it escapes."""
    return error.errno in _DISK_FAILURES


def readable_size(size: int) -> str:
    """Return bytes as a person reads them: 272.1 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def check_writable(folder: Path, remedy: str) -> None:
    """Refuse a folder that is not there and cannot be made, or cannot be written into.

    Raises:
        UserError: what stands in the way, and the remedy.
    """
    parent = next(p for p in [folder, *folder.absolute().parents] if os.path.lexists(p))
    if not parent.is_dir():
        raise UserError(f"{folder}: cannot be made: {parent} is not a folder; {remedy}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written: no permission in {parent}; {remedy}")


def check_new_file(path: Path) -> None:
    """Refuse a file to write that is there already, or that cannot be written.

    Raises:
        UserError: what stands in the way, and the remedy.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")
    if path.exists():
        raise UserError(f"{path}: exists already; name another file to write, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    check_writable(path.parent, "name another file to write")


def user_cache() -> Path:
    """Return the folder for what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "retinanet"
