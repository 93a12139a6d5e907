"""Files that are complete at any moment, and checks of files and folders to write."""

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
"""The disk is full or broken, or a limit (`ulimit -f`) or quota is reached."""

_NO_FILE = "Is a pipe, a socket or a device, not a file: replace it by the file itself"


@contextmanager
def replacing(path: Path, *, unique: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` if no error occurs.

    After an error or a crash, `path` is unchanged.

    Args:
        path: Path of the file to write.
        unique: Whether several processes may write it at once. A crash then leaves the temporary
            file for good, where otherwise the next attempt replaces it.
        durable: Whether to wait for the disk, so that this also holds for a power cut.
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
        OSError: It cannot be written.
    """
    if (
        path.is_dir() and os.name == "nt"
    ):  # Windows cannot open folders, and syncs their names itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> Path:
    """Return a path to read if it is a file or a folder.

    Raises:
        OSError: It does not exist, or it is a pipe, a socket or a device, which could block
            forever.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
    return path


def write_all(write: Callable[[memoryview], int], data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, whose `write` may accept only a part at a time.

    Raises:
        OSError: It cannot be written.
    """
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[write(rest) :]


class GrowingFile:
    """A file to append to, without a buffer, so that a killed process loses nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = FileIO(path, "ab")
        except OSError as error:
            raise write_failure(path, error) from None

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            TrainingError: It cannot be written.
        """
        try:
            write_all(self._file.write, data)
        except OSError as error:
            raise write_failure(self._path, error) from None

    def close(self) -> None:
        self._file.close()


def write_failure(path: Path, error: OSError, *, needed: int | None = None) -> TrainingError:
    """Return the error for a file that could not be written.

    Args:
        path: Path of the file.
        error: Error that the system raised.
        needed: Size of the file in bytes, if known.
    """
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        parent = next(p for p in path.absolute().parents if p.exists())
        free = f"{readable_size(shutil.disk_usage(parent).free)} are free; make room"
        reason += f": {free}" if needed is None else f": it needs {readable_size(needed)}, {free}"
    return TrainingError(f"{path}: could not be written: {reason}")


def write_error(
    path: Path, error: OSError, *, needed: int | None = None
) -> UserError | TrainingError:
    """Return the error of a path that cannot be written: the user's, or the disk's.

    Args:
        path: Path of the file or folder.
        error: Error that the system raised.
        needed: Size of the content in bytes, if known.

    Returns:
        A `TrainingError` where the disk is full or broken, else a `UserError`.
    """
    if is_disk_failure(error):
        return write_failure(path, error, needed=needed)
    return UserError(f"{path}: cannot be written: {error.strerror}")


def is_disk_failure(error: OSError) -> bool:
    """Whether the disk is full or broken, so that other files would fail too."""
    return error.errno in _DISK_FAILURES


def readable_size(size: int) -> str:
    """Return a number of bytes in a readable unit: 272.1 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def check_writable(folder: Path, remedy: str) -> None:
    """Refuse a folder that cannot be created or written to.

    Raises:
        UserError: It cannot; the message has the reason and the remedy.
    """
    parent = next(p for p in [folder, *folder.absolute().parents] if os.path.lexists(p))
    if not parent.is_dir():
        raise UserError(f"{folder}: cannot be created: {parent} is not a folder; {remedy}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written: no permission in {parent}; {remedy}")


def check_new_file(path: Path) -> None:
    """Refuse a file to write that already exists or cannot be written.

    Raises:
        UserError: It does; the message has the reason and the remedy.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")
    if path.exists():
        raise UserError(f"{path}: already exists; name another file to write, or remove it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; create it first")
    check_writable(path.parent, "name another file to write")


def user_cache() -> Path:
    """Return the cache folder of this project, whose files can be recreated."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "retinanet"
