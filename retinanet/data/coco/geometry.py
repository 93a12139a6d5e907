"""Boxes around other shapes: rotated boxes, corner points, polygons, masks.

Boxes are [x, y, width, height] in px; an extent is (x1, y1, x2, y2). Pure functions of values
that may come from any file: the result is None for a value that is not a shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

Extent = tuple[float, float, float, float]
"""x1, y1, x2, y2; px."""

_MOST_PX = 2**40
"""Larger masks are not read."""
_SAME_PX = 1.0
"""Difference in px that two outlines of one rectangle may have."""


class Outline(NamedTuple):
    """The extent of a `segmentation`."""

    extent: Extent
    is_rectangle: bool
    """Whether it is a single axis-parallel rectangle, which does not show a rotation."""
    mask_size: tuple[int, int] | None = None
    """Height and width of the image that a mask belongs to; None for polygons."""


def turn(box: Sequence[float], degrees: float) -> list[float]:
    """Return the box around a box that is rotated about its centre, in either direction."""
    x, y, width, height = box
    angle = math.radians(degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    if min(cos, sin) < 1e-12:  # quarter turns stay exact
        cos, sin = round(cos), round(sin)
    new_width, new_height = width * cos + height * sin, width * sin + height * cos
    return [
        x + (width - new_width) / 2,
        y + (height - new_height) / 2,
        new_width,
        new_height,
    ]


def box_of(extent: Extent) -> list[float]:
    """Return [x, y, width, height] of an extent."""
    x1, y1, x2, y2 = extent
    return [x1, y1, x2 - x1, y2 - y1]


def extent_of(box: Sequence[float]) -> Extent:
    """Return the extent of [x, y, width, height]."""
    x, y, width, height = box
    return x, y, x + width, y + height


def iou(a: Extent, b: Extent) -> float:
    """Return the intersection over union of two extents, 0 if both are empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either > 0 else 0.0


def find_outline(segmentation: Any) -> Outline | None:
    """Return the outline of a COCO `segmentation`; None if it has none.

    Polygons are lists of x, y, x, y, ...; a single one may lack the outer list, and points may be
    pairs. A mask is run lengths, as a list of counts or compressed to a string.
    """
    try:
        if isinstance(segmentation, dict):
            return _find_mask(segmentation)
        polygons = _polygons(segmentation)
        if not polygons:
            return None
        # Slices, min and sum are several times as fast as a loop over points.
        extent = (
            min([min(polygon[::2]) for polygon in polygons]),
            min([min(polygon[1::2]) for polygon in polygons]),
            max([max(polygon[::2]) for polygon in polygons]),
            max([max(polygon[1::2]) for polygon in polygons]),
        )
        if not math.isfinite(sum([sum(polygon) for polygon in polygons])):
            return None
        if extent[0] == extent[2] or extent[1] == extent[3]:  # a line
            return None
    except (TypeError, ValueError, OverflowError):  # strings, deeper nesting, huge numbers
        return None
    is_rectangle = len(polygons) == 1 and _is_rectangle(polygons[0], extent)
    return Outline(extent, is_rectangle)


def outline_extents(records: Iterable[Any]) -> list[Extent | None]:
    """Return the extent of each annotation's `segmentation`, or None if it has none.

    Args:
        records: Annotations of a COCO file; values of any type.
    """
    found = (
        find_outline(record.get("segmentation")) if isinstance(record, dict) else None
        for record in records
    )
    return [outline and outline.extent for outline in found]


def _polygons(value: Any) -> list[list[float]]:
    """Return polygons as flat lists of at least three points; shorter ones enclose nothing."""
    if not isinstance(value, list) or not value:
        return []
    first = value[0]
    if len(value) == 1 and type(first) is list and len(first) >= 6 and type(first[0]) is not list:
        return value if len(first) % 2 == 0 else []  # nearly all
    if not isinstance(first, list):
        parts = [value]
    elif len(first) == 2 and not isinstance(first[0], list):
        parts = [list(chain.from_iterable(value))]
    elif first and isinstance(first[0], list):
        parts = [list(chain.from_iterable(part)) for part in value]
    else:
        parts = value
    if any(isinstance(part, dict) for part in parts):
        return []
    return [part for part in parts if len(part) >= 6 and len(part) % 2 == 0]


def _is_rectangle(polygon: list[float], extent: Extent) -> bool:
    """Whether the corners of a polygon of four or five points are the corners of its extent."""
    if len(polygon) not in (8, 10):
        return False
    x1, y1, x2, y2 = extent
    near = [
        min(abs(x - x1), abs(x - x2)) <= _SAME_PX and min(abs(y - y1), abs(y - y2)) <= _SAME_PX
        for x, y in zip(polygon[::2], polygon[1::2], strict=True)
    ]
    wide = x2 - x1 > 4 * _SAME_PX and y2 - y1 > 4 * _SAME_PX
    return all(near) and (wide or _is_exact_rectangle(polygon, extent))


def _is_exact_rectangle(polygon: list[float], extent: Extent) -> bool:
    x1, y1, x2, y2 = extent
    points = zip(polygon[::2], polygon[1::2], strict=True)
    return all(x in (x1, x2) and y in (y1, y2) for x, y in points)


def _find_mask(segmentation: dict[str, Any]) -> Outline | None:
    """Return the outline of run lengths: column by column, starting with px outside."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2:
        return None
    if not all(type(side) in (int, float) and side == int(side) and side >= 1 for side in size):
        return None
    height, width = int(size[0]), int(size[1])
    runs = decode_counts(counts) if isinstance(counts, str) else counts
    if height * width > _MOST_PX or not isinstance(runs, list):
        return None
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != height * width:
        return None
    x1, y1, x2, y2, at, covered = width, height, 0, 0, 0, 0
    for number, run in enumerate(runs):
        if number % 2 and run:
            last = at + run - 1
            x1, x2 = min(x1, at // height), max(x2, last // height + 1)
            one_column = at // height == last // height
            y1 = min(y1, at % height) if one_column else 0
            y2 = max(y2, last % height + 1) if one_column else height
            covered += run
        at += run
    if not covered:
        return None
    is_rectangle = covered == (x2 - x1) * (y2 - y1)
    return Outline((x1, y1, x2, y2), is_rectangle, (height, width))


def decode_counts(text: str) -> list[int] | None:
    """Return the run lengths in COCO's compressed string; None if it is not valid.

    Each number is written in groups of five bits, lowest first. Each group is a character, counted
    from "0"; its sixth bit is set if more groups follow. From the fourth number on, the difference
    to the number two places before is written.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 60:
            return None
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number, shift = 0, 0
    return counts if not shift else None
