"""What the four numbers of a box can mean, and how to tell from all boxes of a file.

A reading is a layout (corners, centres, ...) and a unit (px, or shares of the image's sides). All
boxes of a file have the same reading. With a wrong one, boxes leave their image or have no area.
If two readings fit, nothing is decided. M boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.checks import CENTRES, CORNERS

LAYOUTS = {
    "xywh": "[x, y, width, height]",
    "xyxy": CORNERS,
    "cxcywh": CENTRES,
    "yxyx": "corners [y1, x1, y2, x2]",
    "yxhw": "[y, x, height, width]",
}
UNITS = {"px": 0.0, "shares": 1.0, "percent": 100.0, "thousandths": 1000.0}
"""Value of the whole side of an image; 0 for px."""
_ROUNDING = 0.51
"""How far rounding may move a box outside its image, in px."""
_SLIP, _SLIP_SHARE = 2.0, 0.02
"""px, and share of the image's side, that an imprecise box may extend beyond its image."""
_FEW = 0.01
"""Share of the boxes that need not fit: every large file has some wrong boxes."""
_MOST_CUT, _MOST_MISREAD = 0.5, 0.2
"""Largest share of boxes outside their image with which [x, y, width, height], and any other
reading, is still considered."""
_STRONG, _STRONG_SHARE = 5, 0.2
"""Boxes, and share of the boxes, that must leave their image before another reading is taken."""
_SHARES_UP_TO, _SMALLEST_SIDE = 1.5, 16
"""Boxes without a larger number are shares, unless an image side is as small as this (px)."""
_REACH, _MIN_REACH_BOXES, _MIN_TIES = 0.75, 20, 3
"""If no box reaches beyond this share of the width and height, though some begin at the upper or
left border, the boxes may belong to a smaller copy of the images."""
_OUTLINE_IOU, _OUTLINE_SHARE, _MIN_OUTLINES = 0.8, 0.9, 3
"""IoU of a box with its outline under the right reading, share of the boxes that reach it (and
that must have an outline), and smallest number of outlines."""

Boxes = NDArray[np.float64]
Sizes = NDArray[np.int64]


class BoxReading(NamedTuple):
    """A layout and a unit."""

    layout: str
    unit: str = "px"

    def __str__(self) -> str:
        unit = "" if self.unit == "px" else f" in {self.unit} of the image's sides"
        return f"{LAYOUTS[self.layout]}{unit}"

    @property
    def words(self) -> str:
        """Words to write after `--fix-as`."""
        return f"boxes={self.layout}" + ("" if self.unit == "px" else f" unit={self.unit}")


