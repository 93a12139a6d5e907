"""What anchors on a grid have in common with boxes, and in which order they take boxes.

IoUs are those of `boxes.iou` to the bit: from the same float32 values by the same arithmetic.

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
"""The largest box index that a rank can hold."""


def iou_of_pairs(anchors: Singles, boxes: Singles) -> Singles:
    """Return the IoUs (...) of anchors (..., 4) with boxes (..., 4), which broadcast."""
    x1, y1, x2, y2 = (anchors[..., i] for i in range(4))
    left, top, right, bottom = (boxes[..., i] for i in range(4))
    width = np.minimum(x2, right) - np.maximum(x1, left)
    height = np.minimum(y2, bottom) - np.maximum(y1, top)
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def ranks_of(iou: Singles, box: Ints) -> Ints:
    """Return numbers (P,) in the order of the IoUs, and from the last box to the first among ties.

    The bits of floats from 0 on are in the order of the floats.
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
    """Ignore the negatives among matches (A,) of which such a share lies inside a crowd box."""
    covered = _largest_share_inside(anchors, levels, crowds) >= np.float32(share)
    matches[covered & (matches == BACKGROUND)] = IGNORED


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
