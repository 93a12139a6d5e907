"""Measure how well the anchors cover the training boxes, at the size that the network sees.

A box that no anchor overlaps by `assign.positive_iou` is learnt from one weak anchor, or not at
all; with `assign.kind: atss`, from the best anchors near its centre. m boxes, A anchors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.categories import columns_of, pad, shown_names
from retinanet.data.canvas import Size
from retinanet.engine.preflight.training_boxes import (
    PlacedBoxes,
    TrainingBoxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.splits import Split, training_canvas, training_short_sides
from retinanet.errors import plural
from retinanet.model.anchors import STRIDES, AnchorGenerator, build_anchors
from retinanet.schema import Config

_CHUNK = 2**15
"""Number of boxes computed together, so that their columns stay in the cache."""
COCO_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""Areas in original square px, as in COCO's AP_S, AP_M and AP_L."""
_LEAST_IOU = float(np.finfo(np.float32).tiny)
"""Smallest IoU of an anchor that touches a box: a threshold of 0 still requires this."""
_ENOUGH_BOXES = 20
"""Smallest group of boxes that is worth a warning."""
_CLASSES_SHOWN = 20
"""Number of classes in the table, the worst ones."""
_WIDEST_NAME = 32
"""Most letters of a class name in the table."""


def best_iou(anchors: AnchorGenerator, boxes: PlacedBoxes) -> NDArray[np.float32]:
    """Return the best IoU (m,) of each box over all anchors of its canvas.

    The overlap of a box with one anchor shape is the product of a function of the anchor's x and a
    function of its y. Both decrease away from the box's centre, so the best anchor of a shape is
    the one in the cell nearest to the centre. That takes 45 IoUs per box, not 200,000.
    """
    best = np.zeros(len(boxes.xyxy), np.float32)
    grids = grids_of(anchors, boxes.canvases)
    for first in range(0, len(best), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        corners = torch.from_numpy(boxes.xyxy[chunk]).T.contiguous()
        own = grids[torch.from_numpy(boxes.canvas_of[chunk])]  # (chunk, levels, 4)
        found = torch.zeros(corners.shape[1])
        for level, cells in enumerate(anchors.cells):
            for iou in level_iou(corners, cells, own[:, level].T.contiguous(), anchors.offset):
                torch.maximum(found, iou, out=found)
        best[chunk] = found.numpy()
    return best


def grids_of(anchors: AnchorGenerator, canvases: Sequence[Size]) -> Tensor:
    """Return rows, columns, step_y and step_x of each level: (canvases, levels, 4)."""
    levels = [level for canvas in canvases for level in anchors.levels(canvas)]
    table = [(level.rows, level.columns, level.step_y, level.step_x) for level in levels]
    return torch.tensor(table, dtype=torch.float32).reshape(len(canvases), len(STRIDES), 4)


def level_iou(corners: Tensor, cells: Tensor, grid: Tensor, offset: float) -> Iterator[Tensor]:
    """Yield, for each anchor of a cell, the best IoU (n,) of boxes over all cells of the grid.

    The arithmetic is that of the anchors and of `boxes.iou`, so rounding agrees with them.

    Args:
        corners: Corners x1, y1, x2, y2 of the boxes: (4, n).
        cells: Anchors around a cell's centre: (per_cell, 4). All are symmetric, even if rounded.
        grid: Rows, columns, step_y and step_x of the canvas of each box: (4, n).
        offset: Offset of the first centre, in steps.
    """
    x1, y1, x2, y2 = corners
    rows, columns, step_y, step_x = grid
    x, y = (
        (((low + high) / 2 / step - offset).round().clamp(min=0).minimum(count - 1) + offset) * step
        for low, high, step, count in ((x1, x2, step_x, columns), (y1, y2, step_y, rows))
    )
    area = (x2 - x1) * (y2 - y1)
    for left, top, right, bottom in cells.tolist():
        ax1, ay1, ax2, ay2 = x + left, y + top, x + right, y + bottom
        width = torch.minimum(ax2, x2).sub_(torch.maximum(ax1, x1)).clamp_(min=0)
        height = torch.minimum(ay2, y2).sub_(torch.maximum(ay1, y1)).clamp_(min=0)
        overlap = width.mul_(height)
        union = (ax2 - ax1).mul_(ay2 - ay1).add_(area).sub_(overlap)
        yield overlap.div_(union)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Number of boxes of a group (all, a size, a class) that the anchors cover."""

    name: str
    boxes: int
    positive: int
    """Best IoU >= assign.positive_iou."""
    near: int
    """Best IoU >= assign.negative_iou (includes `positive`)."""
    low_quality: int
    """Best IoU > 0, but below positive_iou: max_iou only learns them by the low-quality rule."""
    untouched: int
    """Best IoU 0."""

    @property
    def covered(self) -> float:
        """Share of the boxes that have an anchor with IoU >= positive_iou."""
        return self.positive / self.boxes if self.boxes else 0.0


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How well the anchors of an experiment cover its training boxes."""

    short_side: int
    """Short side in px; the middle one of multi-scale."""
    long_side: int
    """Limit of the long side in px."""
    kind: str
    """assign.kind; atss ignores the next three."""
    positive_iou: float
    negative_iou: float
    low_quality_rule: bool
    """Whether assign.low_quality is on."""
    sampled: bool
    """Whether only a sample of the images was measured."""
    total: Share
    sizes: list[Share]
    """COCO's small, medium and large by original area, as far as they occur."""
    classes: list[Share]
    """Classes that occur, in the order of the categories."""
    ends: dict[int, float]
    """Share with best IoU >= positive_iou at the smallest and at the largest short side."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain types."""
        return asdict(self)


def measure_coverage(config: Config, split: Split, boxes: TrainingBoxes) -> Coverage:
    """Count the boxes that the anchors cover, by COCO size and by class."""
    data, assign = config.data, config.assign
    anchors = build_anchors(config.anchors)
    side = training_short_side(data)
    best = best_iou(anchors, place_boxes(boxes, data, side))
    ends = {}
    sides = training_short_sides(data) if training_canvas(data) is None else (side,)
    for other in sorted({min(sides), max(sides)} - {side}):
        at_other = best_iou(anchors, place_boxes(boxes, data, other))
        ends[other] = float((at_other >= assign.positive_iou).mean()) if len(boxes) else 0.0

    def share(name: str, of: NDArray[np.float32]) -> Share:
        return Share(
            name=name,
            boxes=len(of),
            positive=int((of >= max(assign.positive_iou, _LEAST_IOU)).sum()),
            near=int((of >= max(assign.negative_iou, _LEAST_IOU)).sum()),
            low_quality=int(((of > 0) & (of < assign.positive_iou)).sum()),
            untouched=int((of <= 0).sum()),
        )

    areas = split.annotations.areas[boxes.places]
    labels = split.annotations.labels[boxes.places]
    order = np.argsort(labels, kind="stable")
    names = split.annotations.categories.names
    starts = np.searchsorted(labels[order], np.arange(1, len(names)))
    by_class = zip(names, np.split(best[order], starts), strict=True)
    by_size = (
        (name, best[(areas >= low) & (areas < high)]) for name, (low, high) in COCO_SIZES.items()
    )
    return Coverage(
        short_side=side,
        long_side=data.long_side,
        kind=assign.kind,
        positive_iou=assign.positive_iou,
        negative_iou=assign.negative_iou,
        low_quality_rule=assign.low_quality,
        sampled=boxes.sampled,
        total=share("all", best),
        sizes=[share(name, of) for name, of in by_size if len(of)],
        classes=[share(name, of) for name, of in by_class if len(of)],
        ends=ends,
    )


def describe_briefly(coverage: Coverage) -> list[str]:
    """Return one line about the coverage, and a warning if much is not covered."""
    total = coverage.total
    if not total.boxes:
        return []
    sizes = ", ".join(f"{size.name} {_percent(size.covered)}" for size in coverage.sizes)
    sample = f" (a sample of {plural(total.boxes, 'box')})" if coverage.sampled else ""
    lines = [
        f"anchors at short side {coverage.short_side}: {_percent(total.covered)} of the boxes have "
        f"an anchor with IoU >= {coverage.positive_iou:g} ({sizes}), "
        f"{_percent(total.near / total.boxes)} one with IoU >= {coverage.negative_iou:g}"
        f"{sample}"
    ]
    return lines + [f"  warning: {text}" for text in warn_of_coverage(coverage)]


def warn_of_coverage(coverage: Coverage) -> list[str]:
    """Return a warning, with the remedy, if the anchors miss much of the data.

    That is the case if less than 3/4 of all boxes, 1/2 of a COCO size or 1/3 of a class is covered.
    COCO with the default recipe has about 7/8; its small boxes have about 3/4, and a class of small
    objects (sports ball) about 1/2.
    """
    limits = [(coverage.total, 0.75), *((size, 1 / 2) for size in coverage.sizes)]
    limits += [(group, 1 / 3) for group in coverage.classes]
    missed = [
        group for group, least in limits if group.boxes >= _ENOUGH_BOXES and group.covered < least
    ]
    if not missed:
        return []
    shown = ", ".join(f"{m.boxes - m.positive:,} of {m.boxes:,} ({m.name})" for m in missed[:5])
    more = f" and {plural(len(missed) - 5, 'more class')}" if len(missed) > 5 else ""
    return [
        f"many boxes have no anchor with IoU >= {coverage.positive_iou:g}: {shown}{more}. "
        f"{_describe_uncovered(coverage)}. "
        f"Remedy: a larger data.short_side (now {coverage.short_side}), or other anchors: "
        "`retinanet check CONFIG --fit-anchors`"
    ]


def _describe_uncovered(coverage: Coverage) -> str:
    """Return how training treats the boxes that are not covered."""
    if coverage.kind == "atss":
        return (
            "With assign.kind=atss a box is learnt from the best anchors near its centre, however "
            "low their IoU; a box that contains no anchor centre is learnt as background"
        )
    if coverage.low_quality_rule:
        return "They are learnt from one weak anchor each, or as background"
    return "They are learnt as background because assign.low_quality is off"


def describe_coverage(coverage: Coverage) -> list[str]:
    """Return a table by COCO size and class (worst classes first), and the warning."""
    total = coverage.total
    lines = [
        f"anchors compared with {plural(total.boxes, 'box')}"
        f"{' (a sample)' if coverage.sampled else ''}, "
        f"resized to short side {coverage.short_side}, long side at most {coverage.long_side}"
    ]
    words = {"small": "small < 32² px", "medium": "medium", "large": "large >= 96² px"}
    classes = sorted(coverage.classes, key=lambda group: group.covered)
    shown = classes[:_CLASSES_SHOWN]
    rows = [("all", total), *((words[size.name], size) for size in coverage.sizes)]
    names = shown_names([group.name for group in shown], _WIDEST_NAME)
    rows += list(zip(names, shown, strict=True))
    width = max(columns_of(name) for name, _ in rows)
    positive, near = (f"IoU >= {x:g}" for x in (coverage.positive_iou, coverage.negative_iou))
    weak = "low-quality" if coverage.low_quality_rule else "too weak"
    if coverage.kind == "atss":
        weak = "lower IoU"
    lines.append(f"  {'':{width}}  {'boxes':>9}  {positive:>10}  {near:>10}  {weak:>11}  untouched")
    lines += [
        f"  {pad(name, width)}  {group.boxes:9,}  {_percent(group.covered):>10}  "
        f"{_percent(group.near / group.boxes):>10}  {group.low_quality:11,}  {group.untouched:9,}"
        for name, group in rows
        if group.boxes
    ]
    if len(classes) > _CLASSES_SHOWN:
        least = _percent(classes[_CLASSES_SHOWN].covered)
        more = len(classes) - _CLASSES_SHOWN
        lines.append(f"  and {plural(more, 'more class')}, each with at least {least}")
    if coverage.ends:
        ends = ", ".join(f"{_percent(share)} at {side}" for side, share in coverage.ends.items())
        lines.append(f"  at the other short sides: {ends} px ({positive})")
    return lines + [f"  warning: {text}" for text in warn_of_coverage(coverage)]


def _percent(share: float) -> str:
    """Format a share; rounding never turns a part into all or nothing."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"
