"""Which images a step sees, at which size: pure functions of (seed, epoch, step).

Nothing here has a position to save: a resumed run needs the step number alone, and the number of
devices, workers and micro-batches cannot matter. N images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Buckets, Size, cover, evaluation_canvas, resized

# The first number of every seed tells the purposes apart.
_ORDER, _BATCH, _SAMPLE = range(3)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image at one place of the training: everything its pixels depend on."""

    row: int
    """Of the annotation index."""
    short_side: int
    """px after resizing."""
    seed: tuple[int, ...] | None
    """Of its augmentation; None does not augment."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images of one batch and their canvas."""

    samples: tuple[Sample, ...]
    canvas: Size


def epoch_order(
    buckets: NDArray[np.int64], *, seed: int, epoch: int, batch_size: int
) -> NDArray[np.int64]:
    """Return the rows (N,) of an epoch, batch after batch: batch i is `[i * size:(i + 1) * size]`.

    One permutation by (seed, epoch); full batches form bucket by bucket, in the order in which the
    permutation completes them; the remainders follow in permutation order, so that only the
    epoch's last batch may be short.

    Args:
        buckets: (N,) bucket of each image.
        seed: of the experiment.
        epoch: from 0.
        batch_size: of the global batch.
    """
    permutation = np.random.default_rng((_ORDER, seed, epoch)).permutation(len(buckets))
    bucket = buckets[permutation]
    places = np.argsort(bucket, kind="stable")  # of the permutation, grouped by bucket
    counts = np.bincount(bucket)
    within = np.arange(len(places)) - (np.cumsum(counts) - counts)[bucket[places]]
    full = within < (counts // batch_size * batch_size)[bucket[places]]
    batches = places[full].reshape(-1, batch_size)
    batches = batches[np.argsort(batches[:, -1])]
    return permutation[np.concatenate([batches.ravel(), np.sort(places[~full])])]


class TrainingPlan:
    """Names the images, sizes and canvas of any step."""

    def __init__(
        self,
        sizes: NDArray[np.int64],
        *,
        rows: NDArray[np.int64],
        seed: int,
        batch_size: int,
        short_sides: tuple[int, ...],
        long_side: int,
        resize: Literal["per_batch", "per_image"],
        canvas: Literal["bucket", "batch_max"],
    ) -> None:
        """Take the images' heights and widths (N, 2), the rows to train on, and `DataConfig`."""
        self._sizes = sizes
        self._rows = rows
        self._seed = seed
        self._batch_size = batch_size
        self._short_sides = short_sides
        self._long_side = long_side
        self._resize = resize
        self._buckets = (
            Buckets(short_sides=short_sides, long_side=long_side) if canvas == "bucket" else None
        )
        self._bucket_of = np.array(
            [self._buckets.of(_pair(size)) if self._buckets else 0 for size in sizes], np.int64
        )
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last may be short."""
        return -(-len(self._rows) // self._batch_size)

    def step(self, step: int) -> Plan:
        """Return the global batch of a step, from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self._batch_size
        rows = self._order(epoch)[start : start + self._batch_size].tolist()
        shared = self._draw_side((_BATCH, self._seed, epoch, place))
        samples = tuple(self._sample(row, epoch, shared) for row in rows)
        return Plan(samples=samples, canvas=self._canvas(samples, shared))

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        buckets = self._bucket_of[self._rows]
        order = epoch_order(buckets, seed=self._seed, epoch=epoch, batch_size=self._batch_size)
        return self._rows[order]

    def _sample(self, row: int, epoch: int, shared: int) -> Sample:
        # The last number is the occurrence in the epoch: it tells repeats of an image apart.
        seed = (_SAMPLE, self._seed, epoch, row, 0)
        side = shared if self._resize == "per_batch" else self._draw_side(seed)
        return Sample(row=row, short_side=side, seed=seed)

    def _draw_side(self, seed: tuple[int, ...]) -> int:
        if len(self._short_sides) == 1:
            return self._short_sides[0]
        return int(np.random.default_rng(seed).choice(self._short_sides))

    def _canvas(self, samples: tuple[Sample, ...], shared: int) -> Size:
        if self._buckets is None:
            return cover(
                [
                    resized(
                        _pair(self._sizes[s.row]),
                        short_side=s.short_side,
                        long_side=self._long_side,
                    )
                    for s in samples
                ]
            )
        # With a size for each image, the canvas is that of the largest: few shapes stay few.
        side = shared if self._resize == "per_batch" else max(self._short_sides)
        return cover([self._buckets.canvas(int(self._bucket_of[s.row]), side) for s in samples])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._order = lru_cache(maxsize=2)(self._epoch_order)


def evaluation_plans(
    sizes: NDArray[np.int64],
    *,
    batch_size: int,
    short_side: int,
    long_side: int,
    canvas: Literal["bucket", "batch_max"],
) -> list[Plan]:
    """Return batches that hold every image once.

    An image's canvas depends on the image alone, so the detections do not depend on the batch size
    nor on the number of devices.
    """
    by_canvas: dict[Size, list[Sample]] = {}
    for row, size in enumerate(sizes):
        place = evaluation_canvas(
            _pair(size), short_side=short_side, long_side=long_side, policy=canvas
        )
        sample = Sample(row=row, short_side=short_side, seed=None)
        by_canvas.setdefault(place, []).append(sample)
    return [
        Plan(samples=tuple(samples[i : i + batch_size]), canvas=place)
        for place, samples in sorted(by_canvas.items())
        for i in range(0, len(samples), batch_size)
    ]


def share(plan: Plan, *, rank: int, ranks: int) -> Plan:
    """Return one rank's part of a batch; parts differ by one image at most and may be empty."""
    n = len(plan.samples)
    part = plan.samples[n * rank // ranks : n * (rank + 1) // ranks]
    return Plan(samples=part, canvas=plan.canvas)


def split(plan: Plan, size: int) -> Iterator[Plan]:
    """Cut a part into micro-batches of at most `size` images; an empty part stays one."""
    for start in range(0, max(1, len(plan.samples)), size):
        yield Plan(samples=plan.samples[start : start + size], canvas=plan.canvas)


def _pair(size: NDArray[np.int64]) -> Size:
    return int(size[0]), int(size[1])
