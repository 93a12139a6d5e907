"""What decoders write to stderr about the files that they are given.

libjpeg goes on after damage inside a JPEG, guesses pixels, and tells stderr alone, without a name.
Only a process of its own, which writes nothing else there, can tell which file was meant.
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

from retinanet.errors import UserError

Result = TypeVar("Result")
_MOST_PROCESSES = 8
_CHUNK = 16
"""Calls that are sent to a process together."""


def map_with_lines(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[Result, str]]:
    """Yield what a function returns for each arguments, in order, and what stderr got meanwhile.

    Args:
        function: of a module, so that other processes find it.
        arguments: of each call.

    Raises:
        UserError: a process was killed.
    """
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES, -(-len(arguments) // _CHUNK) or 1)
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_keep_stderr)
    try:
        with pool:
            yield from pool.map(partial(_call, function), arguments, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise UserError(
            "a process that decodes images was killed: is there enough memory? without --decode "
            "only doubtful files are decoded"
        ) from None


def _keep_stderr() -> None:
    """Send what this process, and any library in it, writes to stderr into a file."""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)  # which keeps the file


def _call(function: Callable[..., Result], arguments: tuple[Any, ...]) -> tuple[Result, str]:
    sys.stderr.flush()
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    result = function(*arguments)
    sys.stderr.flush()
    return result, os.pread(2, 10_000, 0).decode(errors="replace")
