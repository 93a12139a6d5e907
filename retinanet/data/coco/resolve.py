"""What an annotation means beyond its four numbers: a rotation, an outline, a flag to ignore it.

Tools write more into COCO JSON than its authors described. What is clear is taken, and counted;
what can be read in two ways is a problem. One record at a time, a dictionary as JSON gives it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retinanet.data.coco.box_forms import (
    ANGLES,
    HOLDERS,
    ROTATIONS,
    MeantBox,
    Size,
    entries,
    hint_at_outline,
    is_five,
    name_of,
    read_box,
    spellings,
)
from retinanet.data.coco.records import Problem, name_in_url, number_or_nan

_FLAG_WORDS = (
    *("ignore", "ignored", "is ignore", "is ignored", "ignore flag", "ignore region"),
    *("dont care", "is dont care", "difficult", "is difficult"),
    *("is crowd", "is crowded", "group of", "is group of"),
)
FLAGS = tuple(dict.fromkeys(key for words in _FLAG_WORDS for key in spellings(words)))
"""Keys of what is neither to be learnt nor to be background."""
KEYS = frozenset((*ROTATIONS, *ANGLES, *FLAGS))
"""Keys that are looked at in a record and in its `HOLDERS`."""
GEOMETRY = ("segmentation", "keypoints", *HOLDERS, *ROTATIONS, *ANGLES, *FLAGS)
"""All keys beside `bbox` and `iscrowd` that a record is resolved from."""

REMARKS = {
    "rotated-box": "rotated boxes: the box around each is taken",
    "box-from-outline": "annotations without a box: the box around their segmentation is taken",
    "other-box-form": "boxes written as corner points or objects: the box around them is taken",
    "ignore-flag": "annotations flagged to be ignored: taken as regions to ignore, as iscrowd 1",
}
"""Kinds of what was read differently, and what the summary says after their number."""

_FULL_TURN = 2 * math.pi + 0.01
"""Angles up to it may be radians, or a score."""
_SURE = 3
"""Boxes that fit their image with x and y as centre alone, for each that fits with them as corner
alone, from which on they are centres: boxes may hang over the border."""
_NUMBERS = frozenset((int, float))
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "")


@dataclass(frozen=True)
class Resolved(MeantBox):
    """What an annotation means; `kinds` are keys of `REMARKS`."""

    crowd: bool = False
    """Whether it is a region to ignore."""


class Angles:
    """The angles of a file, which together tell degrees from radians, and from scores."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.doubtful: tuple[str, float] | None = None
        """The first record whose box depends on the unit, and its angle."""
        self.is_class = True
        """Whether all doubtful ones are the number of the record's class."""
        self.fits: Counter[str] = Counter()
        self.fives = 0
        """Boxes of five numbers."""
        self.corner = ""
        """The first record whose five numbers fit its image with x and y as the corner alone."""

    def see(self, record: Mapping[str, Any], resolved: Resolved) -> None:
        """Take an annotation into account."""
        if resolved.angle is None:
            return
        self.largest = max(self.largest, abs(resolved.angle))
        self.fives += is_five(record)
        if resolved.needs_unit:
            self.doubtful = self.doubtful or (name_record(record), resolved.angle)
            category = record.get("category_id")
            self.is_class = self.is_class and is_five(record) and resolved.angle == category
        if resolved.fits == "corner" and not self.corner:
            self.corner = name_record(record)
        self.fits[resolved.fits] += 1

    def problem(self, count: int, *, five: bool = True) -> Problem | None:
        """Return what is wrong with the angles of the file as a whole.

        Args:
            count: number of all its annotations.
            five: whether it is about boxes of five numbers, or about rotations beside boxes.
        """
        if self.doubtful is None:
            return None
        where, angle = self.doubtful
        remedy = "remove it, and write [x, y, width, height]"
        if five and 0 < self.fives < count / 2:
            text = (
                f"is one of {self.fives} annotations of {count} whose bbox has five numbers: "
                "they mean [centre x, centre y, width, height, degrees] where all boxes have them, "
                "but are a slip among boxes of four"
            )
        elif five and self.fits["corner"] and self.fits["centre"] < _SURE * self.fits["corner"]:
            where = self.corner
            text = (
                "has a bbox of five numbers that leaves its image with x and y as the centre, but "
                "not as the corner"
            )
            remedy = (
                'write [x, y, width, height], and the degrees as "attributes": {"rotation": ..}'
            )
        elif self.is_class:
            text = "has a fifth number in its bbox, which is the category_id in all records"
        elif self.largest == 0:
            text = "has a fifth number in its bbox, which is 0 in all records"
        elif self.largest <= _FULL_TURN:
            text = (
                f"has the angle {angle:g}, and no angle of the file is above {self.largest:g}: "
                "they may be degrees or radians, or scores"
            )
            remedy = "multiply radians by 57.2958, add 360 to angles in degrees, remove scores"
        else:
            return None
        return Problem(kind="unclear-rotation", record=where, value=text, remedy=remedy)


