"""Checks of a split before step 0, and the boxes that training uses.

N images, M boxes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotations import Annotations
from retinanet.data.dataset import UnreadableImageError, read_image
from retinanet.data.headers import stored_size
from retinanet.errors import UserError

_MANY = 10
"""A wrong format is called systematic from this many boxes on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBoxes:
    """The boxes of a file, cut to their images, and which of them are learned from."""

    xyxy: NDArray[np.float32]
    """(M, 4) original px."""
    keep: NDArray[np.bool_]
    """(M,)"""
    remarks: list[str]
    """What was cut or left out, counted."""


def check_format(annotations: Annotations) -> None:
    """Refuse boxes that are systematically in another format than [x, y, width, height] px.

    Raises:
        UserError: corners given as width and height, or normalised coordinates.
    """
    boxes = annotations.boxes
    if len(boxes) < _MANY:
        return
    height, width = _image_sizes(annotations).T
    example = f"annotation {annotations.annotation_ids[0]} has bbox {boxes[0].tolist()}"
    if boxes.max() <= 1.5 and np.minimum(height, width).min() > 16:
        raise UserError(
            f"{annotations.path}: every coordinate of the {len(boxes)} boxes is under 1.5, so they "
            f"look normalised ({example}); multiply them by the images' width and height"
        )
    overshoots = (boxes[:, 0] + boxes[:, 2] > width + 2) | (boxes[:, 1] + boxes[:, 3] > height + 2)
    corners = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    corners &= (boxes[:, 2] <= width + 2) & (boxes[:, 3] <= height + 2)
    if overshoots.sum() >= max(_MANY / 2, 0.2 * len(boxes)) and corners.mean() > 0.99:
        first = int(np.flatnonzero(overshoots)[0])
        raise UserError(
            f"{annotations.path}: {overshoots.sum()} of {len(boxes)} boxes leave their image, and "
            "all would fit as corners [x1, y1, x2, y2]: annotation "
            f"{annotations.annotation_ids[first]} has bbox {boxes[first].tolist()}; write them as "
            "[x, y, width, height]"
        )


def training_boxes(annotations: Annotations, *, min_box_side: float) -> TrainingBoxes:
    """Cut boxes to their images; leave out those without area or with a side under `min_box_side`.

    Args:
        annotations: of the split.
        min_box_side: original px.
    """
    sizes = _image_sizes(annotations)
    raw = annotations.boxes
    corners = np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)
    limit = np.tile(sizes[:, ::-1], 2)
    cut = np.clip(corners, 0, limit)
    sides = cut[:, 2:] - cut[:, :2]
    empty_in_file = raw[:, 2:].min(axis=1, initial=np.inf) <= 0
    outside = ~empty_in_file & (sides.min(axis=1, initial=np.inf) <= 0)
    short = sides.min(axis=1, initial=np.inf) < min_box_side
    small = ~empty_in_file & ~outside & short
    overshoot = (np.abs(cut - corners).max(axis=1, initial=0) > 0) & ~outside & ~empty_in_file
    remarks = [
        _remark(annotations, empty_in_file, "without width or height: left out"),
        _remark(annotations, outside, "wholly outside the image: left out"),
        _remark(annotations, small, f"with a side under {min_box_side:g} px: left out"),
        _remark(annotations, overshoot, "reach over the image's border: cut"),
    ]
    return TrainingBoxes(
        xyxy=cut.astype(np.float32),
        keep=~(empty_in_file | outside | small),
        remarks=[remark for remark in remarks if remark],
    )


def _remark(annotations: Annotations, rows: NDArray[np.bool_], what: str) -> str:
    if not rows.any():
        return ""
    ids = annotations.annotation_ids[rows]
    some = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{len(ids)} boxes {what} (annotations {some})"


def _image_sizes(annotations: Annotations) -> NDArray[np.int64]:
    """Return the height and width (M, 2) of each box's image."""
    return annotations.sizes[annotations.image_of_box()]


