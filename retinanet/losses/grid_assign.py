"""Max-IoU assignment on a grid of anchors: the result of `assign` without its A x G matrix.

Only the IoUs of the pairs that `candidates` names are computed, from the same float32 values by
the same arithmetic.

A anchors, G boxes, P pairs of a box and an anchor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.losses.assign import assign
from retinanet.losses.candidates import Ints, candidates
from retinanet.schema import AssignConfig
from retinanet.structures import BACKGROUND, IGNORED, GridLevel, Target

GridAssign = Callable[[Tensor, Sequence[GridLevel], Target], Tensor]
"""Anchors (A, 4), their grid and a target -> the match (A,) of each anchor."""

Singles = NDArray[np.float32]

_DENSE_BELOW = 0.02
"""IoU below which candidates are so many that the dense computation is as fast."""
_BLOCK = 256
"""Anchors whose IoUs with every box near them are computed at a time."""
_TILE = 128
"""px, side of the region whose anchors go into the same blocks."""
_LAST = 2**32 - 1
"""The largest box index that a rank can hold."""
_NONE = np.zeros(0, np.int64)


def build_grid_assign(options: AssignConfig) -> GridAssign:
    """Build the assignment of an experiment, for anchors on a grid."""
    return partial(grid_assign, **dict(options))


def grid_assign(
    anchors: Tensor,
    levels: Sequence[GridLevel],
    target: Target,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality: bool,
    crowd_overlap: float | None,
) -> Tensor:
    """Return the match (A,) int32 of each anchor: that of `assign`, which explains the options.

    Args:
        anchors: (A, 4) float32 px on the CPU, by level, row, column, anchor of a cell.
        levels: what the anchors were laid out from.
        target: on the CPU.
        positive_iou: best IoU from which an anchor is a positive.
        negative_iou: best IoU under which an anchor is a negative.
        low_quality: whether the best anchors of a box are positives.
        crowd_overlap: share of a negative inside a crowd box from which it is ignored.
    """
    least = min(positive_iou, negative_iou)
    if least < _DENSE_BELOW:
        return assign(
            anchors,
            target,
            positive_iou=positive_iou,
            negative_iou=negative_iou,
            low_quality=low_quality,
            crowd_overlap=crowd_overlap,
        )
    matches = torch.full((len(anchors),), BACKGROUND, dtype=torch.int32)
    written = matches.numpy()
    rows = torch.nonzero(~target.crowd).flatten().numpy()
    if len(rows):
        boxes = target.boxes.numpy()[rows]
        rank, seen, best = _ranked(anchors.numpy(), levels, boxes, least, low_quality=low_quality)
        iou, box = _unrank(rank[seen])
        between = np.where(iou >= np.float32(negative_iou), IGNORED, BACKGROUND)
        written[seen] = np.where(iou >= np.float32(positive_iou), rows[box], between)
        written[best] = rows[_unrank(rank[best])[1]]
    if crowd_overlap is not None and len(rows) < len(target.crowd):
        crowds = target.boxes[target.crowd].numpy()
        share = _largest_share_inside(anchors.numpy(), levels, crowds)
        covered = share >= np.float32(crowd_overlap)
        written[covered & (written == BACKGROUND)] = IGNORED
    return matches


def _ranked(
    anchors: Singles,
    levels: Sequence[GridLevel],
    boxes: Singles,
    least: float,
    *,
    low_quality: bool,
) -> tuple[Ints, Ints, Ints]:
    """Return what assignment asks of the pairs of anchors and boxes.

    - (A,): the rank of the best pair of each anchor that the next two name; see `_rank`;
    - the anchors that have an IoU of at least `least` with some box, with repeats;
    - the anchors that are the best one of some box; none without `low_quality`.
    """
    rank = np.zeros(len(anchors), np.int64)  # pages of it that nobody touches cost nothing
    seen, best = [], []
    for anchor, box in candidates(levels, boxes, least, low_quality=low_quality):
        iou = _iou_of_pairs(anchors.take(anchor, axis=0), boxes.take(box, axis=0))
        wanted = iou >= np.float32(least)
        seen.append(anchor[wanted])
        if low_quality:
            best_of_box = np.zeros(len(boxes), np.float32)
            np.maximum.at(best_of_box, box, iou)
            is_best = (iou == best_of_box[box]) & (iou > 0)
            best.append(anchor[is_best])
            wanted |= is_best
        np.maximum.at(rank, anchor[wanted], _rank(iou[wanted], box[wanted]))
    lifted = np.unique(np.concatenate([_NONE, *best]))
    # What is best for a small box may have more in common with another one, of which it is no
    # candidate.
    poor = lifted[_unrank(rank[lifted])[0] < np.float32(least)]
    rank[poor] = _best_ranks(anchors[poor], boxes)
    return rank, np.concatenate([_NONE, *seen]), lifted


def _rank(iou: Singles, box: Ints) -> Ints:
    """Return numbers (P,) in the order of the IoUs, and from the last box to the first among ties.

    The bits of floats from 0 on are in the order of the floats.
    """
    return (iou.view(np.int32).astype(np.int64) << 32) | (_LAST - box)


def _unrank(rank: Ints) -> tuple[Singles, Ints]:
    """Return the IoUs (P,) and boxes (P,) of ranks (P,)."""
    return (rank >> 32).astype(np.int32).view(np.float32), _LAST - (rank & _LAST)


def _iou_of_pairs(anchors: Singles, boxes: Singles) -> Singles:
    """Return the IoU (P,) of anchors (P, 4) with boxes (P, 4): `boxes.iou` to the bit."""
    x1, y1, x2, y2 = anchors.T
    left, top, right, bottom = boxes.T
    width = np.minimum(x2, right) - np.maximum(x1, left)
    height = np.minimum(y2, bottom) - np.maximum(y1, top)
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _best_ranks(anchors: Singles, boxes: Singles) -> Ints:
    """Return the rank (N,) of the best box of all for each of some anchors (N, 4)."""
    ranks = np.zeros(len(anchors), np.int64)
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    # Few boxes touch a block of anchors that lie near each other.
    order = np.lexsort(anchors[:, :2].T // _TILE)
    for start in range(0, len(anchors), _BLOCK):
        places = order[start : start + _BLOCK]
        x1, y1, x2, y2 = anchors[places].T[:, :, None]  # (block, 1)
        near = (x1.min() < right) & (left < x2.max()) & (y1.min() < bottom) & (top < y2.max())
        some = np.flatnonzero(near)
        touch = (x1 < right[some]) & (left[some] < x2) & (y1 < bottom[some]) & (top[some] < y2)
        row, column = np.divmod(np.flatnonzero(touch), len(some))
        anchor, box = places[row], some[column]
        iou = _iou_of_pairs(anchors.take(anchor, axis=0), boxes.take(box, axis=0))
        np.maximum.at(ranks, anchor, _rank(iou, box))
    return ranks


def _largest_share_inside(
    anchors: Singles, levels: Sequence[GridLevel], crowds: Singles
) -> Singles:
    """Return the largest share (A,) of each anchor's area inside one of the crowd boxes.

    The width that an anchor has in common with a box is the same in all rows, its height in all
    columns.
    """
    shares, first = [], 0
    for level in levels:
        shape = level.rows, level.columns, len(level.cell)
        stop = first + math.prod(shape)
        grid = anchors[first:stop].reshape(*shape, 4)
        x1, x2 = grid[0, :, :, 0], grid[0, :, :, 2]  # (columns, n)
        y1, y2 = grid[:, :1, :, 1], grid[:, :1, :, 3]  # (rows, 1, n)
        covered = np.zeros(shape, np.float32)
        for left, top, right, bottom in crowds:
            width = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
            height = np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
            np.maximum(covered, width * height, out=covered)
        with np.errstate(invalid="ignore"):  # an empty anchor: NaN is no share
            shares.append((covered / ((x2 - x1) * (y2 - y1))).reshape(-1))
        first = stop
    return np.concatenate(shares)
