"""Which anchor learns which ground truth: max-IoU assignment (RetinaNet, section 4.1).

A anchors, G ground truths of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.schema import AssignConfig
from retinanet.structures import BACKGROUND, IGNORED, Target

_CHUNK = 250_000
"""IoU values held at a time (1 MB, which stays in the cache): a thousand boxes an image fit."""


Assign = Callable[[Tensor, Target], Tensor]
"""Anchors (A, 4) and a target -> the match (A,) of each anchor."""


def build_assign(options: AssignConfig) -> Assign:
    """Build the assignment of an experiment that assigns by max_iou."""
    assert options.kind == "max_iou", "ATSS asks for the levels: see `build_grid_assign`"
    return partial(assign, **max_iou_options(options))


def max_iou_options(options: AssignConfig) -> dict[str, Any]:
    """Return what `assign` takes of the options."""
    return options.model_dump(exclude={"kind", "atss_candidates"})


def assign(
    anchors: Tensor,
    target: Target,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality: bool,
    crowd_overlap: float | None,
) -> Tensor:
    """Return the match (A,) int32 of each anchor: an index into `target`, BACKGROUND or IGNORED.

    - best IoU >= positive_iou: a positive of its best box (ties go to the lowest index);
    - best IoU < negative_iou: a negative; between the two: ignored;
    - low_quality: an anchor that is the best one of some box is a positive of its *own* best box,
      if its IoU is above 0;
    - a negative of which `crowd_overlap` lies inside a crowd box is ignored; positives win.

    The result is a function of its arguments alone; the network takes no part.
    """
    rows = torch.nonzero(~target.crowd).flatten()
    boxes = target.boxes[rows]
    if len(boxes):
        best_iou, best_box, is_best = _best(anchors, boxes, low_quality=low_quality)
        positive = (best_iou >= positive_iou) | is_best
        positive &= best_iou > 0
        between = best_iou >= negative_iou
        matches = torch.where(between, IGNORED, BACKGROUND)
        matches = torch.where(positive, rows[best_box], matches)
    else:
        matches = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    crowds = target.boxes[target.crowd]
    if len(crowds) and crowd_overlap is not None:
        covered = _largest_share_inside(anchors, crowds) >= crowd_overlap
        matches = torch.where(covered & (matches == BACKGROUND), IGNORED, matches)
    return matches.to(torch.int32)


def _best(anchors: Tensor, boxes: Tensor, *, low_quality: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's best IoU (A,), its box (A,), and whether it is the best of some box."""
    count = len(anchors)
    rows = max(1, _CHUNK // len(boxes))
    chunks = [slice(first, first + rows) for first in range(0, count, rows)]
    # Results go into their final place: small tensors kept between the large ones of each chunk
    # would fragment the heap into gigabytes.
    best_iou = boxes.new_empty(count)
    best_box = torch.empty(count, dtype=torch.int64, device=boxes.device)
    best_of_box = boxes.new_zeros(len(boxes))
    for chunk in chunks:
        overlap = box_ops.iou(anchors[chunk], boxes)  # (rows, G)
        torch.max(overlap, dim=1, out=(best_iou[chunk], best_box[chunk]))
        torch.maximum(best_of_box, overlap.amax(dim=0), out=best_of_box)
    is_best = torch.zeros(count, dtype=torch.bool, device=boxes.device)
    if low_quality:
        # A box that no anchor touches has no best anchor: no IoU equals NaN.
        best_of_box = torch.where(best_of_box > 0, best_of_box, torch.nan)
        for chunk in chunks:
            # Recomputing is cheaper than keeping the matrix; it is the same to the bit.
            overlap = box_ops.iou(anchors[chunk], boxes)
            torch.any(overlap == best_of_box, dim=1, out=is_best[chunk])
    return best_iou, best_box, is_best


def _largest_share_inside(anchors: Tensor, crowds: Tensor) -> Tensor:
    """Return the largest share (A,) of each anchor's area inside one of the crowd boxes."""
    covered = anchors.new_zeros(len(anchors))
    for some in crowds.split(8):  # bounded memory, as above
        torch.maximum(covered, box_ops.intersection(anchors, some).amax(dim=1), out=covered)
    return covered / box_ops.area(anchors)
