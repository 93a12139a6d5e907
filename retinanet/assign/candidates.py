"""Find the anchors of a grid that can matter to a box, in closed form.

Anchors repeat from cell to cell. So the few anchors that can reach a given IoU with a box are
ranges of rows and columns on a few levels.

G boxes, S shapes (each anchor of a cell, on each level), R pairs of a box and a shape, P pairs of a
box and an anchor. An axis of length 2 is x, y.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinanet.structures import GridLevel

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

_BOXES = 128
"""Number of boxes to process at a time: (2, 128, S) doubles stay in the cache."""
_PAIRS = 50_000
"""Largest number of candidates in memory, unless one box has more."""
_ROUNDING = 1e-5
"""Relative tolerance: ten times the float32 rounding error of an IoU."""
_DENORMAL = 1e-30
"""An IoU below this may come from denormal numbers, whose relative error has no bound."""


def candidates(
    levels: Sequence[GridLevel], boxes: NDArray[np.float32], least: float, *, low_quality: bool
) -> Iterator[tuple[Ints, Ints]]:
    """Yield anchors (P,) and boxes (P,) of all pairs that matter; pairs of one box stay together.

    These include every pair with an IoU of at least `least`. With `low_quality`, they also include
    every pair with the largest IoU of its box, if that is above 0.
    """
    shapes = _shapes(levels)
    for start in range(0, len(boxes), _BOXES):
        some = boxes[start : start + _BOXES].astype(np.float64)
        box, shape, first, count = _reach(shapes, some, least, low_quality=low_quality)
        per_box = np.bincount(box, count.prod(axis=0), len(some))
        heads = np.unique(np.cumsum(per_box) // _PAIRS, return_index=True)[1]
        bounds = np.searchsorted(box, [*heads, len(some)])
        for part in map(slice, bounds, bounds[1:]):
            of_shape = shape[part]
            pair, row = _ranges(first[1, part], count[1, part])
            before = row * shapes.columns[of_shape][pair]  # cells before the row
            owner, column = _ranges(first[0, part][pair], count[0, part][pair])
            pair = pair[owner]
            cell = before[owner] + column
            anchor = shapes.first[of_shape][pair] + cell * shapes.per_cell[of_shape][pair]
            yield anchor, start + box[part][pair]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shapes:
    """The anchors of a cell on each level, and the grid on which they repeat."""

    low: Doubles
    """(2, S) px: x1, y1 of the anchors of a cell centred on the origin."""
    high: Doubles
    """(2, S) px: x2, y2."""
    step: Doubles
    """(2, S) px between cells."""
    cells: Doubles
    """(2, S): columns and rows."""
    columns: Ints
    """(S,)"""
    offset: Doubles
    """(S,): centre of the first cell, in cells."""
    first: Ints
    """(S,): index of the shape's anchor at cell (0, 0)."""
    per_cell: Ints
    """(S,): anchors at a cell of its level."""
    rounding: float
    """Largest difference in px between a coordinate of a float32 anchor and its exact value."""


def _shapes(levels: Sequence[GridLevel]) -> _Shapes:
    """Describe each shape separately."""
    per_cell = np.array([len(level.cell) for level in levels])
    cells = np.array([(level.columns, level.rows) for level in levels])
    step = np.array([(level.step_x, level.step_y) for level in levels], np.float64)
    offset = np.array([level.offset for level in levels], np.float64)
    corners = np.concatenate([level.cell.numpy() for level in levels]).astype(np.float64)  # (S, 4)
    start = np.cumsum(cells.prod(axis=1) * per_cell) - cells.prod(axis=1) * per_cell
    inside = np.arange(len(corners)) - np.repeat(np.cumsum(per_cell) - per_cell, per_cell)
    largest = float(((cells + offset[:, None]) * step).max() + np.abs(corners).max())
    return _Shapes(
        low=corners[:, :2].T,
        high=corners[:, 2:].T,
        step=np.repeat(step, per_cell, axis=0).T,
        cells=np.repeat(cells, per_cell, axis=0).T.astype(np.float64),
        columns=np.repeat(cells[:, 0], per_cell),
        offset=np.repeat(offset, per_cell),
        first=np.repeat(start, per_cell) + inside,
        per_cell=np.repeat(per_cell, per_cell),
        # Three roundings of at most 2^-24 each, and a margin.
        rounding=2**-21 * largest,
    )


