"""What is wrong with a record of a COCO file, in words: file, record, value, remedy.

The careful half of `coco_json`: one record at a time, of whatever types it came in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from retinanet.data.ids import Ids
from retinanet.errors import UserError

MAX_ID = 2**53
"""Ids beyond it are not exact in every reader of JSON."""


def is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < MAX_ID


def is_name(value: Any) -> bool:
    """Whether a value is a text that can be printed: not blank, no NUL, no half of a surrogate."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return value == value.encode(errors="ignore").decode()


def check_ids(path: Path, word: str, values: Sequence[Any], first: int = 0) -> None:
    for row, value in enumerate(values, first):
        if not is_id(value):
            raise UserError(
                f"{path}: {word} record {row} has id {value!r:.60}; ids must be whole numbers"
            )


def check_image(path: Path, image: Any) -> None:
    if image.id < 0:
        raise UserError(f"{path}: image {image.id}: ids of images must not be negative")
    for side in ("width", "height"):
        value = getattr(image, side)
        if type(value) not in (int, float) or not 1 <= value < 2**31 or value != int(value):
            raise UserError(
                f"{path}: image {image.id} has {side} {value!r:.60}; it must be the file's "
                "size in whole px, at least 1"
            )
    name = image.file_name
    if not is_name(name):
        raise UserError(f"{path}: image {image.id} has file_name {name!r:.60}; it must be a name")
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(name).anchor or ".." in flavour(name).parts:
            raise UserError(
                f"{path}: image {image.id} has file_name {name!r:.200}, which leads outside the "
                "image folder; it must be relative to it, without '..'"
            )


def check_annotation(path: Path, record: Any, *, images: Ids, categories: Ids) -> None:
    """Check an annotation's values against the file's images and categories."""
    where = f"{path}: annotation {record.id} (image {record.image_id!r:.60})"
    for key, known, place in (
        ("image_id", images, '"images"'),
        ("category_id", categories, '"categories"'),
    ):
        value = getattr(record, key)
        if not is_id(value) or value not in known:
            raise UserError(f"{where} has {key} {value!r:.60}, which is not in {place} ({known})")
    _check_box(where, record.bbox)
    if record.iscrowd is not None and record.iscrowd not in (0, 1):
        raise UserError(f"{where} has iscrowd {record.iscrowd!r:.60}; it is 0 or 1")


def _check_box(where: str, box: Any) -> None:
    numbers = [number(value) for value in box] if isinstance(box, list | tuple) else []
    if len(numbers) != 4 or any(map(math.isnan, numbers)):
        raise UserError(
            f"{where} has bbox {box!r:.100}; it must be four finite numbers "
            "[x, y, width, height] in px"
        )
    shown = list(box)
    if numbers[2] < 0 or numbers[3] < 0:
        raise UserError(
            f"{where} has bbox {shown}, whose width or height is negative; COCO boxes "
            "are [x, y, width, height], not two corners"
        )
    if max(map(abs, numbers)) >= 2**31:
        raise UserError(f"{where} has bbox {shown!r:.100}; no image is as large as that")


def number(value: Any) -> float:
    """Return a finite number as a float, NaN for anything else."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan
