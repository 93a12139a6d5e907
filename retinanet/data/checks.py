"""Checks of a split before step 0."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import Categories, shown_names
from retinanet.data.boxes_used import Census, parts
from retinanet.data.coco.annotations import Annotations
from retinanet.data.found_files import describe_found
from retinanet.data.images.headers import stored_size
from retinanet.data.images.reading import UnreadableImageError, WrongSizeError, read_image
from retinanet.data.images.size_mismatch import mismatch_remedy
from retinanet.errors import UserError, plural

_MIN_BOXES = 10
"""Minimum number of boxes that can show a systematically wrong format."""
CORNERS = "corners [x1, y1, x2, y2]"
CENTRES = "[centre x, centre y, width, height]"
_REMEDY = (
    "write them as [x, y, width, height] px: `retinanet check {path} --fix OUT.json` does so, or "
    "says what it needs to know"
)
_FITTING_FORMAT = {
    "corners": CORNERS,
    "centres": CENTRES,
    "unclear": f"{CORNERS}, and as {CENTRES}",
}


@dataclass(frozen=True, kw_only=True)
class WrongFormat:
    """Boxes that are systematically not [x, y, width, height] px."""

    kind: Literal["normalised", "corners", "centres", "unclear"]
    count: int
    """Boxes that show it."""
    text: str
    remedy: str


def find_wrong_format(annotations: Annotations) -> WrongFormat | None:
    """Return the format of the boxes if they are systematically not [x, y, width, height] px."""
    count = len(annotations.boxes)
    if not count:
        return None
    highest, smallest, overshoots, first = 0.0, np.inf, 0, -1
    corners = centres = corner_areas = 0
    for start, stop, size in box_parts(annotations):
        boxes, (height, width) = annotations.boxes[start:stop], size.T
        highest = max(highest, float(boxes.max()))
        smallest = min(smallest, float(size.min()))
        x, y, w, h = boxes.T
        over = (x + w > width + 2) | (y + h > height + 2)
        overshoots += int(over.sum())
        corners += int(fit_as_corners(boxes, size).sum())
        centres += int(fit_as_centres(boxes, size).sum())
        corner_areas += int(corner_area(boxes, annotations.areas[start:stop]).sum())
        first = start + int(over.argmax()) if first < 0 and over.any() else first
    if highest <= 1.5 and smallest > 16:
        return WrongFormat(
            kind="normalised",
            count=count,
            text=f"every coordinate of the {count} boxes is under 1.5, so they look normalised "
            f"({_example_box(annotations, 0)})",
            remedy=_REMEDY.format(path=shlex.quote(str(annotations.path))),
        )
    if (
        count < _MIN_BOXES
        or overshoots < max(_MIN_BOXES / 2, 0.2 * count)
        or max(corners, centres) <= 0.99 * count
    ):
        return None
    kind: Literal["corners", "centres", "unclear"] = "corners"
    if centres > 0.99 * count and corner_areas < 0.5 * count:
        kind = "unclear" if corners > 0.99 * count else "centres"
    return WrongFormat(
        kind=kind,
        count=overshoots,
        text=f"{overshoots} of {count} boxes extend beyond their image, but all would fit as "
        f"{_FITTING_FORMAT[kind]}: {_example_box(annotations, first)}",
        remedy=_REMEDY.format(path=shlex.quote(str(annotations.path))),
    )


def check_format(annotations: Annotations) -> None:
    """Refuse boxes that are systematically in another format than [x, y, width, height] px.

    Raises:
        UserError: The boxes are corners, have their centre as x and y, or are normalised.
    """
    wrong = find_wrong_format(annotations)
    if wrong is not None:
        raise UserError(f"{annotations.path}: {wrong.text}; {wrong.remedy}")


def box_parts(annotations: Annotations) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield ranges of boxes, with the height and width of each box's image."""
    for first, last in parts(annotations):
        start, stop = annotations.offsets[[first, last]].tolist()
        if stop > start:
            counts = np.diff(annotations.offsets[first : last + 1])
            yield start, stop, np.repeat(annotations.sizes[first:last], counts, axis=0)