def _ranges(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Return the i (N,) and the values (N,) of all ranges first[i], ..., first[i] + count[i] - 1.

    >>> _ranges(np.array([5, 9]), np.array([3, 2]))
    (array([0, 0, 0, 1, 1]), array([ 5,  6,  7,  9, 10]))
    """
    owner = np.repeat(np.arange(len(first)), count)
    return owner, np.arange(len(owner)) + np.repeat(first - (np.cumsum(count) - count), count)


def _reach(
    shapes: _Shapes, boxes: Doubles, least: float, *, low_quality: bool
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return pairs of a box and a shape with the cells to search.

    On each axis, the overlap of a box and an anchor decreases with the distance of their centres,
    so it is largest at the nearest cell. An IoU of t needs an overlap area of t / (1 + t) times the
    sum of both areas. So the overlap on one axis must be at least that area divided by the largest
    overlap on the other axis. Everything is computed for anchors that are `rounding` px larger or
    smaller than the exact ones: the float32 anchors are in between.

    Returns:
        Box (R,) ascending, shape (R,), the first cell (2, R) and the number of cells (2, R) on each
        axis. Anchors elsewhere have an IoU below `least` and, with `low_quality`, below the largest
        IoU of the box.
    """
    low, high = boxes[:, :2].T[:, :, None], boxes[:, 2:].T[:, :, None]  # (2, G, 1)
    step, offset = shapes.step[:, None], shapes.offset
    middle = (shapes.low + shapes.high)[:, None] / 2
    nearest = np.rint(((low + high) / 2 - middle) / step - offset)
    centre = (np.clip(nearest, 0, shapes.cells[:, None] - 1) + offset) * step  # (2, G, S)
    grown = shapes.low - shapes.rounding, shapes.high + shapes.rounding
    shrunk = shapes.low + shapes.rounding, shapes.high - shapes.rounding
    box_area = _area(low, high)  # (G, 1)

    threshold = np.full_like(box_area, least)
    if low_quality:
        overlap = np.multiply(*_common_lengths(centre, shrunk, low, high))  # (G, S)
        sure = overlap / (_area(*grown) + box_area - overlap)
        np.minimum(threshold, sure.max(axis=1, keepdims=True), out=threshold)
    threshold *= 1 - _ROUNDING
    threshold[threshold < _DENORMAL] = 0

    needed = threshold / (1 + threshold) * (_area(*shrunk) + box_area)  # (G, S)
    most = _common_lengths(centre, grown, low, high)
    overlap = np.multiply(*most)
    box, shape = np.nonzero((overlap > 0) & (overlap >= needed))  # (R,)
    shortest = needed[box, shape] / most[::-1, box, shape]  # (2, R)
    start = low[:, box, 0] + shortest - grown[1][:, shape]
    stop = high[:, box, 0] - shortest - grown[0][:, shape]
    step, offset, cells = shapes.step[:, shape], shapes.offset[shape], shapes.cells[:, shape]
    first = np.maximum(np.ceil(start / step - offset), 0)
    last = np.minimum(np.floor(stop / step - offset), cells - 1)
    count = np.maximum(last - first + 1, 0)
    return box, shape, first.astype(np.int64), count.astype(np.int64)


def _common_lengths(
    centre: Doubles, anchor: tuple[Doubles, Doubles], low: Doubles, high: Doubles
) -> Doubles:
    """Return the overlaps on x and y of boxes with anchors at some centres: (2, G, S) px."""
    right = np.minimum(centre + anchor[1][:, None], high)
    return np.maximum(right - np.maximum(centre + anchor[0][:, None], low), 0)


def _area(low: Doubles, high: Doubles) -> Doubles:
    """Return the areas of boxes from their sides on x and y; 0 if a side is negative."""
    return np.multiply(*np.maximum(high - low, 0))
