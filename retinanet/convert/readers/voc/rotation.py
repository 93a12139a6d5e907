"""Rotated boxes in Pascal VOC: roLabelImg's <robndbox>, CVAT's attribute, and unknown ones.

The box around a rotated one is the same for an angle and its negative. Degrees and radians can
only be told apart by the angles of the whole data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from retinanet.convert.box_forms import Corners
from retinanet.convert.problems import Problems
from retinanet.convert.readers.voc.said import Said
from retinanet.convert.tables import parse_number
from retinanet.data.coco.geometry import box_of, extent_of, turn

_SLACK = 0.01
_NUMBERS = (
    *("rotation", "rotationdeg", "rotationdegrees", "rotationangle", "rotate", "rotated", "rot"),
    *("angle", "angledeg", "angledegrees", "theta"),
)
"""Names of values that are rotations."""
_WORDS = ("orientation", "direction", "heading", "yaw")
"""Names of values that are rotations only if they are numbers, not words such as `left`."""
_NO_ROTATION = ("false", "no", "none", "unspecified")


class VocAngles:
    """The <robndbox> angles of a data set."""

    def __init__(self, unit: str | None) -> None:
        """Start without angles; `unit` is `radians` or `degrees`, if the user gave it."""
        self.unit = unit
        self._seen: list[tuple[Path, int, float]] = []

    def turned(self, path: Path, line: int, box: Sequence[float]) -> Corners:
        """Return the corners of the box around a rotated box (centre, size and angle)."""
        cx, cy, width, height, angle = box
        self._seen.append((path, line, angle))
        degrees = angle if self.unit == "degrees" else math.degrees(angle)
        return extent_of(turn((cx - width / 2, cy - height / 2, width, height), degrees))

    def are_clear(self, problems: Problems) -> bool:
        """Whether the unit is clear; add a problem if not."""
        if self.unit is not None or not self._seen:
            return True
        path, line, largest = max(self._seen, key=lambda seen: abs(seen[2]))
        what = "use --angles degrees if they are degrees"
        if abs(largest) > 2 * math.pi + _SLACK:
            why = f"is {largest:g}, too large for the radians that roLabelImg writes; {what}"
        elif abs(largest) > math.pi + _SLACK or (
            largest and all(angle % 1 == 0 for _, _, angle in self._seen)
        ):
            why = (
                f"is {largest:g}, the largest of all: the angles may be radians, which roLabelImg "
                f"writes, or small angles in degrees; {what}, or --angles radians if they are "
                "radians"
            )
        else:
            return True
        problems.add(path, line, f"the angle of a <robndbox> {why}")
        return False


def turn_as_said(
    path: Path, said: Sequence[Said], corners: Corners, problems: Problems
) -> Corners | None:
    """Return the box around a <bndbox> that is marked as rotated; None after a problem.

    CVAT's <attribute> `rotation` is in degrees, about the centre. No other rotation is supported.
    """
    for one in said:
        if one.key not in (*_NUMBERS, *_WORDS):
            continue
        try:
            number = parse_number(one.text.replace(",", "."))
        except ValueError:
            if one.key in _WORDS or one.text.lower() in _NO_ROTATION:
                continue
            problems.add(
                path, one.line, f"<{one.name}> is {one.text!r:.40}; expected an angle, 0 or nothing"
            )
            return None
        if number == 0:
            continue
        if one.key != "rotation" or not one.is_attribute:
            problems.add(
                path,
                one.line,
                f"<{one.name}> is {one.text!r:.20}, which may be degrees or radians and is not "
                f"supported; write the box around the rotated one, and remove <{one.name}>; rename "
                "it if it is not a rotation",
            )
            return None
        if number % 360:
            problems.note("rotated boxes (CVAT's attribute rotation): the box around each is used")
            corners = extent_of(turn(box_of(corners), number))
    return corners
