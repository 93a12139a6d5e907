"""Read text files: lines, rows, numbers and class lists."""

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
"""The characters that may separate values, and their names."""
_CERTAIN = 4
"""A character that separates more values than this is not there by chance."""
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks of encodings other than UTF-8, which Excel and PowerShell write."""


def text_encoding(path: Path) -> str:
    """Return the encoding given by a text's byte order mark; UTF-8 if it has none.

    Raises:
        UserError: The file is missing or unreadable, or clearly not a text.
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
            f"{path}: is a ZIP file, such as an Excel workbook, not a text; save it as CSV UTF-8"
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
    """Return a text in UTF-8, or in UTF-16 with a byte order mark; the mark is removed.

    Raises:
        UserError: The file is missing, unreadable, or in another encoding.
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
        ValueError: The text is not a finite number.
    """
    value = float(text)
    if not math.isfinite(value) or "_" in text:  # Python reads 1_0 as 10
        raise ValueError(text)
    return value


def read_number(text: str) -> float | None:
    """Return a finite number, with a decimal point or comma; None if it is not one."""
    try:
        return parse_number(text.replace(",", ".") if re.fullmatch(r"[-+]?\d+,\d+", text) else text)
    except ValueError:
        return None


def is_ambiguous(text: str) -> bool:
    """Whether the comma of a number such as 1,024 may be decimal or separate thousands."""
    return re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", text) is not None


def is_number(text: str) -> bool:
    """Whether a text is a finite number, with a decimal point or comma."""
    return read_number(text) is not None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines of a text, stripped, with their numbers from 1."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def read_rows(
    path: Path, problems: Problems, is_heading: Callable[[str], bool] = is_number
) -> Iterator[tuple[int, list[str]]]:
    """Yield the non-blank rows of a CSV, values stripped, with their lines from 1.

    The first row determines the delimiter, see `find_delimiter`. The file is not held in memory.
    A row that is not CSV is a problem, and reading stops there.

    Args:
        path: Path of the CSV.
        problems: Collects problems.
        is_heading: Whether a value of the first row is a known column name.

    Raises:
        UserError: The file is missing, unreadable, or neither in UTF-8 nor in UTF-16.
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
    """Return the delimiter, and the number of lines to skip, such as Excel's `sep=;`."""
    first, number = "", 0
    while not first.strip():
        line = file.readline()
        if not line:
            break
        first, number = line.strip("\r\n"), number + 1
        while first.startswith("#") and not _is_row(first, is_heading):
            following = file.readline()  # a comment does not show the delimiter
            if not following:
                break
            first = following.strip("\r\n")
    if first.lower().startswith("sep=") and len(first) == 5 and first[4] in DELIMITERS:
        return first[4], number
    file.seek(0)
    return find_delimiter(first, is_heading), 0


def _is_row(line: str, is_heading: Callable[[str], bool]) -> bool:
    """Whether a line that begins with `#` may be a row or a header row."""
    return max(_count_known(line, mark, is_heading) for mark in DELIMITERS)[0] > 1


def find_delimiter(line: str, is_heading: Callable[[str], bool] = is_number) -> str:
    """Return the delimiter that gives the most known values in a row.

    Numbers, empty values and known headings count. If there are none, it is the delimiter that
    gives the most values, if those are at least five; else a comma.

    Args:
        line: The first row as text.
        is_heading: Whether a value is a known column name.
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
    """The classes in a file."""

    names: dict[int, str]
    """Class names by id, in the order of the ids."""
    are_counted: bool
    """Whether the file has only names, so that ids are counted from 0."""


def read_class_ids(path: Path, problems: Problems) -> ClassIds:
    """Return the class names in a file by their ids.

    A .csv has `name,id` rows, as in keras-retinanet, or only names. Any other file has one name per
    line, which may contain commas. Without ids, names are counted from 0.
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
                f"expected name,id in every line, or only a name; found {len(row)} columns",
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
            problems.add(path, line, f"class {name!r:.60} is already in line {lines[name]}")
        else:
            ids[int(identity)], lines[name] = name, line
    if not rows:
        problems.add(path, None, "contains no classes")
    return ClassIds({identity: ids[identity] for identity in sorted(ids)}, columns == 1)


def read_classes(path: Path, problems: Problems) -> list[str]:
    """Return the class names in a file in the order of their ids, see `read_class_ids`."""
    return list(read_class_ids(path, problems).names.values())
