"""Which anchor learns which ground truth: max-IoU assignment (RetinaNet, section 4.1).

A anchors, G ground truths of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.config import AssignConfig
from retinanet.structures import BACKGROUND, IGNORED, Target

_CHUNK = 4_000_000
"""IoU values held at a time (16 MB): a thousand boxes an image stay within bounded memory."""


def assign(anchors: Tensor, target: Target, *, options: AssignConfig) -> Tensor:
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
        best_iou, best_box, is_best = _best(anchors, boxes, low_quality=options.low_quality)
        positive = (best_iou >= options.positive_iou) | is_best
        positive &= best_iou > 0
        between = best_iou >= options.negative_iou
        matches = torch.where(between, IGNORED, BACKGROUND)
        matches = torch.where(positive, rows[best_box], matches)
    else:
        matches = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    crowds = target.boxes[target.crowd]
    if len(crowds):
        covered = _largest_share_inside(anchors, crowds) >= options.crowd_overlap
        matches = torch.where(covered & (matches == BACKGROUND), IGNORED, matches)
    return matches.to(torch.int32)


def _best(anchors: Tensor, boxes: Tensor, *, low_quality: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's best IoU (A,), its box (A,), and whether it is the best of some box."""
    rows = max(1, _CHUNK // len(boxes))
    chunks = anchors.split(rows)
    values, indices, best_of_box = [], [], boxes.new_zeros(len(boxes))
    for chunk in chunks:
        overlap = box_ops.iou(chunk, boxes)  # (rows, G)
        value, index = overlap.max(dim=1)
        values.append(value)
        indices.append(index)
        best_of_box = torch.maximum(best_of_box, overlap.amax(dim=0))
    is_best = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    if low_quality:
        # Recomputing costs time only where the matrix did not fit; it is the same to the bit.
        parts = [
            ((overlap if len(chunks) == 1 else box_ops.iou(chunk, boxes)) == best_of_box).any(dim=1)
            for chunk in chunks
        ]
        is_best = torch.cat(parts)
    return torch.cat(values), torch.cat(indices), is_best


def _largest_share_inside(anchors: Tensor, crowds: Tensor) -> Tensor:
    """Return the largest share (A,) of each anchor's area inside one of the crowd boxes."""
    return (box_ops.intersection(anchors, crowds) / box_ops.area(anchors)[:, None]).amax(dim=1)
