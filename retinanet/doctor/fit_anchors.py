"""Search for anchor sizes and ratios that cover the training boxes better.

The sizes of a level are its stride times a few scales, the same on every level, because all levels
share the subnets. The search is exact on its grid; only the choice of boxes is random. m boxes, S
scales and R ratios of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.data.canvas import round_up
from retinanet.engine.preflight.anchor_coverage import (
    Coverage,
    grids_of,
    level_iou,
    measure_coverage,
)
from retinanet.engine.preflight.training_boxes import (
    PlacedBoxes,
    TrainingBoxes,
    place_boxes,
    training_short_side,
)
from retinanet.engine.splits import Split, training_canvas
from retinanet.errors import UserError, plural
from retinanet.model.anchors import STRIDES, build_anchors, cell_anchors
from retinanet.schema import AnchorConfig, Config

_SCALES = tuple(2 ** (k / 6) for k in range(-6, 25))
"""Size / stride: 0.5 to 16 (4 to 6.35 by default)."""
_RATIOS = tuple(2 ** (k / 4) for k in range(-12, 13))
"""Height / width: 1/8 to 8."""
_MAX_SEARCHED = 5_000
"""Maximum number of boxes to search on; their IoU with 775 anchors takes 16 MB."""
_MAX_HELD_OUT = 100_000
"""Maximum number of boxes to measure the result on."""
_MIN_TO_SPLIT = 200
"""Number of boxes from which half are held out of the search."""
_MIN_GAIN = 0.01
"""Share of the boxes that other anchors must gain to be worth the change."""
_MIN_COVERED = 0.5
"""Share of the boxes that anchors should cover to be worth keeping."""
LARGER = (1.25, 1.5, 2.0)
"""Factors of larger inputs that are measured for comparison."""


@dataclass(frozen=True, kw_only=True)
class AnchorFit:
    """Result of a search, measured on boxes that it did not see."""

    anchors: AnchorConfig
    """The best anchors found; the other fields come from the experiment."""
    per_cell: int
    before: Coverage
    after: Coverage
    larger: dict[str, Coverage]
    """Coverage of the current anchors with larger inputs, by the overrides that enlarge them."""
    searched: int
    """Number of boxes in the search."""
    held_out: bool
    """Whether coverage was measured on other boxes than these."""

    @property
    def better(self) -> bool:
        """Whether the change is worth it, and larger than chance would explain."""
        before, after = self.before.total, self.after.total
        chance = 2 * math.sqrt(before.covered * (1 - before.covered) / max(1, before.boxes))
        return after.covered - before.covered >= max(_MIN_GAIN, chance)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain types."""
        return {
            "better": self.better,
            "anchors": self.anchors.model_dump(mode="json", include={"sizes", "ratios"}),
            "per_cell": self.per_cell,
            "searched": self.searched,
            "held_out": self.held_out,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "larger": {overrides: asdict(coverage) for overrides, coverage in self.larger.items()},
        }


def search_anchors(
    config: Config,
    split: Split,
    boxes: TrainingBoxes,
    *,
    per_cell: int | None = None,
    seed: int = 0,
) -> AnchorFit:
    """Search for sizes and ratios that suit the resized boxes.

    The same arguments always give the same result.

    Args:
        config: Config of the experiment.
        split: Training split.
        boxes: Boxes of the split.
        per_cell: Number of anchors per cell; None keeps the config's number.
        seed: Seed for the choice of boxes.

    Raises:
        UserError: There are no boxes.
    """
    if not len(boxes):
        raise UserError(f"{split.annotations.path}: there are no boxes to fit anchors to")
    per_cell = per_cell or len(config.anchors.sizes[0]) * len(config.anchors.ratios)
    seen, unseen = _halves(boxes, seed)
    table = _iou_table(config, place_boxes(seen, config.data, training_short_side(config.data)))
    scales, ratios = _search(table, per_cell, config.assign.positive_iou)
    fitted = _rounded_anchors(config.anchors, scales, ratios)
    return AnchorFit(
        anchors=fitted,
        per_cell=per_cell,
        before=measure_coverage(config, split, unseen),
        after=measure_coverage(config.model_copy(update={"anchors": fitted}), split, unseen),
        larger={
            " ".join(overrides): measure_coverage(larger, split, unseen)
            for overrides, larger in _larger_inputs(config)
        },
        searched=len(seen),
        held_out=seen is not unseen,
    )