PLAIN = BoxReading("xywh")
"""COCO's reading."""
_PX = [BoxReading(layout) for layout in LAYOUTS]
# Without px the image is a unit square, where swapping x and y never shows: two layouts that differ
# only in that either both fit or both do not. Nobody writes [y, x, height, width] as shares.
_OF_SIDES = [
    BoxReading(layout, unit)
    for unit in ("shares", "percent", "thousandths")
    for layout in ("xywh", "xyxy", "cxcywh", "yxyx")
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The reading of a file's boxes, if it is clear."""

    readings: tuple[BoxReading, ...]
    """The only reading; if it is not clear, all possible ones, perhaps none."""
    is_clear: bool = True
    text: str = ""
    """Why it is not clear, for messages."""


def convert_box(box: Sequence[Any], reading: BoxReading, size: tuple[int, int]) -> list[Any]:
    """Return a box as [x, y, width, height] px; whole px stay whole numbers.

    Args:
        box: The four numbers.
        reading: Meaning of the numbers.
        size: Height and width of the image, px.
    """
    a, b, c, d = box
    if reading.layout[0] == "y":
        a, b, c, d = b, a, d, c
    whole = UNITS[reading.unit]
    if whole:
        height, width = size
        a, b, c, d = a * width / whole, b * height / whole, c * width / whole, d * height / whole
    if reading.layout in ("xyxy", "yxyx"):
        c, d = c - a, d - b
    if reading.layout == "cxcywh":
        a, b = a - c / 2, b - d / 2
    return [a, b, c, d] if reading in _PX[:2] else [round(value, 6) for value in (a, b, c, d)]


def convert_boxes(boxes: Boxes, reading: BoxReading, sizes: Sizes) -> Boxes:
    """Return boxes (M, 4) as [x, y, width, height] px; sizes (M, 2) are heights and widths."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if reading.layout[0] == "y":
        first, second = first[:, ::-1], second[:, ::-1]
    whole = UNITS[reading.unit]
    if whole:
        first, second = first * sizes[:, ::-1] / whole, second * sizes[:, ::-1] / whole
    if reading.layout in ("xyxy", "yxyx"):
        second = second - first
    if reading.layout == "cxcywh":
        first = first - second / 2
    return np.concatenate([first, second], axis=1)


def overshoot(boxes: Boxes, sizes: Sizes) -> NDArray[np.float64]:
    """Return how many px (M,) boxes [x, y, width, height] extend beyond their image."""
    far = boxes[:, :2] + boxes[:, 2:] - sizes[:, ::-1]
    return np.maximum(-boxes[:, :2], far).max(axis=1)


def slip_limit(sizes: Sizes) -> NDArray[np.float64]:
    """Return the px (M,) that an imprecise box may extend beyond its image."""
    return np.maximum(_SLIP, _SLIP_SHARE * sizes.min(axis=1))


class Fit(NamedTuple):
    """How well boxes fit into their images under a reading."""

    good: bool
    """All but a few lie inside, up to rounding."""
    refuted: bool
    """Some cannot be right: they are not merely imprecise, or have no area."""
    leaving: int
    """Number of boxes that extend beyond their image by more than `slip_limit`."""


def judge(boxes: Boxes, sizes: Sizes, reading: BoxReading) -> Fit:
    """Test how boxes (M, 4), as in the file, fit into images of these sizes (M, 2)."""
    read = convert_boxes(boxes, reading, sizes)
    over = overshoot(read, sizes)
    over[(read[:, 2:] <= 0).any(axis=1)] = np.inf
    leaving = int((over > slip_limit(sizes)).sum())
    few = _FEW * len(boxes)
    return Fit(
        good=int((over > _ROUNDING).sum()) <= few,
        refuted=leaving > 0 and leaving >= few,
        leaving=leaving,
    )


def most_leaving(reading: BoxReading) -> float:
    """Return the share of boxes that may leave their image for a reading to stay possible."""
    return _MOST_CUT if reading == PLAIN else _MOST_MISREAD


def read_boxes(boxes: Boxes, sizes: Sizes, areas: Boxes, outlines: Boxes) -> Verdict:
    """Find the reading of the boxes of a file.

    Args:
        boxes: (M, 4) boxes as in the file.
        sizes: (M, 2) height and width of their images, px.
        areas: (M,) areas as in the file.
        outlines: (M, 4) corners of the region that the outline covers, px; NaN without one.
    """
    has_area = (boxes[:, 2:] > 0).all(axis=1)
    boxes, sizes = boxes[has_area], sizes[has_area]
    areas, outlines = areas[has_area], outlines[has_area]
    if not len(boxes):
        return Verdict(readings=(PLAIN,))
    verdict = _read_by_bounds(boxes, sizes, areas)
    by_outline = _match_outlines(boxes, sizes, outlines)
    if by_outline is None:
        if verdict.is_clear and _are_contradicted(boxes, sizes, outlines, *verdict.readings):
            text = f"the boxes do not cover their segmentations as {verdict.readings[0]}"
            return _doubt(boxes, sizes, [*verdict.readings, *_PX], text)
        return verdict
    if by_outline == PLAIN or (
        by_outline in verdict.readings and judge(boxes, sizes, by_outline).good
    ):
        return Verdict(readings=(by_outline,))
    if not verdict.is_clear:
        return verdict
    text = f"the boxes cover their segmentations as {by_outline}, but not as {verdict.readings[0]}"
    return _doubt(boxes, sizes, [*verdict.readings, by_outline], text)


def _read_by_bounds(boxes: Boxes, sizes: Sizes, areas: Boxes) -> Verdict:
    """Find the reading by the boxes that leave their image and by the areas in the file."""
    if boxes.max() <= _SHARES_UP_TO and sizes.min() > _SMALLEST_SIDE:
        return _read_shares(boxes, sizes, areas)
    plain = judge(boxes, sizes, PLAIN)
    if plain.good:
        return _look_for_copies(boxes, sizes, areas)
    fits = {reading: judge(boxes, sizes, reading) for reading in _PX[1:]}
    if _area_is_of_corners(boxes, areas):
        fits = {r: fit for r, fit in fits.items() if r.layout in ("xyxy", "yxyx")}
    good = [reading for reading, fit in fits.items() if fit.good]
    text = f"{plain.leaving} of {len(boxes)} boxes extend beyond their image as {PLAIN}"
    is_large = plain.leaving >= _STRONG_SHARE * len(boxes)
    if len(good) == 1 and is_large and plain.leaving >= _STRONG:
        others_refuted = all(fit.refuted for reading, fit in fits.items() if reading not in good)
        # With y first, the images may just as well have swapped sides, or be rotated.
        if others_refuted and good[0].layout[0] != "y" and _areas_allow(boxes, sizes, areas, *good):
            return Verdict(readings=tuple(good))
    if good and not all(_agrees(boxes, sizes, reading) for reading in good):
        return _doubt(boxes, sizes, [PLAIN, *good], text)
    if is_large and not good:
        return _doubt(boxes, sizes, [*_PX, *_good_units(boxes, sizes)], text)
    return Verdict(readings=(PLAIN,))


def _doubt(boxes: Boxes, sizes: Sizes, readings: list[BoxReading], text: str) -> Verdict:
    """Return an unclear verdict, without the readings by which many boxes leave their image."""
    possible = [
        r
        for r in dict.fromkeys(readings)
        if judge(boxes, sizes, r).leaving <= most_leaving(r) * len(boxes)
    ]
    return Verdict(readings=tuple(possible), is_clear=False, text=text)


def _read_shares(boxes: Boxes, sizes: Sizes, areas: Boxes) -> Verdict:
    """Find the layout of boxes that are shares of the image's sides."""
    fits = {r: judge(boxes, sizes, r) for r in _OF_SIDES if r.unit == "shares"}
    left = [reading for reading, fit in fits.items() if not fit.refuted]
    is_one = len(left) == 1 and fits[left[0]].good
    if is_one and _areas_allow(boxes, sizes, areas, left[0]):
        return Verdict(readings=tuple(left))
    text = f"none of the {len(boxes)} boxes has a number above {boxes.max():.3g}"
    return _doubt(boxes, sizes, list(fits), text)


def _look_for_copies(boxes: Boxes, sizes: Sizes, areas: Boxes) -> Verdict:
    """Find boxes that may belong to a smaller copy of the images, or be shares among px."""
    ratios = areas / boxes[:, 2:].prod(axis=1)
    ratio = float(np.median(ratios))
    is_constant = float((np.abs(ratios - ratio) <= 0.02 * ratio).mean()) >= _OUTLINE_SHARE
    if len(boxes) >= _STRONG and is_constant and ratio > 1.05:
        text = f"every area is {ratio:.3g} times width x height, as if the boxes were scaled"
        return _doubt(boxes, sizes, [PLAIN, *_good_units(boxes, sizes)], text)
    tiny = int((boxes.max(axis=1) <= _SHARES_UP_TO).sum())
    if tiny and sizes.min() > _SMALLEST_SIDE:
        text = (
            f"{tiny} of {len(boxes)} boxes have no number above {_SHARES_UP_TO}: are these shares, "
            "among boxes in px?"
        )
        return _doubt(boxes, sizes, [PLAIN], text)
    ends = boxes[:, :2] + boxes[:, 2:]
    reach = (ends / sizes[:, ::-1]).max(axis=0)
    ties = int((boxes[:, :2] <= 1).any(axis=1).sum())
    is_percent = ends.max(axis=0).min() >= 97 and ends.max() <= 100.5
    is_copy = len(boxes) >= _MIN_REACH_BOXES and ties >= _MIN_TIES
    if reach.max() > _REACH or not (is_copy or is_percent):
        return Verdict(readings=(PLAIN,))
    text = (
        f"all boxes lie in the left {reach[0]:.0%} and the upper {reach[1]:.0%} of their image"
        + (f", though {ties} begin at the border" if is_copy else "")
        + "; if they belong to a smaller copy, write its width and height into the image records"
    )
    return _doubt(boxes, sizes, [PLAIN, *(_good_units(boxes, sizes) or _PX[1:2])], text)


def _good_units(boxes: Boxes, sizes: Sizes) -> list[BoxReading]:
    """Return the readings in percent or thousandths that fit.

    They fit so often that the user has to choose them.
    """
    return [reading for reading in _far_units(boxes) if judge(boxes, sizes, reading).good]


def _far_units(boxes: Boxes) -> list[BoxReading]:
    """Return the readings as percent or thousandths that the largest number allows."""
    top = boxes.max()
    return [r for r in _OF_SIDES if r.unit != "shares" and 0.5 < top / UNITS[r.unit] <= 1.005]


def _area_is_of_corners(boxes: Boxes, areas: Boxes) -> bool:
    """Whether the areas in a file fit boxes of two corners, and not width x height."""
    a, b, c, d = boxes.T
    slack = 0.01 * areas + 1
    as_corners = np.abs((c - a) * (d - b) - areas) <= slack
    return bool((as_corners & (np.abs(c * d - areas) > slack)).mean() >= _OUTLINE_SHARE)


def _areas_allow(boxes: Boxes, sizes: Sizes, areas: Boxes, reading: BoxReading) -> bool:
    """Whether no area is larger than its box under a reading.

    Areas that are the product of the last two numbers prove nothing: a tool computed them blindly.
    """
    product = boxes[:, 2:].prod(axis=1)
    told = (areas > 0) & (np.abs(areas - product) > 0.01 * product)
    read = convert_boxes(boxes, reading, sizes)[:, 2:].prod(axis=1)
    return bool((told & (areas > 1.02 * read + 1)).sum() <= _FEW * len(boxes))


def _agrees(boxes: Boxes, sizes: Sizes, reading: BoxReading) -> bool:
    """Whether boxes cut to their images are the same, up to 1 px, as [x, y, w, h] and as read."""
    read = [_cut(convert_boxes(boxes, r, sizes), sizes) for r in (PLAIN, reading)]
    return bool((np.abs(read[0] - read[1]) <= 1.01).all())


def _cut(boxes: Boxes, sizes: Sizes) -> Boxes:
    """Return the corners of boxes [x, y, width, height] that are cut to their images."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return np.clip(corners, 0, np.tile(sizes[:, ::-1], 2))


def _match_outlines(boxes: Boxes, sizes: Sizes, outlines: Boxes) -> BoxReading | None:
    """Return the reading under which most boxes cover their outlines, if it is the only one."""
    known = ~np.isnan(outlines).any(axis=1)
    if known.sum() < max(_MIN_OUTLINES, _OUTLINE_SHARE * len(boxes)):
        return None
    boxes, sizes, outlines = boxes[known], sizes[known], outlines[known]
    matching = [
        reading
        for reading in (*_PX, *_OF_SIDES)
        if _are_outlined(convert_boxes(boxes, reading, sizes), outlines)
    ]
    return matching[0] if len(matching) == 1 else None


def _are_contradicted(boxes: Boxes, sizes: Sizes, outlines: Boxes, reading: BoxReading) -> bool:
    """Whether most boxes with an outline do not match it under a reading other than the plain one.

    Plain boxes stay unchanged, whatever their outlines are.
    """
    known = ~np.isnan(outlines).any(axis=1)
    if reading == PLAIN or known.sum() < _MIN_OUTLINES:
        return False
    read = convert_boxes(boxes[known], reading, sizes[known])
    return bool((_iou(read, outlines[known]) < _OUTLINE_IOU).mean() >= 0.5)


def describe_by_outlines(boxes: Boxes, sizes: Sizes, outlines: Boxes) -> str:
    """Describe how boxes that are far from their outlines would fit them; empty if nothing fits.

    Args:
        boxes: (M, 4) boxes as in the file.
        sizes: (M, 2) height and width of their images, px.
        outlines: (M, 4) corners of the regions that their outlines cover, px.
    """
    for reading in [*_PX[1:], *_OF_SIDES]:
        if _are_outlined(convert_boxes(boxes, reading, sizes), outlines):
            return f"they fit if read as {reading}"
    sides = outlines[:, 2:] - outlines[:, :2]
    across, down = np.median(sides / np.maximum(boxes[:, 2:], 1e-9), axis=0).tolist()
    if not _are_outlined(boxes * [across, down, across, down], outlines):
        return ""
    is_one = abs(across - down) < 0.02 * across
    factor = f"{across:.3g}" if is_one else f"{across:.3g} horizontally and {down:.3g} vertically"
    return f"they fit if multiplied by {factor}: boxes or segmentations belong to a scaled copy"


def _are_outlined(boxes: Boxes, outlines: Boxes) -> bool:
    """Whether most boxes [x, y, width, height] cover their outlines."""
    return bool((_iou(boxes, outlines) >= _OUTLINE_IOU).mean() >= _OUTLINE_SHARE)


def _iou(boxes: Boxes, corners: Boxes) -> NDArray[np.float64]:
    """Return the IoU (M,) of boxes [x, y, width, height] with corners [x1, y1, x2, y2]."""
    ends = boxes[:, :2] + boxes[:, 2:]
    overlap = np.minimum(ends, corners[:, 2:]) - np.maximum(boxes[:, :2], corners[:, :2])
    common = np.maximum(overlap, 0).prod(axis=1)
    sides = np.maximum(boxes[:, 2:], 0).prod(axis=1)
    union = sides + (corners[:, 2:] - corners[:, :2]).prod(axis=1) - common
    return common / np.maximum(union, 1e-9)
