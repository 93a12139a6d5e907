"""Read many small files in parallel: a disk or network reads eight as fast as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from retinanet.errors import shortage
from retinanet.files import check_regular

T = TypeVar("T")

_THREADS = 8
_AT_ONCE = 64
"""Files that a thread reads in one go."""


def map_in_threads(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """Yield what a function returns for each path, in order, reading only a little ahead."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), _THREADS * _AT_ONCE):
            own = paths[start : start + _THREADS * _AT_ONCE]
            parts = [own[i : i + _AT_ONCE] for i in range(0, len(own), _AT_ONCE)]
            for results in pool.map(lambda part: [function(path) for path in part], parts):
                yield from results


def read_bytes(path: Path) -> bytes | OSError:
    """Return a file's bytes, or why they cannot be read.

    Raises:
        TrainingError: The process cannot open any more files.
    """
    try:
        return check_regular(path).read_bytes()
    except OSError as error:
        short = shortage(path, error)
        if short is not None:
            raise short from None
        return error
