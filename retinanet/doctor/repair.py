"""A cleaned copy of a COCO file: each finding that has a safe remedy gets it.

Records are changed in place and keep all their other fields. Rounds of repair follow one another
until a round changes nothing, so that cleaning a cleaned file changes nothing either.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from retinanet.data.canvas import Size
from retinanet.data.coco.records import image_problems, is_id, is_name, number_or_nan
from retinanet.doctor.bad_records import LISTS, BadRecord, Values, find_bad, records_with_ids
from retinanet.doctor.image_check import check_image_file
from retinanet.doctor.renumber import find_shift, replace_by_numbers, shift_categories
from retinanet.doctor.repair_boxes import (
    Changes,
    Record,
    fits,
    may_fit,
    mend_boxes,
    set_box,
    with_corners_in_order,
)
from retinanet.errors import UserError

_ROUNDS = 6
"""Each ends with a check; a conversion of all boxes needs the most, three."""
LOST_BOXES = "boxes of removed images"
NUMBERS = "numbers written as text or fractions"
OTHER_CHANGES = {LOST_BOXES: "removed", NUMBERS: "turned into numbers"}
"""What is done beside mending a kind of finding, and how."""


def repair(values: Values, path: Path, images: Path | None) -> Changes:
    """Clean the content of a COCO file in place; return what was changed, counted by kind.

    Args:
        values: the content.
        path: of the file, for messages.
        images: folder of its image files, if they are to be checked, too.

    Raises:
        UserError: none of its image files is in the folder, or its category ids may be off by one.
    """
    changes = Counter({NUMBERS: replace_by_numbers(values)})
    changes += _shift_category_ids(values, path)
    for _ in range(_ROUNDS):
        latest = _mend_records(values) + _merge_images(values)
        if images is not None:
            latest += _mend_images(values, path, images)
        latest += mend_boxes(values, path, _shared_ids(values["images"]))
        latest += _fill_gaps(values["annotations"])
        changes += latest
        if not latest:
            break
    return changes


def _shift_category_ids(values: Values, path: Path) -> Changes:
    """Shift category ids that are off by one, where nothing else can be meant."""
    shift = find_shift(values)
    if shift is None:
        return Counter()
    if not shift.sure:
        raise UserError(
            f"{path}: {shift.text}, which --fix can neither prove nor mend; add {shift.step:+d} to "
            "the category_id of all annotations, or mend the categories (nothing was written)"
        )
    return Counter({"shifted-category-ids": shift_categories(values, shift.step)})


def _mend_records(values: Values) -> Changes:
    """Mend or remove the records that training refuses."""
    changes: Changes = Counter()
    bad = find_bad(values)
    sizes = _sizes_by_id(values["images"])
    first: dict[int, Record] = {}
    for image in _objects(values["images"]):
        if is_id(image.get("id")):
            first.setdefault(image["id"], image)
    doubtful, shared = _doubtful_kinds(bad), _shared_ids(values["images"])
    removed: dict[str, set[int]] = {key: set() for key in LISTS}
    top = max((r["id"] for r in _objects(values["annotations"]) if is_id(r.get("id"))), default=0)
    for key in LISTS:
        for item in bad[key]:
            kind, row = item.problem.kind, item.row
            if row in removed[key] or row < 0:
                continue
            record = values[key][row]
            if kind == "duplicate-image-id":
                lost = record.get("file_name") == first[record["id"]].get("file_name")
            elif kind in doubtful or (kind == "negative-size" and _image_id(record) in shared):
                continue
            else:
                lost = kind == "bad-record" or _must_be_removed(kind, record, sizes)
            if lost:
                removed[key].add(row)
            elif kind == "negative-size":
                set_box(record, with_corners_in_order(record["bbox"]))
            elif key == "annotations" and kind in ("bad-id", "duplicate-annotation-id"):
                top = max(top, 0) + 1
                record["id"] = top
            else:
                continue
            changes[kind] += 1
    for key in LISTS:
        _remove(values, key, removed[key])
    return changes


def _doubtful_kinds(bad: dict[str, list[BadRecord]]) -> set[str]:
    """Return the kinds of unknown ids that may be known once the ids referred to are mended."""
    doubtful = set()
    for kind, key, word in (
        ("unknown-image", "images", "image"),
        ("unknown-category", "categories", "category"),
    ):
        kinds = {item.problem.kind for item in bad[key] if item.row >= 0}
        if kinds & {"bad-id", f"duplicate-{word}-id"}:
            doubtful.add(kind)
    return doubtful


def _shared_ids(images: list[Any]) -> set[int]:
    """Return the ids that several images have: nobody knows whose boxes are whose."""
    ids = Counter(r["id"] for r in _objects(images) if is_id(r.get("id")))
    return {image_id for image_id, count in ids.items() if count > 1}


def _image_id(annotation: Record) -> int | None:
    """Return the id of an annotation's image, if it is an id at all."""
    image_id = annotation.get("image_id")
    return image_id if is_id(image_id) else None


