"""Text files: their lines and rows, the numbers in them, and lists of classes."""

from __future__ import annotations

import codecs
import csv
import math
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from retinanet.convert.problems import Problems
from retinanet.data.coco.records import is_name
from retinanet.errors import UserError
from retinanet.files import check_regular

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may stand between the values of a row, and its name."""
_CERTAIN = 4
"""More values than that are no accident of one mark in a text."""
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks of encodings other than UTF-8, which Excel and PowerShell write."""


def text_encoding(path: Path) -> str:
    """Return the encoding that a text's byte order mark names; UTF-8 if it has none.

    Raises:
        UserError: missing or unreadable, or plainly no text.
    """
    try:
        with check_regular(path).open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(b"PK\3\4"):
        raise UserError(
            f"{path}: is a ZIP file, as workbooks of Excel are, not a text; save it as CSV UTF-8"
        )
    encoding = next((_MARKS[mark] for mark in _MARKS if start.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and start[1::2].count(0) + start[::2].count(0) > len(start) // 4:
        raise _wrong_encoding(path, "UTF-16")
    return encoding


def _wrong_encoding(path: Path, likely: str) -> UserError:
    old, new = (shlex.quote(str(p)) for p in (path, path.with_stem(f"{path.stem}-utf8")))
    return UserError(
        f"{path}: not a text file in UTF-8; save it as UTF-8, or if it is {likely}: "
        f"iconv -f {likely} -t UTF-8 {old} > {new}"
    )


def read_text(path: Path) -> str:
    """Return a text in UTF-8, or in UTF-16 with its byte order mark, without that mark.

    Raises:
        UserError: missing, unreadable, or in another encoding.
    """
    encoding = text_encoding(path)
    try:
        return path.read_text(encoding=encoding)
    except UnicodeError:
        raise _wrong_encoding(path, "WINDOWS-1252") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def parse_number(text: str) -> float:
    """Return a finite number.

    Raises:
        ValueError: it is not one.
    """
    value = float(text)
    if not math.isfinite(value) or "_" in text:  # Python reads 1_0 as 10
        raise ValueError(text)
    return value


def read_number(text: str) -> float | None:
    """Return a finite number, with a decimal point or comma; None if it is none."""
    try:
        return parse_number(text.replace(",", ".") if re.fullmatch(r"[-+]?\d+,\d+", text) else text)
    except ValueError:
        return None


def is_ambiguous(text: str) -> bool:
    """Whether a number such as 1,024 has a decimal comma, or one between thousands."""
    return re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", text) is not None


def is_number(text: str) -> bool:
    """Whether a text is a finite number, with a decimal point or comma."""
    return read_number(text) is not None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text that are not blank, stripped, with their numbers from 1."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def read_rows(
    path: Path, problems: Problems, is_heading: Callable[[str], bool] = is_number
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV that are not blank, values stripped, with their lines from 1.

    The first row tells what stands between values, see `find_delimiter`. The file is not held in
    memory. A row that is not CSV is a problem and ends the reading.

    Args:
        path: path of the CSV.
        problems: collects problems.
        is_heading: whether a value of the first row is a known one, such as a column's name.

    Raises:
        UserError: missing, unreadable, or in another encoding than UTF-8 or UTF-16.
    """
    encoding = text_encoding(path)
    line = 1
    try:
        with path.open(encoding=encoding, newline="") as file:
            delimiter, skipped = _look_at_start(file, is_heading)
            line += skipped
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            for row in reader:
                values = [value.strip() for value in row]
                if any(values):
                    yield line, values
                line = reader.line_num + 1 + skipped
    except UnicodeError:
        raise _wrong_encoding(path, "WINDOWS-1252") from None
    except csv.Error as error:
        problems.add(path, line, f"not CSV: {error}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _look_at_start(file: TextIO, is_heading: Callable[[str], bool]) -> tuple[str, int]:
    """Return the delimiter, and the number of lines that were read away: `sep=;` of Excel."""
    first, number = "", 0
    while not first.strip():
        line = file.readline()
        if not line:
            break
        first, number = line.strip("\r\n"), number + 1
        while first.startswith("#") and not _is_row(first, is_heading):
            following = file.readline()  # a comment tells nothing of the delimiter
            if not following:
                break
            first = following.strip("\r\n")
    if first.lower().startswith("sep=") and len(first) == 5 and first[4] in DELIMITERS:
        return first[4], number
    file.seek(0)
    return find_delimiter(first, is_heading), 0


def _is_row(line: str, is_heading: Callable[[str], bool]) -> bool:
    """Whether a line that begins with `#` may be a row, or names columns."""
    return max(_count_known(line, mark, is_heading) for mark in DELIMITERS)[0] > 1


def find_delimiter(line: str, is_heading: Callable[[str], bool] = is_number) -> str:
    """Return what stands between the values of a row: that which makes most sense of them.

    Counted are numbers, empty values and known headings. Where there is none, it is what divides
    the row into the most values, if those are at least five; else a comma.

    Args:
        line: the first row as text.
        is_heading: whether a value is a known one, such as a column's name.
    """
    counts = {mark: _count_known(line, mark, is_heading) for mark in DELIMITERS}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best][0] or counts[best][1] > _CERTAIN else ","


def _count_known(line: str, mark: str, is_heading: Callable[[str], bool]) -> tuple[int, int]:
    try:
        values = next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return 0, 0
    known = sum(not v.strip() or is_number(v) or is_heading(v) for v in values)
    return (known if len(values) > 1 else 0), len(values)


class ClassIds(NamedTuple):
    """The classes of a file."""

    names: dict[int, str]
    """By their ids, in the order of the ids."""
    are_counted: bool
    """The file has names alone, so that ids are their places, from 0."""


def read_class_ids(path: Path, problems: Problems) -> ClassIds:
    """Return the class names of a file by their ids.

    A .csv has `name,id` rows, as keras-retinanet has it, or names alone; any other file has one
    name a line, whatever commas it has. Names alone are counted from 0.
    """
    if path.suffix.lower() == ".csv":
        rows = list(read_rows(path, problems))
    else:
        rows = [(line, [text]) for line, text in read_lines(path)]
    columns = max((len(row) for _, row in rows), default=1)
    ids: dict[int, str] = {}
    lines: dict[str, int] = {}
    for place, (line, row) in enumerate(rows):
        if len(row) != columns or columns > 2:
            problems.add(
                path,
                line,
                f"should be name,id, or a name, as in every line; found {len(row)} columns",
            )
            continue
        name, identity = row[0], row[1] if columns == 2 else str(place)
        if not identity.isdecimal():
            problems.add(path, line, f"id {identity!r:.60} should be a whole number from 0")
        elif int(identity) in ids:
            problems.add(path, line, f"id {identity} already belongs to {ids[int(identity)]!r}")
        elif not is_name(name):
            problems.add(path, line, f"class {name!r:.60} is not a name")
        elif name in lines:
            problems.add(path, line, f"class {name!r:.60} already stands in line {lines[name]}")
        else:
            ids[int(identity)], lines[name] = name, line
    if not rows:
        problems.add(path, None, "holds no class")
    return ClassIds({identity: ids[identity] for identity in sorted(ids)}, columns == 1)


def read_classes(path: Path, problems: Problems) -> list[str]:
    """Return the class names of a file in the order of their ids, see `read_class_ids`."""
    return list(read_class_ids(path, problems).names.values())
