"""Copy checkpoints to the host quickly, and write them in a thread during training."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from retinanet.checkpoints.format import Checkpoint, save_checkpoint
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.errors import InterruptedRunError, TrainingError
from retinanet.files import sync, write_failure

_MOST_COPIES = 2
"""Largest number of copies on the host: one being written, and one waiting."""
_PATIENCE = 1800.0
"""Seconds that a checkpoint may take; a slower disk is considered dead."""


@dataclass(frozen=True)
class Pauses:
    """Time that training waited for checkpoints."""

    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Job:
    """A checkpoint to write, and the number of snapshots to keep after that (0: all)."""

    checkpoint: Checkpoint
    path: Path
    keep: int = 0


class Saver:
    """Writes the checkpoints of a run, in the order in which they are given.

    After an error nothing more is written, so that the files on the disk are consistent. The error
    is raised at the next call. Leaving the `with` block waits for the disk, except after a second
    SIGINT, which drops checkpoints that are not yet written.
    """

    def __init__(self, folder: RunFolder, *, active: bool) -> None:
        """Start with nothing to write.

        Args:
            folder: Folder of the run.
            active: Whether this is the process that writes.
        """
        self._folder = folder
        self._active = active
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._working = False
        self._thread: threading.Thread | None = None
        self._error: TrainingError | None = None
        self._failed = False
        self._abandoned = threading.Event()
        self.pauses = Pauses()
        atexit.register(self._abandon)

    def save(self, checkpoint: Checkpoint, path: Path) -> float:
        """Copy the current state and queue it for writing; return the seconds that it took.

        Raises:
            TrainingError: An earlier checkpoint could not be written.
        """
        return self._enqueue(checkpoint, path, keep=0)

    def snapshot(self, checkpoint: Checkpoint, step: int, keep: int) -> float:
        """Write step_N.pt as `save` does, then keep only the newest `keep` snapshots (0: all).

        Raises:
            TrainingError: An earlier checkpoint could not be written.
        """
        return self._enqueue(checkpoint, self._folder.snapshot(step), keep=keep)

    def check(self) -> None:
        """Raise the error of a write that failed, once.

        Raises:
            TrainingError: A checkpoint could not be written.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            TrainingError: A checkpoint could not be written.
        """
        self._wait()
        self.check()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del trace
        if kind is not None and not issubclass(kind, Exception):
            return
        self._wait()
        # After an interruption the message says that the state is saved: it must be.
        if error is None or isinstance(error, InterruptedRunError):
            self.check()

    def _enqueue(self, checkpoint: Checkpoint, path: Path, *, keep: int) -> float:
        """Copy a checkpoint and hand it to the thread; return the seconds that it took."""
        if not self._active:
            return 0.0
        started = time.perf_counter()
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._jobs) < _MOST_COPIES, _PATIENCE):
                raise self._gave_up()
        self.check()
        job = _Job(_copy_to_host(checkpoint), path, keep)
        with self._changed:
            self._jobs.append(job)
            if not self._working:
                self._working = True
                self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
                self._thread.start()
        pause = time.perf_counter() - started
        self.pauses = Pauses(self.pauses.count + 1, self.pauses.seconds + pause)
        return pause

    def _wait(self) -> None:
        """Wait until the thread has ended.

        It holds tensors, and freeing them while the interpreter exits would abort the program.

        Raises:
            TrainingError: The disk does not respond.
        """
        if self._thread is not None:
            self._thread.join(_MOST_COPIES * _PATIENCE)
            if self._thread.is_alive():
                raise self._gave_up()

    def _gave_up(self) -> TrainingError:
        """Stop writing; return the error for it."""
        self._failed = True
        self._abandoned.set()
        return TrainingError(
            f"{self._jobs[0].path}: was not written within {_PATIENCE / 60:.0f} minutes. Does the "
            "disk or network drive still respond? The previous checkpoint is kept"
        )

    def _work(self) -> None:
        """Write one job after the other; each stays in the queue until it is done."""
        while True:
            with self._changed:
                if not self._jobs or self._abandoned.is_set():
                    self._working = False
                    return
                job = self._jobs[0]
            try:
                if not self._failed:
                    self._write(job)
            except TrainingError as error:
                self._error, self._failed = error, True
            except Exception as error:
                # A bug of ours must not leave the run waiting for a thread that has ended.
                self._error = TrainingError(f"{job.path}: could not be written: {error!r}")
                self._failed = True
            with self._changed:
                self._jobs.popleft()
                self._changed.notify_all()

    def _write(self, job: _Job) -> None:
        """Write a checkpoint, and remove the snapshots that it replaces.

        Raises:
            TrainingError: It cannot be written.
        """
        for record in self._folder.records():  # the state must not be ahead of its records
            try:
                sync(record)
            except OSError as error:
                raise write_failure(record, error) from None
        save_checkpoint(job.checkpoint, job.path, abandoned=self._abandoned)
        if job.keep:
            snapshots = self._folder.snapshots()
            end = snapshots.index(job.path) + 1
            # Later ones are from before the run was resumed at an earlier step.
            for other in (*snapshots[: max(0, end - job.keep)], *snapshots[end:]):
                other.unlink(missing_ok=True)

    def _abandon(self) -> None:
        """Stop writing the current file when the program exits; its old version is kept.

        The thread must have left torch's writer before the interpreter exits, which would otherwise
        crash.
        """
        self._abandoned.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout=2)


def _copy_to_host(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with copies of the tensors on the host, which training cannot change."""
    devices: set[torch.device] = set()
    copy = replace(
        checkpoint,
        model=_copy(checkpoint.model, devices),
        averaged=_copy(checkpoint.averaged, devices),
        optimizer=_copy(checkpoint.optimizer, devices),
        scaler=_copy(checkpoint.scaler, devices),
    )
    for device in devices:
        torch.accelerator.synchronize(device)
    return copy


def _copy(value: Any, devices: set[torch.device]) -> Any:
    """Copy nested dicts, lists and tensors; note the devices whose copies are in progress."""
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            devices.add(value.device)
        # From a GPU this copies to pinned memory without waiting.
        return value.detach().to("cpu", non_blocking=True, copy=True)
    if isinstance(value, dict):
        return {key: _copy(part, devices) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copy(part, devices) for part in value)
    return value
