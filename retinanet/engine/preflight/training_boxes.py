"""The boxes that training learns from, before and after resizing.

Augmentation is ignored: this is the size that most training images have. m boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retinanet.data.boxes_used import cut_boxes, parts
from retinanet.data.canvas import Size, evaluation_canvas, resized
from retinanet.data.coco.annotations import Annotations
from retinanet.engine.splits import Split, training_canvas, training_short_sides
from retinanet.schema import DataConfig

_BLOCK = 32
"""Number of consecutive images that a sample takes together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBoxes:
    """Boxes that training learns from (without crowds), in original px."""

    xyxy: NDArray[np.float32]
    """Corners of each box: (m, 4)."""
    rows: NDArray[np.int64]
    """Row of each box's image, ascending: (m,)."""
    places: NDArray[np.int64]
    """Position of each box in the annotation index: (m,)."""
    sizes: NDArray[np.int64]
    """Height and width of each box's image: (m, 2)."""
    sampled: bool
    """Whether these are the boxes of a sample of the images."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, wanted: NDArray[np.bool_]) -> TrainingBoxes:
        """Return the boxes for which `wanted` (m,) is true."""
        return replace(
            self,
            xyxy=self.xyxy[wanted],
            rows=self.rows[wanted],
            places=self.places[wanted],
            sizes=self.sizes[wanted],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedBoxes:
    """Boxes after resizing, on the canvas of their image."""

    xyxy: NDArray[np.float32]
    """Corners of each box in px: (m, 4)."""
    canvas_of: NDArray[np.int64]
    """Index of each box's canvas in `canvases`: (m,)."""
    canvases: list[Size]


def find_training_boxes(split: Split, *, limit: int, seed: int = 0) -> TrainingBoxes:
    """Collect the boxes that training learns from.

    Args:
        split: Training split.
        limit: Most boxes. If there are more, random images with about this many boxes are used.
        seed: Seed of the random choice.
    """
    annotations = split.annotations
    places: list[NDArray[np.int64]] = []
    xyxy: list[NDArray[np.float32]] = []
    for first, last in _image_ranges(annotations, limit, seed):
        start, stop = annotations.offsets[[first, last]]
        cut = cut_boxes(annotations, first, last, min_box_side=split.min_box_side)
        wanted = cut.keep & ~annotations.crowd[start:stop]
        places.append(start + np.flatnonzero(wanted))
        xyxy.append(cut.xyxy[wanted])
    all_places = np.concatenate(places)
    rows = np.searchsorted(annotations.offsets, all_places, side="right") - 1
    return TrainingBoxes(
        xyxy=np.concatenate(xyxy),
        rows=rows,
        places=all_places,
        sizes=annotations.sizes[rows],
        sampled=_is_sampled(annotations, limit),
    )


def _is_sampled(annotations: Annotations, limit: int) -> bool:
    return int(annotations.offsets[-1]) > limit


def _image_ranges(annotations: Annotations, limit: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of images, from first to last (excluded): all images, or random blocks."""
    if not _is_sampled(annotations, limit):
        yield from parts(annotations)
        return
    blocks = -(-len(annotations) // _BLOCK)
    share = limit / int(annotations.offsets[-1])
    chosen = np.random.default_rng(seed).permutation(blocks)[: max(1, round(blocks * share))]
    for block in np.sort(chosen).tolist():
        yield block * _BLOCK, min((block + 1) * _BLOCK, len(annotations))


def training_short_side(data: DataConfig) -> int:
    """Return the typical short side (px) of a training: the middle one of multi-scale."""
    fixed = training_canvas(data)
    sides = [min(fixed)] if fixed else sorted(training_short_sides(data))
    return sides[len(sides) // 2]


def _resize_to_canvas(size: Size, data: DataConfig, short_side: int) -> tuple[Size, Size]:
    """Return an image's size after resizing and its canvas; a preset's random scale is 1 here."""
    fixed = training_canvas(data)
    if fixed is None:
        limits = {"short_side": short_side, "long_side": data.long_side}
        return resized(size, **limits), evaluation_canvas(size, **limits, policy=data.canvas)
    scale = min(fixed[0] / size[0], fixed[1] / size[1])
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), fixed


def place_boxes(boxes: TrainingBoxes, data: DataConfig, short_side: int) -> PlacedBoxes:
    """Resize boxes as the data pipeline does; each image gets its own canvas."""
    keys, image_of = np.unique(boxes.sizes[:, 0] << 32 | boxes.sizes[:, 1], return_inverse=True)
    sizes = [(key >> 32, key & (2**32 - 1)) for key in keys.tolist()]
    resized_and_canvas = [_resize_to_canvas(size, data, short_side) for size in sizes]
    resized_sizes = [resized_size for resized_size, _ in resized_and_canvas]
    canvases = [canvas for _, canvas in resized_and_canvas]
    factor = np.array(resized_sizes, np.float64).reshape(-1, 2) / np.array(sizes).reshape(-1, 2)
    factors = np.tile(factor[:, ::-1], 2).astype(np.float32)  # (images, 4): x, y, x, y
    different = sorted(set(canvases))
    number = {canvas: row for row, canvas in enumerate(different)}
    canvas_of = np.array([number[canvas] for canvas in canvases], np.int64)
    return PlacedBoxes(
        xyxy=boxes.xyxy * factors[image_of], canvas_of=canvas_of[image_of], canvases=different
    )