def is_plain(record: Mapping[str, Any]) -> bool:
    """Whether an annotation has four numbers with an area and nothing that changes their meaning.

    Cheap: nearly all annotations are plain, and need no further look.
    """
    box = record.get("bbox")
    return (
        type(box) is list
        and len(box) == 4
        and _NUMBERS.issuperset(map(type, box))
        and box[2] > 0 < box[3]
        and not any(map(record.get, HOLDERS))
        and KEYS.isdisjoint(record)
    )


def name_record(record: Mapping[str, Any]) -> str:
    """Return `annotation 812 (image 37)`."""
    return f"annotation {record.get('id')} (image {record.get('image_id')!r:.60})"


def resolve(record: Mapping[str, Any], size: Size | None = None) -> Resolved | Problem:
    """Return what an annotation means, or what is wrong with its box or its flags.

    Args:
        record: the annotation. Its ids play no part but in the text of a problem.
        size: height and width of its image, px, if they are known.
    """
    where = name_record(record)
    crowd = _read_crowd(where, record)
    if isinstance(crowd, Problem):
        return crowd
    flagged = () if crowd == _is_crowd(record) else ("ignore-flag",)
    box = read_box(where, record, size)
    if isinstance(box, Problem):
        return box
    bbox = box.bbox
    if min(bbox[2:]) < 0:
        return Problem(
            kind="negative-size",
            record=where,
            value=f"has bbox {record.get('bbox')!r:.100}, whose width or height is negative",
            remedy="COCO boxes are [x, y, width, height], not two corners",
            hint=hint_at_outline(record),
        )
    if max(map(abs, bbox)) >= 2**31:
        return Problem(
            kind="bad-bbox",
            record=where,
            value=f"has bbox {record.get('bbox')!r:.100}",
            remedy="no image is as large as that",
        )
    kinds = (*box.kinds, *flagged)
    return Resolved(bbox, kinds, box.angle, box.needs_unit, box.fits, crowd)


def make_plain(record: dict[str, Any], size: Size | None = None) -> str | None:
    """Write into an annotation what it means; return the kind of the change, if there is one.

    What was read differently is gone afterwards (the rotation, the flag), so that reading the
    record again changes nothing more. The units of a file's angles must be clear.

    Args:
        record: the annotation, changed in place.
        size: height and width of its image, px, if they are known.
    """
    found = None if is_plain(record) else resolve(record, size)
    if not isinstance(found, Resolved) or not found.kinds:
        return None
    if set(found.kinds) - {"ignore-flag"}:
        record["bbox"] = found.bbox
        _remove_keys(record, (*ROTATIONS, *ANGLES))
    if "ignore-flag" in found.kinds:
        record["iscrowd"] = 1
        _remove_keys(record, FLAGS)
    return found.kinds[0]


