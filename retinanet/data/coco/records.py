"""What is wrong with a record of a COCO file, as a message with file, record, value and remedy.

The careful half of `parsing`: one record at a time, with values of any type.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import UserError

MAX_ID = 2**53
"""Not every JSON reader keeps larger ids exact."""


def is_id(value: Any) -> bool:
    """Whether a value is a whole number that every JSON reader keeps exact."""
    return type(value) is int and abs(value) < MAX_ID


def is_name(value: Any) -> bool:
    """Whether a value is a printable string: not blank, no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return value == value.encode(errors="ignore").decode()


def meant_name(value: Any) -> Any:
    """Return a whole number as a string, for names such as 5; other values unchanged."""
    return str(value) if type(value) is int else value


def name_remedy(value: Any) -> str:
    """Return how to correct a category name that is not a printable string."""
    if isinstance(value, str):
        return "use printable characters"
    if value is None or isinstance(value, (list, dict)):
        return 'write a string, such as "name": "cat"'
    return f'if that is the name, put it in quotes: "name": "{json.dumps(value)}"'


def leads_outside(name: str) -> bool:
    """Whether a name is absolute, on any system, or contains `..`."""
    return any(
        flavour(name).anchor or ".." in flavour(name).parts
        for flavour in (PurePosixPath, PureWindowsPath)
    )


def name_in_url(url: Any) -> str | None:
    """Return the file name at the end of a URL (as in LVIS); None if there is no name."""
    if not isinstance(url, str):
        return None
    return unquote(url.partition("?")[0].partition("#")[0].rpartition("/")[2]) or None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a record."""

    kind: str
    """Short name, by which `retinanet check` counts it."""
    record: str
    """The record: `annotation 812 (image 37)`."""
    value: str
    """The wrong value: `has iscrowd 2`."""
    remedy: str = ""
    hint: str = ""
    """What may be meant: ` (a number written as text)`."""
    fix: str = ""
    """What `retinanet check --fix` does about it, if nothing is lost: `renumbers them`."""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.record} {self.value}{remedy}{self.hint}"


def check_ids(path: Path, word: str, values: Sequence[Any], first: int = 0) -> None:
    """Refuse ids that are not whole numbers."""
    for row, value in enumerate(values, first):
        raise_first(path, id_problems(word, row, value))


def check_image(path: Path, image: Any) -> None:
    """Refuse an image record with a wrong value."""
    raise_first(path, image_problems(image))


def check_unique(path: Path, word: str, ids: NDArray[np.int64]) -> None:
    """Refuse a duplicate id; the message names the first two records that have it."""
    if (ids[1:] > ids[:-1]).all():
        return
    ordered = np.sort(ids)  # several times as fast as the argsort, which is only needed below
    if (ordered[1:] > ordered[:-1]).all():
        return
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    first = twice[order[twice + 1].argmin()]
    a, b = order[first], order[first + 1]
    fix = _fixed_by(path, "renumbers the later one" if word == "annotation" else "")
    raise UserError(
        f"{path}: {word} records {a} and {b} both have id {ids[a]}; ids must be unique{fix}"
    )


def raise_first(path: Path, problems: Iterator[Problem]) -> None:
    """Refuse a record that has a problem."""
    for problem in problems:
        raise UserError(f"{path}: {problem}{_fixed_by(path, problem.fix)}")


def _fixed_by(path: Path, fix: str) -> str:
    """Return the command that fixes a file, and what it does."""
    options = "--images FOLDER " if fix.endswith("image file") else ""
    command = f"retinanet check {shlex.quote(str(path))} {options}--fix OUT.json"
    return f"; `{command}` {fix}" if fix else ""


def id_problems(word: str, row: int, value: Any) -> Iterator[Problem]:
    """Yield a problem if the id of record number `row` is wrong."""
    if not is_id(value):
        yield Problem(
            kind="bad-id",
            record=f"{word} record {row}",
            value=f"has id {value!r:.60}",
            remedy="ids must be whole numbers below 2^53",
            hint=hint_at_number(value, whole=True),
            fix="renumbers them",
        )


def image_problems(image: Any) -> Iterator[Problem]:
    """Yield the problems of an image record; its id is a whole number."""
    where = f"image {image.id}"
    if image.id < 0:
        yield Problem(
            kind="bad-id",
            record=f"{where}:",
            value="image ids must not be negative",
            fix="renumbers them",
        )
    for side in ("width", "height"):
        value = getattr(image, side)
        if type(value) not in (int, float) or not 1 <= value < 2**31 or value != int(value):
            yield Problem(
                kind="bad-image-size",
                record=where,
                value=f"has {side} {value!r:.60}",
                remedy="it must be the file's size in whole px, at least 1",
                hint=hint_at_number(value, whole=False),
                fix="takes it from the image file",
            )
    name = image.file_name
    if not is_name(name):
        value = f"has file_name {name!r:.60}"
        yield Problem(kind="bad-file-name", record=where, value=value, remedy="it must be a name")
    elif leads_outside(name):
        yield Problem(
            kind="bad-file-name",
            record=where,
            value=f"has file_name {name!r:.200}, which leads outside the image folder",
            remedy="it must be relative to it, without '..'",
            fix="finds the image file",
        )


def number_or_nan(value: Any) -> float:
    """Return a finite number as a float, NaN for anything else."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def meant_number(value: Any) -> int | float | None:
    """Return "7", "67.5" or 2.0 as a number, as an int where possible; None for other values."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 40 and "_" not in value else None
        except ValueError:
            return None
    if type(value) is float and math.isfinite(value):
        return int(value) if value == int(value) and abs(value) < MAX_ID else value
    return value if type(value) is int else None


def hint_at_number(value: Any, *, whole: bool) -> str:
    """Return a hint that a refused value is a number in another form, or an empty string."""
    meant = meant_number(value)
    if isinstance(value, str) and meant is not None:
        return " (a number written as text)"
    if whole and type(value) is float and is_id(meant):
        return " (a whole number written as a decimal)"
    return ""
