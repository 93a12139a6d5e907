"""One process at a time, where that spares work; never a reason to wait for good."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL = 0.05
"""Seconds between two looks at a lock."""


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
        file = path.open("rb")
    except OSError:
        yield False
        return
    with file:
        yield _wait_for_lock(file.fileno(), time.monotonic() + patience)


def _wait_for_lock(descriptor: int, deadline: float) -> bool:
    """Return whether the lock could be had by a time."""
    while fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR) or time.monotonic() > deadline:
                return False
        time.sleep(_POLL)
    return False
