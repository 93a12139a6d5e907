"""Checks the boxes of an index, many at a time. M boxes, N images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.boxes_used import cut_boxes, parts
from retinanet.data.coco.annotations import Annotations
from retinanet.doctor.findings import Finding, Findings, findings_of
from retinanet.doctor.format_check import find_format_faults
from retinanet.doctor.reader import Reading
from retinanet.errors import plural

_MOST_IMAGES = 0.5
"""Share of images without boxes above which there is a warning."""
AREA_SLACK = 1.01
"""An area may exceed its box through rounding, by 1 % and 1 px²."""

Places = NDArray[np.int64]
"""Positions of boxes, or rows of images, in the index."""


def check_boxes(
    annotations: Annotations,
    *,
    learn: bool,
    min_box_side: float,
    max_detections: int,
    reading: Reading | None = None,
    chosen: Annotations | None = None,
    format_known: bool = False,
) -> list[Findings]:
    """Return the findings about the boxes of a file.

    Args:
        annotations: Index of the file.
        learn: Whether the file is used for training.
        min_box_side: Side (original px) below which a box is small.
        max_detections: Most detections per image that an evaluation counts.
        reading: Reading that the index comes from, if records were left out. Images and classes
            that are empty only for that reason are not reported.
        chosen: Index restricted to the classes that are trained on, if not all are. Only these
            classes count for images and classes without boxes.
        format_known: Whether the boxes are known to be [x, y, width, height] px.
    """
    chosen = annotations if chosen is None else chosen
    path = annotations.path
    lost = reading or Reading(path=path, annotations=annotations, findings=[])
    lost_images, lost_classes = lost.aside.get("images", 0), lost.aside.get("categories", 0)
    if not len(annotations):
        found = [] if lost_images else [Finding("", "has no image")]
        return findings_of("no-images", path, found)
    findings = [] if format_known else find_format_faults(annotations)
    if all(one.kind == "doubtful-format" for one in findings):  # or else every box would be listed
        findings += _boxes_left_out_or_cut(annotations, min_box_side)
        findings += _too_large_areas(annotations)
    findings += _duplicate_boxes(annotations)
    findings += _check_images(chosen, max_detections, lost.images_with_lost_boxes)
    if not lost_classes:
        findings += _unused_classes(chosen, lost.classes_with_lost_boxes)
    if chosen.crowd.all() and not (lost_images or lost_classes or lost.aside.get("annotations", 0)):
        kind = "no-boxes" if learn else "nothing-to-score"
        crowds = len(annotations.crowd)
        text = f"has {plural(len(annotations), 'image')} but no box"
        text += f": all {crowds:,} are regions to ignore (iscrowd 1)" if crowds else ""
        findings += findings_of(kind, path, [Finding("", text)])
    return findings


def _boxes_left_out_or_cut(annotations: Annotations, min_box_side: float) -> list[Findings]:
    fields = {"zero-area": "empty", "outside": "outside", "small-box": "small", "overshoot": "cut"}
    remarks = {"outside": _image_size_remark, "overshoot": _overshoot_remark}
    places: dict[str, list[Places]] = {kind: [] for kind in fields}
    for first, last in parts(annotations):
        cut = cut_boxes(annotations, first, last, min_box_side=min_box_side)
        start = annotations.offsets[first]
        for kind, name in fields.items():
            places[kind].append(start + np.flatnonzero(getattr(cut, name)))
    return [
        one
        for kind in fields
        for one in _box_findings(
            kind, annotations, np.concatenate(places[kind]), remarks.get(kind, _no_remark)
        )
    ]


def _box_findings(
    kind: str,
    annotations: Annotations,
    places: Places,
    remark: Callable[[Annotations, int], str],
) -> list[Findings]:
    """Return findings about the boxes at some positions of the index."""

    def finding(i: int) -> Finding:
        place = int(places[i])
        number = int(annotations.annotation_ids[place])
        image = annotations.image_ids[_image_row(annotations, place)]
        value = f"has bbox {_format_box(annotations, place)}{remark(annotations, place)}"
        return Finding(f"annotation {number} (image {image})", value, number)

    if not len(places):
        return []
    return [Findings(kind=kind, file=annotations.path, count=len(places), finding=finding)]


def _image_row(annotations: Annotations, place: int) -> int:
    """Return the row of the image that a box belongs to."""
    return int(np.searchsorted(annotations.offsets, place, side="right")) - 1


def _format_box(annotations: Annotations, place: int) -> str:
    """Return a box as a person would write it."""
    return "[" + ", ".join(f"{value:.6g}" for value in annotations.boxes[place].tolist()) + "]"


def _no_remark(annotations: Annotations, place: int) -> str:
    return ""


def _image_size_remark(annotations: Annotations, place: int) -> str:
    height, width = annotations.sizes[_image_row(annotations, place)]
    return f" in an image of {width}x{height} px"


def _overshoot_remark(annotations: Annotations, place: int) -> str:
    height, width = annotations.sizes[_image_row(annotations, place)]
    x, y, w, h = annotations.boxes[place].astype(np.float64).tolist()
    over = max(-x, -y, x + w - width, y + h - height)
    return f", {over:.3g} px beyond its image of {width}x{height} px"


def _duplicate_boxes(annotations: Annotations) -> list[Findings]:
    """Find boxes that an image has twice with the same class."""
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
        order = np.lexsort(columns[::-1])  # stable: equal boxes keep the order of the file
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
        return f", like annotation {annotations.annotation_ids[first_of[place]]}"

    return _box_findings("duplicate-box", annotations, np.sort(place), remark)


def _too_large_areas(annotations: Annotations) -> list[Findings]:
    sides = annotations.boxes[:, 2:].astype(np.float64)
    places = np.flatnonzero(annotations.areas > AREA_SLACK * sides.prod(axis=1) + 1)

    def remark(annotations: Annotations, place: int) -> str:
        return f" but area {annotations.areas[place]:.6g}"

    return _box_findings("odd-area", annotations, places, remark)


def _check_images(
    annotations: Annotations, max_detections: int, images_with_lost_boxes: frozenset[int]
) -> list[Findings]:
    """Find images with too many boxes or none, crowd regions, and files named twice."""
    path, names = annotations.path, annotations.file_names
    objects = np.bincount(annotations.image_of_box()[~annotations.crowd], minlength=len(names))
    many = np.flatnonzero(objects > max_detections)
    empty = np.flatnonzero(
        (np.diff(annotations.offsets) == 0)
        & ~np.isin(annotations.image_ids, list(images_with_lost_boxes))
    )
    findings = image_findings(
        "many-boxes", annotations, many, lambda row: f"has {objects[row]:,} boxes"
    )
    findings += image_findings("image-without-boxes", annotations, empty, lambda row: "")
    if len(empty) > _MOST_IMAGES * len(names):
        text = f"has no boxes in {len(empty):,} of {plural(len(names), 'image')}"
        findings += findings_of("many-images-without-boxes", path, [Finding("", text)])
    crowds = np.flatnonzero(annotations.crowd)
    findings += _box_findings("crowd", annotations, crowds, _no_remark)
    return findings + _duplicate_file_names(annotations)


def image_findings(
    kind: str, annotations: Annotations, rows: Places, value: Callable[[int], str]
) -> list[Findings]:
    """Return findings about images of the index."""

    def finding(i: int) -> Finding:
        row = int(rows[i])
        number = int(annotations.image_ids[row])
        return Finding(f"image {number} ({annotations.file_names[row]})", value(row), number)

    if not len(rows):
        return []
    return [Findings(kind=kind, file=annotations.path, count=len(rows), finding=finding)]


def _duplicate_file_names(annotations: Annotations) -> list[Findings]:
    first: dict[str, int] = {}
    names = enumerate(annotations.file_names)
    again = [row for row, name in names if first.setdefault(name, row) != row]

    def value(row: int) -> str:
        other = annotations.image_ids[first[annotations.file_names[row]]]
        return f"has the same file_name as image {other}"

    return image_findings("duplicate-file-name", annotations, np.array(again, np.int64), value)


def _unused_classes(annotations: Annotations, lost: frozenset[int]) -> list[Findings]:
    """Find classes without boxes, except those (`lost`) with boxes that were left out."""
    categories = annotations.categories
    rows = zip(categories.ids, categories.names, annotations.class_counts(), strict=True)
    found = [
        Finding(f"category {id} ({name!r})", "", id)
        for id, name, count in rows
        if not count and id not in lost
    ]
    return findings_of("unused-class", annotations.path, found)
