"""COCO JSON -> an index that has been checked record by record.

N images, M boxes, K classes. Everything about classes comes from here: the sorted category ids of
the file are the labels 0..K-1, and there is no background slot.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from retinanet.errors import UserError

_MAX_ID = 2**53
"""Ids beyond it are not exact in every reader of JSON."""


@dataclass(frozen=True, kw_only=True)
class Categories:
    """The classes of a data set, label k is the k-th of the sorted ids."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """One annotation file as arrays; the boxes of image i are rows offsets[i]:offsets[i + 1]."""

    path: Path
    categories: Categories
    image_ids: NDArray[np.int64]
    """(N,)"""
    sizes: NDArray[np.int64]
    """(N, 2) height and width, px, as the file says."""
    file_names: list[str]
    offsets: NDArray[np.int64]
    """(N + 1,)"""
    annotation_ids: NDArray[np.int64]
    """(M,)"""
    boxes: NDArray[np.float64]
    """(M, 4) xywh, px, as the file says."""
    labels: NDArray[np.int64]
    """(M,) 0..K-1."""
    crowd: NDArray[np.bool_]
    """(M,)"""
    areas: NDArray[np.float64]
    """(M,) px², width * height where the file gives none."""
    remarks: list[str] = field(default_factory=list)
    """What was filled in or is odd, counted, for the log."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of boxes (K,) of each class, crowds left out."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.categories))

    def image_of_box(self) -> NDArray[np.int64]:
        """Return the image's row (M,) of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def fingerprint(self) -> str:
        """Return a hash of what training depends on, so that a resume notices other data."""
        digest = hashlib.sha256()
        arrays = (self.image_ids, self.sizes, self.offsets, self.boxes, self.labels, self.crowd)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\0".join(self.file_names).encode())
        return digest.hexdigest()[:16]


class _Image(msgspec.Struct):
    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None


class _Annotation(msgspec.Struct):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = None


class _File(msgspec.Struct):
    """The parts of a COCO file that detection needs; segmentations are skipped, not built."""

    images: list[_Image] | None = None
    annotations: list[_Annotation] | None = None
    categories: list[_Category] | None = None


def read_annotations(path: Path, *, images_only: bool = False) -> Annotations:
    """Read and check a COCO JSON file.

    Args:
        path: of the file.
        images_only: an image list such as test-dev's: it needs neither annotations nor categories.

    Raises:
        UserError: the first record that is wrong, with its place, value and remedy.
    """
    file = _parse(path)
    needed = ["images"] if images_only else ["images", "annotations", "categories"]
    for key in needed:
        if getattr(file, key) is None:
            raise UserError(f'{path}: has no "{key}" list; a COCO file has {", ".join(needed)}')
    if images_only and not file.categories:
        categories = Categories(ids=(), names=())
    else:
        categories = _categories(path, file.categories or [])
    images = file.images or []
    rows = _check_images(path, images)
    return _index(path, images, rows, file.annotations or [], categories)


def _parse(path: Path) -> _File:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such annotation file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return msgspec.json.decode(content, type=_File)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a COCO file: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        return _parse_leniently(path, content)


def _parse_leniently(path: Path, content: bytes) -> _File:
    """Read what Python's json accepts too: NaN and Infinity, whose records are then named."""
    try:
        return msgspec.convert(json.loads(content), type=_File)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a COCO file: {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not JSON: {type(error).__name__}") from None


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < _MAX_ID


def _is_name(value: Any) -> bool:
    """Whether a value is a text that can be printed: not blank, no NUL, no half of a surrogate."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return value == value.encode(errors="ignore").decode()


def _unique(path: Path, word: str, values: Iterable[Any]) -> dict[int, int]:
    """Return id -> row; ids must be whole numbers and unique."""
    rows: dict[int, int] = {}
    for row, value in enumerate(values):
        if not _is_id(value):
            raise UserError(
                f"{path}: {word} record {row} has id {value!r:.60}; ids must be whole numbers"
            )
        if value in rows:
            raise UserError(
                f"{path}: {word} records {rows[value]} and {row} both have id {value}; ids must "
                "be unique"
            )
        rows[value] = row
    return rows


def _categories(path: Path, records: list[_Category]) -> Categories:
    if not records:
        raise UserError(f'{path}: "categories" is empty; there is no class to learn')
    _unique(path, "category", (record.id for record in records))
    names: dict[str, int] = {}
    for record in records:
        if not _is_name(record.name):
            raise UserError(f"{path}: category {record.id} has no name ({record.name!r:.60})")
        if record.name in names:
            raise UserError(
                f"{path}: categories {names[record.name]} and {record.id} are both named "
                f"{record.name!r}; rename or merge them"
            )
        names[record.name] = record.id
    ordered = sorted(records, key=lambda record: record.id)
    return Categories(ids=tuple(r.id for r in ordered), names=tuple(r.name for r in ordered))


def _check_images(path: Path, images: list[_Image]) -> dict[int, int]:
    """Check every image record and return image id -> row."""
    rows = _unique(path, "image", (image.id for image in images))
    for image in images:
        if image.id < 0:
            raise UserError(f"{path}: image {image.id}: ids of images must not be negative")
        for side in ("width", "height"):
            value = getattr(image, side)
            if type(value) not in (int, float) or not 1 <= value < 2**31 or value != int(value):
                raise UserError(
                    f"{path}: image {image.id} has {side} {value!r:.60}; it must be the file's "
                    "size in whole px, at least 1"
                )
        _check_file_name(path, image)
    return rows


def _check_file_name(path: Path, image: _Image) -> None:
    name = image.file_name
    if not _is_name(name):
        raise UserError(f"{path}: image {image.id} has file_name {name!r:.60}; it must be a name")
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(name).anchor or ".." in flavour(name).parts:
            raise UserError(
                f"{path}: image {image.id} has file_name {name!r:.200}, which leads outside the "
                "image folder; it must be relative to it, without '..'"
            )


def _index(
    path: Path,
    images: list[_Image],
    image_rows: dict[int, int],
    records: list[_Annotation],
    categories: Categories,
) -> Annotations:
    """Check every annotation and sort them by image, in the file's order within an image."""
    _unique(path, "annotation", (record.id for record in records))
    labels_of = {category: label for label, category in enumerate(categories.ids)}
    m = len(records)
    rows, labels = np.empty(m, np.int64), np.empty(m, np.int64)
    boxes, areas, crowd = np.empty((m, 4)), np.empty(m), np.empty(m, bool)
    filled = 0
    for i, record in enumerate(records):
        rows[i] = _lookup(path, record, "image_id", image_rows, '"images"')
        labels[i] = _lookup(path, record, "category_id", labels_of, '"categories"')
        boxes[i] = _box(path, record)
        crowd[i] = _crowd(path, record)
        given = _number(record.area)
        areas[i] = boxes[i, 2] * boxes[i, 3] if given is None else given
        filled += given is None
    order = np.argsort(rows, kind="stable")
    remarks = [f"{filled} annotations without area: filled with width x height"] if filled else []
    return Annotations(
        path=path,
        categories=categories,
        image_ids=np.array([image.id for image in images], np.int64),
        sizes=np.array([(i.height, i.width) for i in images], np.int64).reshape(-1, 2),
        file_names=[image.file_name for image in images],
        offsets=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(images)))]),
        annotation_ids=np.array([record.id for record in records], np.int64)[order],
        boxes=boxes[order],
        labels=labels[order],
        crowd=crowd[order],
        areas=areas[order],
        remarks=remarks,
    )


