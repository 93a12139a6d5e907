"""Repairs image records by their files: names, sizes, and records without a readable file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.data.canvas import Size
from retinanet.data.coco.records import (
    image_problems,
    is_name,
    number_or_nan,
)
from retinanet.data.found_files import find_names
from retinanet.doctor.bad_records import Values, records_with_ids
from retinanet.doctor.boxes_check import AREA_SLACK
from retinanet.doctor.image_check import check_image_file
from retinanet.doctor.repair.boxes import (
    Changes,
    Record,
    box_numbers,
    image_id_of,
    objects,
    shared_ids,
)
from retinanet.doctor.repair.choices import Choices
from retinanet.doctor.repair.size_evidence import MismatchedBoxes, find_frame
from retinanet.errors import UserError, plural

LOST_BOXES = "boxes of removed images"
FOUND_NAMES = "names of image files"
SCALED_BOXES = "boxes of a scaled copy"
_NEAR = ("size-off-by-one", "bad-image-size")
"""Kinds that need no evidence from the boxes: the size of the file is used."""
_WRONG = ("wrong-size", "swapped-size")


def fix_images(values: Values, path: Path, folder: Path, choices: Choices) -> Changes:
    """Correct names and sizes by the files; remove images without a readable file.

    Raises:
        UserError: No file is in the folder, or it is not clear which size the boxes refer to.
    """
    changes = _take_found_names(values, path, folder)
    records = _named_records(values)
    checked = {row: _check_file(folder, values["images"][row]) for row in records}
    changes += Counter(kind for kind, _ in checked.values() if kind in _NEAR)
    gone = [
        row for row, (kind, _) in checked.items() if kind in ("missing-file", "unreadable-file")
    ]
    missing = [row for row in gone if checked[row][0] == "missing-file"]
    if checked and len(missing) == len(checked):
        raise UserError(
            f"{path}: none of its {plural(len(checked), 'image file')} is in {folder}; name the "
            "right folder with --images, or leave it out to clean only the records"
        )
    wrong = {row: size for row, (kind, size) in checked.items() if kind in _WRONG and size}
    changes += _settle_sizes(values, path, wrong, choices)
    changes += Counter(checked[row][0] for row in wrong)
    for row, (kind, size) in checked.items():
        if size is not None and kind in (*_NEAR, *_WRONG):
            values["images"][row]["height"], values["images"][row]["width"] = size
    changes += Counter(checked[row][0] for row in gone)
    return changes + _remove_images(values, set(gone))


def _take_found_names(values: Values, path: Path, folder: Path) -> Changes:
    """Correct the file_name of records without a file, if it can only mean one other file."""
    records = [record for record in objects(values["images"]) if is_name(record.get("file_name"))]
    renames = find_names(list(dict.fromkeys(r["file_name"] for r in records)), folder)
    if renames.unclear:
        raise UserError(
            f"{path}: {next(iter(renames.unclear.values()))}; correct the file_name of its record "
            "(nothing was written)"
        )
    count = 0
    for record in records:
        found = renames.files.get(record["file_name"])
        if found is not None:
            record["file_name"] = found
            count += 1
    return Counter({FOUND_NAMES: count} if count else {})


def _named_records(values: Values) -> list[int]:
    """Return the rows of image records whose file and boxes are known."""
    shared = shared_ids(values["images"])
    return [
        row
        for row, fields in records_with_ids("images", values["images"])
        if fields.id not in shared
        and not any(problem.kind == "bad-file-name" for problem in image_problems(fields))
    ]


def _check_file(folder: Path, record: Record) -> tuple[str, Size | None]:
    """Return what is wrong with a file (a kind), and its size if the recorded one is wrong."""
    size = recorded_size(record)
    image = check_image_file(folder / record["file_name"], size or (0, 0), decode=False)
    kinds = [kind for kind, _ in image.remarks]
    wanted = ("missing-file", "unreadable-file", "size-off-by-one", *_WRONG)
    kind = next((kind for kind in wanted if kind in kinds), "")
    if size is None and image.size is not None:
        kind = "bad-image-size"
    return kind, image.size


def recorded_size(record: Record) -> Size | None:
    """Return the height and width in an image's record, if it has them."""
    sides = [number_or_nan(record.get(side)) for side in ("height", "width")]
    return (int(sides[0]), int(sides[1])) if all(1 <= side < 2**31 for side in sides) else None


