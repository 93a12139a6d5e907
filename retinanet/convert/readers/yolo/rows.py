"""The rows of a YOLO label file: `class cx cy width height`, or the points of an outline.

Classes count from 0, coordinates are shares of the image's width and height. What tools write
instead is read where it can mean one thing only (commas, a class by its name), and counted.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from retinanet.convert.assemble import OTHER_CLASSES
from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import FoundBox
from retinanet.convert.problems import Problems
from retinanet.convert.tables import parse_number
from retinanet.errors import nearest

FORMS = ("cxcywh", "xyxy", "xywh")
"""Centre and size; two corners; top left corner and size."""
UNITS = {"shares": 1.0, "percent": 100.0, "px": 1.0}
"""What a number of a label is divided by; px stay px."""
_SLACK = 1e-3
"""How far rounding may take a share out of 0..1."""
_TOP_LEFT_OUTSIDE = 3
"""Boxes that must leave their image before they are suspected to begin with their corner."""
_OUT = 0.01
"""A share outside of its image that no rounding explains."""
_LABEL_FORMS = (
    "expected 5 columns: class cx cy width height; or the class and the x y of 3 or more points"
)
_DECIMAL_COMMA = re.compile(r"-?\d*,\d+|-?\d+")
_HEADER_WORDS = (
    {"class", "classid", "cls", "label", "labelid", "category", "categoryid", "id", "name"},
    {"x", "cx", "xc", "xcenter", "xcentre", "centerx", "centrex"},
    {"y", "cy", "yc", "ycenter", "ycentre", "centery", "centrey"},
    {"w", "width"},
    {"h", "height"},
)


class _OtherClassError(ValueError):
    """A label's class number is not in `names`."""


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """How the numbers of labels are meant."""

    names: list[str]
    """Classes 0, 1, .."""
    names_path: Path
    """Where they are from."""
    keypoints: bool
    """Rows have the columns of keypoints after those of the box."""
    other_classes: str
    """`refuse` or `drop` rows whose class number is not in `names`."""
    form: str | None
    """One of `FORMS`, if the user says it."""
    units: str
    """One of `UNITS`."""


@dataclass(kw_only=True)
class Evidence:
    """What all rows of a data set together say of how they are meant."""

    boxes: int = 0
    """Rows of five columns."""
    outside: int = 0
    """Of these: leave their image, read as centre and size."""
    not_corners: int = 0
    """Of these: cannot be two corners."""
    not_top_left: int = 0
    """Of these: cannot be the top left corner and the size."""
    largest: float = 0.0
    """The largest number of a box, as it is written."""
    classes: set[int] = field(default_factory=set)

    def add(self, places: list[float], unit: float) -> None:
        """Count the four numbers of a box, divided by what `unit` is."""
        a, b, c, d = places
        self.boxes += 1
        self.largest = max(self.largest, max(places) * unit)
        self.outside += min(a - c / 2, b - d / 2) < -_OUT or max(a + c / 2, b + d / 2) > 1 + _OUT
        self.not_corners += c <= a or d <= b
        self.not_top_left += max(a + c, b + d) > 1 + _SLACK

    def objection(self, rules: LabelRules) -> str | None:
        """Say why the labels are hardly meant as they are read, if so."""
        if rules.units != "shares" and self.boxes and self.largest <= 1:
            return (
                f"no number of its {self.boxes:,} boxes is more than 1, so they are not "
                f"{rules.units}; leave --units away"
            )
        if rules.form is None and rules.units != "px" and self.outside * 10 >= self.boxes > 0:
            fitting = []
            if self.outside and not self.not_corners:
                fitting.append("class x1 y1 x2 y2 (--box-form xyxy)")
            if self.outside >= _TOP_LEFT_OUTSIDE and not self.not_top_left:
                fitting.append("class x1 y1 width height (--box-form xywh)")
            if fitting:
                return (
                    f"{self.outside:,} of {self.boxes:,} boxes leave their image as class cx cy "
                    f"width height, but all fit as {' and as '.join(fitting)}: say which is meant; "
                    "--box-form cxcywh if they should leave it"
                )
        count = len(rules.names)
        if 0 not in self.classes and count in self.classes and max(self.classes) == count:
            return (
                f"class numbers go from {min(self.classes)} to {count}, but {count} classes have "
                f"the numbers 0 to {count - 1}: if the labels count from 1, put one more name, "
                f"such as unused, before the first in {rules.names_path.name}"
            )
        return None


