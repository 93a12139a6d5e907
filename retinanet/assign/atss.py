"""ATSS on a grid of anchors: each box has its own IoU threshold, from the anchors around it.

Zhang et al., arXiv 1912.02424, algorithm 1, with two choices of the authors' code. k counts cells,
so each level has k times the anchors of a cell as candidates. The standard deviation is the
unbiased one. The anchors of a cell share its centre, so whole cells are candidates. Only the cells
around a box are searched: the cost does not grow with the number of anchors.

A anchors, n per cell, G boxes, k candidate cells per level, W cells searched for them, C candidates
of a box on all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.assign.candidates import Doubles, Ints
from retinanet.assign.overlaps import Singles, ignore_inside, iou_of_pairs, ranks_of, unrank
from retinanet.structures import BACKGROUND, GridLevel, Target

_PAIRS = 50_000
"""Largest number of candidates in memory, unless one box has more."""


def atss_assign(
    anchors: Tensor,
    levels: Sequence[GridLevel],
    target: Target,
    *,
    cells: int,
    crowd_overlap: float | None,
) -> Tensor:
    """Return the match (A,) int32 of each anchor: an index into `target`, BACKGROUND or IGNORED.

    - On each level, the candidates of a box are the anchors of the cells whose centres are nearest
      to its own. Ties go to the lowest index.
    - A candidate is positive if its IoU is above 0 and at least the mean + standard deviation of
      the candidates' IoUs. Its centre must be inside the box, not on its border.
    - A candidate of several boxes takes the one with the highest IoU. Ties go to the lowest index.
    - All other anchors are negative. A negative is ignored if at least `crowd_overlap` of its area
      is inside a crowd box.

    Args:
        anchors: (A, 4) float32 px on the CPU, ordered by level, row, column, anchor of a cell.
        levels: Grid of the anchors.
        target: Ground truth, on the CPU.
        cells: Number of candidate cells k per level; a level with fewer cells uses all of them.
        crowd_overlap: Smallest share of a negative inside a crowd box for which it is ignored;
            None ignores none.
    """
    matches = torch.full((len(anchors),), BACKGROUND, dtype=torch.int32)
    written = matches.numpy()
    # A box that is not finite has no centre, and no IoU above 0 with any anchor.
    usable = ~target.crowd & torch.isfinite(target.boxes).all(dim=1)
    rows = torch.nonzero(usable).flatten().numpy()
    boxes = target.boxes.numpy()[rows]
    best = np.zeros(len(anchors), np.int64)
    per_box = sum(min(cells, level.rows * level.columns) * len(level.cell) for level in levels)
    at_once = max(1, _PAIRS // per_box)
    for start in range(0, len(boxes), at_once):
        anchor, box, iou = _positives(anchors.numpy(), levels, boxes[start:][:at_once], cells)
        np.maximum.at(best, anchor, ranks_of(iou, start + box))
    positive = np.flatnonzero(best)
    written[positive] = rows[unrank(best[positive])[1]]
    if crowd_overlap is not None and target.crowd.any():
        crowds = target.boxes[target.crowd].numpy()
        ignore_inside(written, anchors.numpy(), levels, crowds, crowd_overlap)
    return matches


def _positives(
    anchors: Singles, levels: Sequence[GridLevel], boxes: Singles, cells: int
) -> tuple[Ints, Ints, Singles]:
    """Return the positives of boxes (G, 4): their anchors (P,), boxes (P,) and IoUs (P,)."""
    exact = boxes.astype(np.float64)
    found, first = [], 0
    for level in levels:
        found.append(_candidates(level, first, exact, cells))
        first += level.rows * level.columns * len(level.cell)
    anchor, inside = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))  # (G, C)
    iou = iou_of_pairs(anchors[anchor], boxes[:, None])
    values = iou.astype(np.float64)
    # A single candidate has no unbiased deviation: its threshold is its own IoU.
    deviation = values.std(axis=1, ddof=min(1, values.shape[1] - 1), keepdims=True)
    threshold = values.mean(axis=1, keepdims=True) + deviation
    box, place = np.nonzero(inside & (iou > 0) & (values >= threshold))
    return anchor[box, place], box, iou[box, place]


def _candidates(
    level: GridLevel, first: int, boxes: Doubles, cells: int
) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the candidates (G, k * n) of boxes on a level, and whether their centres are inside.

    `first` is the index of the level's first anchor.
    """
    row, column = _nearest_cells(level, (boxes[:, :2] + boxes[:, 2:]) / 2, cells)  # (G, k)
    x, y = (column + level.offset) * level.step_x, (row + level.offset) * level.step_y
    left, top, right, bottom = boxes.T[:, :, None]
    inside = (left < x) & (x < right) & (top < y) & (y < bottom)
    count = len(level.cell)
    cell = row * level.columns + column
    anchor = first + cell[:, :, None] * count + np.arange(count)
    return anchor.reshape(len(boxes), -1), inside.repeat(count, axis=1)


def _nearest_cells(level: GridLevel, centres: Doubles, cells: int) -> tuple[Ints, Ints]:
    """Return rows (G, k) and columns (G, k) of the cells nearest to points (G, 2), row by row."""
    cells = min(cells, level.rows * level.columns)
    down, right = _neighbour_offsets(level, cells)
    row, far_y = _nearest_on_axis(centres[:, 1], down.max(), level.rows, level.step_y, level.offset)
    column, far_x = _nearest_on_axis(
        centres[:, 0], right.max(), level.columns, level.step_x, level.offset
    )
    far = far_x[:, right + right.max()] + far_y[:, down + down.max()]  # (G, W) px²
    limit = np.partition(far, cells - 1, axis=1)[:, cells - 1 : cells]
    chosen, tied = far < limit, far == limit
    chosen |= tied & (tied.cumsum(axis=1) <= cells - chosen.sum(axis=1, keepdims=True))
    place = np.nonzero(chosen)[1].reshape(-1, cells)
    return row[:, None] + down[place], column[:, None] + right[place]


def _neighbour_offsets(level: GridLevel, cells: int) -> tuple[Ints, Ints]:
    """Return offsets that include the k nearest cells of any point: rows (W,) and columns (W,).

    They count from the nearest cell (or from its neighbour, if rounding picks that one) and are
    ordered row by row. For a cell i rows and j columns away, all cells of rows 1..i and columns
    1..j are at least as near, for any step. If these are more than k, the cell is not a candidate.
    """
    down = np.arange(-min(cells, level.rows - 1), min(cells, level.rows - 1) + 1)
    right = np.arange(-min(cells, level.columns - 1), min(cells, level.columns - 1) + 1)
    nearer = np.maximum(abs(down), 1)[:, None] * np.maximum(abs(right), 1)
    i, j = np.nonzero(nearer <= cells)
    return down[i], right[j]


def _nearest_on_axis(
    at: Doubles, reach: int, count: int, step: int, offset: float
) -> tuple[Ints, Doubles]:
    """Return the cell (G,) of an axis that is nearest to points (G,), and squared distances.

    The squared distances (G, 2 * reach + 1), in px², are those of the cells around it; infinite
    outside the grid.
    """
    nearest = np.clip(np.rint(at / step - offset), 0, count - 1).astype(np.int64)
    cell = nearest[:, None] + np.arange(-reach, reach + 1)
    squares = ((cell + offset) * step - at[:, None]) ** 2
    squares[(cell < 0) | (cell >= count)] = np.inf
    return nearest, squares