def check_split(annotations: Annotations, *, split: str, learn: bool) -> None:
    """Refuse a split that holds nothing to learn from or to score.

    Raises:
        UserError: no images, or (to learn from) no boxes.
    """
    if not len(annotations):
        raise UserError(f'{annotations.path}: "images" is empty: data.{split} has nothing in it')
    if learn and not (~annotations.crowd).any():
        raise UserError(
            f"{annotations.path}: data.{split} has {len(annotations)} images but no box to learn"
        )


def check_same_classes(train: Annotations, val: Annotations) -> None:
    """Refuse splits whose categories differ in id or name.

    Raises:
        UserError: the first category that differs.
    """
    a = dict(zip(train.categories.ids, train.categories.names, strict=True))
    b = dict(zip(val.categories.ids, val.categories.names, strict=True))
    for category in sorted(a.keys() | b.keys()):
        if a.get(category) != b.get(category):
            raise UserError(
                f"{val.path}: category {category} is {_said(b.get(category))}, but "
                f"{_said(a.get(category))} in {train.path}; both files need the same categories"
            )


def _said(name: str | None) -> str:
    return "missing" if name is None else repr(name)


def check_files(annotations: Annotations, images: Path) -> None:
    """Look at every image file once: it must be there and not be empty.

    Args:
        annotations: of the split.
        images: folder that file_name starts from.

    Raises:
        UserError: the missing ones, counted, the first named.
    """
    if not os.path.isdir(images):  # noqa: PTH112 (it takes a forbidden one, too)
        raise UserError(f"{images}: there is no such image folder (for {annotations.path})")
    missing, empty = [], []
    for row, name in enumerate(annotations.file_names):
        try:
            if os.stat(images / name).st_size == 0:  # noqa: PTH116 (os.stat is half the cost)
                empty.append(row)
        except (OSError, ValueError):
            missing.append(row)
    for bad, what in ((missing, "missing"), (empty, "empty")):
        if bad:
            raise UserError(
                f"{annotations.path}: {len(bad)} of {len(annotations)} image files are {what} in "
                f"{images}, the first is {annotations.file_names[bad[0]]!r} (image "
                f"{annotations.image_ids[bad[0]]}); is data.root or data.*.images right?"
            )


def check_whole(annotations: Annotations, images: Path) -> None:
    """Look at the beginning and the end of every image file; decode those that raise a doubt.

    For evaluation, which leaves no image out: it should stop before step 0, not after hours.

    Raises:
        UserError: the first image that cannot be decoded, or is of another size.
    """
    for name, (height, width) in zip(
        annotations.file_names, annotations.sizes.tolist(), strict=True
    ):
        if stored_size(images / name) != (height, width):
            try:
                read_image(images / name, (height, width))
            except UnreadableImageError as error:
                raise UserError(f"{error} (evaluation leaves no image out)") from None


def class_table(annotations: Annotations, boxes: TrainingBoxes | None = None) -> list[str]:
    """Return lines that say what a split holds."""
    counts = annotations.class_counts()
    empty = int((np.diff(annotations.offsets) == 0).sum())
    crowds = int(annotations.crowd.sum())
    lines = [
        f"{len(annotations):,} images, {counts.sum():,} boxes of {len(counts)} classes"
        f"{f', {crowds} crowd regions' if crowds else ''}"
        f"{f', {empty:,} images without boxes' if empty else ''}"
    ]
    names = annotations.categories.names
    shown = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True) if count]
    lines.append(
        "  " + ", ".join(shown[:20]) + (f", ... ({len(shown)})" if len(shown) > 20 else "")
    )
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        some = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        lines.append(f"  {len(absent)} classes have no box: {some}")
    remarks = [*annotations.remarks, *(boxes.remarks if boxes else [])]
    return lines + [f"  {remark}" for remark in remarks]
