"""The images of a step and their sizes: pure functions of (seed, epoch, step).

There is no position to save: a resumed run needs only the step number, and the number of devices,
workers and micro-batches does not matter. N images, E entries of an epoch (repeats count).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.data.canvas import Buckets, Size, cover, evaluation_canvas, resized

# The first number of every seed: its purpose.
_ORDER, _BATCH, _SAMPLE, _REPEATS, _PARTNERS, _SIDE = range(6)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image at one place in training: everything that its pixels depend on."""

    row: int
    """Row in the annotation index."""
    short_side: int
    """px after resizing."""
    seed: tuple[int, ...] | None
    """Seed of its augmentation; None does not augment."""
    partners: tuple[int, ...] = ()
    """Rows of the other images of a mosaic."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Images that share a canvas."""

    samples: tuple[Sample, ...]
    canvas: Size


Step = tuple[Plan, ...]
"""The images of a step, or one rank's part of them: one plan for each canvas, at least one."""


def epoch_order(
    groupings: Sequence[NDArray[np.integer]], *, seed: int, epoch: int, batch_size: int
) -> NDArray[np.int64]:
    """Return the entries (E,) of an epoch: batch i is `[i * batch_size:(i + 1) * batch_size]`.

    The permutation depends on (seed, epoch). Full batches are formed within each group, in the
    order in which the permutation completes them. The entries left over form batches by the next,
    coarser grouping, and finally in permutation order. Only the last batch may be short.

    Args:
        groupings: Arrays (E,) with the group of each entry, from fine to coarse.
        seed: Seed of the experiment.
        epoch: Number of the epoch, from 0.
        batch_size: Images in the global batch.
    """
    count = len(groupings[0])
    permutation = np.random.default_rng((_ORDER, seed, epoch)).permutation(count)
    left = permutation
    done = []
    for grouping in groupings:
        groups = grouping[left]
        places = np.argsort(groups, kind="stable")  # of `left`, group after group
        counts = np.bincount(groups)
        place_in_group = np.arange(len(places)) - (np.cumsum(counts) - counts)[groups[places]]
        in_full_batch = place_in_group < (counts // batch_size * batch_size)[groups[places]]
        batches = places[in_full_batch].reshape(-1, batch_size)
        batches = batches[np.argsort(batches[:, -1])]
        done.append(left[batches.ravel()])
        left = left[np.sort(places[~in_full_batch])]
    return np.concatenate([*done, left])


def draw_repeats(factors: NDArray[np.float64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return how often each image (N,) occurs in an epoch: its factor, randomly rounded.

    The total is the same in every epoch: the sum of the factors, rounded down.

    Args:
        factors: (N,) factors, at least 1.
        seed: Seed of the experiment.
        epoch: Number of the epoch, from 0.
    """
    whole = np.floor(factors)
    fraction = factors - whole
    # Not rounded up: the fractions would have to grow, and one might exceed 1.
    extra = math.floor(fraction.sum())
    repeats = whole.astype(np.int64)
    if extra:
        random = np.random.default_rng((_REPEATS, seed, epoch))
        order = random.permutation(len(factors))
        # Systematic sampling: put the images in a row, each as long as its fraction. A comb with
        # `extra` teeth at equal distances hits each image in proportion to its fraction.
        ends = np.minimum(np.cumsum(fraction[order]) * (extra / fraction.sum()), extra)
        ends[-1] = extra
        touched = np.diff(np.floor(ends + random.random()), prepend=0).astype(np.int64)
        repeats[order] += touched
    return repeats


class TrainingPlan:
    """Determines the images, sizes and canvases of any step."""

    def __init__(
        self,
        sizes: NDArray[np.int64],
        *,
        rows: NDArray[np.int64],
        factors: NDArray[np.float64] | None,
        seed: int,
        batch_size: int,
        short_sides: tuple[int, ...],
        long_side: int,
        resize: Literal["per_batch", "per_image"],
        canvas: Literal["bucket", "batch_max"],
        canvas_group: int | None,
        fixed_canvas: Size | None,
        partners: int,
    ) -> None:
        """Describe the images and options to draw from.

        Args:
            sizes: (N, 2) heights and widths of the images, px.
            rows: Rows of the images to train on.
            factors: How often each of `rows` occurs in an epoch, at least 1; None means once.
            seed: Seed of the experiment.
            batch_size: Images in the global batch.
            short_sides: Short sides after resizing to draw from, px.
            long_side: Limit of the longer side, px.
            resize: Whether to draw one short side for each batch or for each image.
            canvas: See `DataConfig.canvas`.
            canvas_group: Most images that share a canvas; None gives a whole batch one canvas.
            fixed_canvas: Canvas that the augmentation uses for every image; None follows `canvas`.
            partners: Number of other images that are added to each sample.
        """
        self._sizes = sizes
        self._rows = rows.astype(np.int32)
        self._factors = factors
        self._seed = seed
        self._batch_size = batch_size
        self._short_sides = short_sides
        self._long_side = long_side
        self._resize = resize
        self._groups = canvases_of_batch(batch_size, canvas_group)
        self._fixed_canvas = fixed_canvas
        self._partners = partners
        self._buckets: Buckets | None = None
        self._bucket_of = np.zeros(len(sizes), np.int8)
        if canvas == "bucket" and fixed_canvas is None:
            self._buckets = Buckets(short_sides=short_sides, long_side=long_side)
            self._bucket_of = self._buckets.of_all(sizes)
        self.entries = len(rows)
        """Images in an epoch, including repeats."""
        if factors is not None:
            self.entries = int(draw_repeats(factors, seed=seed, epoch=0).sum())
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one may be short."""
        return -(-self.entries // self._batch_size)

    def step(self, step: int) -> Step:
        """Return the global batch of a step, from 0, as one plan for each canvas."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rows, occurrences = self._order(epoch)
        part = slice(place * self._batch_size, (place + 1) * self._batch_size)
        batch_side = self._draw_short_side((_BATCH, self._seed, epoch, place))
        samples = [
            self._sample(row, epoch, occurrence, batch_side)
            for row, occurrence in zip(rows[part].tolist(), occurrences[part].tolist(), strict=True)
        ]
        if self._groups > 1:
            samples.sort(key=self._shape)
        groups = [samples[_part(len(samples), i, self._groups)] for i in range(self._groups)]
        return tuple(
            Plan(samples=tuple(group), canvas=self._canvas(group, batch_side))
            for group in groups
            if group
        )

    def padding_share(self, steps: int) -> float:
        """Return the share of padding in the canvases of the first steps, 0..1."""
        image = canvas = 0
        for step in range(min(steps, self.steps_per_epoch)):
            for plan in self.step(step):
                canvas += len(plan.samples) * math.prod(plan.canvas)
                image += sum(math.prod(self._resized(sample)) for sample in plan.samples)
        return 1 - image / canvas

    def _epoch_order(self, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the rows (E,) of an epoch, and which occurrence of its image each one is."""
        rows, occurrences = self._rows, np.zeros(len(self._rows), np.int32)
        if self._factors is not None:
            repeats = draw_repeats(self._factors, seed=self._seed, epoch=epoch)
            rows = np.repeat(rows, repeats)
            first = np.cumsum(repeats) - repeats
            occurrences = (np.arange(len(rows)) - np.repeat(first, repeats)).astype(np.int32)
        buckets = self._bucket_of[rows]
        # The second grouping keeps wide and tall images apart: together they need a square canvas.
        order = epoch_order(
            (buckets, buckets % 2), seed=self._seed, epoch=epoch, batch_size=self._batch_size
        )
        return rows[order], occurrences[order]

    def _sample(self, row: int, epoch: int, occurrence: int, batch_side: int) -> Sample:
        # The occurrence in the epoch distinguishes repeats of an image.
        name = (self._seed, epoch, row, occurrence)
        side = batch_side if self._resize == "per_batch" else self._draw_short_side((_SIDE, *name))
        partners = ()
        if self._partners:
            random = np.random.default_rng((_PARTNERS, *name))
            drawn = random.integers(len(self._rows), size=self._partners)
            partners = tuple(self._rows[drawn].tolist())
        return Sample(row=row, short_side=side, seed=(_SAMPLE, *name), partners=partners)

    def _draw_short_side(self, seed: tuple[int, ...]) -> int:
        if len(self._short_sides) == 1:
            return self._short_sides[0]
        return int(np.random.default_rng(seed).choice(self._short_sides))

    def _shape(self, sample: Sample) -> int:
        """Return the long side after resizing, negative for a tall image.

        In this order neighbours pad little: tall images before wide ones, square ones in between.
        """
        height, width = self._resized(sample)
        return width if width >= height else -height

    def _canvas(self, samples: Sequence[Sample], batch_side: int) -> Size:
        if self._fixed_canvas is not None:
            return self._fixed_canvas
        if self._buckets is None:
            return cover([self._resized(sample) for sample in samples])
        # With a size for each image, use the canvas of the largest size, to have few shapes.
        side = batch_side if self._resize == "per_batch" else max(self._short_sides)
        return cover([self._buckets.canvas(int(self._bucket_of[s.row]), side) for s in samples])

    def _resized(self, sample: Sample) -> Size:
        size = self._sizes[sample.row].tolist()
        return resized((size[0], size[1]), short_side=sample.short_side, long_side=self._long_side)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
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
    """Return batches that contain every image once.

    The canvas of an image depends only on the image, so the detections do not depend on the batch
    size or the number of devices.
    """
    distinct_sizes, size_of_image = np.unique(sizes, axis=0, return_inverse=True)
    canvases = [
        evaluation_canvas(
            (height, width), short_side=short_side, long_side=long_side, policy=canvas
        )
        for height, width in distinct_sizes.tolist()
    ]
    by_canvas: dict[Size, list[Sample]] = {}
    for row, size in enumerate(size_of_image.reshape(-1).tolist()):
        sample = Sample(row=row, short_side=short_side, seed=None)
        by_canvas.setdefault(canvases[size], []).append(sample)
    return [
        Plan(samples=tuple(samples[i : i + batch_size]), canvas=shared_canvas)
        for shared_canvas, samples in sorted(by_canvas.items())
        for i in range(0, len(samples), batch_size)
    ]


def canvases_of_batch(batch_size: int, canvas_group: int | None) -> int:
    """Return into how many groups, each with its own canvas, a batch is cut.

    A short batch is cut into as many, so a process with a single group has a single one always.
    """
    return -(-batch_size // (canvas_group or batch_size))


def share(step: Step, *, rank: int, ranks: int) -> Step:
    """Return one rank's part of a batch; parts differ by at most one image.

    A part without images is one plan without samples.
    """
    own = _part(sum(len(plan.samples) for plan in step), rank, ranks)
    plans, first = [], 0
    for plan in step:
        samples = plan.samples[max(0, own.start - first) : max(0, own.stop - first)]
        if samples:
            plans.append(replace(plan, samples=samples))
        first += len(plan.samples)
    return tuple(plans) or (replace(step[0], samples=()),)


def split(part: Step, size: int) -> Iterator[Plan]:
    """Split a part into micro-batches of at most `size` images, which share a canvas.

    A plan without samples is one micro-batch.
    """
    for plan in part:
        for start in range(0, max(1, len(plan.samples)), size):
            yield replace(plan, samples=plan.samples[start : start + size])


def _part(count: int, index: int, parts: int) -> slice:
    """Return which of `count` things are in one of several parts; sizes differ by at most one."""
    return slice(count * index // parts, count * (index + 1) // parts)
