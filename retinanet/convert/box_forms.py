"""The forms of a box: four numbers and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2."""
Form = tuple[str, str, str, str]
"""The meaning of the four numbers, in the names of `--columns`."""
CORNERS: Form = ("x1", "y1", "x2", "y2")
TOP_LEFT: Form = ("x", "y", "w", "h")
CENTRE: Form = ("cx", "cy", "w", "h")
Y_FIRST: Form = ("y1", "x1", "y2", "x2")
PAIRS: Form = ("x1", "x2", "y1", "y2")
UNIT_SCALES = {"shares": 1, "percent": 0.01, "thousandths": 0.001}
"""Factor that turns each unit except px into shares of the image's sides."""
WHOLE: dict[str, Form] = {
    "xyxy": CORNERS,
    "xywh": TOP_LEFT,
    "cxcywh": CENTRE,
    "yxyx": Y_FIRST,
}
"""Columns of `--columns` that hold all four numbers of a box."""
_WHOLE_NAMES = {form: name for name, form in WHOLE.items()}
FORMS = (CORNERS, TOP_LEFT, CENTRE, Y_FIRST, PAIRS)


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """How the numbers of a table were read, and how they could be read instead."""

    form: Form
    columns: tuple[str, ...]
    """All columns in table order, in the names of `--columns`; `_` for a column left out."""
    places: tuple[int, int, int, int]
    """The columns of the four numbers."""
    evidence: str
    """`custom` if the column names do not show whether x, y is a corner or the centre, else
    `names`; `told` if the user gave the form."""

    def columns_as(self, form: Form) -> str:
        """Return the value of `--columns` that reads the four numbers in this form."""
        columns = list(self.columns)
        if len(set(self.places)) == 1:
            columns[self.places[0]] = _WHOLE_NAMES.get(form, "_")
            return '"' + ",".join(columns) + '"'
        for place, name in zip(self.places, form, strict=True):
            columns[place] = name
        return '"' + ",".join(columns) + '"'

    def can_be(self, form: Form) -> bool:
        """Whether `--columns` can express this form."""
        return len(set(self.places)) > 1 or form in _WHOLE_NAMES


def to_corners(values: Sequence[float], form: Form) -> Corners:
    """Convert four numbers of a form to corners."""
    at = dict(zip(form, values, strict=True))
    if "x2" in at:
        return at["x1"], at["y1"], at["x2"], at["y2"]
    w, h = at["w"], at["h"]
    x, y = (at["cx"] - w / 2, at["cy"] - h / 2) if "cx" in at else (at["x"], at["y"])
    return x, y, x + w, y + h


def from_corners(corners: Corners, form: Form) -> tuple[float, ...]:
    """Convert corners to the four numbers of a form."""
    x1, y1, x2, y2 = corners
    at = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "x": x1, "y": y1, "w": x2 - x1, "h": y2 - y1}
    at |= {"cx": (x1 + x2) / 2, "cy": (y1 + y2) / 2}
    return tuple(at[name] for name in form)
