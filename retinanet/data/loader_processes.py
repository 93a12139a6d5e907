"""The processes of a loader: how one ends, what it is doing, and how long it is waited for."""

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
"""Seconds without a batch after which it is said what is waited for."""
PATIENCE = 1800.0
"""Seconds without a batch after which the run ends."""
_GRACE = 300
"""Seconds from SIGTERM to a process's end."""
_LEAVING = 3.0
"""Seconds in which processes end by themselves; those that are stuck are then killed."""
_LOST_BATCH = 71
"""Exit code of a process that could not send a batch."""
GLANCE = 1.0
"""Seconds between two looks at the clock, and at the processes."""

_STATES = {"T": "stopped", "t": "stopped", "D": "waiting for a disk or a network drive"}
"""Letters of /proc/PID/stat."""

_open: weakref.WeakKeyDictionary[Any, list[BaseProcess]] = weakref.WeakKeyDictionary()
"""Iterators of torch's loader, and their processes, which are running."""


def prepare_process() -> None:
    """Keep a loader's process alive while the training finishes its step after a signal.

    A terminal's Ctrl-C and a scheduler's signals reach every process of the group. The training
    process saves its state and lets the loaders go; SIGTERM ends one after a grace only.
    """
    # Collecting garbage among what it was forked with would copy the whole heap, page by page.
    gc.freeze()
    # What cannot be sent would be lost: torch prints a traceback and goes on.
    Queue._on_queue_feeder_error = staticmethod(  # type: ignore[attr-defined]
        lambda error, batch: os._exit(_LOST_BATCH)
    )
    sys.excepthook = _print_unless_left
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in ("SIGBUS", "SIGSEGV", "SIGFPE"):  # torch prints a line; the training says more
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if hasattr(signal, "alarm"):  # not on Windows
        # Between two instructions: a shared block that is being made would stay for ever.
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE) and None)


def _print_unless_left(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an uncaught error, unless it says that the training process has left.

    A signal may end its wait while it takes a batch: the thread that sends descriptors then finds
    nobody at the other end. If that thread has no descriptor left itself, it would try for ever.
    """
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        os._exit(_LOST_BATCH)
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, traceback)


def start_processes(start: Callable[[], Any]) -> tuple[Any, list[BaseProcess]]:
    """Return what `start` gives: an iterator of torch's loader, and its processes.

    Raises:
        TrainingError: the system does not allow so many; none of them is left.
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
    # By default the death of a process is raised wherever the training is at that moment.
    if hasattr(signal_handling, "_remove_worker_pids"):
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    # Of torch's own list; children that are gone already would be missing.
    started = set(multiprocessing.active_children()) - before
    workers = list(getattr(iterator, "_workers", started))
    _open[iterator] = workers
    return iterator, workers


def _remedy(error: OSError) -> str:
    fewer = "lower data.workers (0 loads in the training process; the results stay the same)"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"Allow more open files (ulimit -n 4096), or {fewer}"
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return f"Is the limit of processes (ulimit -u) or the memory used up? Or {fewer}"
    if error.errno == errno.ENOSPC:
        return f"{SHARED_MEMORY} is full (docker run --shm-size=8g makes it larger); or {fewer}"
    return f"Set data.workers=0, which needs none (the results stay the same); the error: {error}"


def end_processes(iterator: Any) -> None:
    """End the processes of an iterator within seconds, also those that are stuck.

    They hold no state. torch's own way waits for each in turn, and without end where one was
    stopped at a bad moment.
    """
    if iterator not in _open:  # the program is at its end, where no thread can be started
        return
    workers = _open[iterator]
    for worker in workers:
        _send_end(worker)
    _join(workers, _LEAVING)
    for worker in workers:
        if worker.exitcode is None:
            worker.kill()
    _join(workers, _LEAVING)
    # The queues and torch's thread that pins memory: they may wait for what died in their hands.
    rest = threading.Thread(target=iterator._shutdown_workers, name="end of loader", daemon=True)
    rest.start()
    rest.join(2 * _LEAVING)
    for worker in workers:
        if worker.exitcode is None:  # the system holds it: the program would wait for it at its end
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
    """End what was never closed: multiprocessing would wait for the whole grace."""
    for iterator, workers in list(_open.items()):
        for worker in workers:
            if worker.exitcode is None:
                worker.kill()
        iterator._shutdown = True  # torch has nothing left to end
        del _open[iterator]


class Watch:
    """Looks after the wait for a batch, in a thread: main may wait in a place without a clock."""

    def __init__(self, workers: Sequence[BaseProcess], say: Callable[[str], None]) -> None:
        self._workers = workers
        self._say = say
        self._since: float | None = None
        self._is_over = threading.Event()
        self.gave_up = ""
        """Why it is not waited any longer."""
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
        """Stop looking."""
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
                # A disk that does not take the line is an error of the training itself.
                with suppress(TrainingError, OSError):
                    self._say(
                        f"no batch for {waited:.0f} s: waiting for {describe(self._workers)}; "
                        f"after {PATIENCE / 60:.0f} minutes the run ends"
                    )
            if waited > PATIENCE:
                self.gave_up = f"no batch for {waited / 60:.0f} minutes: {describe(self._workers)}"
                for worker in self._workers:
                    if worker.pid is not None:
                        _kill(worker.pid)
                return

    def goes_on(self, error: Exception) -> bool:
        """Whether an error of torch's loader is the end of a glance, and nothing else is wrong."""
        return (
            "DataLoader timed out" in str(error)
            and not self.gave_up
            and all(worker.exitcode is None for worker in self._workers)
        )

    def explain(self, error: Exception) -> NoReturn:
        """Raise what stands behind an error of torch's loader.

        Raises:
            TrainingError: a process has died or was given up, or descriptors have run out.
            Exception: any other error, as it is.
        """
        if self.gave_up:
            raise TrainingError(
                f"{self.gave_up}. Does the disk or the network drive with the images still answer? "
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
                "too many open files: a batch of a loader process could not be taken. Allow more "
                "(ulimit -n 4096), or lower data.workers (the results stay the same)"
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
    # Python's and torch's words where a descriptor does not arrive.
    return "ancdata" in str(error) or "Too many open files" in str(error)


def describe(workers: Sequence[BaseProcess]) -> str:
    """Say which processes there are, and what the system knows of those that do not go on."""
    words = []
    for worker in workers:
        state = _STATES.get(_state(worker.pid))
        words.append(f"{worker.pid} ({state})" if state else str(worker.pid))
    return f"loader process{'es' if len(words) > 1 else ''} {', '.join(words)}"


def _state(pid: int | None) -> str:
    """Return the system's letter for the state of a process; "" where it is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def describe_death(pid: int | None, code: int | None) -> str:
    """Say how a loader's process has ended, and what helps.

    Args:
        pid: its number.
        code: its exit code; minus the number of a signal.
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
            "loads in the training process, where an error says more"
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    causes = {
        "SIGKILL": f"If the machine ran out of memory, {fewer}",
        "SIGBUS": f"Did a disk, the memory or {SHARED_MEMORY} run full, or did a file shrink while "
        f"it was read? If memory is short, {fewer}",
        "SIGSEGV": "A library crashed, possibly over one image: data.workers=0 and python -X "
        "faulthandler -m retinanet show where",
    }
    cause = causes.get(name, f"If it was not you who ended it, {fewer}")
    return f"a loader process is gone: pid {pid} was ended by {name}. {cause}"


def say_to_stderr(text: str) -> None:
    """Say something where there is no log."""
    print(text, file=sys.stderr, flush=True)
