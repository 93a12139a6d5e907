"""A lock, so that only one launch at a time writes into the folder of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from retinanet.errors import UserError


class RunLockedError(UserError):
    """Another process of this machine is training in this folder."""


@contextmanager
def run_lock(folder: Path, *, active: bool) -> Iterator[None]:
    """Create a run folder and lock it inside the block, or until this process ends.

    The lock belongs to this process only (POSIX), so a loader process that outlives it does not
    keep it. File systems without locks are accepted. A lock of another machine is ignored, because
    that machine may have lost its power long ago.

    Args:
        folder: Folder of the run.
        active: Whether this is the process that writes.

    Raises:
        RunLockedError: Another process of this machine is training there.
        UserError: The folder cannot be written.
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
    """Lock the file and write the id of this process into it.

    Raises:
        RunLockedError: Another process of this machine holds the lock.
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
            f"{folder}: process {process} is training there; wait until it ends, or stop it "
            "(SIGTERM saves its state)"
        ) from None
    except OSError:  # the file system has no locks
        return
    file.truncate(0)
    file.write(f"{platform.node()} {os.getpid()}\n")
    file.flush()
