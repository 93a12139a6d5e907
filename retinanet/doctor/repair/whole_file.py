"""`--fix`: writes a cleaned copy of a COCO file, unless that would remove much of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from retinanet.data.coco.content import read_content
from retinanet.doctor.bad_records import Values
from retinanet.doctor.reader import read_values
from retinanet.doctor.repair.boxes import Changes
from retinanet.doctor.repair.choices import Choices
from retinanet.doctor.repair.records import REMOVING, repair
from retinanet.doctor.repair.second_look import BoxChanges, BoxesBefore
from retinanet.errors import UserError
from retinanet.files import replacing

_LARGE_LOSS = 0.1
"""Share of the boxes or images above which removal must be allowed."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Numbers of boxes and images in a file."""

    boxes: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """Result of a repair."""

    changes: Changes
    before: Totals
    after: Totals
    boxes: BoxChanges

    def __str__(self) -> str:
        totals = ", ".join(
            f"{getattr(self.before, what):,} -> {getattr(self.after, what):,} {what}"
            for what in ("boxes", "images")
        )
        return f"{totals}\n  {self.boxes}"


def repair_file(
    path: Path,
    out: Path,
    images: Path | None,
    *,
    choices: Choices | None = None,
    removes_much: bool = False,
) -> Repaired:
    """Write a cleaned copy of a COCO file; return the changes, counted by kind.

    Args:
        path: Path of the file, which is not changed.
        out: Path of the copy.
        images: Folder of the image files, if they are to be checked as well.
        choices: Choices of the user where the data leaves a question open.
        removes_much: Whether more than a tenth of the boxes or images may be removed.

    Raises:
        UserError: This is not a COCO file, none of its image files is in the folder, the format of
            its boxes is not clear, or more would be removed than is allowed. Nothing is written
            then.
    """
    values = read_values(path, read_content(path))
    before, boxes_before = _totals(values), BoxesBefore(values)
    changes = repair(values, path, images, choices or Choices())
    repaired = Repaired(
        changes=changes,
        before=before,
        after=_totals(values),
        boxes=boxes_before.compare(values, changes),
    )
    if not removes_much:
        _refuse_large_loss(repaired, path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(values))
    return repaired


def _totals(values: Values) -> Totals:
    return Totals(boxes=len(values["annotations"]), images=len(values["images"]))


def _refuse_large_loss(repaired: Repaired, path: Path) -> None:
    """Refuse to remove more than a tenth: then the file is probably misread, or the wrong one."""
    before, after = repaired.before, repaired.after
    lost = Totals(boxes=before.boxes - after.boxes, images=before.images - after.images)
    if lost.boxes <= _LARGE_LOSS * before.boxes and lost.images <= _LARGE_LOSS * before.images:
        return
    kinds = [
        f"{kind} ({count:,})" for kind, count in repaired.changes.most_common() if kind in REMOVING
    ]
    raise UserError(
        f"{path}: --fix would remove {lost.boxes:,} of {before.boxes:,} boxes and {lost.images:,} "
        f"of {before.images:,} images, for {', '.join(kinds)}; fix the cause in the file, or allow "
        "it with --fix-removes-much (nothing was written)"
    )
