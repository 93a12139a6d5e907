"""Repairs of boxes: those of a whole file converted, single ones turned, cut or removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinanet.data.canvas import Size
from retinanet.data.coco.records import number_or_nan
from retinanet.doctor.bad_records import Values, find_bad, sound_records
from retinanet.doctor.boxes_check import check_boxes
from retinanet.doctor.reader import index_sound

_MARGIN = 1.0
"""px that a box may leave its image by and still count as drawn in it."""

Record = dict[str, Any]
Changes = Counter[str]
"""Changes by kind of finding."""


def mend_boxes(values: Values, path: Path, shared: set[int]) -> Changes:
    """Convert, cut or remove the boxes that the checks of boxes name.

    Args:
        values: the content of the file.
        path: of it, for messages.
        shared: ids that several images have; their boxes are left alone.
    """
    sound = sound_records(values, find_bad(values))
    sound["annotations"] = [r for r in sound["annotations"] if r["image_id"] not in shared]
    if not sound["categories"] or not sound["images"]:
        return Counter()
    index = index_sound(sound, path)
    findings = check_boxes(index, learn=True, min_box_side=0, max_detections=len(index.boxes) + 1)
    records = {record["id"]: record for record in sound["annotations"]}
    sizes = {r["id"]: (int(r["height"]), int(r["width"])) for r in sound["images"]}
    changes: Changes = Counter()
    gone: set[int] = set()
    for one in findings:
        convert = _CONVERSIONS.get(one.kind)
        if convert is not None:
            for record in records.values():
                set_box(record, convert(record["bbox"], sizes[record["image_id"]]))
            changes[one.kind] += len(records)
        elif one.kind in ("zero-area", "outside", "duplicate-box", "overshoot"):
            for finding in one:
                assert finding.id is not None
                if one.kind != "overshoot":
                    changes[one.kind] += finding.id not in gone
                    gone.add(finding.id)
                else:
                    record = records[finding.id]
                    changes[one.kind] += _cut_to_image(record, sizes[record["image_id"]])
    removed = {id(records[annotation_id]) for annotation_id in gone}
    values["annotations"] = [r for r in values["annotations"] if id(r) not in removed]
    return +changes


def _from_corners(box: list[float], size: Size) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _from_shares(box: list[float], size: Size) -> list[float]:
    return [box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]]


_CONVERSIONS: dict[str, Callable[[list[float], Size], list[float]]] = {
    "corner-boxes": _from_corners,
    "normalised-boxes": _from_shares,
}


def _cut_to_image(record: Record, size: Size) -> bool:
    """Cut a box to its image; return whether that changed it."""
    x, y, width, height = record["bbox"]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, size[1]), min(y + height, size[0])
    box = [left, top, right - left, bottom - top]
    if box == record["bbox"]:
        return False
    set_box(record, box)
    return True


def fits(box: list[float], size: Size) -> bool:
    """Whether a box lies in its image, to a px."""
    x, y, width, height = box
    within = x + width <= size[1] + _MARGIN and y + height <= size[0] + _MARGIN
    return x >= -_MARGIN and y >= -_MARGIN and within


def with_corners_in_order(box: list[float]) -> list[float]:
    """Return a box of negative width or height with its corners in order."""
    x, y, width, height = box
    return [min(x, x + width), min(y, y + height), abs(width), abs(height)]


def set_box(record: Record, box: list[float]) -> None:
    """Give an annotation another box; an area that was the box's, or is now too large, follows."""
    before, after = record["bbox"], box[2] * box[3]
    area = number_or_nan(record.get("area"))
    record["bbox"] = box
    if not 0 <= area <= after or area == before[2] * before[3]:
        record["area"] = after


def may_fit(box: Any, size: Size) -> bool:
    """Whether a box lies in the image, if it is a box at all."""
    numbers = [number_or_nan(value) for value in box] if isinstance(box, list) else []
    return len(numbers) != 4 or fits(numbers, size)