def make_all_plain(values: Mapping[str, Any]) -> Counter[str]:
    """Make all records of a COCO file plain, in place; return the changes by kind.

    Where the angles of the file are not clear, none of the boxes that depend on them is changed.

    Args:
        values: the content of the file, with its lists `images` and `annotations`.
    """
    sizes = image_sizes(values["images"])
    special = [r for r in values["annotations"] if isinstance(r, dict) and not is_plain(r)]
    unclear = {id(record) for record, _ in find_unclear(special, sizes, len(values["annotations"]))}
    changes = name_by_url(values)
    for record in special:
        if id(record) not in unclear:
            kind = make_plain(record, _size_of(record, sizes))
            changes.update([kind] if kind else [])
    return changes


def name_by_url(values: Mapping[str, Any]) -> Counter[str]:
    """Give images without a file_name the last part of their coco_url; return the count by kind."""
    changes: Counter[str] = Counter()
    for image in values["images"]:
        if isinstance(image, dict) and image.get("file_name") is None:
            name = name_in_url(image.get("coco_url"))
            if name is not None:
                image["file_name"] = name
                changes["name-from-url"] += 1
    return changes


def find_unclear(
    records: Sequence[Mapping[str, Any]], sizes: Mapping[int, Size], count: int
) -> Iterator[tuple[Mapping[str, Any], Problem]]:
    """Yield the annotations whose angle is clear alone, but not beside the others of the file.

    Args:
        records: annotations that are not plain.
        sizes: height and width of the images, by their id.
        count: number of all annotations of the file.
    """
    angles, resting = Angles(), []
    for record in records:
        found = resolve(record, _size_of(record, sizes))
        if isinstance(found, Resolved):
            angles.see(record, found)
            if found.needs_unit:
                resting.append(record)
    for record in resting:
        problem = angles.problem(count, five=is_five(record))
        if problem is not None:
            name, value = name_record(record), problem.value
            if name != problem.record:
                value = f"has bbox {record['bbox']!r:.100}, as unclear as that of {problem.record}"
            yield record, replace(problem, record=name, value=value)


def image_sizes(images: Iterable[Any]) -> dict[int, Size]:
    """Return height and width by id, of the images of a COCO file that give them."""
    sizes = {}
    for image in images:
        if isinstance(image, dict) and type(image.get("id")) is int:
            sides = [number_or_nan(image.get(side)) for side in ("height", "width")]
            if all(1 <= side < 2**31 for side in sides):
                sizes[image["id"]] = (int(sides[0]), int(sides[1]))
    return sizes


def _size_of(record: Mapping[str, Any], sizes: Mapping[int, Size]) -> Size | None:
    image_id = record.get("image_id")
    return sizes.get(image_id) if type(image_id) is int else None


def _remove_keys(record: dict[str, Any], keys: Sequence[str]) -> None:
    for holder in (record, *(record.get(name) for name in HOLDERS)):
        if isinstance(holder, list):
            holder[:] = [one for one in holder if name_of(one) not in keys]
        elif isinstance(holder, dict):
            for key in keys:
                holder.pop(key, None)


def _is_crowd(record: Mapping[str, Any]) -> bool:
    return record.get("iscrowd") in (1, True)


def _read_crowd(where: str, record: Mapping[str, Any]) -> bool | Problem:
    """Return whether an annotation is a region to ignore."""
    value = record.get("iscrowd")
    if value is not None and value not in (0, 1):
        text = f"has iscrowd {value!r:.60}"
        return Problem(kind="bad-iscrowd", record=where, value=text, remedy="it is 0 or 1")
    crowd = _is_crowd(record)
    for key, value in entries(record, FLAGS):
        word = str(value).strip().lower() if isinstance(value, str | int) else None
        if type(value) is float and value in (0, 1):
            word = str(int(value))
        if word not in (*_YES, *_NO):
            text = f"has {key} {value!r:.60}"
            remedy = f"write 1 if it is to be ignored, otherwise 0, or rename {key!r}"
            return Problem(kind="bad-iscrowd", record=where, value=text, remedy=remedy)
        crowd = crowd or word in _YES
    return crowd
