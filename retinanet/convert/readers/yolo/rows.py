"""Read the rows of a YOLO label file: `class cx cy width height`, or the points of an outline.

Classes count from 0, and coordinates are shares of the image's width and height. Other spellings
are read and counted if they are unambiguous (commas, a class name instead of a number).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import Path

from retinanet.convert.assemble import OTHER_CLASSES
from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import FoundBox
from retinanet.convert.problems import Problems
from retinanet.convert.readers.yolo.evidence import (
    SLACK,
    UNITS,
    Evidence,
    LabelRules,
    Sides,
    key_point_shape,
)
from retinanet.convert.readers.yolo.foreign_rows import other_format
from retinanet.convert.tables import parse_number
from retinanet.data.canvas import Size
from retinanet.errors import nearest

_LABEL_FORMS = (
    "expected 5 columns: class cx cy width height; or the class and the x y of 3 or more points"
)
_DECIMAL_COMMA = re.compile(r"-?\d*,\d+|-?\d+")
_LOOKED_AT = 20
"""Number of lines in which to look for the first row of a label file."""
_HEADER_WORDS = (
    {"class", "classid", "cls", "label", "labelid", "category", "categoryid", "id", "name"},
    {"x", "cx", "xc", "xcenter", "xcentre", "centerx", "centrex"},
    {"y", "cy", "yc", "ycenter", "ycentre", "centery", "centrey"},
    {"w", "width"},
    {"h", "height"},
)


class _OtherClassError(ValueError):
    """The class number of a label is not in `names`."""


def decode_labels(content: bytes) -> str:
    """Return the text of a label file.

    Raises:
        ValueError: It is not a text, or its encoding is not clear.
    """
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not a text file in UTF-8; save it in UTF-8") from None
    if "\0" in text:
        raise ValueError("not a text file, or UTF-16 without a byte order mark; save it in UTF-8")
    return text


def read_labels(
    path: Path,
    content: bytes | OSError,
    rules: LabelRules,
    evidence: Evidence,
    problems: Problems,
    size: Size | None = None,
) -> list[FoundBox]:
    """Return the boxes of a label file, in shares, or in px if the rules say so.

    Args:
        path: Path of the file.
        content: Content of the file, or why it cannot be read.
        rules: How to read the labels.
        evidence: Counts rows that contradict the rules.
        problems: Collects problems and notes.
        size: Height and width of the image, px, if labels are in px.
    """
    if isinstance(content, OSError):
        problems.add(path, None, f"cannot be read: {content.strerror}")
        return []
    if content.startswith(b"version https://git-lfs"):
        problems.add(path, None, "is a Git LFS pointer, not the file itself; type: git lfs pull")
        return []
    try:
        text = decode_labels(content)
    except ValueError as error:
        problems.add(path, None, str(error))
        return []
    sides: Sides | None = (size[1], size[0]) if size else None
    if rules.units != "px":
        sides = (UNITS[rules.units], UNITS[rules.units])
    boxes: list[FoundBox] = []
    for line, row in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        words = split_row(row, problems.note)
        try:
            if not words:
                continue
            if words[0].startswith("#"):
                problems.note("comment lines (#) in label files: skipped")
            elif line == 1 and _is_header(words):
                problems.note("header lines in label files: skipped")
            elif other := other_format(words, path.parent):
                problems.add(path, line, other)
                break
            else:
                boxes.append(_parse_label(line, words, rules, sides, evidence, problems))
        except _OtherClassError as error:
            if rules.other_classes == "drop":
                problems.note(OTHER_CLASSES)
            else:
                problems.add(path, line, str(error))
        except ValueError as error:
            problems.add(path, line, str(error))
    different = {box._replace(line=None) for box in boxes}
    problems.note("rows with the same box as an earlier row: kept", len(boxes) - len(different))
    outlines = sum(bool(box.polygon) for box in boxes)
    problems.note("outlines: kept as segmentations, with the box around each", outlines)
    return boxes


def split_row(row: str, note: Callable[[str], None] = lambda text: None) -> list[str]:
    """Return the columns of a row, split at spaces, semicolons or commas, with decimal points."""
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
    """Whether a row is a header line for the usual columns."""
    plain = [re.sub("[^a-z]", "", word.lower()) for word in words]
    return len(plain) == 5 and all(
        word in known for word, known in zip(plain, _HEADER_WORDS, strict=True)
    )


def _parse_label(
    line: int,
    words: list[str],
    rules: LabelRules,
    sides: Sides | None,
    evidence: Evidence,
    problems: Problems,
) -> FoundBox:
    """Return the box of a row.

    Raises:
        ValueError: The row is wrong.
        _OtherClassError: The row is right, but its class is not in `names`.
    """
    label, columns = _find_class(words, rules, problems)
    if rules.points == "keypoints" and len(columns) > 4:
        columns = columns[:4]
    if len(columns) == 5:
        raise ValueError(
            "6 columns: the 6th is a confidence or a track id, as in predictions, or an angle; "
            "labels have 5 columns: remove the 6th"
        )
    numbers = [parse_number(word) for word in columns] if all(map(_is_number, columns)) else []
    shape = key_point_shape(numbers, sides) if numbers and sides else None
    if len(columns) != 4 and (len(columns) < 6 or len(columns) % 2):
        if shape:
            evidence.add(numbers, sides)
        raise ValueError(f"{len(columns) + 1} columns{_key_point_hint(shape)}; {_LABEL_FORMS}")
    if not numbers:
        raise ValueError(f"not all of {' '.join(words)!r:.80} are numbers; {_LABEL_FORMS}")
    places = [value / UNITS[rules.units] for value in numbers]
    if rules.units != "px" and not all(-SLACK <= value <= 1 + SLACK for value in places):
        if shape or (len(places) == 4 and max(places) > 2):
            evidence.add(numbers, sides)
        raise ValueError(_outside_message(columns, places, rules.units) + _key_point_hint(shape))
    evidence.add(numbers, sides)
    if isinstance(label, int):
        evidence.classes.add(label)
        if label >= len(rules.names):
            raise _OtherClassError(
                f"class {label} is not one of the {len(rules.names)} in {rules.names_path.name} "
                f"(0 to {len(rules.names) - 1}); add it there, or use --other-classes drop"
            )
        label = rules.names[label]
    elif rules.units == "px" and rules.form is None and len(places) == 4:
        raise ValueError(
            "the row has a class name and four px, which are probably corners: give the form "
            "with --box-form xyxy, xywh or cxcywh"
        )
    if len(places) == 4:
        a, b, c, d = places
        return FoundBox(line, label, _corners(a, b, c, d, rules.form))
    xs, ys = places[::2], places[1::2]
    return FoundBox(line, label, (min(xs), min(ys), max(xs), max(ys)), False, tuple(places))


def _key_point_hint(shape: tuple[int, int] | None) -> str:
    if shape is None:
        return ""
    points, values = shape
    return (
        f": may be a box and {points} key points with {values} values each; --points keypoints "
        f"reads only the box (as does `kpt_shape: [{points}, {values}]` in data.yaml)"
    )


def _outside_message(columns: list[str], places: list[float], units: str) -> str:
    found = f"{' '.join(columns)!r:.80}: coordinates must be shares of the image's width and height"
    if units == "percent":
        return f"{found} in percent, from 0 to 100; correct the row"
    if len(places) == 4 or max(places) <= 2 or min(places) < -0.5:
        return f"{found}, from 0 to 1; correct the row"
    return (
        f"{found}, from 0 to 1; correct the row, or, if all rows are like this, use --units px or "
        "percent"
    )


def _find_class(
    words: list[str], rules: LabelRules, problems: Problems
) -> tuple[int | str, list[str]]:
    """Return the class of a row, as number or name, and its other columns.

    A name may contain spaces; all columns after it are then numbers.
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
        if name in rules.names:
            problems.note("label rows with a class name instead of a number: read")
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
            "height: remove it, and give the form of the boxes with --box-form"
        )
    raise ValueError(f"not all of {' '.join(words)!r:.80} are numbers; {_LABEL_FORMS}")


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
    """Whether the first row of a file could be a label, in any unit and with any commas."""
    if isinstance(content, OSError):
        return False
    try:
        rows = [split_row(row) for row in decode_labels(content).split("\n")[:_LOOKED_AT]]
    except ValueError:
        return False
    rows = [words for words in rows if words and not words[0].startswith("#")]
    words = next((words for words in rows if not _is_header(words)), [])
    numbers = sum(map(_is_number, words))
    return len(words) >= 5 and numbers >= 4 and 2 * numbers >= len(words)


def same_labels(one: bytes | OSError, other: bytes | OSError) -> bool:
    """Whether two label files are equal, apart from rounding."""
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
    """Return the numbers of a file if all its rows are plain YOLO labels; else None."""
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
