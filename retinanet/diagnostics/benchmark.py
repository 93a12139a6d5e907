"""How fast the data path is: each stage on one core, and the whole with loader processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch

from retinanet.config import override_config
from retinanet.data.dataset import DetectionDataset, collate
from retinanet.data.images import UnreadableImageError
from retinanet.data.loader import keep_memory, training_loader
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.splits import build_dataset, build_matcher, open_split, training_plan
from retinanet.errors import UserError
from retinanet.schema import Config

_PLAIN = ("data.preset=flip", "data.hflip=0", "data.augment=[]")
"""Overrides that leave decoding alone."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a stage takes."""

    stage: str
    seconds: float
    """An image."""

    def __str__(self) -> str:
        rate = f"{1 / self.seconds:10,.0f}" if self.seconds > 0 else f"{'-':>10}"
        return f"{self.stage:32}{1000 * self.seconds:10.2f} ms {rate} images/s"


def measure_data(config: Config, *, images: int, workers: Sequence[int]) -> Iterator[Timing]:
    """Time the training split's way from files to batches on the host.

    Args:
        config: of the experiment.
        images: to time, after as many that warm up.
        workers: numbers of loader processes to try.

    Raises:
        UserError: anything wrong with the split, or an unreadable image.
    """
    split = open_split(config, "train")
    plan = training_plan(config, split)
    dataset = build_dataset(config, split, augment=True, losses=True)
    plain = build_dataset(override_config(config, list(_PLAIN)), split, augment=True, losses=False)
    steps = max(1, -(-images // config.train.batch_size))
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_memory()
    try:
        yield from _stages(config, dataset, plain, plan, steps)
        for count in workers:
            yield _with_workers(config, dataset, plan, steps, count)
    except UnreadableImageError as error:
        raise UserError(str(error)) from None
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _stages(
    config: Config,
    dataset: DetectionDataset,
    plain: DetectionDataset,
    plan: TrainingPlan,
    steps: int,
) -> Iterator[Timing]:
    plans = [plan.step(step) for step in range(2 * steps)]
    samples = [(sample, one.canvas) for one in plans for sample in one.samples]
    decode = _time(samples, lambda pair: plain.load(*pair))
    load = _time(samples, lambda pair: dataset.load(*pair))
    yield Timing(stage="decode", seconds=decode)
    yield Timing(stage="augment", seconds=max(0.0, load - decode))
    loaded = [(dataset.load(*pair), pair[1]) for pair in samples[: config.train.batch_size]]
    loaded *= -(-len(samples) // len(loaded))
    yield Timing(
        stage="resize onto the canvas",
        seconds=_time(loaded, lambda pair: collate([pair[0]], pair[1], None)),
    )
    match = build_matcher(config)
    yield Timing(
        stage="assign anchors", seconds=_time(loaded, lambda pair: match(pair[1], pair[0].target))
    )
    batch = _time(plans, lambda one: dataset[one])
    yield Timing(stage="whole, one core", seconds=batch * len(plans) / len(samples))


def _time(items: list[Any], work: Callable[[Any], object]) -> float:
    """Work on every item; return the seconds for one of the second half."""
    half = len(items) // 2
    for item in items[:half]:
        work(item)
    start = time.perf_counter()
    for item in items[half:]:
        work(item)
    return (time.perf_counter() - start) / (len(items) - half)


def _with_workers(
    config: Config, dataset: DetectionDataset, plan: TrainingPlan, steps: int, workers: int
) -> Timing:
    """Time a loader once its processes have started."""
    warm = max(1, 2 * workers)  # what they load ahead
    loader = training_loader(
        dataset,
        plan,
        start=0,
        stop=2 * warm + steps,
        rank=0,
        ranks=1,
        micro_batch=config.train.batch_size,
        workers=workers,
        pin_memory=False,
    )
    batches = iter(loader)
    for _ in range(warm):
        next(batches)
    start = time.perf_counter()
    images = sum(next(batches).images for _ in range(steps))
    return Timing(
        stage=f"loader, data.workers={workers}",
        seconds=(time.perf_counter() - start) / images,
    )
