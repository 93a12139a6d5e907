"""A cleaned copy of a COCO file: each finding that has a safe remedy gets it.

Records are changed in place and keep all their other fields. Rounds of repair follow one another
until a round changes nothing, so that cleaning a cleaned file changes nothing either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinanet.data.canvas import Size
from retinanet.data.coco.records import image_problems, is_id, is_name, number
from retinanet.doctor.boxes_check import check_boxes
from retinanet.doctor.image_check import look_at
from retinanet.doctor.reader import (
    LISTS,
    Bad,
    Values,
    find_bad,
    index_sound,
    leave_out,
    with_ids,
)
from retinanet.doctor.renumber import find_shift, read_numbers, shift_categories
from retinanet.errors import UserError

_ROUNDS = 6
"""Each ends with a check; a conversion of all boxes needs the most, three."""
_SLACK = 1.0
"""px that a box may leave the file's image by and still count as drawn in it."""
LOST_BOXES = "boxes of removed images"
NUMBERS = "numbers written as text or fractions"
OTHER_CHANGES = {LOST_BOXES: "removed", NUMBERS: "turned into numbers"}
"""What is done beside mending a kind of finding, and how."""

Record = dict[str, Any]
Changes = Counter[str]
"""Changes by kind of finding."""


def repair(values: Values, path: Path, images: Path | None) -> Changes:
    """Clean the content of a COCO file in place; return what was changed, counted by kind.

    Args:
        values: the content.
        path: of the file, for messages.
        images: folder of its pictures, if they are to be looked at, too.

    Raises:
        UserError: none of its pictures is in the folder, or its category ids may be off by one.
    """
    changes = Counter({NUMBERS: read_numbers(values)})
    changes += _shift(values, path)
    for _ in range(_ROUNDS):
        latest = _mend_records(values) + _merge_images(values)
        if images is not None:
            latest += _mend_pictures(values, path, images)
        latest += _mend_boxes(values, path) + _fill(values["annotations"])
        changes += latest
        if not latest:
            break
    return changes


def _shift(values: Values, path: Path) -> Changes:
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
    sizes = _sizes(values["images"])
    first: dict[int, Record] = {}
    for image in _objects(values["images"]):
        if is_id(image.get("id")):
            first.setdefault(image["id"], image)
    doubtful, shared = _doubtful(values, bad), _shared_ids(values["images"])
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
            elif kind in doubtful or (kind == "negative-size" and _is_of(record, shared)):
                continue
            else:
                lost = kind == "bad-record" or _is_lost(kind, record, sizes)
            if lost:
                removed[key].add(row)
            elif kind == "negative-size":
                _set_box(record, _turned(record["bbox"]))
            elif key == "annotations" and kind in ("bad-id", "duplicate-annotation-id"):
                top = max(top, 0) + 1
                record["id"] = top
            else:
                continue
            changes[kind] += 1
    for key in LISTS:
        _remove(values, key, removed[key])
    return changes


def _doubtful(values: Values, bad: dict[str, list[Bad]]) -> set[str]:
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
    return {number_ for number_, count in ids.items() if count > 1}


def _is_of(annotation: Record, images: set[int]) -> bool:
    return is_id(annotation.get("image_id")) and annotation["image_id"] in images


def _is_lost(kind: str, record: Record, sizes: dict[int, Size]) -> bool:
    """Whether nothing but removal helps an annotation."""
    if kind in ("unknown-image", "unknown-category", "bad-bbox"):
        return True
    if kind != "negative-size":
        return False
    size = sizes.get(record["image_id"]) if is_id(record.get("image_id")) else None
    return size is None or not _fits(_turned(record["bbox"]), size)


def _objects(records: list[Any]) -> list[Record]:
    return [record for record in records if isinstance(record, dict)]


def _remove(values: Values, key: str, rows: set[int]) -> None:
    if rows:
        values[key] = [record for row, record in enumerate(values[key]) if row not in rows]


def _sizes(images: list[Any]) -> dict[int, Size]:
    """Return height and width by id, of the records that give them."""
    return {
        record["id"]: (int(record["height"]), int(record["width"]))
        for record in _objects(images)
        if is_id(record.get("id"))
        and all(1 <= number(record.get(side)) < 2**31 for side in ("height", "width"))
    }


def _fits(box: list[float], size: Size) -> bool:
    x, y, width, height = box
    within = x + width <= size[1] + _SLACK and y + height <= size[0] + _SLACK
    return x >= -_SLACK and y >= -_SLACK and within


def _turned(box: list[float]) -> list[float]:
    """Return a box of negative width or height with its corners in order."""
    x, y, width, height = box
    return [min(x, x + width), min(y, y + height), abs(width), abs(height)]


def _set_box(record: Record, box: list[float]) -> None:
    """Give an annotation another box; an area that was the box's, or is now too large, follows."""
    before, after = record["bbox"], box[2] * box[3]
    area = number(record.get("area"))
    record["bbox"] = box
    if not 0 <= area <= after or area == before[2] * before[3]:
        record["area"] = after


def _merge_images(values: Values) -> Changes:
    """Move the boxes of a file that has two records to the first of them."""
    first: dict[str, int] = {}
    moved: dict[int, int] = {}
    rows = set()
    shared = _shared_ids(values["images"])
    for row, record in enumerate(values["images"]):
        if not isinstance(record, dict) or not is_name(record.get("file_name")):
            continue
        number_: Any = record.get("id")
        if not is_id(number_) or number_ in shared:
            continue
        original = first.setdefault(record["file_name"], number_)
        if original != number_:
            moved[number_] = original
            rows.add(row)
    for annotation in _objects(values["annotations"]):
        if is_id(annotation.get("image_id")) and annotation["image_id"] in moved:
            annotation["image_id"] = moved[annotation["image_id"]]
    _remove(values, "images", rows)
    return Counter({"duplicate-file-name": len(rows)} if rows else {})


