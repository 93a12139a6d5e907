"""One launch at a time writes into the folder of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from retinanet.errors import UserError


class RunLockedError(UserError):
    """Another process of this machine trains there."""


@contextmanager
def run_lock(folder: Path, *, active: bool) -> Iterator[None]:
    """Make a run's folder and hold it inside the block, or until this process is gone.

    The lock belongs to this process alone (POSIX): a loader's process that outlives it does not
    keep it. A file system without locks is taken as it is. So is a lock of another machine, which
    may have lost its power long ago.

    Args:
        folder: the run's folder.
        active: whether this is the process that writes.

    Raises:
        RunLockedError: another process of this machine trains there.
        UserError: the folder cannot be written.
    """
    if not active:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from None
    with file:
        _take_lock(file, folder)
        yield


def _take_lock(file: IO[str], folder: Path) -> None:
    """Lock the file and write this process into it.

    Raises:
        RunLockedError: another process of this machine holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        machine, _, process = file.read().strip().rpartition(" ")
        if machine != platform.node():
            return
        raise RunLockedError(
            f"{folder}: process {process} trains there; wait for its end, or end it (SIGTERM saves "
            "its state)"
        ) from None
    except OSError:  # no locks here
        return
    file.truncate(0)
    file.write(f"{platform.node()} {os.getpid()}\n")
    file.flush()
