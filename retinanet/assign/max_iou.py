"""Max-IoU assignment of ground truth to anchors (RetinaNet, section 4.1).

The anchors are on a grid, so the matrix of all IoUs is not needed. Only the IoUs of the pairs from
`candidates` are computed, from the same float32 values with the same arithmetic. If a threshold is
so low that nearly every pair matters, `dense_assign` computes the matrix.

A anchors, G boxes, P pairs of a box and an anchor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from retinanet.assign.candidates import Ints, candidates
from retinanet.assign.dense import dense_assign
from retinanet.assign.overlaps import Singles, ignore_inside, iou_of_pairs, ranks_of, unrank
from retinanet.structures import BACKGROUND, IGNORED, GridLevel, Target

_DENSE_BELOW = 0.02
"""Threshold below which there are so many candidates that `dense_assign` is as fast."""
_BLOCK = 256
"""Number of anchors for which the IoUs with nearby boxes are computed at a time."""
_TILE = 128
"""Pixels, side of the region whose anchors are in the same blocks."""
_NO_ANCHORS = np.zeros(0, np.int64)


def max_iou_assign(
    anchors: Tensor,
    levels: Sequence[GridLevel],
    target: Target,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality: bool,
    crowd_overlap: float | None,
) -> Tensor:
    """Return the match (A,) int32 of each anchor: an index into `target`, BACKGROUND or IGNORED.

    - Best IoU >= positive_iou: positive for its best box. Ties go to the lowest index.
    - Best IoU < negative_iou: negative. In between: ignored.
    - low_quality: the best anchor of any box is positive for its *own* best box, if its IoU is
      above 0.
    - A negative is ignored if at least `crowd_overlap` of its area is inside a crowd box.

    The result depends only on the arguments, not on the network.

    Args:
        anchors: (A, 4) float32 px on the CPU, ordered by level, row, column, anchor of a cell.
        levels: Grid of the anchors.
        target: Ground truth, on the CPU.
        positive_iou: An anchor is positive if its best IoU is at least this.
        negative_iou: An anchor is negative if its best IoU is below this.
        low_quality: Whether the best anchors of a box are positive.
        crowd_overlap: Smallest share of a negative inside a crowd box for which it is ignored;
            None ignores none.
    """
    rows = torch.nonzero(~target.crowd).flatten()
    boxes = target.boxes[rows]
    least = min(positive_iou, negative_iou)
    if least < _DENSE_BELOW:
        matches = dense_assign(
            anchors,
            boxes,
            positive_iou=positive_iou,
            negative_iou=negative_iou,
            low_quality=low_quality,
        ).to(torch.int32)
    else:
        matches = torch.full((len(anchors),), BACKGROUND, dtype=torch.int32)
        if len(rows):
            rank, seen, best = _rank_pairs(
                anchors.numpy(), levels, boxes.numpy(), least, low_quality=low_quality
            )
            iou, box = unrank(rank[seen])
            between = np.where(iou >= np.float32(negative_iou), IGNORED, BACKGROUND)
            written = matches.numpy()
            written[seen] = np.where(iou >= np.float32(positive_iou), box, between)
            written[best] = unrank(rank[best])[1]
    if target.crowd.any():  # so far, matches index the boxes without crowds
        positive = matches >= 0
        matches[positive] = rows.to(torch.int32)[matches[positive]]
        if crowd_overlap is not None:
            crowds = target.boxes[target.crowd].numpy()
            ignore_inside(matches.numpy(), anchors.numpy(), levels, crowds, crowd_overlap)
    return matches


def _rank_pairs(
    anchors: Singles,
    levels: Sequence[GridLevel],
    boxes: Singles,
    least: float,
    *,
    low_quality: bool,
) -> tuple[Ints, Ints, Ints]:
    """Return the best pairs of anchors and boxes.

    Returns:
        The rank (A,) of the best pair of each anchor in the next two lists (see `ranks_of`); the
        anchors with an IoU of at least `least` with any box, with repeats; the anchors that are the
        best one of any box, empty without `low_quality`.
    """
    rank = np.zeros(len(anchors), np.int64)  # untouched memory pages cost nothing
    seen, best = [], []
    for anchor, box in candidates(levels, boxes, least, low_quality=low_quality):
        iou = iou_of_pairs(anchors.take(anchor, axis=0), boxes.take(box, axis=0))
        wanted = iou >= np.float32(least)
        seen.append(anchor[wanted])
        if low_quality:
            best_of_box = np.zeros(len(boxes), np.float32)
            np.maximum.at(best_of_box, box, iou)
            is_best = (iou == best_of_box[box]) & (iou > 0)
            best.append(anchor[is_best])
            wanted |= is_best
        np.maximum.at(rank, anchor[wanted], ranks_of(iou[wanted], box[wanted]))
    lifted = np.unique(np.concatenate([_NO_ANCHORS, *best]))
    # The best anchor of a small box may overlap more with another box, without being one of its
    # candidates.
    poor = lifted[unrank(rank[lifted])[0] < np.float32(least)]
    rank[poor] = _best_ranks(anchors[poor], boxes)
    return rank, np.concatenate([_NO_ANCHORS, *seen]), lifted


def _best_ranks(anchors: Singles, boxes: Singles) -> Ints:
    """Return the rank (N,) of the best box for each of some anchors (N, 4)."""
    ranks = np.zeros(len(anchors), np.int64)
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    # Few boxes touch a block of anchors that are close together.
    order = np.lexsort(anchors[:, :2].T // _TILE)
    for start in range(0, len(anchors), _BLOCK):
        places = order[start : start + _BLOCK]
        x1, y1, x2, y2 = anchors[places].T[:, :, None]  # (block, 1)
        near = (x1.min() < right) & (left < x2.max()) & (y1.min() < bottom) & (top < y2.max())
        some = np.flatnonzero(near)
        touch = (x1 < right[some]) & (left[some] < x2) & (y1 < bottom[some]) & (top[some] < y2)
        row, column = np.divmod(np.flatnonzero(touch), len(some))
        anchor, box = places[row], some[column]
        iou = iou_of_pairs(anchors.take(anchor, axis=0), boxes.take(box, axis=0))
        np.maximum.at(ranks, anchor, ranks_of(iou, box))
    return ranks
