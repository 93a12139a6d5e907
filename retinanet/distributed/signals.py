"""Signals that end a run between two steps, with its state saved."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from retinanet.stop_signals import (
    STOP_SIGNALS,
    heeded_signals,
    ignore_repeated,
    set_handlers,
)

_ECHO_SECONDS = 2.0
"""Seconds within which a repeated signal under torchrun counts as the same one: some schedulers
signal every process of a job, and torchrun also forwards its own signal."""


class WaitInterruptedError(BaseException):
    """A signal arrived while this process waited for data; not caught by `except Exception`."""


class Signals:
    """The stop signals received so far."""

    def __init__(self) -> None:
        self.number = 0
        """Number of the first signal; 0 if there was none."""
        self._is_waiting = False

    def note(self, number: int) -> None:
        """Record the first signal.

        Raises:
            WaitInterruptedError: This process is waiting.
        """
        self.number = self.number or number
        if self._is_waiting:
            raise WaitInterruptedError

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal interrupt this block, which may wait long: a slow disk, a stuck worker.

        Raises:
            WaitInterruptedError: A signal arrived, before or inside the block.
        """
        self._is_waiting = True
        try:
            if self.number:
                raise WaitInterruptedError
            yield
        finally:
            self._is_waiting = False


@contextmanager
def collect_signals() -> Iterator[Signals]:
    """Collect stop signals, so that the current step is finished; a second one is final."""
    signals = Signals()
    came: list[float] = []
    echo = _ECHO_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        ignore_repeated(number)
        now = time.monotonic()
        if not came:
            came.append(now)
            signals.note(number)
        elif now - came[0] >= echo:
            set_handlers(before)
            os.kill(os.getpid(), number)

    before = heeded_signals()
    try:
        set_handlers(dict.fromkeys(before, handle))
        yield signals
    finally:
        set_handlers(before)


def ignored_signals() -> list[int]:
    """Return the stop signals that this process was started to ignore."""
    heeded = heeded_signals()
    return [number for number in STOP_SIGNALS if number not in heeded]
