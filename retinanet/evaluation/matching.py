"""Match detections with boxes at IoU 0.5, as COCOeval does.

COCOeval returns its matches as one Python object for each image and class, which takes as long as
the whole evaluation. This is the same matching for one threshold and boxes of any size.

N results, M boxes, P pairs of a result and a box of its image and class.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_IOU = 0.5
_LARGEST = 1e10
"""px². COCO ignores larger boxes, and larger detections that match no box."""
_PAIRS_AT_ONCE = 2**21


def match(
    *,
    found: NDArray[np.float64],
    found_group: NDArray[np.int64],
    boxes: NDArray[np.float64],
    box_group: NDArray[np.int64],
    areas: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    limit: int,
) -> NDArray[np.int8]:
    """Return for each result whether it matches a box: 1 right, 0 wrong, -1 not counted.

    A result is not counted if it is in a crowd region, or if its group has `limit` results before
    it.

    Args:
        found: (N, 4) xywh of the results, the highest score of each group first.
        found_group: (N,) number of the pair of image and class.
        boxes: (M, 4) xywh of the ground truth.
        box_group: (M,) as `found_group`.
        areas: (M,) areas of the boxes, px².
        crowd: (M,) whether a box is a region to ignore.
        limit: Number of highest-scored results of a group that count.
    """
    # COCO considers ignored boxes last, and others in the order of the file.
    ignored = crowd | (areas < 0) | (areas > _LARGEST)
    order = np.lexsort((ignored, box_group))
    boxes, ignored, crowd, box_group = boxes[order], ignored[order], crowd[order], box_group[order]
    with np.errstate(over="ignore"):  # from absurd boxes in results files
        size = found[:, 2] * found[:, 3]
    verdicts = np.where((size < 0) | (size > _LARGEST), -1, 0).astype(np.int8)
    is_counted = _places(found_group) < limit
    verdicts[~is_counted] = -1
    taken = np.zeros(len(boxes), bool)
    for rows in _parts(found_group, box_group, np.flatnonzero(is_counted)):
        row, box, iou = _close_pairs(found, found_group, boxes, box_group, crowd, rows)
        best: dict[int, tuple[int, float]] = {}
        last = -1
        for i, j, overlap in zip(row.tolist(), box.tolist(), iou.tolist(), strict=True):
            if i != last and last in best:
                taken[best[last][0]] = True
            last = i
            if taken[j] and not crowd[j]:
                continue
            known, highest = best.get(i, (-1, _IOU))
            if known >= 0 and ignored[j] and not ignored[known]:
                continue
            if overlap >= highest:  # the last of equal ones
                best[i] = j, overlap
        if last in best:
            taken[best[last][0]] = True
        for i, (j, _) in best.items():
            verdicts[i] = -1 if ignored[j] else 1
    return verdicts


def _places(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of results of the same group before each result (N,)."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    places = np.empty(len(group), np.int64)
    places[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    return places


def _parts(
    found_group: NDArray[np.int64], box_group: NDArray[np.int64], rows: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows in parts with a limited number of pairs; a single row may exceed it."""
    groups = found_group[rows]
    first, stop = (np.searchsorted(box_group, groups, side) for side in ("left", "right"))
    ends = np.cumsum(stop - first)
    part = (ends - 1) // _PAIRS_AT_ONCE
    yield from np.split(rows, np.flatnonzero(np.diff(part)) + 1)


def _close_pairs(
    found: NDArray[np.float64],
    found_group: NDArray[np.int64],
    boxes: NDArray[np.float64],
    box_group: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return result, box and IoU (P,) of pairs with IoU of at least 0.5, by result, then by box.

    The IoU with a crowd region is the share of the result that is inside it.
    """
    first, stop = (np.searchsorted(box_group, found_group[rows], s) for s in ("left", "right"))
    counts = stop - first
    row = np.repeat(rows, counts)
    starts = np.repeat(first - np.cumsum(counts) + counts, counts)
    box = starts + np.arange(len(row))
    (x, y, w, h), (bx, by, bw, bh) = found[row].T, boxes[box].T
    width = np.minimum(x + w, bx + bw) - np.maximum(x, bx)
    height = np.minimum(y + h, by + bh) - np.maximum(y, by)
    keep = np.flatnonzero((width > 0) & (height > 0))
    row, box, common = row[keep], box[keep], (width * height)[keep]
    with np.errstate(over="ignore"):
        own, whole = (w * h)[keep], (bw * bh)[keep]
    iou = common / np.where(crowd[box], own, own + whole - common)
    close = iou >= _IOU
    return row[close], box[close], iou[close]
