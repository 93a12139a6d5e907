"""What an annotation means beyond its four numbers: a rotation, an outline, an ignore flag.

Tools write more into COCO JSON than the format describes. What is clear is used and counted; what
has two possible meanings is a problem. One record (a dictionary decoded from JSON) at a time.
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
from retinanet.errors import plural

_FLAG_WORDS = (
    *("ignore", "ignored", "is ignore", "is ignored", "ignore flag", "ignore region"),
    *("dont care", "is dont care", "difficult", "is difficult"),
    *("is crowd", "is crowded", "group of", "is group of"),
)
FLAGS = tuple(dict.fromkeys(key for words in _FLAG_WORDS for key in spellings(words)))
"""Keys of regions that are neither objects to learn nor background."""
KEYS = frozenset((*ROTATIONS, *ANGLES, *FLAGS))
"""Keys that are read in a record and in its `HOLDERS`."""
GEOMETRY = ("segmentation", "keypoints", *HOLDERS, *ROTATIONS, *ANGLES, *FLAGS)
"""All keys besides `bbox` and `iscrowd` that the meaning of a record depends on."""

REMARKS = {
    "rotated-box": ("rotated box", "rotated boxes", "the box around each is used"),
    "box-from-outline": (
        *("annotation without a box", "annotations without a box"),
        "the box around the segmentation is used",
    ),
    "other-box-form": (
        *("box written as corner points or an object", "boxes written as corner points or objects"),
        "the box around the points is used",
    ),
    "ignore-flag": (
        *("annotation with an ignore flag", "annotations with an ignore flag"),
        "read as a region to ignore (iscrowd 1)",
    ),
}
"""Kinds of records that are read differently: singular, plural, and how they are read."""

_FULL_TURN = 2 * math.pi + 0.01
"""Angles up to this one may be radians, or a score."""
_SURE = 3
"""x and y are centres if this many times more boxes fit their image only as centres than only as
corners. Boxes may extend beyond the border, so a few exceptions are normal."""
_NUMBERS = frozenset((int, float))
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "")


@dataclass(frozen=True)
class Resolved(MeantBox):
    """What an annotation means; `kinds` are keys of `REMARKS`."""

    crowd: bool = False
    """Whether it is a region to ignore."""


class Angles:
    """The angles of a file; all of them together tell degrees from radians and from scores."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.doubtful: tuple[str, float] | None = None
        """The first record whose box depends on the unit, and its angle."""
        self.is_class = True
        """Whether all doubtful angles equal the category_id of their record."""
        self.fits: Counter[str] = Counter()
        self.fives = 0
        """Boxes of five numbers."""
        self.corner = ""
        """The first record whose five numbers fit its image only if x and y are the corner."""

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
            count: Number of annotations in the file.
            five: Whether to check boxes of five numbers, or else rotations beside boxes.
        """
        if self.doubtful is None:
            return None
        where, angle = self.doubtful
        remedy = "remove it, and write [x, y, width, height]"
        if five and 0 < self.fives < count / 2:
            text = (
                f"is one of {self.fives} annotations (of {count}) whose bbox has five numbers. If "
                "all boxes had five, they would mean [centre x, centre y, width, height, degrees]; "
                "among boxes of four they are probably a mistake"
            )
        elif five and self.fits["corner"] and self.fits["centre"] < _SURE * self.fits["corner"]:
            where = self.corner
            text = (
                "has a bbox of five numbers that fits its image only if x and y are the corner, "
                "not the centre"
            )
            remedy = (
                'write [x, y, width, height], and the degrees as "attributes": {"rotation": ...}'
            )
        elif self.is_class:
            text = "has a fifth number in its bbox, which equals the category_id in all records"
        elif self.largest == 0:
            text = "has a fifth number in its bbox, which is 0 in all records"
        elif self.largest <= _FULL_TURN:
            text = (
                f"has the angle {angle:g}, and no angle in the file is above {self.largest:g}: "
                "they may be degrees, radians or scores"
            )
            remedy = "multiply radians by 57.2958, add 360 to angles in degrees, remove scores"
        else:
            return None
        return Problem(kind="unclear-rotation", record=where, value=text, remedy=remedy)


def remark(kind: str, count: int) -> str:
    """Return a note about records that were read differently: `2 rotated boxes: ...`.

    Args:
        kind: Key of `REMARKS`.
        count: Number of such records.
    """
    singular, nouns, reading = REMARKS[kind]
    return f"{plural(count, singular, nouns)}: {reading}"


def is_plain(record: Mapping[str, Any]) -> bool:
    """Whether an annotation is four numbers with an area, and no other key changes their meaning.

    Cheap: nearly all annotations are plain and need no further check.
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
        record: The annotation. Its ids are only used in the text of a problem.
        size: Height and width of its image, px, if they are known.
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
            remedy="no image is that large",
        )
    kinds = (*box.kinds, *flagged)
    return Resolved(bbox, kinds, box.angle, box.needs_unit, box.fits, crowd)


def make_plain(record: dict[str, Any], size: Size | None = None) -> str | None:
    """Rewrite an annotation in plain form; return the kind of the change, if there is one.

    The special keys (the rotation, the flag) are removed, so that reading the record again changes
    nothing more. The unit of the file's angles must be clear.

    Args:
        record: The annotation, changed in place.
        size: Height and width of its image, px, if they are known.
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

    If the unit of the file's angles is not clear, boxes that depend on it stay unchanged.

    Args:
        values: The content of the file, with its lists `images` and `annotations`.
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
    """Yield the annotations whose angle is clear by itself, but not together with the others.

    Args:
        records: Annotations that are not plain.
        sizes: Height and width of the images, by their id.
        count: Number of all annotations in the file.
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
                value = (
                    f"has bbox {record['bbox']!r:.100}, unclear for the same reason as "
                    f"{problem.record}"
                )
            yield record, replace(problem, record=name, value=value)


def image_sizes(images: Iterable[Any]) -> dict[int, Size]:
    """Return height and width by id, for the images of a COCO file that have them."""
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
        return Problem(kind="bad-iscrowd", record=where, value=text, remedy="it must be 0 or 1")
    crowd = _is_crowd(record)
    for key, value in entries(record, FLAGS):
        word = str(value).strip().lower() if isinstance(value, str | int) else None
        if type(value) is float and value in (0, 1):
            word = str(int(value))
        if word not in (*_YES, *_NO):
            text = f"has {key} {value!r:.60}"
            remedy = f"write 1 to ignore the annotation, otherwise 0, or rename {key!r}"
            return Problem(kind="bad-iscrowd", record=where, value=text, remedy=remedy)
        crowd = crowd or word in _YES
    return crowd
