"""How four numbers of a box may be meant, and what the boxes of a file tell about it.

A reading is a layout (corners, centres, ..) and a unit (px, or shares of the image's sides). A file
has one reading for all of its boxes. Under a wrong one, boxes leave their image or have no area;
where two readings fit, nothing is decided. M boxes.
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
"""The value that stands for the whole side of an image; px have none."""
_ROUNDING = 0.51
"""px that a box may leave its image by through rounding."""
_SLIP, _SLIP_SHARE = 2.0, 0.02
"""px, and share of the image's side, that a box may leave its image by through a slip."""
_FEW = 0.01
"""Share of the boxes that may not fit: every large file has some that are wrong by themselves."""
_MOST_CUT, _MOST_MISREAD = 0.5, 0.2
"""Share of the boxes that may leave their image as [x, y, width, height], and in another reading,
for it to be worth a thought."""
_STRONG, _STRONG_SHARE = 5, 0.2
"""Boxes, and share of the boxes, that must leave their image before another reading is taken."""
_SHARES_UP_TO, _SMALLEST_SIDE = 1.5, 16
"""Boxes with no number above it are shares, unless images are as small as that (px)."""
_REACH, _MIN_REACH_BOXES, _MIN_TIES = 0.75, 20, 3
"""Where no box reaches beyond this share of the width, nor of the height, though some begin at the
upper or left border, they may belong to a smaller copy of the images."""
_OUTLINE_IOU, _OUTLINE_SHARE, _MIN_OUTLINES = 0.8, 0.9, 3
"""What a box and its outline have in common if both are read rightly, in what share of the boxes;
that share must have one, too."""

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
        """What to write behind `--fix-as`."""
        return f"boxes={self.layout}" + ("" if self.unit == "px" else f" unit={self.unit}")


