"""Check whether coordinates taken as px are really shares, percent or thousandths of their image.

Read as px, these give small boxes in the top left corner of every image. Each one looks valid.
"""

from __future__ import annotations

from collections.abc import Sequence

from retinanet.convert.dataset import FoundBox, FoundImages
from retinanet.convert.problems import Problems
from retinanet.data.canvas import Size

_SHARES_AT_MOST, _PERCENT_AT_MOST, _THOUSANDTHS_AT_MOST = 1.5, 100.5, 1000.5
_LARGE, _MEDIUM = 300, 150
"""Px. If both sides of all images are larger, it is odd that all boxes are within 100 px."""
_MANY, _SOME = 10, 3
"""Numbers of boxes."""
_OUTSIDE = 2.0
"""How far a box may be outside its image, in px."""


def check_units(part: FoundImages, sizes: Sequence[Size | None], problems: Problems) -> bool:
    """Check whether the coordinates of a split can be px, given the sizes of its images.

    Args:
        part: A split, with its boxes as they were read.
        sizes: Height and width of each image, px; None if unknown.
        problems: Gets one problem if they cannot be px, with the likely units.

    Returns:
        Whether the boxes can be px, or their units were given.
    """
    boxes = [
        (box, size) for image, size in zip(part.images, sizes, strict=True) for box in image.boxes
    ]
    if not part.are_units_guessed or part.normalized or not boxes:
        return True
    largest = max(max(box.corners) for box, _ in boxes)
    small = [box for box, _ in boxes if max(box.corners) <= 1 and _may_be_shares(box)]
    if largest <= _SHARES_AT_MOST and any(_may_be_shares(box) for box, _ in boxes):
        fault = _ask("shares", largest)
    elif small:
        fault = (
            f"{len(small):,} of {len(boxes):,} boxes have coordinates from 0 to 1, the others px; "
            "correct them, or use --units px if all are px"
        )
    elif _may_be_percent(boxes, largest):
        fault = _ask("percent", largest)
    elif _may_be_thousandths(boxes, largest):
        fault = _ask("thousandths", largest)
    else:
        return True
    named = next(image for image in part.images if image.boxes)
    problems.add(named.source, named.boxes[0].line, fault)
    return False


def _ask(unit: str, largest: float) -> str:
    return (
        f"no coordinate of any box is over {largest:.6g}: use --units {unit} if they are {unit} "
        "of the image's width and height, or --units px if they are px"
    )


def _may_be_shares(box: FoundBox) -> bool:
    """Whether corners are fractional, or below 0 after VOC's shift by one px."""
    return min(box.corners) < 0 or any(number % 1 for number in box.corners)


def _has_fractions(box: FoundBox) -> bool:
    """Whether corners are neither whole nor half px; half a width gives half px."""
    return any(abs(2 * number - round(2 * number)) > 1e-6 for number in box.corners)


def _may_be_percent(boxes: list[tuple[FoundBox, Size | None]], largest: float) -> bool:
    sides = [min(size) for _, size in boxes if size is not None]
    if largest > _PERCENT_AT_MOST or not sides or min(sides) < _MEDIUM:
        return False
    is_near = largest >= 95
    if min(sides) < _LARGE:
        return is_near and len(boxes) >= _SOME
    have_fractions = sum(_has_fractions(box) for box, _ in boxes) * 2 > len(boxes)
    if len(boxes) >= _MANY or (is_near and len(boxes) >= _SOME):
        return True
    return have_fractions and (is_near or len(boxes) >= _SOME)


def _may_be_thousandths(boxes: list[tuple[FoundBox, Size | None]], largest: float) -> bool:
    """Whether many boxes are outside their images, up to 1000, as language models write boxes."""
    if not 900 <= largest <= _THOUSANDTHS_AT_MOST:
        return False
    outside = [
        box
        for box, size in boxes
        if size is not None and max(box.corners[2] - size[1], box.corners[3] - size[0]) > _OUTSIDE
    ]
    return len(outside) >= _SOME and len(outside) * _MANY >= len(boxes)