def fit_as_corners(boxes: NDArray[Any], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of M boxes lie in their image (height, width) if read as [x1, y1, x2, y2]."""
    (x, y, w, h), (height, width) = boxes.T, size.T
    return (w > x) & (h > y) & (w <= width + 2) & (h <= height + 2)


def fit_as_centres(boxes: NDArray[Any], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of M boxes lie in their image if read as [centre x, centre y, width, height]."""
    (x, y, w, h), (height, width) = boxes.T, size.T
    within = (x + w / 2 <= width + 2) & (y + h / 2 <= height + 2)
    return within & (x - w / 2 >= -2) & (y - h / 2 >= -2)


def corner_area(boxes: NDArray[Any], areas: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which boxes have the area between two corners, not width x height."""
    x, y, w, h = boxes.T.astype(np.float64)
    slack = 0.01 * areas + 1
    return (np.abs((w - x) * (h - y) - areas) <= slack) & (np.abs(w * h - areas) > slack)


def _example_box(annotations: Annotations, place: int) -> str:
    box = [round(value, 3) for value in annotations.boxes[place].tolist()]
    return f"annotation {annotations.annotation_ids[place]} has bbox {box}"


def check_has_data(annotations: Annotations, *, split: str, learn: bool) -> None:
    """Refuse a split with nothing to learn from or to score.

    Raises:
        UserError: There are no images, or (for training) no boxes.
    """
    if not len(annotations):
        raise UserError(f'{annotations.path}: "images" is empty: data.{split} has no images')
    if learn and annotations.crowd.all():
        remedy = ""
        if len(annotations.crowd):
            count = len(annotations.crowd)
            every = f"all {count:,} are regions" if count > 1 else "the only one is a region"
            remedy = (
                f": {every} to ignore (iscrowd 1); for objects, `retinanet check "
                f"{shlex.quote(str(annotations.path))} --fix OUT.json --fix-as crowds=objects` "
                "changes that"
            )
        raise UserError(
            f"{annotations.path}: data.{split} has {plural(len(annotations), 'image')} but no box "
            f"to learn from{remedy}"
        )


def check_same_classes(
    known: Categories,
    source: Path,
    annotations: Annotations,
    classes: Sequence[str] | None = None,
) -> None:
    """Refuse a split whose categories differ in id or name from those of a file.

    Args:
        known: Categories of that file.
        source: Path of that file: the annotations of another split, or a checkpoint.
        annotations: Index of the split.
        classes: Names to compare; None for all.

    Raises:
        UserError: A category differs; the message names the first one.
    """
    remedy = ""
    if source.suffix in (".json", ".gz"):
        files = shlex.join([str(source), str(annotations.path)])
        remedy = (
            f": `retinanet convert coco {files} OUT --to coco --images FOLDER` writes both with "
            "the same categories, matched by name"
        )
    for category, text in class_differences(known, source, annotations.categories, classes):
        raise UserError(
            f"{annotations.path}: category {category} {text}; both files need the same categories"
            f"{remedy}"
        )


def class_differences(
    known: Categories,
    source: Path,
    categories: Categories,
    classes: Sequence[str] | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield the ids of categories that differ from those of `source`, and how they differ.

    With `classes` (names), only categories with such a name in at least one file are compared.
    """
    a = dict(zip(known.ids, known.names, strict=True))
    b = dict(zip(categories.ids, categories.names, strict=True))
    for category in sorted(a.keys() | b.keys()):
        both = a.get(category), b.get(category)
        matters = classes is None or any(name in classes for name in both)
        if both[0] != both[1] and matters:
            theirs, ours = ("missing" if name is None else repr(name) for name in both)
            yield category, f"is {ours}, but {theirs} in {source}"


def check_files(
    annotations: Annotations,
    images: Path,
    *,
    remedy: str = "is data.*.images right?",
    find: str = "set data.find_images=true",
    leave_out: str = "",
    parts: Sequence[tuple[Annotations, Path]] = (),
) -> None:
    """Check every image file: it must exist, be a regular file and not be empty.

    Args:
        annotations: Index of the split.
        images: Folder that file_name starts from.
        remedy: Question at the end of the message.
        find: Remedy if the files exist under similar names.
        leave_out: Remedy that leaves the images out of the annotation file.
        parts: The annotation files of the split and their image folders, if there are several.

    Raises:
        UserError: Files are wrong. The message counts them and names the first.
    """
    if not os.path.isdir(images):  # noqa: PTH112 (it takes a folder that may not be read, too)
        is_file = os.path.isfile(images)  # noqa: PTH113 (as above)
        wrong = "is a file, not an image folder" if is_file else "there is no such image folder"
        raise UserError(f"{images}: {wrong} (for {annotations.path})")
    missing, empty, other = [], [], []
    for row, name in enumerate(annotations.file_names):
        try:
            status = os.stat(images / name)  # noqa: PTH116 (os.stat is half the cost)
        except (OSError, ValueError):
            missing.append(row)
            continue
        if not S_ISREG(status.st_mode):
            other.append(row)
        elif status.st_size == 0:
            empty.append(row)
    kinds = (
        (missing, "is missing", "are missing"),
        (other, "is a folder or a device", "are folders or devices"),
        (empty, "is empty", "are empty"),
    )
    for bad, one, many in kinds:
        if bad:
            found = ""
            if bad is missing:
                found = describe_found(parts or [(annotations, images)], find)
            if leave_out and not found and len(bad) < len(annotations):
                remedy = f"{remedy} {leave_out}"
            state = one if len(bad) == 1 else many
            raise UserError(
                f"{annotations.path}: {len(bad)} of {len(annotations)} image files {state} in "
                f"{images}, the first is {annotations.file_names[bad[0]]!r} (image "
                f"{annotations.image_ids[bad[0]]}); {found or remedy}"
            )


def check_whole(annotations: Annotations, images: Path) -> None:
    """Read the beginning and the end of every image file, and decode files that look doubtful.

    Evaluation does not skip images, so it should stop before step 0 and not hours later.

    Raises:
        UserError: An image cannot be decoded or has another size; the message names the first.
    """
    for name, (height, width) in zip(
        annotations.file_names, annotations.sizes.tolist(), strict=True
    ):
        if stored_size(images / name) != (height, width):
            try:
                read_image(images / name, (height, width))
            except WrongSizeError as error:
                paths = (shlex.quote(str(path)) for path in (annotations.path, images))
                remedy = mismatch_remedy(error.mismatch, *paths)
                raise UserError(
                    f"{error.found} (evaluation does not skip images); {remedy}"
                ) from None
            except UnreadableImageError as error:
                raise UserError(f"{error} (evaluation does not skip images)") from None


def shared_files(
    a: Annotations, folder_a: Path, b: Annotations, folder_b: Path
) -> list[tuple[int, int]]:
    """Return the rows (in a, in b) of images of two splits that have the same path."""
    first, second = (os.path.realpath(folder) for folder in (folder_a, folder_b))
    if os.path.commonpath([first, second]) not in (first, second):
        return []
    rows = {_normal_path(first, name): row for row, name in enumerate(a.file_names)}
    places = enumerate(_normal_path(second, name) for name in b.file_names)
    return [(rows[place], row) for row, place in places if place in rows]


def _normal_path(folder: str, name: str) -> str:
    return os.path.normpath(os.path.join(folder, name))  # noqa: PTH118 (half the cost)


def describe_shared(
    train: Annotations, train_images: Path, val: Annotations, val_images: Path
) -> list[str]:
    """Return a warning if images of val are also in train: the AP would then be too high."""
    shared = shared_files(train, train_images, val, val_images)
    if not shared:
        return []
    names = [repr(val.file_names[row]) for _, row in shared[:3]]
    return [
        f"  warning: {len(shared)} of {len(val)} images of data.val "
        f"{'is' if len(shared) == 1 else 'are'} also in data.train "
        f"({', '.join(names)}{', ...' if len(shared) > 3 else ''}): AP will be too high"
    ]


def class_table(annotations: Annotations, census: Census | None = None) -> list[str]:
    """Return lines that describe the content of a split."""
    counts = annotations.class_counts()
    empty = int((np.diff(annotations.offsets) == 0).sum())
    crowds = int(annotations.crowd.sum())
    lines = [
        f"{plural(len(annotations), 'image')}, {plural(int(counts.sum()), 'box')} of "
        f"{plural(len(counts), 'class')}"
        f"{', ' + plural(crowds, 'crowd region') if crowds else ''}"
        f"{', ' + plural(empty, 'image') + ' without boxes' if empty else ''}"
    ]
    names = shown_names(annotations.categories.names)
    shown = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True) if count]
    if shown:
        more = f", ... ({len(shown)})" if len(shown) > 20 else ""
        lines.append(f"  {', '.join(shown[:20])}{more}")
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        some = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        lines.append(f"  {plural(len(absent), 'class')} without boxes: {some}")
    remarks = [*annotations.remarks, *(census.remarks if census else [])]
    return lines + [f"  {remark}" for remark in remarks]
