"""The box of an annotation, in any of the forms that records use.

[x, y, width, height] is COCO's form. Other forms with a clear meaning are accepted: corner points,
some objects, [centre x, centre y, width, height, degrees], a rotation beside the box, an outline
without a box. Any other form is a problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retinanet.data.coco.geometry import Outline, box_of, extent_of, find_outline, iou, turn
from retinanet.data.coco.records import Problem, hint_at_number, meant_number, number_or_nan

Size = tuple[int, int]
"""Height and width, px."""


def spellings(words: str) -> list[str]:
    """Return the keys that tools write for some words: `is_ignored`, `isIgnored`, `IsIgnored`, ...

    `iscrowd`, COCO's own key, is left out.
    """
    first, *others = words.split()
    tails = "".join(word.capitalize() for word in others)
    snake = "_".join([first, *others])
    joined = snake.replace("_", "")
    found = [
        snake,
        joined,
        first + tails,
        first.capitalize() + tails,
        snake.upper(),
        joined.upper(),
    ]
    return [key for key in found if key != "iscrowd"]


ROTATIONS = tuple(
    dict.fromkeys(
        key
        for words in ("rotation", "rotation deg", "rotation degrees")
        for key in spellings(words)
    )
)
"""Keys of a rotation in degrees about the centre; `bbox` is the box before the rotation."""
ANGLES = ("angle", "theta", "rotation_angle", "rotate")
"""Keys of angles whose unit and meaning differ between tools."""
HOLDERS = ("attributes", "extra")
"""Keys of further data about an annotation: an object, or a list of names and values."""
_OBJECTS: dict[tuple[str, str, str, str], bool] = {
    ("xmin", "ymin", "xmax", "ymax"): True,
    ("x1", "y1", "x2", "y2"): True,
    ("left", "top", "right", "bottom"): True,
    ("left", "top", "width", "height"): False,
    ("xmin", "ymin", "width", "height"): False,
}
"""Keys of boxes as objects with a single meaning; True if the last two are a corner."""


@dataclass(frozen=True)
class MeantBox:
    """The box of an annotation."""

    bbox: list[float]
    """[x, y, width, height], px."""
    kinds: tuple[str, ...] = ()
    """How it was read, if not as four numbers."""
    angle: float | None = None
    """The angle that was used, or could have been."""
    needs_unit: bool = False
    """Whether the box is right only if the angle is in degrees, which only the other angles of the
    file show."""
    fits: str = ""
    """The point that x and y of five numbers must be so that the box fits its image: `centre`,
    `corner`, or empty if both fit or neither."""


def read_box(where: str, record: Mapping[str, Any], size: Size | None) -> MeantBox | Problem:
    """Return the box of an annotation, read according to the form of its `bbox`."""
    value = record.get("bbox")
    if _is_missing(value):
        return _from_outline(where, record, size) or _bad_box(where, record)
    if isinstance(value, dict):
        return _from_object(where, value)
    points = _as_points(value)
    if points is not None:
        x, y = points[::2], points[1::2]
        return MeantBox(box_of((min(x), min(y), max(x), max(y))), ("other-box-form",))
    if not isinstance(value, list):
        return _bad_box(where, record)
    numbers = [number_or_nan(number) for number in value]
    if len(numbers) not in (4, 5) or any(map(math.isnan, numbers)):
        return _bad_box(where, record)
    if len(numbers) == 5:
        return _from_five(where, record, size, numbers)
    if numbers[2] == 0 or numbers[3] == 0:
        found = _from_outline(where, record, size)
        if isinstance(found, MeantBox) and min(found.bbox[2:]) > 0:
            return found
    return _turned(where, record, value)


def _is_missing(value: Any) -> bool:
    """Whether there is no box: null, empty, or only null and NaN."""
    if isinstance(value, list):
        return all(number is None or number != number for number in value)
    return value is None or value in ("", {})


def hint_at_outline(record: Mapping[str, Any]) -> str:
    """Return a hint that the segmentation gives a box if the wrong one is removed, or ""."""
    outline = find_outline(record.get("segmentation"))
    return "; or remove the bbox to use the box around its segmentation" if outline else ""


def _bad_box(where: str, record: Mapping[str, Any]) -> Problem:
    value = record.get("bbox")
    hint = fix = ""
    if isinstance(value, list):
        hints = (hint_at_number(number, whole=False) for number in value)
        hint = next(filter(None, hints), "")
        fix = "converts strings to numbers" if hint else ""
    elif isinstance(value, str) and "[" in value:
        hint = " (a list written as text)"
    if not hint and isinstance(value, list) and len(value) == 1:
        hint = " (a list in a list)"
    if not hint and not _is_missing(value):
        hint = hint_at_outline(record)
    if not hint and _is_missing(value) and record.get("keypoints"):
        hint = " (it has keypoints, but they do not give a box)"
    shown = f"has bbox {value!r:.100}" if "bbox" in record else "has no bbox"
    others = [key for key in record if "box" in str(key).lower() and key != "bbox"]
    if _is_missing(value) and others:
        shown += f", but {others[0]} {record[others[0]]!r:.60}"
    if _is_missing(value) and record.get("segmentation"):
        shown += ", and a segmentation that is not an outline"
    return Problem(
        kind="bad-bbox",
        record=where,
        value=shown,
        remedy="it must be four finite numbers [x, y, width, height] in px",
        hint=hint,
        fix=fix,
    )


def _from_outline(
    where: str, record: Mapping[str, Any], size: Size | None
) -> MeantBox | Problem | None:
    """Return the box around the segmentation of a record, if it has one."""
    outline = find_outline(record.get("segmentation"))
    if outline is None:
        return None
    if outline.mask_size is not None and size is not None and outline.mask_size != size:
        mask, image = ("x".join(map(str, sides[::-1])) for sides in (outline.mask_size, size))
        text = (
            f"has bbox {record.get('bbox')!r:.60}, and a mask of {mask} px in an image of {image}"
        )
        remedy = "write the box, or correct the image's size"
        return Problem(kind="bad-bbox", record=where, value=text, remedy=remedy)
    return MeantBox([float(side) for side in box_of(outline.extent)], ("box-from-outline",))


def _as_points(value: Any) -> list[float] | None:
    """Return x, y, x, y, ... if a `bbox` is a list of at least three corner points."""
    if not isinstance(value, list):
        return None
    if all(isinstance(point, list) and len(point) == 2 for point in value) and len(value) > 2:
        flat = [number_or_nan(number) for point in value for number in point]
    elif len(value) == 8:
        flat = [number_or_nan(number) for number in value]
    else:
        return None
    return None if any(map(math.isnan, flat)) else flat


def _from_object(where: str, value: dict[Any, Any]) -> MeantBox | Problem:
    """Return the box of an object whose keys have a clear meaning."""
    plain = {str(key).lower().replace("_", "").replace("-", ""): value[key] for key in value}
    for keys, is_corner in _OBJECTS.items():
        numbers = [number_or_nan(plain.get(key)) for key in keys]
        if not any(map(math.isnan, numbers)):
            x, y, right, bottom = numbers
            box = [x, y, right - x, bottom - y] if is_corner else numbers
            return MeantBox(box, ("other-box-form",))
    text = f"has bbox {value!r:.100}, an object"
    if {"x", "y"} <= plain.keys():
        text += ", whose x and y may be a corner or the centre"
    remedy = 'write [x, y, width, height] or {"left": ..., "top": ..., "width": ..., "height": ...}'
    return Problem(kind="bad-bbox", record=where, value=text, remedy=remedy)


def _from_five(
    where: str, record: Mapping[str, Any], size: Size | None, numbers: list[float]
) -> MeantBox | Problem:
    """Read [centre x, centre y, width, height, angle]; an outline is preferred."""
    x, y, width, height, angle = numbers
    outline = _telling_outline(record)
    if outline is not None:
        return MeantBox(box_of(outline.extent), ("rotated-box",), angle)
    around = turn([x - width / 2, y - height / 2, width, height], angle)
    fits = ""
    if size is not None and min(width, height) > 0:
        corner = [x, y, width, height]
        out = _leaves(around, size)
        corner_out = _leaves(corner, size) and _leaves(turn(corner, angle), size)
        fits = "" if out == corner_out else "corner" if out else "centre"
    return MeantBox(around, ("rotated-box",), angle, needs_unit=True, fits=fits)


def is_five(record: Mapping[str, Any]) -> bool:
    box = record.get("bbox")
    return isinstance(box, list) and len(box) == 5


def _leaves(box: list[float], size: Size) -> bool:
    """Whether a box extends beyond its image by more than 2 px and 1 % of the side."""
    x, y, width, height = box
    slack_y, slack_x = (max(2, 0.01 * side) for side in size)
    over_x = x < -slack_x or x + width > size[1] + slack_x
    return over_x or y < -slack_y or y + height > size[0] + slack_y


def _telling_outline(record: Mapping[str, Any]) -> Outline | None:
    """Return the outline if it shows the rotated shape, not just the box before the rotation."""
    outline = find_outline(record.get("segmentation"))
    return None if outline is None or outline.is_rectangle else outline


def _turned(where: str, record: Mapping[str, Any], box: list[float]) -> MeantBox | Problem:
    """Return the box around [x, y, width, height] after the rotation in its record."""
    for key, value in entries(record, (*ROTATIONS, *ANGLES)):
        degrees = number_or_nan(meant_number(value))
        if math.isnan(degrees):
            if key in ANGLES or value == "":
                continue  # a word about the image, such as "front"
            text = f"has rotation {value!r:.60}"
            remedy = "it must be a number of degrees"
            return Problem(kind="unclear-rotation", record=where, value=text, remedy=remedy)
        if degrees == 0:
            continue
        outline = _telling_outline(record)
        if outline is not None:
            around = box_of(outline.extent)
            near = iou(outline.extent, extent_of(box)) > 0.99
            return (
                MeantBox(box, (), degrees) if near else MeantBox(around, ("rotated-box",), degrees)
            )
        if key in ANGLES:
            return Problem(
                kind="unclear-rotation",
                record=where,
                value=f"has {key} {value!r:.60}, but it is not clear whether bbox is the box "
                "before the rotation or the box around the rotated object",
                remedy='in the first case write the degrees as "attributes": {"rotation": ...}, '
                f"in the second remove {key!r}",
            )
        if degrees % 180 == 0:
            return MeantBox(box, (), degrees)
        attributes = record.get("attributes")
        # CVAT and Datumaro write degrees, together with `occluded`.
        known = isinstance(attributes, dict) and {key, "occluded"} <= attributes.keys()
        return MeantBox(turn(box, degrees), ("rotated-box",), degrees, needs_unit=not known)
    return MeantBox(box)


def entries(record: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a record and its `HOLDERS` for some keys, without null."""
    for holder in (record, *(record.get(name) for name in HOLDERS)):
        found: Mapping[Any, Any] = holder if isinstance(holder, Mapping) else {}
        if isinstance(holder, list):
            found = {name: one.get("value") for one in holder if (name := name_of(one))}
        for key in keys if found else ():
            if found.get(key) is not None:
                yield key, found[key]


def name_of(attribute: Any) -> str | None:
    """Return the name of an attribute in a list of {"name": ..., "value": ...}."""
    name = attribute.get("name") if isinstance(attribute, dict) else None
    return name if isinstance(name, str) else None
