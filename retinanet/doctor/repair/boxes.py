"""Repairs boxes: converts all boxes of a file, and cuts or removes single ones."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.geometry import box_of, extent_of, find_outline, iou, outline_extents
from retinanet.data.coco.records import is_id, number_or_nan
from retinanet.data.coco.resolve import Resolved, is_plain, resolve
from retinanet.doctor.bad_records import Values, find_bad, sound_records
from retinanet.doctor.box_readings import (
    PLAIN,
    BoxReading,
    Verdict,
    convert_box,
    judge,
    most_leaving,
    overshoot,
    read_boxes,
    slip_limit,
)
from retinanet.doctor.boxes_check import check_boxes
from retinanet.doctor.format_check import find_format_faults
from retinanet.doctor.reader import index_sound
from retinanet.doctor.repair.choices import Choices
from retinanet.errors import UserError, plural

Record = dict[str, Any]
Changes = Counter[str]
"""Changes by kind of finding."""
_ROUNDING, _SLIP_OF_BOX = 1.01, 0.25
"""px, and share of its shorter side, that a small box may extend beyond its image."""
_FEW_SHARE, _MANY_SHARE = 0.05, 0.2
"""Shares of a file's boxes that count as few and as many."""
_OUTLINE_IOU = 0.8
_OTHER_FORMS = {"box-from-outline", "other-box-form"}
_KINDS = {"xyxy": "corner-boxes", "yxyx": "corner-boxes", "cxcywh": "centre-boxes"}
"""Kinds of finding by layout."""


def objects(records: list[Any]) -> list[Record]:
    """Return the records that are objects."""
    return [record for record in records if isinstance(record, dict)]


def shared_ids(images: list[Any]) -> set[int]:
    """Return the ids shared by several images: it is not clear where their boxes belong."""
    ids = Counter(r["id"] for r in objects(images) if is_id(r.get("id")))
    return {image_id for image_id, count in ids.items() if count > 1}


def image_id_of(annotation: Record) -> int | None:
    """Return the id of an annotation's image, if it is a valid id."""
    image_id = annotation.get("image_id")
    return image_id if is_id(image_id) else None


def box_numbers(record: Record) -> list[float] | None:
    """Return the four numbers of a box, if it has them."""
    box: Any = record.get("bbox")
    numbers = [number_or_nan(value) for value in box] if isinstance(box, list) else []
    return numbers if len(numbers) == 4 and not any(map(math.isnan, numbers)) else None


def set_box(record: Record, box: list[float]) -> None:
    """Change the box of an annotation, and its area if it matched the box or is too large."""
    before, after = record["bbox"], box[2] * box[3]
    area = number_or_nan(record.get("area"))
    record["bbox"] = box
    if not 0 <= area <= after or area == before[2] * before[3]:
        record["area"] = after


def settle_reading(values: Values, path: Path, choices: Choices) -> Changes:
    """Decide on the format of a file's boxes, and write all of them as [x, y, width, height].

    Args:
        values: Content of the file, changed in place.
        path: Path of the file, for messages.
        choices: Choices of the user.

    Raises:
        UserError: More than one format is possible, or the user's choice does not fit.
    """
    sound = _sound(values)
    sizes = _sizes(sound)
    if choices.from_outlines:
        return _take_outlines(sound["annotations"])
    records, special = _plain_and_special(sound["annotations"], sizes)
    if not records:
        return Counter()
    boxes = np.array([record["bbox"] for record in records], np.float64)
    size_of_box = np.array([sizes[record["image_id"]] for record in records], np.int64)
    reading = choices.reading
    if reading is None:
        areas = np.array([number_or_nan(record.get("area")) for record in records], np.float64)
        extents = (extent or (np.nan,) * 4 for extent in outline_extents(records))
        outlines = np.array(list(extents), np.float64)
        verdict = read_boxes(boxes, size_of_box, areas, outlines)
        if not verdict.is_clear:
            raise UserError(f"{path}: {_describe_doubt(verdict)}")
        (reading,) = verdict.readings
    leaving = judge(boxes, size_of_box, reading).leaving
    if choices.reading is not None and leaving > most_leaving(reading) * len(boxes):
        raise UserError(
            f"{path}: {leaving:,} of {len(boxes):,} boxes extend beyond their image or have no "
            f"area as {reading}, so --fix-as {reading.words} cannot be right (nothing was written)"
        )
    if reading == PLAIN:
        return Counter()
    _refuse_others(values, [*records, *special], reading, path)
    for record in records:
        box = convert_box(record["bbox"], reading, sizes[record["image_id"]])
        set_box(record, _in_order(box) if reading.layout in ("xyxy", "yxyx") else box)
    kind = "normalised-boxes" if reading.unit != "px" else _KINDS.get(reading.layout, "")
    return Counter({kind or "suspicious-format": len(records)})


def _plain_and_special(
    records: list[Record], sizes: dict[int, tuple[int, int]]
) -> tuple[list[Record], list[Record]]:
    """Split annotations into those with four numbers and those with a box (px) in another form.

    A rotated box is of the first kind: it is converted like the others, and rotated later.
    """
    plain: list[Record] = []
    special: list[Record] = []
    for record in records:
        found = None if is_plain(record) else resolve(record, sizes[record["image_id"]])
        other = isinstance(found, Resolved) and _OTHER_FORMS & set(found.kinds)
        (special if other or box_numbers(record) is None else plain).append(record)
    return plain, special


def _sound(values: Values) -> Values:
    """Return the sound records, without the annotations of images that share an id."""
    sound = sound_records(values, find_bad(values))
    shared = shared_ids(values["images"])
    sound["annotations"] = [r for r in sound["annotations"] if r["image_id"] not in shared]
    return sound


def _sizes(sound: Values) -> dict[int, tuple[int, int]]:
    return {r["id"]: (int(r["height"]), int(r["width"])) for r in sound["images"]}


def _take_outlines(records: list[Record]) -> Changes:
    """Set the box of each annotation with an outline to the box around the outline."""
    changes: Changes = Counter()
    for record in records:
        outline = find_outline(record.get("segmentation"))
        if outline is None:
            continue
        box = box_of(outline.extent)
        if max(abs(a - b) for a, b in zip(box, record["bbox"], strict=True)) > _ROUNDING:
            set_box(record, box)
            changes["far-from-outline"] += 1
    return changes


def _describe_doubt(verdict: Verdict) -> str:
    if not verdict.readings:
        return (
            f"{verdict.text}, and no other format fits either: the file mixes formats, or sizes "
            "are wrong (--images compares them with the files); correct that first (nothing was "
            "written)"
        )
    ways = ", or ".join(f"--fix-as {r.words} ({r})" for r in verdict.readings)
    return (
        f"{verdict.text}; the format of the boxes is not clear from the file. Compare some with "
        f"their images, then use {ways} (nothing was written)"
    )


def _refuse_others(values: Values, records: list[Record], reading: BoxReading, path: Path) -> None:
    """Refuse to convert some boxes of a file if others cannot be converted."""
    converted = {id(record) for record in records}
    left = sum(
        id(record) not in converted and find_outline(record.get("segmentation")) is None
        for record in objects(values["annotations"])
    )
    if left:
        raise UserError(
            f"{path}: the boxes are written as {reading}, but {plural(left, 'annotation')} cannot "
            "be converted because of other errors in them or their images; fix those first "
            "(nothing was written)"
        )


def _in_order(box: list[float]) -> list[float]:
    """Return a box with its corners in order, without negative width or height."""
    x, y, width, height = box
    return [min(x, x + width), min(y, y + height), abs(width), abs(height)]


