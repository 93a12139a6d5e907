"""Read the objects of a Pascal VOC XML file: upright boxes, rotated boxes and outlines.

VOC counts pixels from 1 and includes the last one. This does not apply to outlines and to the
rotated boxes of roLabelImg and CVAT: they are in continuous px from 0, and the box around them is
used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import FoundBox
from retinanet.convert.problems import Problems
from retinanet.convert.readers.voc.rotation import VocAngles, turn_as_said
from retinanet.convert.readers.voc.said import Said, find_said, key_of
from retinanet.convert.readers.voc.xml import VocElement, child_text
from retinanet.convert.tables import is_ambiguous, parse_number, read_number
from retinanet.data.coco.resolve import FLAGS

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ROTATED = ("cx", "cy", "w", "h", "angle")
_SHAPES = ("bndbox", "robndbox", "polygon")
_SAME = 2.0
"""How far a <bndbox> may be from the box around the <robndbox> of the same object, in px."""
_DIFFICULT = ("difficult", "isdifficult")
_IGNORED = frozenset((*map(key_of, FLAGS), "iscrowd", "crowd")) - {*_DIFFICULT}
_FLAGS = {"": False, "0": False, "false": False, "no": False, "unspecified": False}
_FLAGS |= {"1": True, "true": True, "yes": True}


def find_objects(path: Path, root: VocElement, problems: Problems) -> list[VocElement]:
    """Return all <object> elements at any depth, except those inside another <object>.

    Args:
        path: Path of the XML file, for messages.
        root: Root of the file.
        problems: Gets a problem for each box that belongs to no <object>.
    """
    objects: list[VocElement] = []
    waiting: list[Any] = [root]
    while waiting:
        element = waiting.pop()
        if element.tag == "object":
            objects.append(element)
            continue
        if element.tag in _SHAPES:
            problems.add(
                path,
                element.line,
                f"a <{element.tag}> belongs to no <object>; put it into one with its <name>",
            )
            continue
        waiting += reversed(list(element))
    return objects


class ObjectParser:
    """Converts <object> elements to boxes."""

    def __init__(
        self, *, difficult: str, zero_based: bool, scale: float | None, angles: str | None
    ) -> None:
        """Store the user's choices.

        Args:
            difficult: `ignore` (a region to ignore, iscrowd 1), `keep` or `drop`.
            zero_based: Whether corners are continuous px from 0, as some tools write them.
            scale: Factor that turns the numbers into shares of the image's sides; None for px.
            angles: Unit of <robndbox> angles, `radians` or `degrees`, if it is given.
        """
        self._difficult = difficult
        self._zero_based = zero_based or scale is not None
        self._scale = scale
        self.angles = VocAngles(angles)

    def parse(self, path: Path, found: VocElement, problems: Problems) -> FoundBox | None:
        """Return the box of an object, not of its <part> elements.

        Args:
            path: Path of the XML file, for messages.
            found: An <object>.
            problems: Collects problems and notes.
        """
        if child_text(found, "deleted") == "1":
            problems.note("objects deleted in LabelMe: left out")
            return None
        names = list(dict.fromkeys((own.text or "").strip() for own in found.findall("name")))
        if len(names) > 1 or not any(names):
            problems.add(
                path,
                found.line,
                f"an <object> has the names {' and '.join(map(repr, names))}; keep one <name>"
                if names and any(names)
                else "an <object> has no <name>; write its class there",
            )
            return None
        name = names[0]
        corners, line = self._corners(path, name, found, problems)
        said = find_said(found)
        is_difficult = _flag(path, said, _DIFFICULT, problems)
        is_ignored = _flag(path, said, _IGNORED, problems)
        if corners is not None:
            corners = turn_as_said(path, said, corners, problems)
        if corners is None:
            return None
        if is_difficult and not is_ignored and self._difficult == "drop":
            problems.note("difficult objects: dropped")
            return None
        crowd = is_ignored or (is_difficult and self._difficult == "ignore")
        if crowd:
            which = "objects with <ignore>" if is_ignored else "difficult objects"
            problems.note(f"{which}: marked iscrowd 1 (to ignore)")
        if self._scale not in (None, 1):
            x1, y1, x2, y2 = (number * self._scale for number in corners)
            corners = x1, y1, x2, y2
        return FoundBox(line, name, corners, crowd)

    def _corners(
        self, path: Path, name: str, found: VocElement, problems: Problems
    ) -> tuple[Corners | None, int]:
        """Return the box of an object's only shape, and its line."""
        shapes = [shape for tag in _SHAPES for shape in found.findall(tag)]
        kinds = [shape.tag for shape in shapes]
        if kinds.count("bndbox") == 1 and "robndbox" not in kinds:
            shapes = shapes[:1]  # an outline beside a box describes the same shape
        make = {
            "bndbox": self._upright_box,
            "robndbox": self._rotated_box,
            "polygon": self._box_around_outline,
        }
        made = [make[shape.tag](path, name, shape, problems) for shape in shapes[:2]]
        if kinds == ["bndbox", "robndbox"] and _are_same(*made):
            shapes = shapes[:1]
        if len(shapes) != 1:
            problems.add(
                path,
                found.line,
                f"the <object> {name!r:.60} has {' and '.join(kinds) or 'no <bndbox>'}; expected "
                "one <bndbox>; correct it, or remove the object",
            )
            return None, found.line
        return made[0], shapes[0].line

    def _upright_box(
        self, path: Path, name: str, shape: VocElement, problems: Problems
    ) -> Corners | None:
        numbers = _read_numbers(path, name, shape, _CORNERS, problems)
        if numbers is None:
            return None
        x1, y1, x2, y2 = numbers
        if self._zero_based:
            return x1, y1, x2, y2
        if min(numbers) < 1:
            problems.note(
                "boxes with an xmin or ymin below 1, although VOC counts from 1: if the tool "
                "counts from 0, use --zero-based"
            )
        # The last pixel is included; if corners are swapped, the smaller one is the first.
        x1, x2 = (x1 - 1, x2) if x1 - 1 <= x2 else (x1, x2 - 1)
        y1, y2 = (y1 - 1, y2) if y1 - 1 <= y2 else (y1, y2 - 1)
        return x1, y1, x2, y2

    def _rotated_box(
        self, path: Path, name: str, shape: VocElement, problems: Problems
    ) -> Corners | None:
        numbers = _read_numbers(path, name, shape, _ROTATED, problems)
        if numbers is None:
            return None
        if min(numbers[2:4]) < 0:
            problems.add(
                path,
                shape.line,
                f"the <robndbox> of {name!r:.60} has w {numbers[2]:g}, h {numbers[3]:g}; expected "
                "a size over 0",
            )
            return None
        unit = self.angles.unit or "radians"
        problems.note(f"rotated boxes (<robndbox>, angles in {unit}): the box around each is used")
        return self.angles.turned(path, shape.line, numbers)

    def _box_around_outline(
        self, path: Path, name: str, shape: VocElement, problems: Problems
    ) -> Corners | None:
        """Return the box around `<x1>...</x1><y1>...` or `<pt><x>...</x><y>...</y></pt>`."""
        try:
            xs, ys = (
                [
                    parse_number((own.text or "").strip())
                    for own in shape.iter()
                    if re.fullmatch(rf"{axis}\d*", own.tag)
                ]
                for axis in "xy"
            )
        except ValueError:
            xs, ys = [], []
        if len(xs) != len(ys) or len(xs) < 3:
            problems.add(
                path,
                shape.line,
                f"the <polygon> of {name!r:.60} has {len(xs)} valid x and {len(ys)} valid y; "
                "expected at least three points; correct it, or write a <bndbox>",
            )
            return None
        problems.note("outlines without a <bndbox>: the box around each is used")
        return min(xs), min(ys), max(xs), max(ys)


def _are_same(box: Corners | None, other: Corners | None) -> bool:
    """Whether two boxes of an object differ only by rounding, or one was already refused."""
    if box is None or other is None:
        return True
    return all(abs(a - b) <= _SAME for a, b in zip(box, other, strict=True))


def _flag(path: Path, said: Sequence[Said], keys: Collection[str], problems: Problems) -> bool:
    """Whether a flag is set under any of its names."""
    is_set = False
    for one in said:
        if one.key not in keys:
            continue
        flag = _FLAGS.get(one.text.lower())
        if flag is None:
            problems.add(path, one.line, f"<{one.name}> is {one.text!r:.60}; expected 0 or 1")
        is_set |= bool(flag)
    return is_set


def _read_numbers(
    path: Path, name: str, shape: VocElement, keys: tuple[str, ...], problems: Problems
) -> list[float] | None:
    texts = [child_text(shape, key) for key in keys]
    numbers = [None if is_ambiguous(text) else read_number(text) for text in texts]
    if None in numbers:
        shown = ", ".join(f"{k} {t!r:.20}" for k, t in zip(keys, texts, strict=True))
        if not any(texts):
            shown = ", ".join(own.tag for own in shape) or "nothing"
            shown = f"{shown:.100} instead of {', '.join(keys)}"
        problems.add(
            path,
            shape.line,
            f"the <{shape.tag}> of {name!r:.60} has {shown}; expected {len(keys)} numbers"
            + (" (px)" if shape.tag == "bndbox" else ""),
        )
        return None
    return [number for number in numbers if number is not None]
