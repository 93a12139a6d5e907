"""Overlaps of anchors on a grid with boxes, and the order in which anchors prefer boxes.

IoUs equal those of `boxes.iou` bit for bit: same float32 values, same arithmetic.

A anchors, P pairs of a box and an anchor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.assign.candidates import Ints
from retinanet.structures import BACKGROUND, IGNORED, GridLevel

Singles = NDArray[np.float32]

_LAST_BOX = 2**32 - 1
"""Largest box index that fits into a rank."""


def iou_of_pairs(anchors: Singles, boxes: Singles) -> Singles:
    """Return the IoUs (...) of anchors (..., 4) with boxes (..., 4); shapes are broadcast."""
    x1, y1, x2, y2 = (anchors[..., i] for i in range(4))
    left, top, right, bottom = (boxes[..., i] for i in range(4))
    width = np.minimum(x2, right) - np.maximum(x1, left)
    height = np.minimum(y2, bottom) - np.maximum(y1, top)
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def ranks_of(iou: Singles, box: Ints) -> Ints:
    """Return numbers (P,) that sort like the IoUs; among ties, the lowest box has the highest rank.

    The bits of non-negative floats sort like the floats themselves.
    """
    return (iou.view(np.int32).astype(np.int64) << 32) | (_LAST_BOX - box)


def unrank(ranks: Ints) -> tuple[Singles, Ints]:
    """Return the IoUs (P,) and boxes (P,) of ranks (P,)."""
    return (ranks >> 32).astype(np.int32).view(np.float32), _LAST_BOX - (ranks & _LAST_BOX)


def ignore_inside(
    matches: NDArray[np.int32],
    anchors: Singles,
    levels: Sequence[GridLevel],
    crowds: Singles,
    share: float,
) -> None:
    """Ignore the negatives in matches (A,) with at least such a share inside a crowd box."""
    covered = _largest_share_inside(anchors, levels, crowds) >= np.float32(share)
    matches[covered & (matches == BACKGROUND)] = IGNORED


def _largest_share_inside(
    anchors: Singles, levels: Sequence[GridLevel], crowds: Singles
) -> Singles:
    """Return the largest share (A,) of each anchor's area inside any crowd box.

    The overlap width of an anchor and a box is the same in all rows, the height in all columns.
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
        with np.errstate(invalid="ignore"):  # an empty anchor gives NaN, which is not a share
            shares.append((covered / ((x2 - x1) * (y2 - y1))).reshape(-1))
        first = stop
    return np.concatenate(shares)
