"""Checks across files: the same image twice, in one split or in both, and different classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinanet.data.checks import class_differences, shared_files
from retinanet.data.coco.annotations import Annotations
from retinanet.doctor.boxes_check import image_findings
from retinanet.doctor.findings import Finding, Findings, findings_of
from retinanet.doctor.image_check import CheckedImage
from retinanet.files import check_regular

_Place = tuple[int, int]
"""File and row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitImages:
    """An annotation file with its checked images."""

    split: str
    """`train` or `val`; empty for a file that is checked by itself."""
    annotations: Annotations
    folder: Path | None
    """Image folder, if it exists."""
    checked_images: list[CheckedImage]
    """(N,) one per image; empty if the images were not checked."""

    def path(self, row: int) -> Path:
        """Return the path of an image file."""
        assert self.folder is not None
        return self.folder / self.annotations.file_names[row]


def check_classes(
    train: Annotations, val: Annotations, classes: Sequence[str] | None
) -> list[Findings]:
    """Find categories that differ between two files, among the chosen classes."""
    differences = class_differences(train.categories, train.path, val.categories, classes)
    entries = [Finding(f"category {number}", text, number) for number, text in differences]
    return findings_of("different-categories", val.path, entries)


def check_copies(files: list[SplitImages]) -> list[Findings]:
    """Find identical images within each split, and images of train in val."""
    copies = _find_copies(files)
    findings = []
    for first in range(len(files)):
        for later in range(first, len(files)):
            pairs = {
                row: other
                for (file, row), (other_file, other) in copies.items()
                if (file, other_file) == (later, first)
            }
            if files[first].split != files[later].split:
                findings += _leaks(files[first], files[later], pairs)
            else:
                findings += _copies(files[first], files[later], pairs)
    return findings


def _copies(one: SplitImages, other: SplitImages, copies: dict[int, int]) -> list[Findings]:
    """Find images that appear twice in a split, in the same annotation file or in two."""
    same_file = {} if one is other else _same_files(one, other)
    equal = {row: origin for row, origin in copies.items() if row not in same_file}
    return _refer_to_others(
        "image-in-several-files", other, same_file, one, "is the same file as"
    ) + _refer_to_others("duplicate-content", other, equal, one, "has the same content as")


def _same_files(one: SplitImages, other: SplitImages) -> dict[int, int]:
    """Return images with the same path: rows of the other -> rows of the one."""
    if not one.folder or not other.folder:
        return {}
    pairs = shared_files(one.annotations, one.folder, other.annotations, other.folder)
    return {row: origin for origin, row in pairs}


def _leaks(train: SplitImages, val: SplitImages, copies: dict[int, int]) -> list[Findings]:
    """Find images of val that are in train; `copies` maps rows of val to rows of train."""
    same_file = _same_files(train, val)
    equal = {row: other for row, other in copies.items() if row not in same_file}
    kind = "train-image-in-val"
    return _refer_to_others(kind, val, same_file, train, "is the same file as") + _refer_to_others(
        kind, val, equal, train, "has the same content as"
    )


def _refer_to_others(
    kind: str, images: SplitImages, pairs: dict[int, int], others: SplitImages, relation: str
) -> list[Findings]:
    """Return findings about images that each refer to another one; `pairs` maps their rows."""
    where = "" if images is others else f" in {others.annotations.path.name}"

    def value(row: int) -> str:
        other = pairs[row]
        number, name = others.annotations.image_ids[other], others.annotations.file_names[other]
        return f"{relation} image {number} ({name}){where}"

    rows = np.array(sorted(pairs), np.int64)
    return image_findings(kind, images.annotations, rows, value)


def _find_copies(files: list[SplitImages]) -> dict[_Place, _Place]:
    """Return, for each copy of an earlier image file, the first image with that content."""
    alike: dict[tuple[int, int], list[_Place]] = {}
    for file, images in enumerate(files):
        for row, image in enumerate(images.checked_images):
            if image.bytes:
                alike.setdefault((image.bytes, image.checksum), []).append((file, row))
    copies: dict[_Place, _Place] = {}
    for places in alike.values():
        first: dict[str, _Place] = {}
        seen: set[tuple[int, Path]] = set()
        for file, row in places if len(places) > 1 else []:
            path = files[file].path(row)
            if (file, path) in seen:
                continue  # a duplicate-file-name
            seen.add((file, path))
            before = first.setdefault(_content_hash(path), (file, row))
            if before != (file, row):
                copies[file, row] = before
    return copies


def _content_hash(path: Path) -> str:
    try:
        return hashlib.blake2b(check_regular(path).read_bytes()).hexdigest()
    except OSError:  # deleted in the meantime: equal to no other file
        return str(path)
