"""The values in a table of boxes: numbers, flags, sizes, and the unit of the coordinates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from retinanet.convert.problems import Problems
from retinanet.convert.tables import read_number
from retinanet.data.canvas import Size

Numbers = tuple[float, float, float, float]
"""The numbers of a box, in the order of its form."""
_BLANK = frozenset(("", "nan", "na", "n/a", "null", "none", "[]"))
"""What pandas and others write for a missing value, in lower case."""
_TRUE, _FALSE = frozenset(("1", "1.0", "true", "yes")), frozenset(("0", "0.0", "false", "no", "-1"))
_WORDS = re.compile(r"[\s,;]+")
_PX_AT_MOST = 2.0
"""If all coordinates of a table are below this, they are hardly px."""


def is_blank(text: str) -> bool:
    """Whether a value is missing."""
    return text.lower() in _BLANK


def split_numbers(text: str) -> list[str]:
    """Return the parts of a value that holds a whole box: `[1, 2, 3, 4]` or `1 2 3 4`."""
    return [word for word in _WORDS.split(re.sub(r"[\[\](){}]", " ", text)) if word]


def read_flag(text: str) -> bool | None:
    """Return whether a flag is set; -1 (unknown in OpenImages) is not. None if it is not a flag."""
    if is_blank(text) or text.lower() in _FALSE:
        return False
    return True if text.lower() in _TRUE else None


def read_size(texts: Sequence[str]) -> Size | None:
    """Return height and width in px; None if they are not whole numbers from 1."""
    height, width = map(read_number, texts)
    if height is None or width is None or min(height, width) < 1:
        return None
    return None if height % 1 or width % 1 else (int(height), int(width))


def choose_units(
    path: Path,
    rows: list[tuple[int, Numbers]],
    named: str | None,
    told: str | None,
    problems: Problems,
) -> str | None:
    """Return `px` or a key of `UNIT_SCALES`; None, and a problem, if the unit is not clear.

    Args:
        path: Path of the table.
        rows: Lines and numbers of the boxes.
        named: Unit in the column names, if any.
        told: Unit given by the user, if any.
        problems: Collects problems.
    """
    if told is not None or not rows:
        return told or named or "px"
    line, first = rows[0]
    shown = ", ".join(f"{number:g}" for number in first)
    largest = max(max(map(abs, numbers)) for _, numbers in rows)
    has_fractions = any(number % 1 for _, numbers in rows for number in numbers)
    if named in ("shares", "percent"):
        if largest <= (_PX_AT_MOST if named == "shares" else 100 * _PX_AT_MOST):
            return named
        problems.add(
            path,
            line,
            f"the column names say {named}, but the largest number is {largest:g}; use --units px "
            "if they are px",
        )
        return None
    if largest <= 1 or (largest <= _PX_AT_MOST and has_fractions):
        problems.add(
            path,
            line,
            f"no coordinate is over {largest:g} (here {shown}): use --units shares if they are "
            "shares of the image's width and height, or --units px if they are px",
        )
        return None
    small = [
        own for own, numbers in rows if max(numbers) <= 1 and any(number % 1 for number in numbers)
    ]
    if small:
        problems.add(
            path,
            small[0],
            f"{len(small):,} of {len(rows):,} rows have coordinates from 0 to 1, the others px; "
            "correct them, or use --units px if all are px",
        )
        return None
    return "px"
