"""Check that a YOLO data set is read correctly, with evidence from all of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FORMS = ("cxcywh", "xyxy", "xywh")
"""Centre and size; two corners; top left corner and size."""
UNITS = {"shares": 1.0, "percent": 100.0, "px": 1.0}
"""Divisors that turn the numbers of labels into shares; px stay px."""
SLACK = 1e-3
"""How far rounding may move a share outside 0 to 1."""
_TOP_LEFT_OUTSIDE = 3
"""At least this many boxes outside their image suggest that labels begin with the corner."""
_OUT = 0.01
"""A share outside the image that rounding cannot explain."""
_NO_SHARE = 2.0
"""A larger number cannot be a share of an image's side, not even a wrong one."""
_LARGE, _MANY = 300, 10
"""Ten boxes in px, in images with sides of at least 300 px, have some number over 100."""
_NEARLY_ALL = 0.9
_FEW_NUMBERS = 80
"""Longer rows are outlines: poses have fewer key points, and comparing all sides is slow."""
_AROUND = 0.1
"""How far key points may be outside their box, as a share of its size."""

Sides = tuple[float, float]
"""Divisors that turn x and y into shares of the image's width and height."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """How to read the numbers of labels."""

    names: list[str]
    """Names of the classes 0, 1, ..."""
    names_path: Path
    """File with the names."""
    points: str | None
    """What rows with more than five columns are: the `outline` of an object, or its box and
    `keypoints`; None if it is not given."""
    other_classes: str
    """`refuse` or `drop` rows whose class number is not in `names`."""
    form: str | None
    """One of `FORMS`, if the user gives it."""
    units: str
    """One of `UNITS`."""


@dataclass(kw_only=True)
class Evidence:
    """Counts over all rows of a data set, which show how they should be read."""

    rows: int = 0
    boxes: int = 0
    """Rows with five columns."""
    outside: int = 0
    """Boxes outside their image, if read as centre and size."""
    not_corners: int = 0
    """Boxes that cannot be two corners."""
    not_top_left: int = 0
    """Boxes that cannot be the top left corner and the size."""
    largest: float = 0.0
    """The largest number in any row, as written in the file."""
    no_shares: int = 0
    """Boxes whose numbers cannot be shares; boxes with a single wrong number do not count."""
    with_points: int = 0
    """Rows with more than five columns."""
    key_points: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Rows that could be a box and key points, by number of points and values per point."""
    tight: int = 0
    """Rows whose box is the box around the points."""
    crossing: int = 0
    """Rows with more than five columns that cross themselves if read as outlines."""
    lengths: set[int] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)

    def add(self, numbers: Sequence[float], sides: Sides | None) -> None:
        """Count the numbers of a row without its class.

        Args:
            numbers: The numbers as written in the file.
            sides: Divisors; None if the size of the image is not known.
        """
        self.rows += 1
        self.largest = max(self.largest, *numbers)
        if sides is None:
            return
        a, b, c, d = (value / sides[i % 2] for i, value in enumerate(numbers[:4]))
        if len(numbers) > 4:
            self.with_points += 1
            self.lengths.add(len(numbers))
            self.crossing += len(numbers) <= _FEW_NUMBERS and _crosses_itself(numbers)
            if shape := key_point_shape(numbers, sides):
                self.key_points[shape] += 1
                self.tight += _is_tight(numbers)
        elif max(a, b, c, d) > _NO_SHARE:
            self.no_shares += sum(value > 1 for value in (a, b, c, d)) >= 3
        else:
            self.boxes += 1
            self.outside += (
                min(a - c / 2, b - d / 2) < -_OUT or max(a + c / 2, b + d / 2) > 1 + _OUT
            )
            self.not_corners += c <= a or d <= b
            self.not_top_left += max(a + c, b + d) > 1 + _OUT

    def objection(self, rules: LabelRules, smallest_side: Callable[[], float]) -> str | None:
        """Return why the labels are probably read in the wrong way; None if they are not.

        Args:
            rules: How they are read.
            smallest_side: Returns the smallest side of the images, px.
        """
        return (
            self._other_units(rules, smallest_side)
            or self._other_points(rules)
            or self._other_form(rules)
            or self._other_classes(rules)
        )

    def _other_units(self, rules: LabelRules, smallest_side: Callable[[], float]) -> str | None:
        if rules.units != "shares" and self.rows and self.largest <= 1:
            return (
                f"no number of the {self.rows:,} boxes is over 1, so they are not {rules.units}; "
                "remove --units"
            )
        found = f"no number of the {self.rows:,} boxes is over 100"
        if rules.units == "px" and self.rows >= _MANY and self.largest <= 100:
            if smallest_side() >= _LARGE:
                return (
                    f"{found}, though all images are larger, so they look like percent, not px: "
                    "use --units percent. If they really are px, write them as shares of the "
                    "image's width and height"
                )
        elif rules.units == "shares" and self.no_shares * 2 > self.rows:
            start = f"{self.no_shares:,} of {self.rows:,} boxes are not shares, from 0 to 1: "
            if self.largest > 100:
                return f"{start}the largest number is {self.largest:g}; use --units px"
            if self.rows >= _MANY and smallest_side() >= _LARGE:
                return f"{start}{found}, though all images are larger; use --units percent"
            return f"{start}{found}; use --units percent or --units px, whichever is right"
        return None

    def _other_points(self, rules: LabelRules) -> str | None:
        if rules.points:
            return None
        count = self.key_points.total()
        nearly_all = _NEARLY_ALL * self.with_points
        # Outlines differ in their number of points, key points do not.
        if count and count >= nearly_all and (len(self.lengths) == 1 or self.tight >= nearly_all):
            (points, values), _ = self.key_points.most_common(1)[0]
            return (
                f"{count:,} of {self.with_points:,} rows with more than 5 columns begin with a box "
                "(class cx cy width height) that contains all points after it, so it is not clear "
                "what they are. Use --points keypoints if a box comes first, before key points or "
                f"an outline (or write `kpt_shape: [{points}, {values}]` in data.yaml). Use "
                "--points outline if all numbers after the class are the outline of the object"
            )
        if self.crossing * 2 > self.with_points:
            return (
                f"{self.crossing:,} of {self.with_points:,} rows with more than 5 columns cross "
                "themselves if read as outlines. Use --points keypoints if they begin with a box "
                "(class cx cy width height); the key points or outline after it are left out. Use "
                "--points outline if they really are outlines"
            )
        return None

    def _other_form(self, rules: LabelRules) -> str | None:
        if rules.form is not None or not self.outside * 10 >= self.boxes > 0 or not self.outside:
            return None
        fitting = []
        if not self.not_corners:
            fitting.append("class x1 y1 x2 y2 (--box-form xyxy)")
        if (self.outside >= _TOP_LEFT_OUTSIDE or fitting) and not self.not_top_left:
            fitting.append("class x1 y1 width height (--box-form xywh)")
        if not fitting:
            return None
        return (
            f"{self.outside:,} of {self.boxes:,} boxes are outside their image as class cx cy "
            f"width height, but all fit as {' and as '.join(fitting)}: give the right one, or "
            "--box-form cxcywh if they may be outside"
        )

    def _other_classes(self, rules: LabelRules) -> str | None:
        count = len(rules.names)
        if 0 not in self.classes and count in self.classes and max(self.classes) == count:
            return (
                f"class numbers go from {min(self.classes)} to {count}, but {count} classes have "
                f"the numbers 0 to {count - 1}: if the labels count from 1, add a name, such as "
                f"unused, before the first in {rules.names_path.name}"
            )
        return None