def decode_labels(content: bytes) -> str:
    """Return the text of a label file.

    Raises:
        ValueError: it is no text, or in an encoding that has to be guessed.
    """
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not a text file in UTF-8; save it in UTF-8") from None
    if "\0" in text:
        raise ValueError("not a text file, or one in UTF-16 without its mark; save it in UTF-8")
    return text


def read_labels(
    path: Path, content: bytes | OSError, rules: LabelRules, evidence: Evidence, problems: Problems
) -> list[FoundBox]:
    """Return the boxes of a label file, in shares (px where the rules say px)."""
    if isinstance(content, OSError):
        problems.add(path, None, f"cannot be read: {content.strerror}")
        return []
    try:
        text = decode_labels(content)
    except ValueError as error:
        problems.add(path, None, str(error))
        return []
    boxes = []
    for line, row in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        words = split_row(row, problems.note)
        try:
            if not words:
                continue
            if words[0].startswith("#"):
                problems.note("lines of label files that begin with #: left out")
            elif line == 1 and _is_header(words):
                problems.note("header lines of label files: skipped")
            else:
                boxes.append(_parse_label(line, words, rules, evidence, problems))
        except _OtherClassError as error:
            if rules.other_classes == "drop":
                problems.note(OTHER_CLASSES)
            else:
                problems.add(path, line, str(error))
        except ValueError as error:
            problems.add(path, line, str(error))
    outlines = sum(bool(box.polygon) for box in boxes)
    problems.note("outlines: kept as segmentations, boxes drawn around them", outlines)
    return boxes


def split_row(row: str, note: Callable[[str], None] = lambda text: None) -> list[str]:
    """Return the columns of a row: between blanks, else semicolons or commas, with `.` decimals."""
    if ";" in row:
        note("label rows with semicolons between the columns: read")
        return [word.strip().replace(",", ".") for word in row.strip().rstrip(";").split(";")]
    words = row.split()
    if "," not in row:
        return words
    if len(words) >= 5 and all(map(_DECIMAL_COMMA.fullmatch, words[-4:])):
        note("label rows with decimal commas: read")
        return [word.replace(",", ".") for word in words]
    note("label rows with commas between the columns: read")
    return re.split(r"\s*,\s*|\s+", row.strip().rstrip(","))


def _is_header(words: list[str]) -> bool:
    """Whether a row names the columns as they are read."""
    plain = [re.sub("[^a-z]", "", word.lower()) for word in words]
    return len(plain) == 5 and all(
        word in known for word, known in zip(plain, _HEADER_WORDS, strict=True)
    )


def _parse_label(
    line: int, words: list[str], rules: LabelRules, evidence: Evidence, problems: Problems
) -> FoundBox:
    """Return the box of a row.

    Raises:
        ValueError: what is wrong with it.
        _OtherClassError: nothing but that its class is not in `names`.
    """
    label, columns = _find_class(words, rules, problems)
    if rules.keypoints and len(columns) > 4:
        columns = columns[:4]
    if len(columns) == 5:
        raise ValueError(
            "6 columns: a 6th is a confidence or a track id, which belong to predictions, or an "
            "angle; labels have 5: remove that column"
        )
    if len(columns) != 4 and (len(columns) < 6 or len(columns) % 2):
        raise ValueError(f"{len(columns) + 1} columns; {_LABEL_FORMS}")
    try:
        places = [parse_number(word) / UNITS[rules.units] for word in columns]
    except ValueError:
        raise ValueError(f"{' '.join(words)!r:.80} are not all numbers; {_LABEL_FORMS}") from None
    if rules.units != "px" and not all(-_SLACK <= value <= 1 + _SLACK for value in places):
        raise ValueError(_outside_message(columns, places, rules.units))
    if isinstance(label, int):
        evidence.classes.add(label)
        if label >= len(rules.names):
            raise _OtherClassError(
                f"class {label} is not one of the {len(rules.names)} in {rules.names_path.name} "
                f"(0 to {len(rules.names) - 1}); add it there, or give --other-classes drop"
            )
        label = rules.names[label]
    if len(places) == 4:
        a, b, c, d = places
        evidence.add(places, UNITS[rules.units])
        return FoundBox(line, label, _corners(a, b, c, d, rules.form))
    xs, ys = places[::2], places[1::2]
    return FoundBox(line, label, (min(xs), min(ys), max(xs), max(ys)), False, tuple(places))


