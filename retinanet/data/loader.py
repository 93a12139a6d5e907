"""Plans -> a rank's whole steps, by worker processes that hold no state."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from retinanet.batch import Batch
from retinanet.data.dataset import DetectionDataset
from retinanet.data.sampler import Plan, TrainingPlan, share, split
from retinanet.errors import UserError
from retinanet.structures import BLANK

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of glibc's mallopt(3)."""
_GRACE_SECONDS = 300
"""From SIGTERM to a worker's end."""


@dataclass(frozen=True, kw_only=True)
class RankStep:
    """One rank's part of one step."""

    step: int
    micro_batches: list[Batch]
    positives: int
    """Positive anchors of this part: known before the forward pass."""
    images: int
    """Images of this part that take part in the losses."""
    bad: list[str]
    """Images that could not be read."""

    def pin_memory(self) -> RankStep:
        """Copy into page-locked memory (called by torch's loader)."""
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])


@dataclass(frozen=True, kw_only=True)
class _RankPlan:
    """What one rank loads for one step."""

    step: int
    micro_batches: list[Plan]


class _RankPlans(Sampler[_RankPlan]):
    """The plans of one rank, named in the training process: its workers need not know the order."""

    def __init__(
        self, plan: TrainingPlan, steps: range, *, rank: int, ranks: int, micro_batch: int
    ) -> None:
        self._plan = plan
        self._steps = steps
        self._rank = rank
        self._ranks = ranks
        self._micro_batch = micro_batch

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[_RankPlan]:
        for step in self._steps:
            part = share(self._plan.step(step), rank=self._rank, ranks=self._ranks)
            yield _RankPlan(step=step, micro_batches=list(split(part, self._micro_batch)))


class _RankSteps(Dataset):
    """Plan of a step -> RankStep."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, plan: _RankPlan) -> RankStep:
        loaded = [self._dataset[part] for part in plan.micro_batches]
        batches = [batch for batch, _ in loaded]
        return RankStep(
            step=plan.step,
            micro_batches=batches,
            positives=sum(sum(batch.assigned.counts) for batch in batches),
            images=int(sum((batch.image_ids != BLANK).sum() for batch in batches)),
            bad=[message for _, messages in loaded for message in messages],
        )


class Loader(DataLoader):
    """torch's loader, which raises a worker's `UserError` with its own message.

    An iterator is a generator: however it ends, and when it is closed, its workers end. torch
    leaves them to the iterator's `__del__`, which may hang for minutes: a worker's error holds
    itself, and the iterator, in a cycle, and when the garbage collector finds that, the queues that
    would tell the workers are closed before.
    """

    def __iter__(self) -> Any:
        iterator: Any = super().__iter__()
        try:
            yield from iterator
        except UserError as error:
            # torch puts the worker's traceback before the message.
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
        finally:
            if self.num_workers:
                iterator._shutdown_workers()  # there is no public way


def training_loader(
    dataset: DetectionDataset,
    plan: TrainingPlan,
    *,
    start: int,
    stop: int,
    rank: int,
    ranks: int,
    micro_batch: int,
    workers: int,
    pin_memory: bool,
) -> Loader:
    """Return a loader that yields this rank's `RankStep` of the steps from start to stop."""
    plans = _RankPlans(plan, range(start, stop), rank=rank, ranks=ranks, micro_batch=micro_batch)
    return _loader(_RankSteps(dataset), plans, workers=workers, pin_memory=pin_memory)


def evaluation_loader(
    dataset: DetectionDataset, plans: Sequence[Plan], *, workers: int, pin_memory: bool
) -> Loader:
    """Return a loader that yields (batch, unreadable images) of each plan."""
    return _loader(dataset, plans, workers=workers, pin_memory=pin_memory)


def _loader(dataset: Dataset, sampler: Iterable[Any], *, workers: int, pin_memory: bool) -> Loader:
    # Forking is cheap and safe while the workers keep off the device; elsewhere they are spawned.
    context = ("fork" if sys.platform == "linux" else "spawn") if workers else None
    return Loader(
        dataset,
        batch_size=None,  # a step is a sample of this loader: it batches itself
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
    )


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process to one core for a while, as a loader's process is."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def keep_memory() -> None:
    """Let this process keep the memory that it frees.

    glibc hands every large block back to the system; for images, faulting it in again costs as
    much as half of decoding them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**30)


def _start_worker(worker: int) -> None:
    """Keep a worker to one core, and alive while the training finishes its step after a signal.

    A terminal's Ctrl-C and a scheduler's SIGTERM reach every process of the group. The training
    process saves its state and lets the workers go; SIGTERM ends a worker after a grace only.
    """
    del worker
    # Collecting garbage among what it was forked with would copy the whole heap, page by page.
    gc.freeze()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_SECONDS) and None)