def key_point_shape(numbers: Sequence[float], sides: Sides) -> tuple[int, int] | None:
    """Return number and size of key points, if a row may be a box and points inside it.

    Args:
        numbers: A row without its class: cx, cy, width, height, then x, y and perhaps visibility
            (0, 1 or 2) of each point.
        sides: Divisors that turn x and y into shares of the image.
    """
    (cx, cy, w, h), rest = numbers[:4], numbers[4:]
    if not rest or min(w, h) <= 0 or min(cx - w / 2, cy - h / 2) < -_OUT * max(sides):
        return None
    if cx + w / 2 > sides[0] * (1 + _OUT) or cy + h / 2 > sides[1] * (1 + _OUT):
        return None
    for values in (3, 2):
        if len(rest) % values:
            continue
        points = [rest[i : i + values] for i in range(0, len(rest), values)]
        seen = all(point[2] in (0, 1, 2) for point in points if values == 3)
        if seen and all(
            (x == 0 == y)  # key points that are not in the image
            or (abs(x - cx) <= w * (0.5 + _AROUND) and abs(y - cy) <= h * (0.5 + _AROUND))
            for x, y, *_ in points
        ):
            return len(points), values
    return None


def _is_tight(numbers: Sequence[float]) -> bool:
    """Whether a box is the one around the points after it."""
    (cx, cy, w, h), xs, ys = numbers[:4], numbers[4::2], numbers[5::2]
    around = (min(xs), min(ys), max(xs), max(ys))
    box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return all(
        abs(a - b) <= size * _AROUND for a, b, size in zip(box, around, (w, h, w, h), strict=True)
    )


def _crosses_itself(numbers: Sequence[float]) -> bool:
    """Whether two sides of an outline x1, y1, x2, y2, ... cross."""
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    sides = list(zip(points, [*points[1:], points[0]], strict=True))

    def turn(a: Point, b: Point, c: Point) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    return any(
        turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0
        for i, (a, b) in enumerate(sides)
        for c, d in sides[i + 2 :]
    )
