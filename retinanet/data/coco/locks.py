"""One process at a time, where that spares work; never a reason to wait for good."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinanet.files import check_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL = 0.05
"""Seconds between two looks at a lock."""
_NOTICE = 10.0
"""Seconds after which it is said what is waited for."""


@contextmanager
def alone(path: Path, *, patience: float = 600.0) -> Iterator[bool]:
    """Hold an advisory lock on a file; yield whether it could be had.

    The system frees it when its process ends, however it ends. Where there are no locks (some
    network drives, Windows), or the holder takes longer than `patience`, one goes on without: what
    is done inside must be right all the same, and only be done twice.

    Not by `filelock`: it needs a file of its own, that stays and that a folder must take, and some
    of its releases wait in vain on a drive without locks.

    Args:
        path: of a file that can be read.
        patience: seconds to wait at most.
    """
    try:
        file = check_regular(path).open("rb")
    except OSError:
        yield False
        return
    with file:
        yield _wait_for_lock(file.fileno(), path, patience)


def _wait_for_lock(descriptor: int, path: Path, patience: float) -> bool:
    """Return whether the lock could be had in a time."""
    started, is_said = time.monotonic(), False
    while fcntl is not None:
        try:
            waited = time.monotonic() - started
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR) or waited > patience:
                return False
        if waited > _NOTICE and not is_said:
            is_said = True
            print(
                f"{path}: waiting for another process that reads it, at most {patience / 60:.0f} "
                "minutes",
                file=sys.stderr,
            )
        time.sleep(_POLL)
    return False
