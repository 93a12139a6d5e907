"""Finds the boxes that no anchor learns, with the same assignment as in training.

Coverage does not show them. The low-quality rule rescues a weak box unless its best anchor suits
another box better, and a strong box can lose all its anchors, as a duplicate does. ATSS requires an
anchor centre inside the box, which a small box may not have. A anchors, G boxes of an image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.categories import shown_name
from retinanet.data.canvas import Size
from retinanet.engine.preflight.anchor_coverage import best_iou
from retinanet.engine.preflight.training_boxes import (
    PlacedBoxes,
    TrainingBoxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.splits import Split, build_matcher
from retinanet.errors import plural
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config
from retinanet.structures import Target

IMAGES = 300
"""Images to examine by default; takes some seconds at COCO's size."""
_NOT_GOOD_ENOUGH = {
    "max_iou": "no anchor is good enough, and assign.low_quality is off",
    "atss": "no anchor with its centre inside has the IoU that assign.kind=atss requires",
}


@dataclass(frozen=True, kw_only=True)
class UnreachedBox:
    """A training box without a positive anchor."""

    annotation_id: int
    image_id: int
    row: int
    """Row of the image in the annotation index."""
    name: str
    """Name of its class."""
    box: tuple[float, ...]
    """xyxy, original px."""
    resized: tuple[float, ...]
    """xyxy, px on the canvas."""
    short_side: int
    """Short side (px) of the resized image."""
    canvas: Size
    best_iou: float
    best_anchor: tuple[float, ...]
    """xyxy, px on the canvas."""
    rival: tuple[float, ...] | None
    """The box that its best anchor learns instead: xyxy, px on the canvas."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """The boxes without a positive anchor in the examined images."""

    boxes: list[UnreachedBox]
    """Lowest best IoU first."""
    images: int
    """Number of examined images: those with the weakest boxes."""
    weak_images: int
    """Number of images with a box under assign.positive_iou."""
    all_images: int
    """Number of images with a box."""
    positive_iou: float

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain types."""
        return asdict(self)


def find_unreached(
    config: Config, split: Split, boxes: TrainingBoxes, *, images: int = IMAGES
) -> Unreached:
    """Run the real assignment on the images with the worst covered boxes.

    Args:
        config: Config of the experiment.
        split: Training split.
        boxes: Boxes of the split.
        images: Most images to examine.
    """
    side = training_short_side(config.data)
    placed = place_boxes(boxes, config.data, side)
    best = best_iou(build_anchors(config.anchors), placed)
    starts = np.flatnonzero(np.diff(boxes.rows, prepend=-1))
    weakest = np.minimum.reduceat(best, starts) if len(starts) else best
    stops = np.append(starts[1:], len(boxes))
    finder = _UnreachedFinder(config, split, boxes, placed, side)
    unreached: list[UnreachedBox] = []
    for image in np.argsort(weakest, kind="stable")[:images].tolist():
        unreached += finder.find(np.arange(starts[image], stops[image]))
    return Unreached(
        boxes=sorted(unreached, key=lambda box: (box.best_iou, box.annotation_id)),
        images=min(images, len(starts)),
        weak_images=int((weakest < config.assign.positive_iou).sum()),
        all_images=len(starts),
        positive_iou=config.assign.positive_iou,
    )


class _UnreachedFinder:
    """Finds the unreached boxes of one image after another."""

    def __init__(
        self, config: Config, split: Split, boxes: TrainingBoxes, placed: PlacedBoxes, side: int
    ) -> None:
        self._kind = config.assign.kind
        self._anchors = build_anchors(config.anchors)
        self._match = build_matcher(config)
        self._index = split.annotations
        self._boxes = boxes
        self._placed = placed
        self._side = side

    def find(self, own: NDArray[np.int64]) -> list[UnreachedBox]:
        """Return the boxes of one image (rows `own`) that no anchor learns."""
        canvas = self._placed.canvases[self._placed.canvas_of[own[0]]]
        target = _target(torch.from_numpy(self._placed.xyxy[own]))
        matches = self._match(canvas, target)
        reached = np.unique(matches[matches >= 0].numpy())
        anchors = self._anchors(canvas, torch.device("cpu"))
        return [
            self._describe(own, i, canvas, target.boxes, anchors, matches)
            for i in np.delete(np.arange(len(own)), reached).tolist()
        ]

    def _describe(
        self,
        own: NDArray[np.int64],
        i: int,
        canvas: Size,
        boxes: Tensor,
        anchors: Tensor,
        matches: Tensor,
    ) -> UnreachedBox:
        """Describe box `i` of an image's boxes (G, 4), and why it has no anchor."""
        index, place = self._index, int(self._boxes.places[own[i]])
        row = int(self._boxes.rows[own[i]])
        iou = box_ops.iou(anchors, boxes[i : i + 1])[:, 0]
        nearest = int(iou.argmax())
        best = float(iou[nearest])
        # The anchors that the box would have if it were the only one.
        alone = self._match(canvas, _target(boxes[i : i + 1])) >= 0
        has_rival = bool(alone.any())
        rival = int(matches[torch.where(alone, iou, -1).argmax()])
        if best <= 0:
            reason = "no anchor touches it"
        elif not has_rival:
            reason = _NOT_GOOD_ENOUGH[self._kind]
        else:
            other = int(index.annotation_ids[self._boxes.places[own[rival]]])
            overlap = float(box_ops.iou(boxes[i : i + 1], boxes[rival : rival + 1]))
            reason = f"its best anchor learns annotation {other}, IoU {overlap:.2f} with it"
        return UnreachedBox(
            annotation_id=int(index.annotation_ids[place]),
            image_id=int(index.image_ids[row]),
            row=row,
            name=shown_name(index.categories.names[int(index.labels[place])]),
            box=tuple(self._boxes.xyxy[own[i]].tolist()),
            resized=tuple(boxes[i].tolist()),
            short_side=self._side,
            canvas=canvas,
            best_iou=best,
            best_anchor=tuple(anchors[nearest].tolist()),
            rival=tuple(boxes[rival].tolist()) if has_rival else None,
            reason=reason,
        )


def _target(boxes: Tensor) -> Target:
    """Return boxes (G, 4) as a target. Crowds are not needed: they take no positive anchor away."""
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return Target(boxes=boxes, labels=labels, crowd=labels.bool())


def size_of(box: tuple[float, ...]) -> str:
    """Return width x height of a box xyxy, in whole px."""
    x1, y1, x2, y2 = box
    return f"{x2 - x1:.0f}x{y2 - y1:.0f}"


def describe_unreached(unreached: Unreached, *, limit: int = 10) -> list[str]:
    """Describe the boxes that no anchor learns, and list the first of them."""
    looked = f"checked {unreached.images:,} of {plural(unreached.all_images, 'image')} with boxes"
    if unreached.images < unreached.weak_images:
        looked += (
            f"; {unreached.weak_images:,} have boxes under IoU {unreached.positive_iou:g}, so "
            "there may be more"
        )
    count = len(unreached.boxes)
    if not count:
        return [f"every box has an anchor that learns it ({looked})"]
    lines = [f"{plural(count, 'box has', 'boxes have')} no anchor at all ({looked})"]
    for box in unreached.boxes[:limit]:
        lines.append(
            f"  annotation {box.annotation_id} (image {box.image_id}, {box.name}): "
            f"{size_of(box.box)} px, resized {size_of(box.resized)}, best IoU {box.best_iou:.2f}: "
            f"{box.reason}"
        )
    return lines + ([f"  and {count - limit:,} more"] if count > limit else [])
