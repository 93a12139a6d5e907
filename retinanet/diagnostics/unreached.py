"""The boxes that no anchor learns, found by the assignment that training itself uses.

Coverage alone does not show them: a weak box is rescued by the low-quality rule unless its best
anchor suits another box better, and a strong one can lose all of its anchors (a duplicate does).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from retinanet.data.canvas import Size
from retinanet.engine.coverage import best_iou
from retinanet.engine.learned_boxes import LearnedBoxes, place_boxes, training_short_side
from retinanet.engine.splits import Split, build_matcher
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config
from retinanet.structures import Target

IMAGES = 300
"""Images that are looked at by default: some seconds at COCO's size."""


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
    config: Config, split: Split, boxes: LearnedBoxes, *, images: int = IMAGES
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
    match, found = build_matcher(config), []
    for image in np.argsort(weakest, kind="stable")[:images].tolist():
        own = np.arange(starts[image], stops[image])
        target = Target(
            boxes=torch.from_numpy(placed.xyxy[own]),
            labels=torch.zeros(len(own), dtype=torch.int64),
            crowd=torch.zeros(len(own), dtype=torch.bool),  # crowds take no positive away
        )
        matches = match(placed.canvases[placed.canvas_of[own[0]]], target)
        reached = np.unique(matches[matches >= 0].numpy())
        found += np.delete(own, reached).tolist()
    found.sort(key=lambda i: (best[i], i))
    annotations = split.annotations
    return Unreached(
        boxes=[
            UnreachedBox(
                annotation_id=int(annotations.annotation_ids[boxes.places[i]]),
                image_id=int(annotations.image_ids[boxes.rows[i]]),
                row=int(boxes.rows[i]),
                name=annotations.categories.names[int(annotations.labels[boxes.places[i]])],
                box=tuple(boxes.xyxy[i].tolist()),
                resized=tuple(placed.xyxy[i].tolist()),
                short_side=side,
                canvas=placed.canvases[placed.canvas_of[i]],
                best_iou=float(best[i]),
                reason=_reason(config, float(best[i])),
            )
            for i in found
        ],
        images=min(images, len(starts)),
        weak_images=int((weakest < config.assign.positive_iou).sum()),
        all_images=len(starts),
        positive_iou=config.assign.positive_iou,
    )


def _reason(config: Config, best: float) -> str:
    if best <= 0:
        return "no anchor touches it"
    if best < config.assign.positive_iou and not config.assign.low_quality:
        return "no anchor is good enough, and assign.low_quality is off"
    return "its best anchor learns another box"


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
        sizes = [f"{x2 - x1:.0f}x{y2 - y1:.0f} px" for x1, y1, x2, y2 in (box.box, box.resized)]
        lines.append(
            f"  annotation {box.annotation_id} (image {box.image_id}, {box.name}): {sizes[0]}, "
            f"resized {sizes[1]}, best IoU {box.best_iou:.2f}: {box.reason}"
        )
    return lines + ([f"  and {count - limit:,} more"] if count > limit else [])
