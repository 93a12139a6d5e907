"""Text files: their lines and rows, the numbers in them, and lists of classes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from retinanet.convert.problems import Problems
from retinanet.data.coco.records import is_name
from retinanet.errors import UserError


def read_text(path: Path) -> str:
    """Return a text in UTF-8, without a byte order mark.

    Raises:
        UserError: missing, unreadable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
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


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text that are not blank, stripped, with their numbers from 1."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def read_rows(path: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV that are not blank, values stripped, with their lines from 1.

    The file is not held in memory. A row that is not CSV is a problem and ends the reading.

    Raises:
        UserError: missing, unreadable, or not UTF-8.
    """
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                values = [value.strip() for value in row]
                if any(values):
                    yield line, values
                line = reader.line_num + 1
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except csv.Error as error:
        problems.add(path, line, f"not CSV: {error}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_classes(path: Path, problems: Problems) -> list[str]:
    """Return the class names of a file in the order of their ids.

    A .csv has `name,id` rows, as keras-retinanet has it, or names alone; any other file has one
    name a line, whatever commas it has.
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
    return [ids[identity] for identity in sorted(ids)]
