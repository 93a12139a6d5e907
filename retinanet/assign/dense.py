"""Max-IoU assignment from the full matrix of IoUs, for anchors in any arrangement.

`max_iou_assign` falls back to it for very low thresholds, and is tested against it.

A anchors, G boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.structures import BACKGROUND, IGNORED

_CHUNK = 250_000
"""Largest number of IoU values in memory (1 MB, which stays in the cache)."""


def dense_assign(
    anchors: Tensor, boxes: Tensor, *, positive_iou: float, negative_iou: float, low_quality: bool
) -> Tensor:
    """Return the match (A,) int64 of each anchor: an index into `boxes`, BACKGROUND or IGNORED.

    The rules are those of `max_iou_assign` without crowds.

    Args:
        anchors: (A, 4) px.
        boxes: (G, 4) px, without crowds.
        positive_iou: An anchor is positive if its best IoU is at least this.
        negative_iou: An anchor is negative if its best IoU is below this.
        low_quality: Whether the best anchors of a box are positive.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    best_iou, best_box, is_best = _best_overlaps(anchors, boxes, low_quality=low_quality)
    positive = ((best_iou >= positive_iou) | is_best) & (best_iou > 0)
    matches = torch.where(best_iou >= negative_iou, IGNORED, BACKGROUND)
    return torch.where(positive, best_box, matches)


def _best_overlaps(
    anchors: Tensor, boxes: Tensor, *, low_quality: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's best IoU (A,), its box (A,), and whether it is the best of some box."""
    count = len(anchors)
    rows = max(1, _CHUNK // len(boxes))
    chunks = [slice(first, first + rows) for first in range(0, count, rows)]
    # Results are written in place: small tensors between the large ones of each chunk would
    # fragment the heap into gigabytes.
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
            # Recomputing is cheaper than keeping the matrix, and gives the same bits.
            overlap = box_ops.iou(anchors[chunk], boxes)
            torch.any(overlap == best_of_box, dim=1, out=is_best[chunk])
    return best_iou, best_box, is_best
