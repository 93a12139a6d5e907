"""Capture what decoders write to stderr about a file.

libjpeg continues after damage inside a JPEG and guesses pixels. It only reports this on stderr,
without a file name. A separate process, which writes nothing else there, shows which file it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2

from retinanet.errors import UserError

Result = TypeVar("Result")
_MOST_PROCESSES = 8
_CHUNK = 16
"""Calls that are sent to a process at a time."""


def map_with_lines(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[Result, str]]:
    """Yield for each call, in order, the result of a function and what was written to stderr.

    Args:
        function: A function of a module, so that other processes can import it.
        arguments: Arguments of each call.

    Raises:
        UserError: A process was killed.
    """
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES, -(-len(arguments) // _CHUNK) or 1)
    # A spawned process would run the caller's script again, unless that has a main guard.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_start)
    try:
        with pool:
            yield from pool.map(partial(_call, function), arguments, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise UserError(
            "a process that decodes images was killed: is there enough memory? Without --decode, "
            "only files that look doubtful are decoded"
        ) from None


def _start() -> None:
    """Redirect the stderr of this process, including its libraries, to a file."""
    cv2.setNumThreads(0)  # the threads of the process that was forked are not here
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)  # the file stays open


def _call(function: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result, str]:
    sys.stderr.flush()
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    result = function(*arguments)
    sys.stderr.flush()
    return result, os.pread(2, 10_000, 0).decode(errors="replace")
