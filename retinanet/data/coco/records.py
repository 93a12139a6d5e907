"""What is wrong with a record of a COCO file, in words: file, record, value, remedy.

The careful half of `parsing`: one record at a time, of whatever types it came in.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from retinanet.data.coco.ids import Ids
from retinanet.errors import UserError

MAX_ID = 2**53
"""Ids beyond it are not exact in every reader of JSON."""


def is_id(value: Any) -> bool:
    """Whether a value is a whole number that every reader of JSON keeps exactly."""
    return type(value) is int and abs(value) < MAX_ID


def is_name(value: Any) -> bool:
    """Whether a value is a text that can be printed: not blank, no NUL, no half of a surrogate."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return value == value.encode(errors="ignore").decode()


def leads_outside(name: str) -> bool:
    """Whether a name is absolute, on this system or another, or has `..` in it."""
    return any(
        flavour(name).anchor or ".." in flavour(name).parts
        for flavour in (PurePosixPath, PureWindowsPath)
    )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a record."""

    kind: str
    """A short name, under which `retinanet check` counts it."""
    record: str
    """Which one: `annotation 812 (image 37)`."""
    value: str
    """What it has: `has iscrowd 2`."""
    remedy: str = ""
    hint: str = ""
    """What may be meant: ` (a number written as text)`."""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.record} {self.value}{remedy}{self.hint}"


def check_ids(path: Path, word: str, values: Sequence[Any], first: int = 0) -> None:
    """Refuse ids that are not whole numbers."""
    for row, value in enumerate(values, first):
        _raise_first(path, id_problems(word, row, value))


def check_image(path: Path, image: Any) -> None:
    """Refuse an image's record whose values are wrong."""
    _raise_first(path, image_problems(image))


def check_annotation(path: Path, record: Any, *, images: Ids, categories: Ids) -> None:
    """Check an annotation's values against the file's images and categories."""
    _raise_first(path, annotation_problems(record, images=images, categories=categories))


def _raise_first(path: Path, problems: Iterator[Problem]) -> None:
    """Refuse a record that has a problem."""
    for problem in problems:
        raise UserError(f"{path}: {problem}")


def id_problems(word: str, row: int, value: Any) -> Iterator[Problem]:
    """Yield what is wrong with the id of record number `row`."""
    if not is_id(value):
        yield Problem(
            kind="bad-id",
            record=f"{word} record {row}",
            value=f"has id {value!r:.60}",
            remedy="ids must be whole numbers",
            hint=_hint_at_number(value, whole=True),
        )


def image_problems(image: Any) -> Iterator[Problem]:
    """Yield all that is wrong with an image's record, whose id is a whole number."""
    where = f"image {image.id}"
    if image.id < 0:
        yield Problem(kind="bad-id", record=f"{where}:", value="ids of images must not be negative")
    for side in ("width", "height"):
        value = getattr(image, side)
        if type(value) not in (int, float) or not 1 <= value < 2**31 or value != int(value):
            yield Problem(
                kind="bad-image-size",
                record=where,
                value=f"has {side} {value!r:.60}",
                remedy="it must be the file's size in whole px, at least 1",
                hint=_hint_at_number(value, whole=False),
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
        )


def annotation_problems(
    record: Any, *, images: Container[int], categories: Container[int]
) -> Iterator[Problem]:
    """Yield all that is wrong with an annotation, whose id is a whole number.

    Args:
        record: the annotation.
        images: ids of the file's images.
        categories: ids of the file's categories.
    """
    where = f"annotation {record.id} (image {record.image_id!r:.60})"
    for kind, key, known, place in (
        ("unknown-image", "image_id", images, '"images"'),
        ("unknown-category", "category_id", categories, '"categories"'),
    ):
        value = getattr(record, key)
        if not is_id(value) or value not in known:
            text = f"has {key} {value!r:.60}, which is not in {place} ({known})"
            hint = _hint_at_number(value, whole=True)
            yield Problem(kind=kind, record=where, value=text, hint=hint)
    yield from _box_problems(where, record.bbox)
    if record.iscrowd is not None and record.iscrowd not in (0, 1):
        value = f"has iscrowd {record.iscrowd!r:.60}"
        yield Problem(kind="bad-iscrowd", record=where, value=value, remedy="it is 0 or 1")


def _box_problems(where: str, box: Any) -> Iterator[Problem]:
    """Yield what is wrong with the `bbox` of an annotation."""
    numbers = [number_or_nan(value) for value in box] if isinstance(box, list | tuple) else []
    hints = [_hint_at_number(value, whole=False) for value in box] if numbers else []
    if len(numbers) != 4 or any(map(math.isnan, numbers)):
        yield Problem(
            kind="bad-bbox",
            record=where,
            value=f"has bbox {box!r:.100}",
            remedy="it must be four finite numbers [x, y, width, height] in px",
            hint=next(filter(None, hints), ""),
        )
        return
    shown = list(box)
    if numbers[2] < 0 or numbers[3] < 0:
        yield Problem(
            kind="negative-size",
            record=where,
            value=f"has bbox {shown}, whose width or height is negative",
            remedy="COCO boxes are [x, y, width, height], not two corners",
        )
    elif max(map(abs, numbers)) >= 2**31:
        value = f"has bbox {shown!r:.100}"
        remedy = "no image is as large as that"
        yield Problem(kind="bad-bbox", record=where, value=value, remedy=remedy)


def number_or_nan(value: Any) -> float:
    """Return a finite number as a float, NaN for anything else."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def meant_number(value: Any) -> int | float | None:
    """Return the number that "7", "67.5" or 2.0 means, whole where it can be; None if none."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 40 and "_" not in value else None
        except ValueError:
            return None
    if type(value) is float and math.isfinite(value):
        return int(value) if value == int(value) and abs(value) < MAX_ID else value
    return value if type(value) is int else None


def _hint_at_number(value: Any, *, whole: bool) -> str:
    """Say that a refused value means a number, if it does."""
    meant = meant_number(value)
    if isinstance(value, str) and meant is not None:
        return " (a number written as text)"
    if whole and type(value) is float and is_id(meant):
        return " (a whole number written as a fraction)"
    return ""
