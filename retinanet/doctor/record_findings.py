"""Finds odd annotations that training accepts: gaps that it fills, unusual forms that it reads.

This needs the records as JSON has them: the index no longer shows any of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.data.coco.box_forms import Size
from retinanet.data.coco.geometry import Extent, box_of, find_outline
from retinanet.data.coco.outlines import is_far
from retinanet.data.coco.records import name_in_url, number_or_nan
from retinanet.data.coco.resolve import REMARKS, Resolved, is_plain, name_record, resolve
from retinanet.doctor.box_readings import describe_by_outlines
from retinanet.doctor.findings import Finding, Findings, findings_of

_SAMPLE = 500
"""Maximum number of boxes far from their outline on which other readings are tried."""
_FEW = 3
"""Fewer outlines than this prove nothing about the whole file."""


def find_odd_records(
    path: Path, records: Iterable[Mapping[str, Any]], sizes: Mapping[int, Size]
) -> list[Findings]:
    """Return the findings about annotations that training accepts but that are not plain.

    Args:
        path: Path of the file.
        records: Annotations of the file, as JSON has them.
        sizes: Height and width (px) of the images, by image id.
    """
    odd = _OddRecords()
    for record in records:
        odd.look_at(record, sizes)
    findings = _annotations_named("missing-area", path, odd.without_area)
    findings += findings_of("bad-area", path, odd.bad_areas)
    # Data sets without crowds often leave out iscrowd altogether; nothing is wrong with that.
    if len(odd.without_iscrowd) < odd.count:
        findings += _annotations_named("missing-iscrowd", path, odd.without_iscrowd)
    for kind in REMARKS:
        findings += findings_of(kind, path, odd.read_differently.get(kind, []))
    return findings + findings_of("far-from-outline", path, odd.far_findings())


def find_named_by_url(path: Path, records: Iterable[Mapping[str, Any]]) -> list[Findings]:
    """Return a finding for each image whose name comes from its URL."""
    found = [
        Finding(f"image {record.get('id')}", f"is read as {name!r:.100}", record.get("id"))
        for record in records
        if record.get("file_name") is None and (name := name_in_url(record.get("coco_url")))
    ]
    return findings_of("name-from-url", path, found)


@dataclass(frozen=True)
class _Far:
    """A box that is far from its outline."""

    record: str
    id: Any
    box: list[float]
    outline: Extent
    size: Size | None


class _OddRecords:
    """Collects odd annotations, one after the other."""

    def __init__(self) -> None:
        self.count = 0
        self.without_area: list[Any] = []
        self.bad_areas: list[Finding] = []
        self.without_iscrowd: list[Any] = []
        self.read_differently: dict[str, list[Finding]] = {}
        self.outlines = 0
        self.far: list[_Far] = []

    def look_at(self, record: Mapping[str, Any], sizes: Mapping[int, Size]) -> None:
        """Add an annotation to the collection."""
        self.count += 1
        area = record.get("area")
        if area is None:
            self.without_area.append(record.get("id"))
        elif not number_or_nan(area) >= 0:
            number = record.get("id")
            self.bad_areas.append(Finding(f"annotation {number}", f"has area {area!r:.60}", number))
        if record.get("iscrowd") is None:
            self.without_iscrowd.append(record.get("id"))
        size = sizes.get(record.get("image_id", -1))
        box, kinds = record.get("bbox"), tuple[str, ...]()
        if not is_plain(record):
            found = resolve(record, size)
            if not isinstance(found, Resolved):
                return
            box, kinds = found.bbox, found.kinds
            self._note(record, found)
        if record.get("segmentation") and "box-from-outline" not in kinds and box is not None:
            self._compare(record, box, size)

    def _note(self, record: Mapping[str, Any], found: Resolved) -> None:
        """Record how an annotation was read."""
        for kind in found.kinds:
            value = f"has bbox {record.get('bbox')!r:.100}, read as {_format_box(found.bbox)}"
            if kind == "ignore-flag":
                value = ""
            finding = Finding(name_record(record), value, record.get("id"))
            self.read_differently.setdefault(kind, []).append(finding)

    def _compare(self, record: Mapping[str, Any], box: list[float], size: Size | None) -> None:
        """Compare a box with the outline of its segmentation."""
        outline = find_outline(record["segmentation"])
        if outline is None:
            return
        self.outlines += 1
        mask = outline.mask_size
        if is_far(box, outline.extent, size) or (mask is not None and mask != size):
            far = _Far(name_record(record), record.get("id"), box, outline.extent, size)
            self.far.append(far)

    def far_findings(self) -> list[Finding]:
        """Return the boxes far from their outline, or one finding if most boxes are."""
        if self.outlines < _FEW or 2 * len(self.far) <= self.outlines:
            return [
                Finding(
                    one.record,
                    f"has bbox {_format_box(one.box)}, but its segmentation covers "
                    f"{_format_box(box_of(one.outline))}",
                    one.id,
                )
                for one in self.far
            ]
        some = self.far[:: max(1, len(self.far) // _SAMPLE)]
        guess = describe_by_outlines(
            np.array([one.box for one in some], np.float64),
            np.array([one.size or (1, 1) for one in some], np.int64),
            np.array([one.outline for one in some], np.float64),
        )
        text = (
            f"has {len(self.far):,} of {self.outlines:,} boxes far from their segmentation, "
            f"the first is {self.far[0].record}"
        )
        return [Finding("", f"{text}; {guess}" if guess else text)]


def _format_box(box: Iterable[float]) -> str:
    """Return a box as a person would write it."""
    return "[" + ", ".join(f"{value:.6g}" for value in box) + "]"


def _annotations_named(kind: str, path: Path, ids: list[Any]) -> list[Findings]:
    """Return findings that only name annotations."""

    def finding(i: int) -> Finding:
        return Finding(f"annotation {ids[i]}", "", ids[i])

    return [Findings(kind=kind, file=path, count=len(ids), finding=finding)] if ids else []
