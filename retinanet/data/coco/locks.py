"""A file lock that saves work: one process at a time, but no process waits forever."""

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
"""Seconds between two attempts."""
_NOTICE = 10.0
"""Seconds after which the wait is reported."""


@contextmanager
def alone(path: Path, *, patience: float = 600.0) -> Iterator[bool]:
    """Hold an advisory lock on a file; yield whether the lock was acquired.

    The system releases it when the process ends, for any reason. If locks are not supported (some
    network drives, Windows), or the holder takes longer than `patience`, the block runs without the
    lock. It must then still be correct, at the cost of doing the work twice.

    `filelock` is not used: it leaves a file of its own, which needs a writable folder. Some of its
    releases also wait forever on a drive without locks.

    Args:
        path: A file that can be read.
        patience: Seconds to wait at most.
    """
    try:
        file = check_regular(path).open("rb")
    except OSError:
        yield False
        return
    with file:
        yield _wait_for_lock(file.fileno(), path, patience)


def _wait_for_lock(descriptor: int, path: Path, patience: float) -> bool:
    """Return whether the lock was acquired within `patience` seconds."""
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
                f"{path}: waiting up to {patience / 60:.0f} minutes for another process that is "
                "reading it",
                file=sys.stderr,
            )
        time.sleep(_POLL)
    return False
