"""Speed of the data path: each stage on one core, and the whole path with loader processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Size
from retinanet.data.collate import Match, collate
from retinanet.data.dataset import DetectionDataset, Read
from retinanet.data.image_views import resize_image
from retinanet.data.images.reading import UnreadableImageError, read_image
from retinanet.data.loader import keep_memory, on_one_core, training_loader
from retinanet.data.loader_processes import say_to_stderr
from retinanet.data.sampler import Plan, TrainingPlan
from retinanet.engine.preflight.loader_limits import check_benchmark_loader
from retinanet.engine.splits import build_dataset, build_matcher, open_split, training_plan
from retinanet.errors import UserError
from retinanet.schema import Config

_MIN_STEPS = 4
"""Smallest number of batches to time: fewer are too noisy."""
_CACHED = 32
"""Number of images to keep decoded."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time that a stage takes."""

    stage: str
    seconds: float
    """Seconds per image."""

    def __str__(self) -> str:
        rate = f"{1 / self.seconds:10,.0f}" if self.seconds > 0 else f"{'-':>10}"
        return f"{self.stage:32}{1000 * self.seconds:10.2f} ms {rate} images/s"


def measure_data(
    config: Config, *, images: int, workers: Sequence[int], read: Read = read_image
) -> Iterator[Timing]:
    """Time the data path of the training split, from files to batches on the host.

    Args:
        config: Experiment.
        images: Number of images to time, after as many to warm up.
        workers: Numbers of loader processes to try.
        read: Function that decodes a file.

    Raises:
        UserError: The split has errors, or an image cannot be read.
    """
    split = open_split(config, "train")
    plan = training_plan(config, split)
    dataset = build_dataset(config, split, augment=True, losses=True, read=read)
    cached = build_dataset(config, split, augment=True, losses=True, read=_CachingReader(read))
    steps = max(_MIN_STEPS, -(-images // config.train.batch_size))
    plans = [part for step in range(2 * steps) for part in plan.step(step)]
    keep_memory()
    try:
        with on_one_core():
            yield from _time_stages(plans, dataset, cached, build_matcher(config))
            for count in workers:
                for remark in check_benchmark_loader(config, split, workers=count):
                    say_to_stderr(remark)
                yield _time_loader(config, dataset, plan, steps, count)
    except UnreadableImageError as error:
        raise UserError(str(error)) from None


class _CachingReader:
    """Reads every image once, to time the work on pixels without the decoding."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._pixels: dict[tuple[Path, int], NDArray[np.uint8]] = {}

    def __call__(self, path: Path, size: Size, *, reduction: int = 1) -> NDArray[np.uint8]:
        key = path, reduction
        if key not in self._pixels:
            self._pixels[key] = self._read(path, size, reduction=reduction)
        return self._pixels[key]


def _time_stages(
    plans: list[Plan], dataset: DetectionDataset, cached: DetectionDataset, match: Match
) -> Iterator[Timing]:
    """Time each stage, then all of them together; `cached` keeps the images that it has read."""
    samples = [(sample, plan.canvas) for plan in plans for sample in plan.samples]
    load = _time_items(samples, lambda pair: dataset.load(*pair))
    twice = samples[:_CACHED] + samples[:_CACHED]  # the second half finds what the first decoded
    augment = _time_items(twice, lambda pair: cached.load(*pair))
    yield Timing(stage="decode", seconds=max(0.0, load - augment))
    yield Timing(stage="augment", seconds=augment)
    loaded = [(cached.load(*pair), pair[1]) for pair in twice]
    resize = _time_items(loaded, lambda pair: resize_image(pair[0].pixels, pair[0].size))
    collating = _time_items(loaded, lambda pair: collate([pair[0]], pair[1], None))
    yield Timing(stage="resize", seconds=resize)
    yield Timing(stage="pad", seconds=max(0.0, collating - resize))
    assign = _time_items(loaded, lambda pair: match(pair[1], pair[0].target))
    yield Timing(stage="assign anchors", seconds=assign)
    batch = _time_items(plans, lambda plan: dataset[plan])
    yield Timing(stage="whole, one core", seconds=batch * len(plans) / len(samples))


def _time_items(items: list[Any], work: Callable[[Any], object]) -> float:
    """Work on every item; return the seconds per item of the second half (the first warms up)."""
    half = len(items) // 2
    for item in items[:half]:
        work(item)
    start = time.perf_counter()
    for item in items[half:]:
        work(item)
    return (time.perf_counter() - start) / (len(items) - half)


def _time_loader(
    config: Config, dataset: DetectionDataset, plan: TrainingPlan, steps: int, workers: int
) -> Timing:
    """Time a loader after its processes have started."""
    warm = max(1, 2 * workers)  # batches that they load ahead
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
    with closing(iter(loader)) as batches:
        for _ in range(warm):
            next(batches)
        start = time.perf_counter()
        images = sum(next(batches).images for _ in range(steps))
        seconds = (time.perf_counter() - start) / images
    return Timing(stage=f"loader, data.workers={workers}", seconds=seconds)
