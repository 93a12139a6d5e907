"""The objects of an XML file of Pascal VOC, and the boxes of those that have another shape.

VOC counts pixels from 1 and includes the last one. Rotated boxes, which roLabelImg and CVAT write,
and outlines have no such rule: they are continuous px from 0, and the box around them is taken.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import FoundBox
from retinanet.convert.problems import Problems
from retinanet.convert.readers.voc.xml import VocElement, child_line, child_text
from retinanet.convert.tables import parse_number
from retinanet.data.coco.geometry import box_of, extent_of, turn

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ROTATED = ("cx", "cy", "w", "h", "angle")
_SHAPES = ("bndbox", "robndbox", "polygon")
_TURN = 2 * math.pi + 0.01
"""A larger angle is not in radians."""
_IGNORED = ("ignore", "ignored", "iscrowd", "crowd")
_FLAGS = {"": False, "0": False, "false": False, "no": False, "unspecified": False}
_FLAGS |= {"1": True, "true": True, "yes": True}


def find_objects(path: Path, root: VocElement, problems: Problems) -> list[VocElement]:
    """Return all <object> elements, in whatever they are; those inside others are not objects.

    Args:
        path: path of the XML file, for messages.
        root: its root.
        problems: gets one for a box that belongs to no <object>.
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
    """Turns <object> elements into boxes."""

    def __init__(self, *, difficult: str, zero_based: bool) -> None:
        """Keep the user's choices.

        Args:
            difficult: `ignore` (a region to ignore, iscrowd 1), `keep` or `drop`.
            zero_based: corners are continuous px from 0, as some tools write them.
        """
        self._difficult = difficult
        self._zero_based = zero_based

    def parse(self, path: Path, found: VocElement, problems: Problems) -> FoundBox | None:
        """Return an object's own box; those of its <part> elements are not objects.

        Args:
            path: path of the XML file, for messages.
            found: an <object>.
            problems: collects problems and notes.
        """
        name = child_text(found, "name")
        attributes = {
            child_text(own, "name").lower(): child_text(own, "value")
            for group in found.findall("attributes")
            for own in group.findall("attribute")
        }
        if child_text(found, "deleted") == "1":
            problems.note("objects that were deleted in LabelMe: left out")
            return None
        if not name:
            problems.add(path, found.line, "an <object> has no <name>; write its class there")
            return None
        shapes = [shape for tag in _SHAPES for shape in found.findall(tag)]
        kinds = [shape.tag for shape in shapes]
        if kinds.count("bndbox") == 1 and "robndbox" not in kinds:
            shapes = shapes[:1]  # an outline beside a box says more of the same
        if len(shapes) != 1:
            problems.add(
                path,
                found.line,
                f"the <object> {name!r:.60} has {' and '.join(kinds) or 'no <bndbox>'}; expected "
                "one <bndbox>; correct it, or remove the object",
            )
            return None
        shape, line = shapes[0], shapes[0].line
        make = {
            "bndbox": self._upright_box,
            "robndbox": self._rotated_box,
            "polygon": self._box_around_outline,
        }[shape.tag]
        corners = make(path, name, shape, problems)
        is_difficult = self._flag(path, found, attributes, ("difficult",), problems)
        is_ignored = self._flag(path, found, attributes, _IGNORED, problems)
        if corners is not None:
            corners = self._turned(path, found, attributes, corners, problems)
        if corners is None:
            return None
        if is_difficult and not is_ignored and self._difficult == "drop":
            problems.note("difficult objects: dropped")
            return None
        crowd = is_ignored or (is_difficult and self._difficult == "ignore")
        if crowd:
            which = "objects to ignore (<ignore>)" if is_ignored else "difficult objects"
            problems.note(f"{which}: iscrowd 1, regions to ignore")
        return FoundBox(line, name, corners, crowd)

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
                "boxes with an xmin or ymin under 1, which VOC does not have: if a tool wrote "
                "corners from 0, give --zero-based"
            )
        # The last pixel is included; of corners that are swapped, the smaller one is the first.
        x1, x2 = (x1 - 1, x2) if x1 - 1 <= x2 else (x1, x2 - 1)
        y1, y2 = (y1 - 1, y2) if y1 - 1 <= y2 else (y1, y2 - 1)
        return x1, y1, x2, y2

    def _rotated_box(
        self, path: Path, name: str, shape: VocElement, problems: Problems
    ) -> Corners | None:
        numbers = _read_numbers(path, name, shape, _ROTATED, problems)
        if numbers is None:
            return None
        cx, cy, width, height, angle = numbers
        if abs(angle) > _TURN or min(width, height) < 0:
            problems.add(
                path,
                child_line(shape, "angle"),
                f"the <robndbox> of {name!r:.60} has w {width:g}, h {height:g}, angle {angle:g}; "
                "expected an angle in radians, as roLabelImg writes it, and a size over 0",
            )
            return None
        problems.note("rotated boxes (<robndbox>): the box around each is taken")
        box = (cx - width / 2, cy - height / 2, width, height)
        return extent_of(turn(box, math.degrees(angle)))

    def _box_around_outline(
        self, path: Path, name: str, shape: VocElement, problems: Problems
    ) -> Corners | None:
        """Return the box around `<x1>..</x1><y1>..` or `<pt><x>..</x><y>..</y></pt>`."""
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
                f"the <polygon> of {name!r:.60} has {len(xs)} x and {len(ys)} y that are numbers; "
                "expected three points or more; correct it, or write a <bndbox>",
            )
            return None
        problems.note("outlines without a <bndbox>: the box around each is taken")
        return min(xs), min(ys), max(xs), max(ys)

    def _turned(
        self,
        path: Path,
        found: VocElement,
        attributes: dict[str, str],
        corners: Corners,
        problems: Problems,
    ) -> Corners | None:
        """Return the box around a box that CVAT's attribute `rotation` turns, in degrees."""
        for place in (found, *found.findall("bndbox")):
            for key in ("angle", "rotation"):
                text = child_text(place, key)
                if text and not re.fullmatch(r"-?0+(\.0*)?", text):
                    problems.add(
                        path,
                        child_line(place, key),
                        f"<{key}> is {text!r:.20}, which may be degrees or radians, and is not "
                        f"read; write the box around the rotated one, and remove <{key}>",
                    )
                    return None
        text = attributes.get("rotation", "")
        try:
            degrees = parse_number(text) if text else 0.0
        except ValueError:
            problems.add(
                path, found.line, f"the attribute rotation is {text!r:.40}; expected degrees"
            )
            return None
        if degrees % 360 == 0:
            return corners
        problems.note("rotated boxes (CVAT's attribute rotation): the box around each is taken")
        return extent_of(turn(box_of(corners), degrees))

    def _flag(
        self,
        path: Path,
        found: VocElement,
        attributes: dict[str, str],
        keys: tuple[str, ...],
        problems: Problems,
    ) -> bool:
        """Whether a flag is set, in an element of its own or in an attribute (CVAT)."""
        is_set = False
        for key in keys:
            for text in (child_text(found, key), attributes.get(key, "")):
                flag = _FLAGS.get(text.lower())
                if flag is None:
                    problems.add(
                        path,
                        child_line(found, key) or found.line,
                        f"<{key}> is {text!r:.60}; expected 0 or 1",
                    )
                is_set |= bool(flag)
        return is_set


def _read_numbers(
    path: Path, name: str, shape: VocElement, keys: tuple[str, ...], problems: Problems
) -> list[float] | None:
    texts = [child_text(shape, key) for key in keys]
    try:
        return [parse_number(text) for text in texts]
    except ValueError:
        shown = ", ".join(f"{k} {t!r:.20}" for k, t in zip(keys, texts, strict=True))
        if not any(texts):
            shown = ", ".join(own.tag for own in shape) or "nothing in it"
            shown = f"{shown:.100} in place of {', '.join(keys)}"
        problems.add(
            path,
            shape.line,
            f"the <{shape.tag}> of {name!r:.60} has {shown}; expected {len(keys)} numbers"
            + (" (px)" if shape.tag == "bndbox" else ""),
        )
        return None
