"""SIGINT and SIGTERM end a run between two steps, with its state saved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ECHO = 2.0
"""Seconds within which a signal that is repeated under torchrun is the same one: some schedulers
signal every process of a job, and torchrun passes on what it was sent itself."""


@contextmanager
def collect_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM: the step at hand ends before the run does; a second is final."""
    received: list[int] = []
    came: dict[int, float] = {}
    echo = _ECHO if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if number not in came:
            came[number] = now
            received.append(number)
            if not echo:
                signal.signal(number, before[number])
        elif now - came[number] >= echo:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)

    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        for number in before:
            signal.signal(number, note)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
