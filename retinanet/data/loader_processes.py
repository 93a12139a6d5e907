"""The processes of a loader: start, end, state, and how long training waits for them."""

from __future__ import annotations

import atexit
import errno
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from torch.utils.data._utils import signal_handling

from retinanet.data.hand_over import SHARED_MEMORY
from retinanet.errors import TrainingError

NOTICE = 60.0
"""Seconds without a batch after which the wait is reported."""
PATIENCE = 1800.0
"""Seconds without a batch after which the run ends."""
_GRACE = 300
"""Seconds from SIGTERM to the end of a process."""
_LEAVING = 3.0
"""Seconds in which processes may end by themselves; stuck ones are then killed."""
_LOST_BATCH = 71
"""Exit code of a process that could not send a batch."""
GLANCE = 1.0
"""Seconds between two checks of the clock and the processes."""

_STATES = {"T": "stopped", "t": "stopped", "D": "waiting for a disk or a network drive"}
"""Letters of /proc/PID/stat."""

_open: weakref.WeakKeyDictionary[Any, list[BaseProcess]] = weakref.WeakKeyDictionary()
"""Open iterators of torch's loader, and their processes."""


def prepare_process() -> None:
    """Keep a loader's process alive while the training finishes its step after a signal.

    Ctrl-C in a terminal and the signals of a scheduler reach every process of the group. The
    training process saves its state and then ends the loaders. SIGTERM ends one after a delay.
    """
    # Garbage collection of objects from before the fork would copy the whole heap, page by page.
    gc.freeze()
    # A batch that cannot be sent would be lost: torch prints a traceback and continues.
    Queue._on_queue_feeder_error = staticmethod(  # type: ignore[attr-defined]
        lambda error, batch: os._exit(_LOST_BATCH)
    )
    sys.excepthook = _print_unless_left
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in ("SIGBUS", "SIGSEGV", "SIGFPE"):  # the message of training has more than torch's
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if hasattr(signal, "alarm"):  # not on Windows
        # Python runs this between two instructions, so that no half-made shared block is left.
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE) and None)