def _must_be_removed(kind: str, record: Record, sizes: dict[int, Size]) -> bool:
    """Whether nothing but removal helps an annotation."""
    if kind in ("unknown-image", "unknown-category", "bad-bbox"):
        return True
    if kind != "negative-size":
        return False
    image_id = _image_id(record)
    size = None if image_id is None else sizes.get(image_id)
    return size is None or not fits(with_corners_in_order(record["bbox"]), size)


def _objects(records: list[Any]) -> list[Record]:
    return [record for record in records if isinstance(record, dict)]


def _remove(values: Values, key: str, rows: set[int]) -> None:
    if rows:
        values[key] = [record for row, record in enumerate(values[key]) if row not in rows]


def _sizes_by_id(images: list[Any]) -> dict[int, Size]:
    """Return height and width by id, of the records that give them."""
    return {
        record["id"]: (int(record["height"]), int(record["width"]))
        for record in _objects(images)
        if is_id(record.get("id"))
        and all(1 <= number_or_nan(record.get(side)) < 2**31 for side in ("height", "width"))
    }


def _merge_images(values: Values) -> Changes:
    """Move the boxes of a file that has two records to the first of them."""
    first: dict[str, int] = {}
    moved: dict[int, int] = {}
    rows = set()
    shared = _shared_ids(values["images"])
    for row, record in enumerate(values["images"]):
        if not isinstance(record, dict) or not is_name(record.get("file_name")):
            continue
        image_id: Any = record.get("id")
        if not is_id(image_id) or image_id in shared:
            continue
        original = first.setdefault(record["file_name"], image_id)
        if original != image_id:
            moved[image_id] = original
            rows.add(row)
    for annotation in _objects(values["annotations"]):
        if _image_id(annotation) in moved:
            annotation["image_id"] = moved[annotation["image_id"]]
    _remove(values, "images", rows)
    return Counter({"duplicate-file-name": len(rows)} if rows else {})


def _mend_images(values: Values, path: Path, folder: Path) -> Changes:
    """Take sizes from the files; remove the images whose file cannot be had."""
    changes: Changes = Counter()
    boxes: dict[int, list[list[float]]] = {}
    for annotation in _objects(values["annotations"]):
        image_id = _image_id(annotation)
        if image_id is not None:
            boxes.setdefault(image_id, []).append(annotation.get("bbox", []))
    sizes, rows, checked = _sizes_by_id(values["images"]), set(), 0
    shared = _shared_ids(values["images"])
    for row, fields in records_with_ids("images", values["images"]):
        bad_name = any(problem.kind == "bad-file-name" for problem in image_problems(fields))
        if bad_name or fields.id in shared:
            continue
        record = values["images"][row]
        checked += 1
        kind, size = _check_file(folder / record["file_name"], sizes.get(record["id"]))
        if kind in ("missing-file", "unreadable-file"):
            rows.add(row)
        elif size is not None and all(may_fit(box, size) for box in boxes.get(record["id"], [])):
            record["height"], record["width"] = size
        else:
            continue
        changes[kind] += 1
    if checked and changes["missing-file"] == checked:
        raise UserError(
            f"{path}: none of its {checked} image files is in {folder}; name the right folder with "
            "--images, or leave it out to clean the records alone"
        )
    lost = {values["images"][row]["id"] for row in rows}
    gone = {
        row
        for row, record in enumerate(values["annotations"])
        if isinstance(record, dict) and _image_id(record) in lost
    }
    _remove(values, "images", rows)
    _remove(values, "annotations", gone)
    return changes + Counter({LOST_BOXES: len(gone)})


def _check_file(path: Path, size: Size | None) -> tuple[str, Size | None]:
    """Return the kind of what is wrong with a file, and its size where the record's is wrong."""
    image = check_image_file(path, size or (0, 0), decode=False)
    kinds = [kind for kind, _ in image.remarks]
    wanted = ("missing-file", "unreadable-file", "wrong-size", "swapped-size")
    kind = next((kind for kind in wanted if kind in kinds), "")
    if size is None and image.size is not None:
        kind = "bad-image-size"
    return kind, image.size


def _fill_gaps(annotations: list[Any]) -> Changes:
    """Give annotations the area and the iscrowd that they lack."""
    changes: Changes = Counter()
    for record in _objects(annotations):
        bbox = record.get("bbox")
        box = [number_or_nan(value) for value in bbox] if isinstance(bbox, list) else []
        if len(box) == 4 and not number_or_nan(record.get("area")) >= 0 and box[2] * box[3] >= 0:
            changes["missing-area" if record.get("area") is None else "bad-area"] += 1
            record["area"] = record["bbox"][2] * record["bbox"][3]
        if record.get("iscrowd") is None:
            changes["missing-iscrowd"] += 1
            record["iscrowd"] = 0
    return changes
