"""Convert a box of a source to px, and check it against its image."""

from __future__ import annotations

from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import Box, FoundBox, FoundImage
from retinanet.convert.problems import Problems
from retinanet.convert.rules import Rules
from retinanet.data.canvas import Size

MARGIN = 2.0
"""How far a box may be outside its image, in px, due to rounding or counting from 1."""
_PX, _SHARE = 6, 3
"""Decimals of a px that are kept. Boxes in px only lose the noise of a subtraction. Shares of a
side, as in YOLO and OpenImages, are not more exact than this."""


def checked_box(
    image: FoundImage,
    box: FoundBox,
    size: Size,
    normalized: bool,
    rules: Rules,
    problems: Problems,
) -> Box | None:
    """Return a box in px, checked against its image; None if it was refused or dropped.

    Args:
        image: The image, as read from the source.
        box: One of its boxes.
        size: Height and width of the image, px.
        normalized: Whether the box is in shares of width and height.
        rules: What to do with a bad box.
        problems: Collects problems and notes.
    """
    height, width = size
    x1, y1, x2, y2 = box.corners
    polygon, area = box.polygon, box.area
    if normalized:
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
        sides = (width, height) * (len(polygon) // 2)
        polygon = tuple(round(v * s, _SHARE) for v, s in zip(polygon, sides, strict=True))
    if (x1 > x2 or y1 > y2) and rules.swapped_corners == "order":
        (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
        problems.note("boxes with swapped corners: put in order")
    is_swapped = x1 > x2 or y1 > y2
    digits = _SHARE if normalized else _PX
    over = max(-x1, -y1, x2 - width, y2 - height)
    if over > 10**-digits:
        if over <= MARGIN:
            problems.note(f"boxes up to {MARGIN:g} px outside the image: kept")
        elif rules.bad_boxes == "clip":
            x1, x2 = max(x1, 0.0), min(x2, width)
            y1, y2 = max(y1, 0.0), min(y2, height)
            polygon, area = (), None
            problems.note(f"boxes more than {MARGIN:g} px outside the image: clipped")
    fault = _box_fault((x1, y1, x2, y2), size, is_swapped)
    if fault is None:
        x, y = round(x1, digits), round(y1, digits)
        w, h = round(x2 - x1, digits), round(y2 - y1, digits)
        if w > 0 and h > 0:
            return Box(box.category, x, y, w, h, box.crowd, polygon, area)
        fault = "has no area"
    if rules.bad_boxes == "drop" or (rules.bad_boxes == "clip" and not is_swapped):
        which = "with swapped corners" if is_swapped else "without area, or outside the image"
        problems.note(f"boxes {which}: dropped")
        return None
    corners = ", ".join(f"{value:.6g}" for value in (x1, y1, x2, y2))
    choices = "--bad-boxes clip or drop"
    if is_swapped:
        choices = "--swapped-corners order, which swaps them back, or --bad-boxes drop"
    problems.add(
        image.source,
        box.line,
        f"the box of {box.category!r:.60} {fault}: [{corners}] px in {image.file_name!r}, "
        f"{width}x{height} px; correct it, or use {choices}",
    )
    return None


def _box_fault(corners: Corners, size: Size, is_swapped: bool) -> str | None:
    """Return what is wrong with a box; None if nothing is."""
    x1, y1, x2, y2 = corners
    if is_swapped:
        return "has swapped corners (it must have x1 < x2 and y1 < y2)"
    if x2 <= x1 or y2 <= y1:
        return "has no area (it must have x1 < x2 and y1 < y2)"
    if max(-x1, -y1, x2 - size[1], y2 - size[0]) > MARGIN:
        return f"is more than {MARGIN:g} px outside its image"
    return None
