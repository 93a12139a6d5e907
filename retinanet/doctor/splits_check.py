"""Checks across files: the same picture twice, in one split or in both; other classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinanet.data.checks import class_differences, shared_files
from retinanet.data.coco.annotations import Annotations
from retinanet.doctor.boxes_check import image_findings
from retinanet.doctor.findings import Entry, Findings, findings_of
from retinanet.doctor.image_check import CheckedImage


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """An annotation file whose images have been looked at."""

    split: str
    """`train` or `val`; empty for a file alone."""
    annotations: Annotations
    images: Path | None
    pictures: list[CheckedImage]
    """(N,) of each image, or nothing."""


def check_classes(
    train: Annotations, val: Annotations, classes: Sequence[str] | None
) -> list[Findings]:
    """Find categories that differ between two files, among the chosen classes."""
    differences = class_differences(train.categories, train.path, val.categories, classes)
    entries = [Entry(f"category {number}", text, number) for number, text in differences]
    return findings_of("different-categories", val.path, entries)


def check_copies(files: list[Looked]) -> list[Findings]:
    """Find images of equal content within each split, and images of train that are in val."""
    copies = _copies(files)
    odd = []
    for first in range(len(files)):
        for later in range(first, len(files)):
            if files[first].split != files[later].split:
                odd += _leaks(files, first, later, copies)
                continue
            same = {
                row: other
                for (mine, row), (theirs, other) in copies.items()
                if (mine, theirs) == (later, first)
            }
            relation = "has the content of"
            odd += _point("duplicate-content", files[later], same, files[first], relation)
    return odd


_Place = tuple[int, int]
"""File and row."""


def _leaks(
    files: list[Looked], first: int, later: int, copies: dict[_Place, _Place]
) -> list[Findings]:
    """Find images of a file of val that are in one of train."""
    train, val = files[first], files[later]
    same: dict[int, int] = {}
    if train.images and val.images:
        pairs = shared_files(train.annotations, train.images, val.annotations, val.images)
        same = {row: other for other, row in pairs}
    equal = {
        row: other
        for (mine, row), (theirs, other) in copies.items()
        if (mine, theirs) == (later, first) and row not in same
    }
    kind = "train-image-in-val"
    return _point(kind, val, same, train, "is the file of") + _point(
        kind, val, equal, train, "has the content of"
    )


def _point(
    kind: str, looked: Looked, pairs: dict[int, int], others: Looked, relation: str
) -> list[Findings]:
    """Return findings about images, each of which points to another one."""
    where = "" if looked is others else f" in {others.annotations.path.name}"

    def value(row: int) -> str:
        other = pairs[row]
        number, name = others.annotations.image_ids[other], others.annotations.file_names[other]
        return f"{relation} image {number} ({name}){where}"

    rows = np.array(sorted(pairs), np.int64)
    return image_findings(kind, looked.annotations, rows, value)


def _copies(splits: list[Looked]) -> dict[_Place, _Place]:
    """Return, for each image whose content another file had before, the first that had it."""
    alike: dict[tuple[int, int], list[_Place]] = {}
    for split, looked in enumerate(splits):
        for row, picture in enumerate(looked.pictures):
            if picture.bytes:
                alike.setdefault((picture.bytes, picture.checksum), []).append((split, row))
    copies: dict[_Place, _Place] = {}
    for places in alike.values():
        first: dict[str, _Place] = {}
        seen: set[tuple[int, Path]] = set()
        for split, row in places if len(places) > 1 else []:
            path = _path(splits[split], row)
            if (split, path) in seen:
                continue  # a duplicate-file-name
            seen.add((split, path))
            before = first.setdefault(_hash(path), (split, row))
            if before != (split, row):
                copies[split, row] = before
    return copies


def _path(looked: Looked, row: int) -> Path:
    assert looked.images is not None
    return looked.images / looked.annotations.file_names[row]


def _hash(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes()).hexdigest()
    except OSError:  # gone meanwhile: like no other
        return str(path)