def _print_unless_left(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an uncaught error, unless the training process has just closed the connection.

    A signal may interrupt training while it receives a batch. The thread that sends descriptors
    then finds the other end closed. If that thread has no descriptors left, it would retry forever.
    """
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        os._exit(_LOST_BATCH)
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, traceback)


def start_processes(start: Callable[[], Any]) -> tuple[Any, list[BaseProcess]]:
    """Call `start`; return its result, an iterator of torch's loader, and the processes.

    Raises:
        TrainingError: The system does not allow so many processes. None of them is left running.
    """
    before = set(multiprocessing.active_children())
    try:
        iterator = start()
    except OSError as error:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise TrainingError(
            f"the loader processes could not be started: {error.strerror}. {_remedy(error)}"
        ) from None
    # By default torch raises the death of a process wherever training is at that moment.
    if hasattr(signal_handling, "_remove_worker_pids"):
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    # Prefer torch's own list: children that have ended already are missing from `started`.
    started = set(multiprocessing.active_children()) - before
    workers = list(getattr(iterator, "_workers", started))
    _open[iterator] = workers
    return iterator, workers


def _remedy(error: OSError) -> str:
    fewer = "lower data.workers (0 loads in the training process; the results stay the same)"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"Allow more open files (ulimit -n 4096), or {fewer}"
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return f"Is the process limit (ulimit -u) reached, or the memory used up? Or {fewer}"
    if error.errno == errno.ENOSPC:
        return f"{SHARED_MEMORY} is full (docker run --shm-size=8g makes it larger); or {fewer}"
    return f"Set data.workers=0, which needs none (the results stay the same); the error: {error}"


def end_processes(iterator: Any) -> None:
    """End the processes of an iterator within seconds, even if they are stuck.

    They have no state. torch's own shutdown waits for each in turn, and forever if one was stopped
    at a bad moment.
    """
    if iterator not in _open:  # the program is exiting, and no thread can be started
        return
    workers = _open[iterator]
    for worker in workers:
        _send_end(worker)
    _join(workers, _LEAVING)
    for worker in workers:
        if worker.exitcode is None:
            worker.kill()
    _join(workers, _LEAVING)
    # torch's queues and its pinning thread may wait forever for data of a process that died.
    rest = threading.Thread(target=iterator._shutdown_workers, name="end of loader", daemon=True)
    rest.start()
    rest.join(2 * _LEAVING)
    for worker in workers:
        if worker.exitcode is None:  # stuck in the system: the program would wait for it at exit
            getattr(multiprocessing.process, "_children", set()).discard(worker)
    _open.pop(iterator, None)


def _send_end(worker: BaseProcess) -> None:
    if worker.exitcode is None and worker.pid is not None:
        if hasattr(signal, "SIGALRM"):
            os.kill(worker.pid, signal.SIGALRM)
        else:
            worker.terminate()


def _join(workers: Sequence[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))


@atexit.register
def _end_all() -> None:
    """End iterators that were not closed: multiprocessing would wait the full `_GRACE`."""
    for iterator, workers in list(_open.items()):
        for worker in workers:
            if worker.exitcode is None:
                worker.kill()
        iterator._shutdown = True  # nothing is left for torch to end
        del _open[iterator]


class Watch:
    """Watches the wait for a batch, in a thread: the main thread may wait without a timeout."""

    def __init__(self, workers: Sequence[BaseProcess], say: Callable[[str], None]) -> None:
        self._workers = workers
        self._say = say
        self._since: float | None = None
        self._is_over = threading.Event()
        self.gave_up = ""
        """Why training no longer waits; empty while it does."""
        threading.Thread(target=self._look, name="loader watch", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the block as one wait."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        """Stop watching."""
        self._is_over.set()

    def _look(self) -> None:
        noticed = None
        while not self._is_over.wait(GLANCE):
            since = self._since
            if since is None:
                continue
            waited = time.monotonic() - since
            if waited > NOTICE and noticed != since:
                noticed = since
                # If the log cannot be written, training itself reports that error.
                with suppress(TrainingError, OSError):
                    self._say(
                        f"no batch for {waited:.0f} s: waiting for {describe(self._workers)}; "
                        f"the run ends after {PATIENCE / 60:.0f} minutes"
                    )
            if waited > PATIENCE:
                self.gave_up = f"no batch for {waited / 60:.0f} minutes: {describe(self._workers)}"
                for worker in self._workers:
                    if worker.pid is not None:
                        _kill(worker.pid)
                return

    def still_waits(self, error: Exception) -> bool:
        """Whether an error of torch's loader is only the timeout of one check (`GLANCE`)."""
        return (
            "DataLoader timed out" in str(error)
            and not self.gave_up
            and all(worker.exitcode is None for worker in self._workers)
        )

    def explain(self, error: Exception) -> NoReturn:
        """Raise the cause of an error of torch's loader.

        Raises:
            TrainingError: A process died or stopped responding, or there are no descriptors left.
            Exception: Any other error, unchanged.
        """
        if self.gave_up:
            raise TrainingError(
                f"{self.gave_up}. Does the disk or network drive with the images still respond? "
                "data.workers=0 loads in the training process"
            ) from None
        # A connection may break just before its process counts as ended.
        broken = isinstance(error, (EOFError, ConnectionError))
        wait([worker.sentinel for worker in self._workers], timeout=float(broken))
        for worker in self._workers:
            worker.join(0)
        dead = [worker for worker in self._workers if worker.exitcode is not None]
        if dead:
            raise TrainingError(describe_death(dead[0].pid, dead[0].exitcode)) from None
        if _is_out_of_descriptors(error):
            raise TrainingError(
                "too many open files: a batch could not be received from a loader process. Allow "
                "more (ulimit -n 4096), or lower data.workers (the results stay the same)"
            ) from None
        if broken:
            raise TrainingError(
                f"the connection to a loader process broke ({error!r}). data.workers=0 loads in "
                "the training process (the results stay the same)"
            ) from None
        raise error


def _kill(pid: int) -> None:
    try:
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    except OSError:
        return  # it has just ended


def _is_out_of_descriptors(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return True
    # The messages of Python and torch if a descriptor does not arrive.
    return "ancdata" in str(error) or "Too many open files" in str(error)


def describe(workers: Sequence[BaseProcess]) -> str:
    """Name the processes, with the state of those that the system shows as stopped or waiting."""
    words = []
    for worker in workers:
        state = _STATES.get(_state(worker.pid))
        words.append(f"{worker.pid} ({state})" if state else str(worker.pid))
    return f"loader process{'es' if len(words) > 1 else ''} {', '.join(words)}"


def _state(pid: int | None) -> str:
    """Return the system's letter for the state of a process, or "" if it is unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def describe_death(pid: int | None, code: int | None) -> str:
    """Say how a loader process ended, and what helps.

    Args:
        pid: Id of the process.
        code: Exit code of the process; negative for a signal.
    """
    fewer = "lower data.workers (the results stay the same)"
    if code == _LOST_BATCH:
        return (
            f"a loader process (pid {pid}) could not send a batch: too many open files, or too "
            f"little memory. Allow more open files (ulimit -n 4096), or {fewer}"
        )
    if code is None or code >= 0:
        return (
            f"a loader process is gone: pid {pid} ended with exit code {code}. data.workers=0 "
            "loads in the training process, where the error is shown"
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    causes = {
        "SIGKILL": f"If the machine ran out of memory, {fewer}",
        "SIGBUS": f"Is a disk, the memory or {SHARED_MEMORY} full, or did a file shrink while "
        f"it was read? If memory is short, {fewer}",
        "SIGSEGV": "A library crashed, possibly on one image: data.workers=0 and python -X "
        "faulthandler -m retinanet show where",
    }
    cause = causes.get(name, f"If you did not end it yourself, {fewer}")
    return f"a loader process is gone: pid {pid} was ended by {name}. {cause}"


def say_to_stderr(text: str) -> None:
    """Print a message to stderr, where there is no log."""
    print(text, file=sys.stderr, flush=True)
