"""SIGINT and SIGTERM end a run between two steps, with its state saved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)
_ECHO_SECONDS = 2.0
"""Seconds within which a signal that is repeated under torchrun is the same one: some schedulers
signal every process of a job, and torchrun passes on what it was sent itself."""


@contextmanager
def collect_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM: the step at hand ends before the run does; a second is final."""
    received: list[int] = []
    came: list[float] = []
    echo = _ECHO_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if not came:
            came.append(now)
            received.append(number)
            if not echo:
                _set_handlers(before)
        elif now - came[0] >= echo:
            _set_handlers(before)
            os.kill(os.getpid(), number)

    # What the parent has ignored stays ignored: `nohup`, a shell's `&`.
    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in _ENDING if number not in ignored_signals()
    }
    try:
        _set_handlers(dict.fromkeys(before, note))
        yield received
    finally:
        _set_handlers(before)


def ignored_signals() -> list[signal.Signals]:
    """Return the signals that should end a run but that this process was started to ignore."""
    return [number for number in _ENDING if signal.getsignal(number) == signal.SIG_IGN]


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
