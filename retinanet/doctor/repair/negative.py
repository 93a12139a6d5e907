"""Repairs boxes with a negative width or height.

Either the corners are in the wrong order, and [20, 5, -9, 8] is the box from x = 11 to 20. Or the
sign is wrong, and it is the box from x = 20 to 29.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from retinanet.data.canvas import Size
from retinanet.data.coco.geometry import box_of, extent_of, find_outline, iou
from retinanet.doctor.bad_records import Values, find_bad
from retinanet.doctor.repair.boxes import Changes, Record, image_id_of, objects, set_box, shared_ids
from retinanet.doctor.repair.choices import Choices
from retinanet.doctor.repair.sizes import recorded_size
from retinanet.errors import UserError

_MARGIN = 1.0
"""How far a box may extend beyond its image and still fit, in px."""
_OUTLINE_IOU = 0.8
_MIN_ALIKE = 3
"""Clear boxes, all with the same cause, from which the others follow."""


def fix_negative_boxes(values: Values, path: Path, choices: Choices) -> Changes:
    """Correct boxes with a negative side; remove those that fit in their image neither way.

    Raises:
        UserError: Both ways fit a box, and nothing shows which is right.
    """
    sizes = {
        record["id"]: size
        for record in objects(values["images"])
        if isinstance(record.get("id"), int) and (size := recorded_size(record))
    }
    shared = shared_ids(values["images"])
    rows = [b.row for b in find_bad(values)["annotations"] if b.problem.kind == "negative-size"]
    records = [values["annotations"][row] for row in rows]
    records = [r for r in records if image_id_of(r) in sizes and r["image_id"] not in shared]
    ways = {id(record): _possible_ways(record, sizes[record["image_id"]]) for record in records}
    decided = Counter(own[0] for own in ways.values() if len(own) == 1)
    common = choices.negative
    if common is None and len(decided) == 1 and sum(decided.values()) >= _MIN_ALIKE:
        (common,) = decided
    gone: set[int] = set()
    for record in records:
        own = ways[id(record)]
        if len(own) == 2 and common is None:
            raise UserError(_describe_doubt(path, record))
        outline = find_outline(record.get("segmentation"))
        if own:
            way = own[0] if len(own) == 1 else common
            set_box(record, _turned(record["bbox"], way))
        elif outline is not None:  # [-1, -1, -1, -1] means no box
            set_box(record, box_of(outline.extent))
        else:
            gone.add(id(record))
    values["annotations"] = [r for r in values["annotations"] if id(r) not in gone]
    return Counter({"negative-size": len(records)} if records else {})


def _possible_ways(record: Record, size: Size) -> list[str]:
    """Return the possible ways to correct a box: by its outline, else by what fits its image."""
    outline = find_outline(record.get("segmentation"))
    boxes = {way: _turned(record["bbox"], way) for way in ("corners", "sides")}
    if outline is not None:
        covering = [
            way for way, box in boxes.items() if iou(extent_of(box), outline.extent) >= _OUTLINE_IOU
        ]
        if len(covering) < 2:
            return covering
    return [way for way, box in boxes.items() if _fits(box, size)]


def _turned(box: list[float], way: str | None) -> list[float]:
    x, y, width, height = box
    if way == "corners":
        x, y = min(x, x + width), min(y, y + height)
    return [x, y, abs(width), abs(height)]


def _fits(box: list[float], size: Size) -> bool:
    """Whether a box lies in its image, up to 1 px."""
    x, y, width, height = box
    within = x + width <= size[1] + _MARGIN and y + height <= size[0] + _MARGIN
    return x >= -_MARGIN and y >= -_MARGIN and within


def _describe_doubt(path: Path, record: Record) -> str:
    corners, sides = (_turned(record["bbox"], way) for way in ("corners", "sides"))
    return (
        f"{path}: annotation {record.get('id')} (image {record['image_id']}) has bbox "
        f"{record['bbox']}, which may mean {corners} (corners in the wrong order) or {sides} (a "
        "wrong sign); look at some, then use --fix-as negative=corners or --fix-as negative=sides "
        "(nothing was written)"
    )