def fix_boxes(values: Values, path: Path, choices: Choices, *, sizes_known: bool) -> Changes:
    """Cut or remove the boxes that `check_boxes` reports.

    Args:
        values: Content of the file; its boxes are already [x, y, width, height].
        path: Path of the file, for messages.
        choices: Choices of the user.
        sizes_known: Whether the recorded sizes are those of the files. If not, a box far outside
            its image is not changed: the recorded size may be wrong.

    Raises:
        UserError: Many boxes leave their image, or some would fit in another layout.
    """
    sound = _sound(values)
    if not sound["categories"] or not sound["images"]:
        return Counter()
    index = index_sound(sound, path)
    _refuse_format(index, path, choices)
    findings = check_boxes(
        index,
        learn=True,
        min_box_side=0,
        max_detections=len(index.boxes) + 1,
        format_known=True,
    )
    records = {record["id"]: record for record in sound["annotations"]}
    sizes = _sizes(sound)
    layouts = _possible_layouts(index)
    changes: Changes = Counter()
    gone: set[int] = set()
    for one in findings:
        for finding in one if one.kind in _MENDED else ():
            assert finding.id is not None
            record = records[finding.id]
            size = sizes[record["image_id"]]
            leaves = one.kind in ("outside", "overshoot") and choices.reading != PLAIN
            far = leaves and _leaves_far(record["bbox"], size)
            if leaves and not sizes_known and (far or _covers_outline(record)):
                continue
            if far and not _covers_outline(record):
                _refuse_other_layouts(record, size, path, layouts)
            if one.kind == "overshoot":
                changes[one.kind] += cut_to_image(record, size)
            else:
                changes[one.kind] += finding.id not in gone
                gone.add(finding.id)
    removed = {id(records[annotation_id]) for annotation_id in gone}
    values["annotations"] = [r for r in values["annotations"] if id(r) not in removed]
    return +changes


def _refuse_format(index: Annotations, path: Path, choices: Choices) -> None:
    """Refuse boxes that still seem to have another format, unless the user chose the format."""
    if choices.reading is not None or choices.from_outlines:
        return
    for fault in find_format_faults(index):
        if fault.kind == "doubtful-format":  # `settle_reading` has decided with more evidence
            continue
        raise UserError(
            f"{path}: {next(iter(fault)).value}; compare some with their images. If the boxes are "
            f"[x, y, width, height], --fix-as {PLAIN.words} cuts them (nothing was written)"
        )


def _covers_outline(record: Record) -> bool:
    """Whether a box matches its own outline."""
    outline = find_outline(record.get("segmentation"))
    return outline is not None and iou(extent_of(record["bbox"]), outline.extent) >= _OUTLINE_IOU


_MENDED = ("zero-area", "outside", "duplicate-box", "overshoot")
"""Kinds of finding that `fix_boxes` repairs."""


def _leaves_far(box: list[float], size: tuple[int, int]) -> bool:
    """Whether a box is far outside its image, also relative to its own size."""
    boxes, sizes = np.array([box], np.float64), np.array([size], np.int64)
    limit = min(slip_limit(sizes)[0], _SLIP_OF_BOX * min(box[2:]))
    return bool(overshoot(boxes, sizes)[0] > max(limit, _ROUNDING))


def _possible_layouts(index: Annotations) -> list[BoxReading]:
    """Return the layouts in which a single box that leaves its image may be written.

    A file rarely mixes centres with sizes: if many of its boxes cannot be centres and few leave
    their image, centres are excluded.
    """
    boxes = index.boxes.astype(np.float64)
    sizes = index.sizes[index.image_of_box()]
    few = judge(boxes, sizes, PLAIN).leaving <= _FEW_SHARE * len(boxes)
    centres = BoxReading("cxcywh")
    no_centres = few and judge(boxes, sizes, centres).leaving >= _MANY_SHARE * len(boxes)
    return [BoxReading("xyxy"), BoxReading("yxyx"), *([] if no_centres else [centres])]


def _refuse_other_layouts(
    record: Record, size: tuple[int, int], path: Path, layouts: list[BoxReading]
) -> None:
    """Refuse to cut a box that leaves its image, but would fit in another layout."""
    boxes, sizes = np.array([record["bbox"]], np.float64), np.array([size], np.int64)
    for reading in layouts:
        if judge(boxes, sizes, reading).good:
            raise UserError(
                f"{path}: annotation {record['id']} (image {record['image_id']}) has bbox "
                f"{record['bbox']}, which is far outside its image of {size[1]}x{size[0]} px, but "
                f"would fit as {reading}; correct such boxes, or cut them with --fix-as "
                f"{PLAIN.words} (nothing was written)"
            )


def cut_to_image(record: Record, size: tuple[int, int]) -> bool:
    """Cut a box to its image; return whether it changed."""
    x, y, width, height = record["bbox"]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, size[1]), min(y + height, size[0])
    box = [left, top, right - left, bottom - top]
    if box == record["bbox"]:
        return False
    set_box(record, box)
    return True
