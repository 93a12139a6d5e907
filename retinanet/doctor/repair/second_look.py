"""Compares the boxes before and after a repair.

The comparison does not depend on how the repair works, so it reveals bugs there. A box that is
neither unchanged nor a part of the old one must belong to a kind that the repair reports.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from retinanet.doctor.bad_records import Values
from retinanet.doctor.renumber import NUMBERS
from retinanet.doctor.repair.boxes import Changes, box_numbers, objects
from retinanet.doctor.repair.sizes import SCALED_BOXES

_SAME = 1e-6
"""px."""
_CONVERTING = ("corner-boxes", "centre-boxes", "normalised-boxes", "suspicious-format")
"""Changes of all boxes: the new ones may lie in the old ones by chance."""
_MOVING = (
    *(*_CONVERTING, "negative-size"),
    *("rotated-box", "box-from-outline", "other-box-form", "far-from-outline"),
    *(SCALED_BOXES, NUMBERS),
)
"""Changes that move a box."""


@dataclass(frozen=True, kw_only=True)
class BoxChanges:
    """Changes to the boxes that are left."""

    same: int
    cut: int
    """Boxes that are a part of the old ones."""
    moved: int
    least_kept: float | None = None
    """The smallest share of its area that a cut box keeps."""

    def __str__(self) -> str:
        kept = "" if self.least_kept is None else f" (each keeps {self.least_kept:.0%} or more)"
        parts = [f"{self.same:,} unchanged"]
        parts += [f"{self.cut:,} cut to their image{kept}"] if self.cut else []
        parts += [f"{self.moved:,} converted"] if self.moved else []
        return f"boxes: {', '.join(parts)}"


class BoxesBefore:
    """The boxes of a file before a repair, for comparison with those after it."""

    def __init__(self, values: Values) -> None:
        """Store the boxes of all annotations."""
        # A repair keeps the record objects, so they identify annotations even if ids change.
        self._boxes = [(record, box_numbers(record)) for record in objects(values["annotations"])]

    def compare(self, values: Values, changes: Changes) -> BoxChanges:
        """Return what happened to the boxes.

        Args:
            values: Content of the file after the repair.
            changes: Changes that the repair reports.

        Raises:
            AssertionError: A box has moved although no reported change moves it.
        """
        left = {id(record) for record in objects(values["annotations"])}
        converted = any(changes[kind] for kind in _CONVERTING)
        counts: Counter[str] = Counter()
        kept = []
        for record, before in self._boxes:
            after = box_numbers(record)
            if id(record) not in left or after is None:
                continue
            if before is not None and all(
                abs(a - b) <= _SAME for a, b in zip(before, after, strict=True)
            ):
                counts["same"] += 1
            elif not converted and before is not None and _is_part(after, before):
                counts["cut"] += 1
                kept.append(after[2] * after[3] / max(before[2] * before[3], _SAME))
            else:
                counts["moved"] += 1
        allowed = sum(changes[kind] for kind in _MOVING)
        if counts["moved"] > allowed:
            raise AssertionError(f"{counts['moved']} boxes were moved, {allowed} should be")
        return BoxChanges(
            same=counts["same"],
            cut=counts["cut"],
            moved=counts["moved"],
            least_kept=min(kept, default=None),
        )


def _is_part(inner: list[float], outer: list[float]) -> bool:
    """Whether a box lies in another one."""
    return all(
        outer[i] - _SAME <= inner[i] and inner[i] + inner[i + 2] <= outer[i] + outer[i + 2] + _SAME
        for i in (0, 1)
    )
