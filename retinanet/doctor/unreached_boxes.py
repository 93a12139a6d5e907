"""The boxes that no anchor learns, found by the assignment that training itself uses.

Coverage alone does not show them: a weak box is rescued by the low-quality rule unless its best
anchor suits another box better, and a strong one can lose all of its anchors (a duplicate does).
ATSS asks that a box hold an anchor's centre, which small ones need not. A anchors, G boxes of an
image.
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
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config
from retinanet.structures import Target

IMAGES = 300
"""Images that are looked at by default: some seconds at COCO's size."""
_NOT_GOOD_ENOUGH = {
    "max_iou": "no anchor is good enough, and assign.low_quality is off",
    "atss": "no anchor with its centre inside has the IoU that assign.kind=atss asks for",
}


@dataclass(frozen=True, kw_only=True)
class UnreachedBox:
    """A box of training without a positive anchor."""

    annotation_id: int
    image_id: int
    row: int
    """Of the image in the annotation index."""
    name: str
    """Of its class."""
    box: tuple[float, ...]
    """xyxy, original px."""
    resized: tuple[float, ...]
    """xyxy, px on the canvas."""
    short_side: int
    """px that the image was resized to."""
    canvas: Size
    best_iou: float
    best_anchor: tuple[float, ...]
    """xyxy, px on the canvas."""
    rival: tuple[float, ...] | None
    """The box that its best anchor learns: xyxy, px on the canvas."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """The boxes without a positive anchor in the images that were looked at."""

    boxes: list[UnreachedBox]
    """Lowest best IoU first."""
    images: int
    """Looked at: those with the weakest boxes."""
    weak_images: int
    """Images that hold a box under assign.positive_iou."""
    all_images: int
    """Images that hold a box."""
    positive_iou: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain types."""
        return asdict(self)


def find_unreached(
    config: Config, split: Split, boxes: TrainingBoxes, *, images: int = IMAGES
) -> Unreached:
    """Run the real assignment on the images whose boxes are covered worst.

    Args:
        config: of the experiment.
        split: of training.
        boxes: what is looked for.
        images: at most so many are looked at.
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
        """Return the unreached ones among the boxes `own` of an image."""
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
        """Say why box `i` of an image's boxes (G, 4) has no anchor."""
        index, place = self._index, int(self._boxes.places[own[i]])
        row = int(self._boxes.rows[own[i]])
        iou = box_ops.iou(anchors, boxes[i : i + 1])[:, 0]
        nearest = int(iou.argmax())
        best = float(iou[nearest])
        # The anchors that it would have if it were the only box.
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
    """Return boxes (G, 4) as a ground truth; without crowds, which take no positive away."""
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return Target(boxes=boxes, labels=labels, crowd=labels.bool())


def size_of(box: tuple[float, ...]) -> str:
    """Return width x height of a box xyxy, in whole px."""
    x1, y1, x2, y2 = box
    return f"{x2 - x1:.0f}x{y2 - y1:.0f}"


def describe_unreached(unreached: Unreached, *, limit: int = 10) -> list[str]:
    """Say which boxes no anchor learns, the first of them by name."""
    looked = f"looked at {unreached.images:,} of {unreached.all_images:,} images with boxes"
    if unreached.images < unreached.weak_images:
        looked += (
            f"; {unreached.weak_images:,} hold boxes under IoU {unreached.positive_iou:g}, so "
            "there may be more"
        )
    count = len(unreached.boxes)
    if not count:
        return [f"every box has an anchor that learns it ({looked})"]
    lines = [f"{count:,} {'box has' if count == 1 else 'boxes have'} no anchor at all ({looked})"]
    for box in unreached.boxes[:limit]:
        lines.append(
            f"  annotation {box.annotation_id} (image {box.image_id}, {box.name}): "
            f"{size_of(box.box)} px, resized {size_of(box.resized)}, best IoU {box.best_iou:.2f}: "
            f"{box.reason}"
        )
    return lines + ([f"  and {count - limit:,} more"] if count > limit else [])