def _where(path: Path, record: _Annotation) -> str:
    return f"{path}: annotation {record.id} (image {record.image_id!r:.60})"


def _lookup(path: Path, record: _Annotation, key: str, known: dict[int, int], place: str) -> int:
    value = getattr(record, key)
    row = known.get(value) if _is_id(value) else None
    if row is None:
        some = ", ".join(map(str, list(known)[:10])) + (", ..." if len(known) > 10 else "")
        raise UserError(
            f"{_where(path, record)} has {key} {value!r:.60}, which is not in {place} ({some})"
        )
    return row


def _number(value: Any) -> float | None:
    """Return a finite number as a float, else None."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _box(path: Path, record: _Annotation) -> list[float]:
    box = record.bbox
    numbers = [_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        raise UserError(
            f"{_where(path, record)} has bbox {box!r:.100}; it must be four finite numbers "
            "[x, y, width, height] in px"
        )
    values = [number for number in numbers if number is not None]
    if values[2] < 0 or values[3] < 0:
        raise UserError(
            f"{_where(path, record)} has bbox {box}, whose width or height is negative; COCO boxes "
            "are [x, y, width, height], not two corners"
        )
    return values


def _crowd(path: Path, record: _Annotation) -> bool:
    if record.iscrowd is None:
        return False
    if record.iscrowd not in (0, 1):
        raise UserError(f"{_where(path, record)} has iscrowd {record.iscrowd!r:.60}; it is 0 or 1")
    return bool(record.iscrowd)