def _halves(boxes: TrainingBoxes, seed: int) -> tuple[TrainingBoxes, TrainingBoxes]:
    """Return boxes to search on and boxes to measure on, from different images if possible."""
    if len(boxes) < _MIN_TO_SPLIT:
        return boxes, boxes
    random = np.random.default_rng(seed)
    images, image_of = np.unique(boxes.rows, return_inverse=True)
    if len(images) < 2:
        return boxes, boxes
    half = np.zeros(len(images), bool)
    half[random.permutation(len(images))[: len(images) // 2]] = True
    parts = boxes.take(half[image_of]), boxes.take(~half[image_of])
    limits = _MAX_SEARCHED, _MAX_HELD_OUT
    seen, unseen = (
        part.take(_random_subset(random, len(part), limit))
        for part, limit in zip(parts, limits, strict=True)
    )
    return (seen, unseen) if len(seen) and len(unseen) else (boxes, boxes)


def _random_subset(random: np.random.Generator, count: int, limit: int) -> NDArray[np.bool_]:
    chosen = np.zeros(count, bool)
    chosen[random.permutation(count)[:limit]] = True
    return chosen


def _iou_table(config: Config, boxes: PlacedBoxes) -> NDArray[np.float32]:
    """Return the best IoU (S, R, m) of each box with each anchor shape at the best place."""
    present = build_anchors(config.anchors)
    corners = torch.from_numpy(boxes.xyxy).T.contiguous()
    grids = grids_of(present, boxes.canvases)
    table = torch.zeros(len(_SCALES), len(_RATIOS), len(boxes.xyxy))
    flat = table.view(-1, len(boxes.xyxy))
    for level, stride in enumerate(STRIDES):
        cells = cell_anchors(
            [scale * stride for scale in _SCALES],
            _RATIOS,
            rounding=config.anchors.rounding,
            cell_order="size_major",
        )
        grid = grids[torch.from_numpy(boxes.canvas_of), level].T.contiguous()
        for row, iou in zip(flat, level_iou(corners, cells, grid, present.offset), strict=True):
            torch.maximum(row, iou, out=row)
    return table.numpy()


def _search(
    table: NDArray[np.float32], per_cell: int, positive_iou: float
) -> tuple[list[float], list[float]]:
    """Return the best scales and ratios, over all ways to divide `per_cell` between them."""
    best: tuple[tuple[float, float], list[int], list[int]] | None = None
    for scales, ratios in _starting_points(per_cell):
        reached = _climb(table, scales, ratios, positive_iou)
        if best is None or reached[0] > best[0]:
            best = reached
    assert best is not None
    return [_SCALES[i] for i in sorted(best[1])], [_RATIOS[i] for i in sorted(best[2])]


def _starting_points(per_cell: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the indices of scales and of ratios to start the search from."""
    default, square = _SCALES.index(4.0), _RATIOS.index(1.0)
    for count in (n for n in range(1, per_cell + 1) if per_cell % n == 0):
        ratios = per_cell // count
        if count > len(_SCALES) or ratios > len(_RATIOS):
            continue
        spread = min(4, (len(_RATIOS) - 1) // max(1, ratios - 1))  # 4: a factor of 2, the default
        first = square - spread * (ratios - 1) // 2
        own_ratios = [first + spread * i for i in range(ratios)]
        for base in (default - 12, default - 6, default):
            step = max(1, min(6 // count or 1, (len(_SCALES) - 1 - base) // count))
            yield [base + step * i for i in range(count)], own_ratios


def _climb(
    table: NDArray[np.float32], scales: list[int], ratios: list[int], positive_iou: float
) -> tuple[tuple[float, float], list[int], list[int]]:
    """Change one scale or ratio at a time to the best value, until none changes.

    Best is the largest share of boxes with IoU >= positive_iou, then the largest mean IoU.
    """
    scales, ratios = [*scales], [*ratios]
    reached = (-1.0, -1.0)
    while True:
        for axis, own, other in ((0, scales, ratios), (1, ratios, scales)):
            lines = np.take(table, other, axis=1 - axis).max(axis=1 - axis)  # (S or R, m)
            for i in range(len(own)):
                rest = [own[j] for j in range(len(own)) if j != i]
                least = lines[rest].max(axis=0) if rest else 0
                best = np.maximum(lines, least)
                shares = (best >= positive_iou).mean(axis=1)
                means = best.mean(axis=1, dtype=np.float64)
                order = np.lexsort((np.arange(len(best)), -means, -shares))
                own[i] = int(next(place for place in order if place not in rest))
                score = (float(shares[own[i]]), float(means[own[i]]))
        if score <= reached:
            return score, scales, ratios
        reached = score


def _rounded_anchors(
    present: AnchorConfig, scales: list[float], ratios: list[float]
) -> AnchorConfig:
    """Return the anchors, rounded to the digits that are printed."""
    sizes = [[round(scale * stride, 1) for scale in scales] for stride in STRIDES]
    values = {"sizes": sizes, "ratios": [round(ratio, 2) for ratio in ratios]}
    return AnchorConfig.model_validate({**present.model_dump(), **values})


def _larger_inputs(config: Config) -> Iterator[tuple[list[str], Config]]:
    """Yield overrides that enlarge the input, and the config with them."""
    data = config.data
    fixed = training_canvas(data)
    for factor in LARGER:
        if fixed is not None:
            canvas = round_up((round(fixed[0] * factor), round(fixed[1] * factor)))
            larger = data.model_copy(update={"preset_canvas": canvas})
            override = f"data.preset_canvas={list(canvas)}".replace(" ", "")
            yield [override], config.model_copy(update={"data": larger})
            continue
        sides = tuple(round(side * factor) for side in data.short_side)
        longest = round(data.long_side * factor)
        overrides = [f"data.short_side={list(sides)}".replace(" ", ""), f"data.long_side={longest}"]
        larger = data.model_copy(update={"short_side": sides, "long_side": longest})
        yield overrides, config.model_copy(update={"data": larger})


def yaml_lines(anchors: AnchorConfig) -> list[str]:
    """Return the lines to paste into a config."""
    sizes = ", ".join(f"[{', '.join(f'{size:g}' for size in level)}]" for level in anchors.sizes)
    ratios = ", ".join(f"{ratio:g}" for ratio in anchors.ratios)
    return ["anchors:", f"  sizes: [{sizes}]", f"  ratios: [{ratios}]"]


def describe_fit(fit: AnchorFit) -> list[str]:
    """Describe what the lines of `yaml_lines` change, and what a larger input would do instead."""
    before, after = fit.before, fit.after
    measured_on = plural(before.total.boxes, "box") + (
        f" from images outside the search, which used {fit.searched:,} boxes"
        if fit.held_out
        else " (too few to hold some out of the search, so the results are optimistic)"
    )
    lines = [
        f"anchors fitted at short side {before.short_side}, {fit.per_cell} per cell; measured on "
        f"{measured_on}:"
    ]
    rows = [("current anchors", before)]
    if fit.better:
        rows.append(("fitted anchors", after))
    rows += [(f"current, {overrides}", coverage) for overrides, coverage in fit.larger.items()]
    width = max(len(name) for name, _ in rows)
    kinds = ["all", *(size.name for size in before.sizes)]
    lines.append(
        f"  {f'share with IoU >= {before.positive_iou:g}':{width}}"
        + "".join(f"  {kind:>7}" for kind in kinds)
    )
    for name, coverage in rows:
        shares = [coverage.total, *coverage.sizes]
        lines.append(
            f"  {name:{width}}" + "".join(f"  {100 * share.covered:5.1f} %" for share in shares)
        )
    if before.kind == "atss":
        lines.append(
            "  (assign.kind=atss needs no such IoU; the shares only show how well anchors fit)"
        )
    if not fit.better and after.total.covered < _MIN_COVERED:
        return [
            *lines,
            f"no anchors cover more than {after.total.covered:.1%}: at this input size, the boxes "
            "are too small or too long for any; enlarge data.short_side and data.long_side, cut "
            "the images into tiles, or check that the boxes are right",
        ]
    if not fit.better:
        return [
            *lines,
            f"the current anchors are as good as any that were found ({after.total.covered:.1%}): "
            "keep them",
        ]
    return [
        *lines,
        "to use the fitted anchors, paste these lines into the config (with --init-from, enlarge "
        "the input instead: the weights have learned the old anchors):",
    ]
