"""May this process open as many files as its loaders need?"""

from __future__ import annotations

from pathlib import Path

from retinanet.data.loader import PREFETCH
from retinanet.errors import UserError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

_SPARE = 16
"""Files open for a moment, or that a library opens later: the log, a checkpoint, a font."""
_OF_A_WORKER = 4
"""Pipes of a loader process: its plans, and its end."""
_OF_A_LOADER = 4
"""Pipes of a loader, and what torch wants free beside them."""


def needed(loaders: int, workers: int) -> int:
    """Return how many files loaders keep open in the training process.

    Args:
        loaders: that are open at the same time.
        workers: processes of each.
    """
    if not workers:
        return 0
    return loaders * (_OF_A_LOADER + _OF_A_WORKER * workers + PREFETCH * workers + 2)


def allow_descriptors(loaders: int, *, workers: int, option: str = "data.workers=") -> list[str]:
    """Raise the soft limit of open files as far as loaders need it; return what to say of that.

    Args:
        loaders: that are open at the same time.
        workers: processes of each.
        option: what the user writes before their number.

    Raises:
        UserError: the hard limit is lower.
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
        return [f"open files: the limit (ulimit -n) was {soft}, {need} are needed: raised to that"]
    fitting = workers
    while fitting and now + _SPARE + needed(loaders, fitting) > hard:
        fitting -= 1
    fits = now + _SPARE + needed(loaders, fitting) <= hard
    fewer = f"{option}{fitting} fits (the results stay the same); or allow more" if fits else ""
    more = _round_up(need)
    raise UserError(
        f"{option}{workers}: up to {need} files are open at a time, but {hard} are allowed "
        f"(ulimit -n). {fewer or 'Allow more'}: ulimit -n {more} in a new shell (in this one the "
        f"limit can only be lowered), or docker run --ulimit nofile={more}"
    )


def _open_files() -> int | None:
    """Return how many files this process has open; None where the system does not tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        if Path(folder).is_dir():
            return len(list(Path(folder).iterdir()))
    return None


def _round_up(count: int) -> int:
    """Return a number of files to ask for, with room."""
    return -(-count // 256) * 256
