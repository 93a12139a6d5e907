"""Load the steps of a rank from their plans, in worker processes without state."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from retinanet.batch import Batch
from retinanet.data.dataset import DetectionDataset
from retinanet.data.hand_over import Packed, pack
from retinanet.data.loader_processes import (
    GLANCE,
    Watch,
    end_processes,
    prepare_process,
    say_to_stderr,
    start_processes,
)
from retinanet.data.sampler import Plan, TrainingPlan, share, split
from retinanet.errors import TrainingError, UserError
from retinanet.structures import BLANK

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of glibc's mallopt(3)."""
PREFETCH = 2
"""Batches that a loader process prepares ahead."""


@dataclass(frozen=True, kw_only=True)
class RankStep:
    """One rank's part of one step."""

    step: int
    micro_batches: list[Batch]
    positives: int
    """Positive anchors of this part, known before the forward pass."""
    images: int
    """Images of this part that count in the losses."""
    bad: list[str]
    """Messages about images that could not be read."""

    def pin_memory(self) -> RankStep:
        """Copy into page-locked memory (called by torch's loader)."""
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])


@dataclass(frozen=True, kw_only=True)
class _RankPlan:
    """What one rank loads for one step."""

    step: int
    micro_batches: list[Plan]


class _RankPlans(Sampler[_RankPlan]):
    """The plans of one rank, made in the training process: workers need not know the order."""

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
    """Turns the plan of a step into a `RankStep`."""

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


class _Unsent:
    """An error in a loader process, to be raised in the training process."""

    def __init__(self, error: UserError | TrainingError) -> None:
        self.error = error


class _PackedItems(Dataset):
    """Packs items to send them to the training process; expected errors are sent as values."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, plan: Any) -> Packed | _Unsent:
        try:
            return pack(self._dataset[plan])
        except (UserError, TrainingError) as error:
            return _Unsent(error)
        except MemoryError:
            return _Unsent(
                TrainingError(
                    "a loader process ran out of memory: lower data.workers (the results stay the "
                    "same)"
                )
            )


class Loader(DataLoader):
    """torch's loader, with a limit on how long training waits for its processes.

    An iterator is a generator: when it ends for any reason or is closed, its processes end.
    """

    def __init__(self, dataset: Dataset, *, say: Callable[[str], None], **options: Any) -> None:
        """Take torch's options, and `say`, which reports that a batch takes long."""
        if options["num_workers"]:
            dataset = _PackedItems(dataset)
            options["timeout"] = GLANCE
        super().__init__(dataset, **options)
        self._say = say

    def __iter__(self) -> Any:
        if not self.num_workers:
            yield from super().__iter__()
            return
        iterator, workers = start_processes(super().__iter__)
        try:
            with closing(Watch(workers, self._say)) as watch:
                while (packed := _next_item(iterator, watch)) is not None:
                    yield packed.unpack()
        finally:
            end_processes(iterator)


def _next_item(iterator: Iterator[Packed | _Unsent], watch: Watch) -> Packed | None:
    """Return the next item of torch's iterator, or None after the last.

    Raises:
        UserError, TrainingError: A loader process raised it, or its batch could not be received.
    """
    with watch.waiting():
        while True:
            try:
                item = next(iterator, None)
                break
            except Exception as error:
                if not watch.still_waits(error):
                    watch.explain(error)
    if isinstance(item, _Unsent):
        raise item.error
    return item


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
    say: Callable[[str], None] = say_to_stderr,
) -> Loader:
    """Return a loader that yields the `RankStep` of this rank for the steps start..stop-1."""
    plans = _RankPlans(plan, range(start, stop), rank=rank, ranks=ranks, micro_batch=micro_batch)
    return _loader(_RankSteps(dataset), plans, workers=workers, pin_memory=pin_memory, say=say)


def evaluation_loader(
    dataset: DetectionDataset, plans: Sequence[Plan], *, workers: int, pin_memory: bool
) -> Loader:
    """Return a loader that yields (batch, messages about unreadable images) for each plan."""
    return _loader(dataset, plans, workers=workers, pin_memory=pin_memory, say=say_to_stderr)


def _loader(
    dataset: Dataset,
    sampler: Iterable[Any],
    *,
    workers: int,
    pin_memory: bool,
    say: Callable[[str], None],
) -> Loader:
    # Forking is cheap, and safe while the workers do not use the device. Elsewhere: spawn.
    context = ("fork" if sys.platform == "linux" else "spawn") if workers else None
    return Loader(
        dataset,
        say=say,
        batch_size=None,  # each item of this loader is a whole step, batched already
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH if workers else None,
    )


@contextmanager
def on_one_core() -> Iterator[None]:
    """Limit this process to one core for a while, like a loader process."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def keep_memory() -> None:
    """Make this process keep the memory that it frees.

    glibc returns every large block to the system. For images, mapping it again costs half as much
    as decoding them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**30)


def _start_worker(worker: int) -> None:
    """Limit a worker to one core, and let the training process decide when it ends."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_memory()
    prepare_process()
