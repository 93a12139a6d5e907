"""Check that this process may open as many files as its loaders need."""

from __future__ import annotations

from pathlib import Path

from retinanet.data.loader import PREFETCH
from retinanet.errors import UserError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

_SPARE = 16
"""Files that are open briefly, or opened later by a library: the log, a checkpoint, a font."""
_OF_A_WORKER = 4
"""Pipes of a loader process: for its plans and for its end."""
_OF_A_LOADER = 4
"""Pipes of a loader, and the descriptors that torch requires to be free."""


def needed(loaders: int, workers: int) -> int:
    """Return the number of files that loaders keep open in the training process.

    Args:
        loaders: Number of loaders that are open at the same time.
        workers: Number of processes of each loader.
    """
    if not workers:
        return 0
    return loaders * (_OF_A_LOADER + _OF_A_WORKER * workers + PREFETCH * workers + 2)


def allow_descriptors(loaders: int, *, workers: int, option: str = "data.workers=") -> list[str]:
    """Raise the soft limit of open files to what the loaders need; return notes about it.

    Args:
        loaders: Number of loaders that are open at the same time.
        workers: Number of processes of each loader.
        option: Option that sets `workers`, for messages.

    Raises:
        UserError: The hard limit is too low.
    """
    now = _open_files()
    if resource is None or now is None:
        return []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = now + _SPARE + needed(loaders, workers)
    if soft == resource.RLIM_INFINITY or need <= soft:
        return []
    if hard == resource.RLIM_INFINITY or need <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        return [f"open files: raised the limit (ulimit -n) from {soft} to {need}, as needed"]
    fitting = workers
    while fitting and now + _SPARE + needed(loaders, fitting) > hard:
        fitting -= 1
    fits = now + _SPARE + needed(loaders, fitting) <= hard
    fewer = f"{option}{fitting} fits (the results stay the same); or allow more" if fits else ""
    more = _round_up(need)
    raise UserError(
        f"{option}{workers}: up to {need} files are open at a time, but only {hard} are allowed "
        f"(ulimit -n). {fewer or 'Allow more'}: ulimit -n {more} in a new shell (in this one the "
        f"limit can only be lowered), or docker run --ulimit nofile={more}"
    )


def _open_files() -> int | None:
    """Return the number of files that this process has open; None if it is unknown."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        if Path(folder).is_dir():
            return len(list(Path(folder).iterdir()))
    return None


def _round_up(count: int) -> int:
    """Round a number of files up, to leave some room."""
    return -(-count // 256) * 256