def _settle_sizes(values: Values, path: Path, wrong: dict[int, Size], choices: Choices) -> Changes:
    """Decide which size the boxes refer to if record and file differ; scale boxes of a copy.

    Args:
        values: Content of the file.
        path: Path of the file, for messages.
        wrong: Heights and widths of the files with another size, by row of the image record.
        choices: Choices of the user.
    """
    rows = {values["images"][row]["id"]: row for row in wrong}
    owned = [record for record in objects(values["annotations"]) if image_id_of(record) in rows]
    boxed = [record for record in owned if box_numbers(record) is not None]
    if not boxed:
        return Counter()
    sizes = [recorded_size(values["images"][rows[record["image_id"]]]) for record in boxed]
    mismatched = MismatchedBoxes(
        boxes=np.array([box_numbers(record) for record in boxed], np.float64),
        record_sizes=np.array(sizes, np.int64),
        file_sizes=np.array([wrong[rows[record["image_id"]]] for record in boxed], np.int64),
    )
    frame = choices.sizes or find_frame(mismatched)
    turned = (mismatched.record_sizes[:, ::-1] == mismatched.file_sizes).all(axis=1)
    if frame is None or (frame == "record" and turned.any()):
        row = min(row for row in wrong if values["images"][row]["id"] in _ids(boxed))
        raise UserError(
            f"{path}: {_describe_sizes(values['images'][row], wrong, wrong[row])}. It is not clear "
            f"which size {plural(len(boxed), 'box refers', 'boxes refer')} to; look at some, then "
            f"{_choices_of_size(turned.any())} (nothing was written)"
        )
    if frame == "file":
        return Counter()
    for record in owned:
        row = rows[record["image_id"]]
        old, new = recorded_size(values["images"][row]), wrong[row]
        if old is not None:
            _scale(record, new[1] / old[1], new[0] / old[0])
    return Counter({SCALED_BOXES: len(boxed)})


def _ids(annotations: list[Record]) -> set[int]:
    return {record["image_id"] for record in annotations}


def _describe_sizes(image: Record, wrong: dict[int, Size], size: Size) -> str:
    many = plural(len(wrong), "image has", "images have")
    return (
        f"{many} a different size in the record than in the file: image {image['id']} "
        f"({image['file_name']}) is {image['width']}x{image['height']} px in its record, "
        f"{size[1]}x{size[0]} px in the file"
    )


def _choices_of_size(turned: bool) -> str:
    """Return what to do, depending on the size that the boxes refer to."""
    as_file = "use --fix-as sizes=file (only the recorded size is wrong)"
    if turned:
        return f"{as_file}, or rotate the image files back to how they were annotated"
    return (
        f"{as_file} or --fix-as sizes=record (the file is a scaled copy of what was annotated: "
        "the boxes are scaled to it)"
    )


def _scale(record: Record, by_x: float, by_y: float) -> None:
    """Scale the box, outline and keypoints of an annotation, where it has them."""
    outline = record.get("segmentation")
    if isinstance(outline, list):
        record["segmentation"] = [_scale_points(part, by_x, by_y, 2) for part in outline]
    if isinstance(record.get("keypoints"), list):
        record["keypoints"] = _scale_points(record["keypoints"], by_x, by_y, 3)
    if box_numbers(record) is None:
        return
    x, y, width, height = record["bbox"]
    area = number_or_nan(record.get("area"))
    record["bbox"] = [round(v, 6) for v in (x * by_x, y * by_y, width * by_x, height * by_y)]
    if area >= 0:  # the area may already be that of the boxes in the file
        largest = record["bbox"][2] * record["bbox"][3]
        scaled = round(area * by_x * by_y, 6)
        record["area"] = scaled if scaled <= AREA_SLACK * largest + 1 else min(area, largest)


def _scale_points(values: Any, by_x: float, by_y: float, step: int) -> Any:
    """Scale a flat list of x, y, and with `step` 3 an unscaled flag after each pair."""
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        return values
    factors = (by_x, by_y, 1)[:step]
    return [
        round(value * factors[i % step], 6) if i % step < 2 else value
        for i, value in enumerate(values)
    ]


def _remove_images(values: Values, rows: set[int]) -> Changes:
    """Remove images and their boxes."""
    if not rows:
        return Counter()
    lost = {values["images"][row]["id"] for row in rows}
    kept = [
        record
        for record in values["annotations"]
        if not isinstance(record, dict) or image_id_of(record) not in lost
    ]
    boxes = len(values["annotations"]) - len(kept)
    values["images"] = [r for row, r in enumerate(values["images"]) if row not in rows]
    values["annotations"] = kept
    return Counter({LOST_BOXES: boxes})
