"""Cleans the records of a COCO file: every finding with a safe remedy is fixed.

Records are changed in place and keep all their other fields. The image size and the format that
boxes refer to are decided before any box is cut or removed; if that is not clear, the file is
refused. Repair is repeated until nothing changes, so cleaning a cleaned file changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinanet.data.coco.geometry import box_of, find_outline
from retinanet.data.coco.records import is_id, is_name, meant_name, number_or_nan
from retinanet.data.coco.resolve import (
    Resolved,
    image_sizes,
    is_plain,
    make_all_plain,
    name_by_url,
    resolve,
)
from retinanet.doctor.bad_records import LISTS, BadRecord, Values, find_bad
from retinanet.doctor.renumber import (
    CLASS_NAMES,
    NUMBERS,
    find_shift,
    renumber,
    replace_by_numbers,
    replace_class_names,
    shift_categories,
)
from retinanet.doctor.repair.boxes import (
    Changes,
    Record,
    cut_to_image,
    fix_boxes,
    image_id_of,
    objects,
    settle_reading,
    shared_ids,
)
from retinanet.doctor.repair.choices import Choices
from retinanet.doctor.repair.negative import fix_negative_boxes
from retinanet.doctor.repair.sizes import (
    FOUND_NAMES,
    LOST_BOXES,
    SCALED_BOXES,
    fix_images,
    recorded_size,
)
from retinanet.errors import UserError

_ROUNDS = 6
"""Limit on the rounds of repair; no file has needed more than three."""
CROWDS = "regions to ignore"
DONE = {
    LOST_BOXES: "removed",
    FOUND_NAMES: "corrected to match the files in the folder",
    CROWDS: "turned into objects (iscrowd 0)",
    CLASS_NAMES: "replaced by the ids",
    NUMBERS: "replaced by numbers",
    SCALED_BOXES: "scaled to the size of the file",
    **dict.fromkeys(
        ("corner-boxes", "centre-boxes", "normalised-boxes", "suspicious-format"), "converted"
    ),
    **dict.fromkeys(
        ("wrong-size", "swapped-size", "size-off-by-one", "bad-image-size"),
        "taken from the files",
    ),
    **dict.fromkeys(("missing-file", "unreadable-file"), "records removed, with their boxes"),
    "bad-id": "renumbered, and so are the references to them",
    "duplicate-image-id": "later record removed, as it had the same file_name",
    "negative-size": "corrected, or removed if they fit neither way",
    "duplicate-category-name": "merged",
    "far-from-outline": "replaced by the boxes around the segmentations",
}
"""What was done, for changes that are not findings or have a conditional `Kind.fix`."""
REMOVING = frozenset(
    {
        *(LOST_BOXES, "bad-record", "unknown-image", "unknown-category", "bad-bbox"),
        *("negative-size", "zero-area", "outside", "duplicate-box"),
        *("duplicate-image-id", "duplicate-file-name", "missing-file", "unreadable-file"),
    }
)
"""Changes that remove boxes or images."""


def repair(values: Values, path: Path, images: Path | None, choices: Choices) -> Changes:
    """Clean the content of a COCO file in place; return the changes, counted by kind.

    Args:
        values: Content of the file.
        path: Path of the file, for messages.
        images: Folder of the image files, if they are to be checked as well.
        choices: Choices of the user.

    Raises:
        UserError: None of the image files is in the folder, or it is not clear what ids, sizes or
            boxes mean.
    """
    changes = Counter({CLASS_NAMES: replace_class_names(values)})
    changes += Counter({NUMBERS: replace_by_numbers(values)}) + renumber(values)
    changes += _shift_category_ids(values, path) + name_by_url(values)

    def fix_records() -> Changes:
        latest = (
            renumber(values)
            + _fix_records(values, settled=False)
            + _merge_categories(values, choices)
            + _merge_images(values)
        )
        return latest + (fix_images(values, path, images, choices) if images else Counter())

    def fix_annotations() -> Changes:
        latest = fix_negative_boxes(values, path, choices)
        latest += fix_boxes(values, path, choices, sizes_known=images is not None)
        latest += renumber(values) + _fix_records(values, settled=True)
        return latest + _merge_images(values) + _fill_gaps(values)

    changes += _repeat(fix_records)
    changes += _make_objects(values) if choices.crowds_are_objects else Counter()
    changes += settle_reading(values, path, choices) + _make_plain(values)
    return changes + _repeat(fix_annotations)


def _repeat(fix: Callable[[], Changes]) -> Changes:
    """Repeat a repair until nothing changes."""
    changes: Changes = Counter()
    for _ in range(_ROUNDS):
        latest = fix()
        changes += latest
        if not latest:
            break
    return changes


def _shift_category_ids(values: Values, path: Path) -> Changes:
    """Shift category ids that are off by one, if there is no other explanation."""
    shift = find_shift(values)
    if shift is None:
        return Counter()
    if not shift.sure:
        raise UserError(
            f"{path}: {shift.text}, but --fix cannot be sure of that; add {shift.step:+d} to the "
            "category_id of all annotations, or correct the categories (nothing was written)"
        )
    return Counter({"shifted-category-ids": shift_categories(values, shift.step)})


def _make_plain(values: Values) -> Changes:
    """Write boxes of other forms as [x, y, width, height]; cut those around rotated ones."""
    sizes = image_sizes(values["images"])
    turned = []
    for record in objects(values["annotations"]):
        if not is_plain(record) and image_id_of(record) in sizes:
            found = resolve(record, sizes[record["image_id"]])
            if isinstance(found, Resolved) and "rotated-box" in found.kinds:
                turned.append(record)
    changes = make_all_plain(values)
    for record in turned:
        if is_plain(record):
            cut_to_image(record, sizes[record["image_id"]])
    return changes


def _fix_records(values: Values, *, settled: bool) -> Changes:
    """Repair or remove the records that training refuses.

    Args:
        values: Content of the file.
        settled: Whether the format of the boxes is settled, so that boxes in px may be added.
    """
    changes: Changes = Counter()
    bad = find_bad(values)
    first: dict[int, Record] = {}
    for image in objects(values["images"]):
        if is_id(image.get("id")):
            first.setdefault(image["id"], image)
    doubtful = _doubtful_kinds(bad)
    removed: dict[str, set[int]] = {key: set() for key in LISTS}
    top = max((r["id"] for r in objects(values["annotations"]) if is_id(r.get("id"))), default=0)
    for key in LISTS:
        for item in bad[key]:
            kind, row = item.problem.kind, item.row
            if row in removed[key] or row < 0 or kind in doubtful:
                continue
            record = values[key][row]
            if kind == "duplicate-image-id":
                lost = record.get("file_name") == first[record["id"]].get("file_name")
            elif kind == "bad-bbox" and (outline := find_outline(record.get("segmentation"))):
                lost = False
                if settled:
                    record["bbox"] = box_of(outline.extent)
                    changes["box-from-outline"] += 1
            elif kind == "bad-bbox" and isinstance(record.get("bbox"), dict | str):
                lost = False  # it contains a box, in an unknown form
            else:
                lost = kind in ("bad-record", "unknown-image", "unknown-category", "bad-bbox")
            if lost:
                removed[key].add(row)
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
    """Return the kinds of unknown ids that may be known once the bad ids are repaired."""
    doubtful = set()
    for kind, key, word in (
        ("unknown-image", "images", "image"),
        ("unknown-category", "categories", "category"),
    ):
        kinds = {item.problem.kind for item in bad[key] if item.row >= 0}
        if kinds & {"bad-id", f"duplicate-{word}-id"}:
            doubtful.add(kind)
    return doubtful


def _remove(values: Values, key: str, rows: set[int]) -> None:
    if rows:
        values[key] = [record for row, record in enumerate(values[key]) if row not in rows]


def _merge_categories(values: Values, choices: Choices) -> Changes:
    """Remove duplicate names of categories without boxes, such as the root category of an export.

    Categories of the same name that have boxes are merged only if the user chooses so.
    """
    used = {
        record.get("category_id") for record in objects(values["annotations"]) if _has_id(record)
    }
    groups: dict[str, list[Record]] = {}
    for record in objects(values["categories"]):
        name = meant_name(record.get("name"))
        if is_id(record.get("id")) and is_name(name):
            groups.setdefault(name, []).append(record)
    becomes: dict[int, int] = {}
    for several in groups.values():
        ids = {record["id"] for record in several}
        kept = [record["id"] for record in several if record["id"] in used] or [several[0]["id"]]
        if len(ids) == len(several) > 1 and (len(kept) == 1 or choices.merge_names):
            becomes |= {number: kept[0] for number in ids if number != kept[0]}
    for annotation in objects(values["annotations"]):
        if _has_id(annotation) and annotation["category_id"] in becomes:
            annotation["category_id"] = becomes[annotation["category_id"]]
    gone = {
        row
        for row, record in enumerate(values["categories"])
        if isinstance(record, dict) and is_id(record.get("id")) and record["id"] in becomes
    }
    _remove(values, "categories", gone)
    return Counter({"duplicate-category-name": len(gone)} if gone else {})


def _has_id(annotation: Record) -> bool:
    return is_id(annotation.get("category_id"))


def _merge_images(values: Values) -> Changes:
    """Merge image records with the same file_name and size into the first of them."""
    first: dict[tuple[Any, ...], int] = {}
    moved: dict[int, int] = {}
    rows = set()
    shared = shared_ids(values["images"])
    for row, record in enumerate(values["images"]):
        if not isinstance(record, dict) or not is_name(record.get("file_name")):
            continue
        image_id: Any = record.get("id")
        if not is_id(image_id) or image_id in shared:
            continue
        original = first.setdefault((record["file_name"], recorded_size(record)), image_id)
        if original != image_id:
            moved[image_id] = original
            rows.add(row)
    for annotation in objects(values["annotations"]):
        image_id = image_id_of(annotation)
        if image_id in moved:
            annotation["image_id"] = moved[image_id]
    _remove(values, "images", rows)
    return Counter({"duplicate-file-name": len(rows)} if rows else {})


def _make_objects(values: Values) -> Changes:
    """Turn the regions to ignore into objects."""
    crowds = [record for record in objects(values["annotations"]) if record.get("iscrowd") == 1]
    for record in crowds:
        record["iscrowd"] = 0
    return Counter({CROWDS: len(crowds)} if crowds else {})


def _fill_gaps(values: Values) -> Changes:
    """Fill in missing or bad areas and missing iscrowd."""
    changes: Changes = Counter()
    for record in objects(values["annotations"]):
        bbox = record.get("bbox")
        box = [number_or_nan(value) for value in bbox] if isinstance(bbox, list) else []
        if len(box) == 4 and not number_or_nan(record.get("area")) >= 0 and box[2] * box[3] >= 0:
            changes["missing-area" if record.get("area") is None else "bad-area"] += 1
            record["area"] = record["bbox"][2] * record["bbox"][3]
        if record.get("iscrowd") is None:
            changes["missing-iscrowd"] += 1
            record["iscrowd"] = 0
    return changes