PLAIN = BoxReading("xywh")
"""COCO's own."""
_PX = [BoxReading(layout) for layout in LAYOUTS]
# Without px the image is a unit square, where exchanging x and y never shows: of two layouts that
# differ by it, both fit or none. [y, x, height, width] of shares is not in use.
_OF_SIDES = [
    BoxReading(layout, unit)
    for unit in ("shares", "percent", "thousandths")
    for layout in ("xywh", "xyxy", "cxcywh", "yxyx")
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the boxes of a file are read as."""

    readings: tuple[BoxReading, ...]
    """The one; or those that are possible, if any."""
    is_clear: bool = True
    text: str = ""
    """Why it is not clear, for messages."""


def convert_box(box: Sequence[Any], reading: BoxReading, size: tuple[int, int]) -> list[Any]:
    """Return a box as [x, y, width, height] px; whole px stay whole numbers.

    Args:
        box: the four numbers.
        reading: what they mean.
        size: height and width of the image, px.
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
    """Return by how many px (M,) boxes [x, y, width, height] leave their image."""
    far = boxes[:, :2] + boxes[:, 2:] - sizes[:, ::-1]
    return np.maximum(-boxes[:, :2], far).max(axis=1)


def slip_limit(sizes: Sizes) -> NDArray[np.float64]:
    """Return the px (M,) that a box may leave its image by through a slip."""
    return np.maximum(_SLIP, _SLIP_SHARE * sizes.min(axis=1))


class Fit(NamedTuple):
    """How boxes fit into their images under a reading."""

    good: bool
    """All but a few lie inside, to rounding."""
    refuted: bool
    """Some cannot be meant so: they leave the image by more than a slip, or have no area."""
    leaving: int
    """Boxes that leave their image by more than a slip."""


def judge(boxes: Boxes, sizes: Sizes, reading: BoxReading) -> Fit:
    """Say how boxes (M, 4), as the file has them, fit into images of these sizes (M, 2)."""
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
    """Return the share of the boxes that may leave their image if a reading is to be possible."""
    return _MOST_CUT if reading == PLAIN else _MOST_MISREAD


def read_boxes(boxes: Boxes, sizes: Sizes, areas: Boxes, outlines: Boxes) -> Verdict:
    """Say how the boxes of a file are meant.

    Args:
        boxes: (M, 4) as the file has them.
        sizes: (M, 2) height and width of their images, px.
        areas: (M,) as the file has them.
        outlines: (M, 4) corners of what their outline covers, px; NaN without one.
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
    """Say how boxes are meant by what leaves the images, and by the areas that a file gives."""
    if boxes.max() <= _SHARES_UP_TO and sizes.min() > _SMALLEST_SIDE:
        return _read_shares(boxes, sizes, areas)
    plain = judge(boxes, sizes, PLAIN)
    if plain.good:
        return _look_for_copies(boxes, sizes, areas)
    fits = {reading: judge(boxes, sizes, reading) for reading in _PX[1:]}
    if _area_is_of_corners(boxes, areas):
        fits = {r: fit for r, fit in fits.items() if r.layout in ("xyxy", "yxyx")}
    good = [reading for reading, fit in fits.items() if fit.good]
    text = f"{plain.leaving} of {len(boxes)} boxes leave their image as {PLAIN}"
    is_large = plain.leaving >= _STRONG_SHARE * len(boxes)
    if len(good) == 1 and is_large and plain.leaving >= _STRONG:
        others_refuted = all(fit.refuted for reading, fit in fits.items() if reading not in good)
        # With y first they may as well be of images whose sides are exchanged, or turned.
        if others_refuted and good[0].layout[0] != "y" and _areas_allow(boxes, sizes, areas, *good):
            return Verdict(readings=tuple(good))
    if good and not all(_agrees(boxes, sizes, reading) for reading in good):
        return _doubt(boxes, sizes, [PLAIN, *good], text)
    if is_large and not good:
        return _doubt(boxes, sizes, [*_PX, *_good_units(boxes, sizes)], text)
    return Verdict(readings=(PLAIN,))


def _doubt(boxes: Boxes, sizes: Sizes, readings: list[BoxReading], text: str) -> Verdict:
    """Return a doubt about readings, less those by which most boxes leave their image."""
    possible = [
        r
        for r in dict.fromkeys(readings)
        if judge(boxes, sizes, r).leaving <= most_leaving(r) * len(boxes)
    ]
    return Verdict(readings=tuple(possible), is_clear=False, text=text)


def _read_shares(boxes: Boxes, sizes: Sizes, areas: Boxes) -> Verdict:
    """Say in which layout shares of the sides are."""
    fits = {r: judge(boxes, sizes, r) for r in _OF_SIDES if r.unit == "shares"}
    left = [reading for reading, fit in fits.items() if not fit.refuted]
    is_one = len(left) == 1 and fits[left[0]].good
    if is_one and _areas_allow(boxes, sizes, areas, left[0]):
        return Verdict(readings=tuple(left))
    text = f"no number of the {len(boxes)} boxes is above {boxes.max():.3g}"
    return _doubt(boxes, sizes, list(fits), text)


def _look_for_copies(boxes: Boxes, sizes: Sizes, areas: Boxes) -> Verdict:
    """Doubt boxes that may be of a smaller copy of the images, or of shares in some of them."""
    ratios = areas / boxes[:, 2:].prod(axis=1)
    ratio = float(np.median(ratios))
    is_constant = float((np.abs(ratios - ratio) <= 0.02 * ratio).mean()) >= _OUTLINE_SHARE
    if len(boxes) >= _STRONG and is_constant and ratio > 1.05:
        text = f"every area is {ratio:.3g} times width x height, as if the boxes were scaled"
        return _doubt(boxes, sizes, [PLAIN, *_good_units(boxes, sizes)], text)
    tiny = int((boxes.max(axis=1) <= _SHARES_UP_TO).sum())
    if tiny and sizes.min() > _SMALLEST_SIDE:
        text = f"no number of {tiny} of {len(boxes)} boxes is above 1.5: are they shares among px?"
        return _doubt(boxes, sizes, [PLAIN], text)
    ends = boxes[:, :2] + boxes[:, 2:]
    reach = (ends / sizes[:, ::-1]).max(axis=0)
    ties = int((boxes[:, :2] <= 1).any(axis=1).sum())
    is_percent = ends.max(axis=0).min() >= 97 and ends.max() <= 100.5
    is_copy = len(boxes) >= _MIN_REACH_BOXES and ties >= _MIN_TIES
    if reach.max() > _REACH or not (is_copy or is_percent):
        return Verdict(readings=(PLAIN,))
    text = (
        f"no box reaches beyond the left {reach[0]:.0%} and the upper {reach[1]:.0%} of its image"
        + (f", though {ties} begin at its border" if is_copy else "")
        + "; if they belong to a smaller copy, write its width and height into the images' records"
    )
    return _doubt(boxes, sizes, [PLAIN, *(_good_units(boxes, sizes) or _PX[1:2])], text)


def _good_units(boxes: Boxes, sizes: Sizes) -> list[BoxReading]:
    """Return the readings in percent or thousandths that fit.

    They fit so often that none is taken without being told.
    """
    return [reading for reading in _far_units(boxes) if judge(boxes, sizes, reading).good]


def _far_units(boxes: Boxes) -> list[BoxReading]:
    """Return the readings as percent or thousandths that the largest number allows."""
    top = boxes.max()
    return [r for r in _OF_SIDES if r.unit != "shares" and 0.5 < top / UNITS[r.unit] <= 1.005]


def _area_is_of_corners(boxes: Boxes, areas: Boxes) -> bool:
    """Whether the areas that a file gives are those of two corners, and not of width x height."""
    a, b, c, d = boxes.T
    slack = 0.01 * areas + 1
    as_corners = np.abs((c - a) * (d - b) - areas) <= slack
    return bool((as_corners & (np.abs(c * d - areas) > slack)).mean() >= _OUTLINE_SHARE)


def _areas_allow(boxes: Boxes, sizes: Sizes, areas: Boxes, reading: BoxReading) -> bool:
    """Whether areas are not larger than the boxes under a reading.

    Areas that are the product of the last two numbers say nothing: a tool computed them blindly.
    """
    product = boxes[:, 2:].prod(axis=1)
    told = (areas > 0) & (np.abs(areas - product) > 0.01 * product)
    read = convert_boxes(boxes, reading, sizes)[:, 2:].prod(axis=1)
    return bool((told & (areas > 1.02 * read + 1)).sum() <= _FEW * len(boxes))


def _agrees(boxes: Boxes, sizes: Sizes, reading: BoxReading) -> bool:
    """Whether boxes cut to their images are the same ones, to a px, under a reading."""
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
    """Whether most boxes that have an outline are not around it under a reading but the plain one.

    Plain boxes stay as they are whatever their outlines say.
    """
    known = ~np.isnan(outlines).any(axis=1)
    if reading == PLAIN or known.sum() < _MIN_OUTLINES:
        return False
    read = convert_boxes(boxes[known], reading, sizes[known])
    return bool((_iou(read, outlines[known]) < _OUTLINE_IOU).mean() >= 0.5)


def describe_by_outlines(boxes: Boxes, sizes: Sizes, outlines: Boxes) -> str:
    """Say how boxes that are far from their outlines would fit them; empty if nothing fits.

    Args:
        boxes: (M, 4) as the file has them.
        sizes: (M, 2) height and width of their images, px.
        outlines: (M, 4) corners of what their outline covers, px.
    """
    for reading in [*_PX[1:], *_OF_SIDES]:
        if _are_outlined(convert_boxes(boxes, reading, sizes), outlines):
            return f"they fit if they are read as {reading}"
    sides = outlines[:, 2:] - outlines[:, :2]
    across, down = np.median(sides / np.maximum(boxes[:, 2:], 1e-9), axis=0).tolist()
    if not _are_outlined(boxes * [across, down, across, down], outlines):
        return ""
    is_one = abs(across - down) < 0.02 * across
    factor = f"{across:.3g}" if is_one else f"{across:.3g} across and {down:.3g} down"
    return f"they fit if they are multiplied by {factor}: one of the two is of a scaled copy"


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
