"""Checks of the boxes of an index, many at a time. M boxes, N images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.boxes_used import cut_boxes, parts
from retinanet.data.coco.annotations import Annotations
from retinanet.doctor.findings import Entry, Findings, findings_of
from retinanet.doctor.format_check import check_format

_MOSTLY = 0.5
"""Share of images without boxes from which it looks like a mistake."""
_SLACK = 1.01
"""An area may be larger than its box by rounding: by 1 % and 1 px²."""

Places = NDArray[np.int64]


def check_boxes(
    annotations: Annotations,
    *,
    learn: bool,
    min_box_side: float,
    max_detections: int,
    images_with_lost_boxes: frozenset[int] = frozenset(),
    chosen: Annotations | None = None,
) -> list[Findings]:
    """Return all that is odd about the boxes of a file.

    Args:
        annotations: of the file.
        learn: it is to train on.
        min_box_side: original px.
        max_detections: of an image.
        images_with_lost_boxes: ids of images whose boxes were set aside, and which only look empty.
        chosen: the classes of it that are trained on, where those are not all: they alone decide
            what an image and a class lack.
    """
    chosen = annotations if chosen is None else chosen
    path = annotations.path
    if not len(annotations):
        return findings_of("no-images", path, [Entry("", "has no image")])
    odd = check_format(annotations)
    if not odd:  # otherwise every box would be named
        odd += _odd_places(annotations, min_box_side) + _odd_areas(annotations)
    odd += _repeated(annotations) + _by_image(chosen, max_detections, images_with_lost_boxes)
    odd += _by_class(chosen)
    if chosen.crowd.all():
        kind = "no-boxes" if learn else "nothing-to-score"
        text = f"has {len(annotations)} images but no box"
        odd += findings_of(kind, path, [Entry("", text)])
    return odd


def _odd_places(annotations: Annotations, min_box_side: float) -> list[Findings]:
    """Find the boxes that are left out or cut."""
    fields = {"zero-area": "empty", "outside": "outside", "small-box": "small", "overshoot": "cut"}
    places: dict[str, list[Places]] = {kind: [] for kind in fields}
    for first, last in parts(annotations):
        cut = cut_boxes(annotations, first, last, min_box_side=min_box_side)
        start = annotations.offsets[first]
        for kind, name in fields.items():
            places[kind].append(start + np.flatnonzero(getattr(cut, name)))
    return [
        one
        for kind in fields
        for one in _boxes(
            kind,
            annotations,
            np.concatenate(places[kind]),
            _overshoot if kind == "overshoot" else _size if kind == "outside" else _nothing,
        )
    ]


def _boxes(
    kind: str,
    annotations: Annotations,
    places: Places,
    remark: Callable[[Annotations, int], str],
) -> list[Findings]:
    """Return findings about the boxes in some places of the index."""

    def entry(i: int) -> Entry:
        place = int(places[i])
        number = int(annotations.annotation_ids[place])
        image = annotations.image_ids[_row(annotations, place)]
        value = f"has bbox {shown(annotations, place)}{remark(annotations, place)}"
        return Entry(f"annotation {number} (image {image})", value, number)

    if not len(places):
        return []
    return [Findings(kind=kind, file=annotations.path, count=len(places), entry=entry)]


def _row(annotations: Annotations, place: int) -> int:
    """Return the row of the image that a box belongs to."""
    return int(np.searchsorted(annotations.offsets, place, side="right")) - 1


def shown(annotations: Annotations, place: int) -> str:
    """Return a box as a person would write it."""
    return "[" + ", ".join(f"{value:.6g}" for value in annotations.boxes[place].tolist()) + "]"


def _nothing(annotations: Annotations, place: int) -> str:
    return ""


def _size(annotations: Annotations, place: int) -> str:
    height, width = annotations.sizes[_row(annotations, place)]
    return f" in an image of {width}x{height} px"


def _overshoot(annotations: Annotations, place: int) -> str:
    height, width = annotations.sizes[_row(annotations, place)]
    x, y, w, h = annotations.boxes[place].astype(np.float64).tolist()
    over = max(-x, -y, x + w - width, y + h - height)
    return f", {over:.3g} px over the border of {width}x{height} px"


def _repeated(annotations: Annotations) -> list[Findings]:
    """Find boxes that stand twice, with their class, in one image."""
    places, originals = [], []
    for first, last in parts(annotations):
        start, stop = annotations.offsets[[first, last]].tolist()
        owner = np.repeat(np.arange(first, last), np.diff(annotations.offsets[first : last + 1]))
        columns: list[NDArray[Any]] = [
            owner,
            annotations.labels[start:stop],
            annotations.crowd[start:stop],
        ]
        columns += list(annotations.boxes[start:stop].T)
        order = np.lexsort(columns[::-1])  # stable: of equal boxes, the first in the file leads
        equal = np.ones(max(0, len(order) - 1), bool)
        for column in columns:
            ordered = column[order]
            equal &= ordered[1:] == ordered[:-1]
        leads = np.concatenate([[True], ~equal])[: len(order)]
        leader = order[np.maximum.accumulate(np.where(leads, np.arange(len(order)), 0))]
        places.append(start + order[~leads])
        originals.append(start + leader[~leads])
    place, original = np.concatenate(places), np.concatenate(originals)
    first_of = dict(zip(place.tolist(), original.tolist(), strict=True))

    def remark(annotations: Annotations, place: int) -> str:
        return f", as annotation {annotations.annotation_ids[first_of[place]]} has"

    return _boxes("duplicate-box", annotations, np.sort(place), remark)


def _odd_areas(annotations: Annotations) -> list[Findings]:
    sides = annotations.boxes[:, 2:].astype(np.float64)
    odd = np.flatnonzero(annotations.areas > _SLACK * sides.prod(axis=1) + 1)

    def remark(annotations: Annotations, place: int) -> str:
        return f" but area {annotations.areas[place]:.6g}"

    return _boxes("odd-area", annotations, odd, remark)


def _by_image(
    annotations: Annotations, max_detections: int, images_with_lost_boxes: frozenset[int]
) -> list[Findings]:
    """Find images with too many boxes, with none, and files named twice."""
    path, names = annotations.path, annotations.file_names
    objects = np.bincount(annotations.image_of_box()[~annotations.crowd], minlength=len(names))
    many = np.flatnonzero(objects > max_detections)
    empty = np.flatnonzero(
        (np.diff(annotations.offsets) == 0)
        & ~np.isin(annotations.image_ids, list(images_with_lost_boxes))
    )
    odd = image_findings("many-boxes", annotations, many, lambda row: f"has {objects[row]} boxes")
    odd += image_findings("image-without-boxes", annotations, empty, lambda row: "")
    if len(empty) > _MOSTLY * len(names):
        text = f"has {len(empty)} of {len(names)} images without boxes"
        odd += findings_of("many-images-without-boxes", path, [Entry("", text)])
    crowds = np.flatnonzero(annotations.crowd)
    return odd + _boxes("crowd", annotations, crowds, _nothing) + _named_twice(annotations)


def image_findings(
    kind: str, annotations: Annotations, rows: Places, value: Callable[[int], str]
) -> list[Findings]:
    """Return findings about images of the index."""

    def entry(i: int) -> Entry:
        row = int(rows[i])
        number = int(annotations.image_ids[row])
        return Entry(f"image {number} ({annotations.file_names[row]})", value(row), number)

    if not len(rows):
        return []
    return [Findings(kind=kind, file=annotations.path, count=len(rows), entry=entry)]


def _named_twice(annotations: Annotations) -> list[Findings]:
    first: dict[str, int] = {}
    names = enumerate(annotations.file_names)
    again = [row for row, name in names if first.setdefault(name, row) != row]

    def value(row: int) -> str:
        other = annotations.image_ids[first[annotations.file_names[row]]]
        return f"has the file_name of image {other}"

    return image_findings("duplicate-file-name", annotations, np.array(again, np.int64), value)


def _by_class(annotations: Annotations) -> list[Findings]:
    categories = annotations.categories
    rows = zip(categories.ids, categories.names, annotations.class_counts(), strict=True)
    entries = [Entry(f"category {id} ({name!r})", "", id) for id, name, count in rows if not count]
    return findings_of("unused-class", annotations.path, entries)