def _outside_message(columns: list[str], places: list[float], units: str) -> str:
    found = f"{' '.join(columns)!r:.80}: coordinates are shares of the image's width and height"
    if units == "percent":
        return f"{found} in percent, from 0 to 100; correct the row"
    if max(places) <= 2 or min(places) < -0.5:
        return f"{found}, from 0 to 1; correct the row"
    return (
        f"{found}, from 0 to 1; correct the row, or, if all rows are so, give --units px or percent"
    )


def _find_class(
    words: list[str], rules: LabelRules, problems: Problems
) -> tuple[int | str, list[str]]:
    """Return the class of a row, as number or name, and its other columns.

    A name may have blanks: the columns after it are then all numbers.
    """
    try:
        number = parse_number(words[0])
    except ValueError:
        number = None
    if len(words) < 5:
        raise ValueError(f"{len(words)} columns; {_LABEL_FORMS}")
    if number is not None:
        if number != int(number) or number < 0:
            raise ValueError(f"class {words[0]} is not a whole number from 0")
        return int(number), words[1:]
    for end in range(1, len(words) - 3):
        name = " ".join(words[:end]).strip("\"'")
        if name in rules.names and rules.units != "px":
            problems.note("labels with a class's name in place of its number: read")
            return name, words[end:]
    first = next((i for i, word in enumerate(words) if _is_number(word)), len(words))
    if 0 < first <= len(words) - 4:
        name = " ".join(words[:first])
        raise ValueError(
            f"class {name!r:.60} is neither a number nor a name in {rules.names_path.name}; add it "
            f"there, or write its number, from 0{nearest(name, rules.names)}"
        )
    if first == len(words) == 5:
        raise ValueError(
            f"{' '.join(words)!r:.80} looks like a header line, but not of class cx cy width "
            "height: remove it, and say with --box-form what the columns are"
        )
    raise ValueError(f"{' '.join(words)!r:.80} are not all numbers; {_LABEL_FORMS}")


def _is_number(word: str) -> bool:
    try:
        parse_number(word)
    except ValueError:
        return False
    return True


def _corners(a: float, b: float, c: float, d: float, form: str | None) -> Corners:
    if form == "xyxy":
        return (a, b, c, d)
    if form == "xywh":
        return (a, b, a + c, b + d)
    return (a - c / 2, b - d / 2, a + c / 2, b + d / 2)


def looks_like_labels(content: bytes | OSError) -> bool:
    """Whether a file's first row could be a label, in whatever units and with whatever commas."""
    if isinstance(content, OSError):
        return False
    try:
        rows = decode_labels(content).split("\n")
    except ValueError:
        return False
    words = split_row(next((row for row in rows if row.strip()), ""))
    numbers = sum(map(_is_number, words))
    return len(words) >= 5 and numbers >= 4 and 2 * numbers >= len(words)


def same_labels(one: bytes | OSError, other: bytes | OSError) -> bool:
    """Whether two label files say the same, but for the digits of their numbers."""
    if one == other:
        return True
    own, others = plain_rows(one), plain_rows(other)
    if own is None or others is None or len(own) != len(others):
        return False
    return all(
        len(a) == len(b) and all(abs(x - y) <= 2e-3 for x, y in zip(a, b, strict=True))
        for a, b in zip(sorted(own), sorted(others), strict=True)
    )


def plain_rows(content: bytes | OSError) -> list[list[float]] | None:
    """Return the numbers of a file whose rows are all labels as YOLO writes them; else None."""
    if isinstance(content, OSError):
        return None
    try:
        rows = [row.split() for row in decode_labels(content).splitlines() if row.strip()]
        numbers = [[parse_number(word) for word in row] for row in rows]
    except ValueError:
        return None
    good = all(
        len(row) >= 5 and row[0] == int(row[0]) and all(-1 <= value <= 2 for value in row[1:])
        for row in numbers
    )
    return numbers if good else None
