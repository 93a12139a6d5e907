"""The signals that ask a command to stop; each raises an exception, so that it cleans up."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from retinanet.terminal import limit_patience

_NAMES = (
    "SIGINT",  # Ctrl-C
    "SIGTERM",  # most schedulers, `kill`, the end of a container
    "SIGHUP",  # the terminal or its connection is gone
    "SIGUSR1",  # the warning of Slurm and of Grid Engine
    "SIGUSR2",  # the warning of LSF, and of Grid Engine before it kills
    "SIGXCPU",  # a limit of CPU time (`ulimit -t`)
)
STOP_SIGNALS = tuple(
    getattr(signal.Signals, name) for name in _NAMES if hasattr(signal.Signals, name)
)
"""Windows has only some of them."""
_IMPORT_SECONDS = 0.1
"""Seconds after which a signal that arrived during an import is sent again."""
_LAST_WORDS_SECONDS = 2.0
"""Seconds that printing then waits for a terminal that does not read."""
_PR_SET_PDEATHSIG = 1
"""Option of prctl(2) on Linux."""


class StopSignal(KeyboardInterrupt):
    """A signal asks this process to stop; as with Ctrl-C, `except Exception` does not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def raised_stop_signals(caller: FrameType) -> Iterator[list[int]]:
    """Raise `StopSignal` in the main thread when a stop signal arrives, so that code cleans up.

    Yields the list of signal numbers raised: a library may turn a `StopSignal` into another error.

    Args:
        caller: Frame of the function that runs the command.
    """
    raised: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame, caller):
            # An interrupted import would leave numpy and torch half initialised.
            again = threading.Timer(_IMPORT_SECONDS, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        ignore_repeated(number)
        raised.append(number)
        limit_patience(
            _LAST_WORDS_SECONDS
        )  # code that prints while it cleans up may have no reader
        raise StopSignal(number)

    before = heeded_signals()
    try:
        set_handlers(dict.fromkeys(before, stop))
        yield raised
    finally:
        set_handlers(before)


def _is_importing(frame: FrameType | None, caller: FrameType) -> bool:
    """Whether a frame belongs to an import that started inside `caller`."""
    while frame is not None and frame is not caller:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def heeded_signals() -> dict[int, Any]:
    """Return the handlers of the stop signals that this process does not ignore.

    A signal that the parent ignores stays ignored (`nohup`, a shell's `&`). Only the main thread
    may set handlers; in any other thread the result is empty.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # None: set outside Python, so it could not be restored.
    return {n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}


def set_handlers(handlers: Mapping[int, Any]) -> None:
    """Set a handler for each signal number."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ignore_repeated(number: int) -> None:
    """Count SIGXCPU once: the system repeats it every second, up to the hard limit."""
    if signal.Signals(number).name == "SIGXCPU":
        signal.signal(number, signal.SIG_IGN)


def kill_by_stop_signals() -> None:
    """Let the next stop signal end this process at once."""
    set_handlers(dict.fromkeys(heeded_signals(), signal.SIG_DFL))


def stop_with_torchrun() -> None:
    """Send SIGTERM to this process when its torchrun dies.

    torchrun dies of signals that it does not handle, such as SIGUSR1, and its processes would
    continue to train unnoticed.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
