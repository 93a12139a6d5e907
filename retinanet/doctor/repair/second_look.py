"""What a repair did to the boxes, found by comparing them before and after.

It knows nothing of how the repair works, so that a fault there shows: a box that is neither as it
was, nor a part of what it was, must be of a kind that the repair says it changed.
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
"""Changes that give a box another place."""


@dataclass(frozen=True, kw_only=True)
class BoxChanges:
    """What became of the boxes that are left."""

    same: int
    cut: int
    """A part of what they were."""
    moved: int
    least_kept: float | None = None
    """The smallest share of its area that a cut box keeps."""

    def __str__(self) -> str:
        kept = "" if self.least_kept is None else f" (each keeps {self.least_kept:.0%} or more)"
        parts = [f"{self.same:,} as they were"]
        parts += [f"{self.cut:,} cut to their image{kept}"] if self.cut else []
        parts += [f"{self.moved:,} converted"] if self.moved else []
        return f"boxes: {', '.join(parts)}"


class BoxesBefore:
    """The boxes of a file, to be compared with what a repair makes of them."""

    def __init__(self, values: Values) -> None:
        """Keep the boxes of all annotations."""
        # The records stay the same objects, which tells them apart whatever their ids become.
        self._boxes = [(record, box_numbers(record)) for record in objects(values["annotations"])]

    def compare(self, values: Values, changes: Changes) -> BoxChanges:
        """Say what became of the boxes.

        Args:
            values: the content after the repair.
            changes: what the repair says it did.

        Raises:
            AssertionError: a box was changed in a way that no change accounts for.
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
