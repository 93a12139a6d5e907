"""A box as a source says it -> one in px that lies in its image, or a problem."""

from __future__ import annotations

from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import Box, FoundBox, FoundImage
from retinanet.convert.problems import Problems
from retinanet.convert.rules import Rules
from retinanet.data.canvas import Size

MARGIN = 2.0
"""Px that a box may reach over its image's border: rounding, and tools that count from 1 or 0."""
_PX, _SHARE = 6, 3
"""Decimals of a px kept: of px only the noise of a subtraction goes; a share of a side, as YOLO
and OpenImages write it, is not known more exactly."""


def checked_box(
    image: FoundImage,
    box: FoundBox,
    size: Size,
    normalized: bool,
    rules: Rules,
    problems: Problems,
) -> Box | None:
    """Return a box in px, checked against its image; None for one that was refused or dropped.

    Args:
        image: the image, as the source says it.
        box: one of its boxes.
        size: height and width of the image, px.
        normalized: whether the box is in shares of them.
        rules: what to do with a bad box.
        problems: collects problems and notes.
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
        problems.note("boxes whose corners are swapped: put in order")
    is_swapped = x1 > x2 or y1 > y2
    digits = _SHARE if normalized else _PX
    over = max(-x1, -y1, x2 - width, y2 - height)
    if over > 10**-digits:
        if over <= MARGIN:
            problems.note(
                f"boxes that reach over their image's border by up to {MARGIN:g} px: kept"
            )
        elif rules.bad_boxes == "clip":
            x1, x2 = max(x1, 0.0), min(x2, width)
            y1, y2 = max(y1, 0.0), min(y2, height)
            polygon, area = (), None
            problems.note("boxes that reach over their image's border: clipped")
    fault = _box_fault((x1, y1, x2, y2), size, is_swapped)
    if fault is None:
        x, y = round(x1, digits), round(y1, digits)
        w, h = round(x2 - x1, digits), round(y2 - y1, digits)
        if w > 0 and h > 0:
            return Box(box.category, x, y, w, h, box.crowd, polygon, area)
        fault = "has no area"
    if rules.bad_boxes == "drop" or (rules.bad_boxes == "clip" and not is_swapped):
        which = (
            "whose corners are swapped" if is_swapped else "without area, or outside their image"
        )
        problems.note(f"boxes {which}: dropped")
        return None
    corners = ", ".join(f"{value:.6g}" for value in (x1, y1, x2, y2))
    choices = "--bad-boxes clip or drop"
    if is_swapped:
        choices = "--swapped-corners order, which exchanges them, or --bad-boxes drop"
    problems.add(
        image.source,
        box.line,
        f"the box of {box.category!r:.60} {fault}: [{corners}] px in {image.file_name!r}, "
        f"{width}x{height} px; correct it, or give {choices}",
    )
    return None


def _box_fault(corners: Corners, size: Size, is_swapped: bool) -> str | None:
    """Say what is wrong with a box, if anything."""
    x1, y1, x2, y2 = corners
    if is_swapped:
        return "has swapped corners (it must have x1 < x2 and y1 < y2)"
    if x2 <= x1 or y2 <= y1:
        return "has no area (it must have x1 < x2 and y1 < y2)"
    if max(-x1, -y1, x2 - size[1], y2 - size[0]) > MARGIN:
        return f"lies more than {MARGIN:g} px outside its image"
    return None