def _mend_pictures(values: Values, path: Path, folder: Path) -> Changes:
    """Take sizes from the files; remove the images whose file cannot be had."""
    changes: Changes = Counter()
    boxes: dict[int, list[list[float]]] = {}
    for annotation in _objects(values["annotations"]):
        if is_id(annotation.get("image_id")):
            boxes.setdefault(annotation["image_id"], []).append(annotation.get("bbox", []))
    sizes, rows, seen = _sizes(values["images"]), set(), 0
    shared = _shared_ids(values["images"])
    for row, fields in with_ids("images", values["images"]):
        bad_name = any(problem.kind == "bad-file-name" for problem in image_problems(fields))
        if bad_name or fields.id in shared:
            continue
        record = values["images"][row]
        seen += 1
        kind, size = _look(folder / record["file_name"], sizes.get(record["id"]))
        if kind in ("missing-file", "unreadable-file"):
            rows.add(row)
        elif size is not None and all(_may_fit(box, size) for box in boxes.get(record["id"], [])):
            record["height"], record["width"] = size
        else:
            continue
        changes[kind] += 1
    if seen and changes["missing-file"] == seen:
        raise UserError(
            f"{path}: none of its {seen} image files is in {folder}; name the right folder with "
            "--images, or leave it out to clean the records alone"
        )
    lost = {values["images"][row]["id"] for row in rows}
    gone = {
        row
        for row, record in enumerate(values["annotations"])
        if isinstance(record, dict) and is_id(record.get("image_id")) and record["image_id"] in lost
    }
    _remove(values, "images", rows)
    _remove(values, "annotations", gone)
    return changes + Counter({LOST_BOXES: len(gone)})


def _look(path: Path, size: Size | None) -> tuple[str, Size | None]:
    """Return the kind of what is wrong with a file, and its size where the record's is wrong."""
    picture = look_at(path, size or (0, 0), decode=False)
    kinds = [kind for kind, _ in picture.odd]
    wanted = ("missing-file", "unreadable-file", "wrong-size", "swapped-size")
    kind = next((kind for kind in wanted if kind in kinds), "")
    if size is None and picture.size is not None:
        kind = "bad-image-size"
    return kind, picture.size


def _may_fit(box: Any, size: Size) -> bool:
    """Whether a box lies in the image, if it is a box at all."""
    numbers = [number(value) for value in box] if isinstance(box, list) else []
    return len(numbers) != 4 or _fits(numbers, size)


def _mend_boxes(values: Values, path: Path) -> Changes:
    """Convert, cut or remove the boxes that the checks of boxes name."""
    sound = leave_out(values, find_bad(values))
    shared = _shared_ids(values["images"])
    sound["annotations"] = [r for r in sound["annotations"] if r["image_id"] not in shared]
    if not sound["categories"] or not sound["images"]:
        return Counter()
    index = index_sound(sound, path)
    odd = check_boxes(index, learn=True, min_box_side=0, max_detections=len(index.boxes) + 1)
    records = {record["id"]: record for record in sound["annotations"]}
    sizes = _sizes(sound["images"])
    changes: Changes = Counter()
    gone: set[int] = set()
    for item in odd:
        convert = _CONVERSIONS.get(item.kind)
        if convert is not None:
            for record in records.values():
                _set_box(record, convert(record["bbox"], sizes[record["image_id"]]))
            changes[item.kind] += len(records)
        elif item.kind in ("zero-area", "outside", "duplicate-box", "overshoot"):
            for entry in item:
                assert entry.id is not None
                if item.kind != "overshoot":
                    changes[item.kind] += entry.id not in gone
                    gone.add(entry.id)
                else:
                    record = records[entry.id]
                    changes[item.kind] += _cut(record, sizes[record["image_id"]])
    rows = {id(records[number_]) for number_ in gone}
    values["annotations"] = [r for r in values["annotations"] if id(r) not in rows]
    return +changes


def _cut(record: Record, size: Size) -> bool:
    """Cut a box to its image; return whether that changed it."""
    x, y, width, height = record["bbox"]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, size[1]), min(y + height, size[0])
    box = [left, top, right - left, bottom - top]
    if box == record["bbox"]:
        return False
    _set_box(record, box)
    return True


def _from_corners(box: list[float], size: Size) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _from_shares(box: list[float], size: Size) -> list[float]:
    return [box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]]


_CONVERSIONS: dict[str, Callable[[list[float], Size], list[float]]] = {
    "corner-boxes": _from_corners,
    "normalised-boxes": _from_shares,
}


def _fill(annotations: list[Any]) -> Changes:
    """Give annotations the area and the iscrowd that they lack."""
    changes: Changes = Counter()
    for record in _objects(annotations):
        box = [number(v) for v in record["bbox"]] if isinstance(record.get("bbox"), list) else []
        if len(box) == 4 and not number(record.get("area")) >= 0 and box[2] * box[3] >= 0:
            changes["missing-area" if record.get("area") is None else "bad-area"] += 1
            record["area"] = record["bbox"][2] * record["bbox"][3]
        if record.get("iscrowd") is None:
            changes["missing-iscrowd"] += 1
            record["iscrowd"] = 0
    return changes
