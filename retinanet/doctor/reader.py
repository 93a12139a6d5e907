"""A COCO file -> its index and all that is wrong with its records.

A sound file is read as training reads it. One that training refuses is read once more record by
record: the bad ones are named and set aside, and the index is made of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import index_content, open_annotations
from retinanet.data.coco.json_pieces import read_list
from retinanet.data.coco.parsing import parse_leniently
from retinanet.data.coco.records import is_id, is_name, number_or_nan
from retinanet.doctor.bad_records import (
    FIELDS,
    LISTS,
    Values,
    find_bad,
    group_by_kind,
    sound_records,
)
from retinanet.doctor.findings import Finding, Findings, findings_of
from retinanet.doctor.renumber import find_shift, shift_categories
from retinanet.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a file holds."""

    path: Path
    annotations: Annotations | None
    """The index of the sound records, if the file has the form of a COCO file."""
    findings: list[Findings]
    images_with_lost_boxes: frozenset[int] = frozenset()
    """Ids of images some of whose annotations were set aside."""
    named: frozenset[str] = frozenset()
    """File names of the images that were set aside."""


class _RawFile(msgspec.Struct):
    """A COCO file whose annotations are not parsed yet."""

    annotations: msgspec.Raw = msgspec.Raw(b"null")


class _OptionalFields(msgspec.Struct):
    """What an annotation may lack."""

    id: Any = None
    area: Any = None
    iscrowd: Any = None


def read_file(path: Path) -> Reading:
    """Read a file as training does, or record by record where that refuses it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return _no_coco_file(path, f"cannot be read: {error.strerror}")
    try:
        annotations = open_annotations(path)
        return Reading(path=path, annotations=annotations, findings=_read_gaps(path, content))
    except UserError as error:
        return _read_record_by_record(path, content, _without_path(path, error))


def _read_record_by_record(path: Path, content: bytes, refusal: str) -> Reading:
    try:
        values = read_values(path, content)
    except UserError as error:
        return _no_coco_file(path, _without_path(path, error))
    shift = find_shift(values)
    if shift is not None and shift.sure:
        shift_categories(values, shift.step)
    bad = find_bad(values)
    sound = sound_records(values, bad)
    findings = group_by_kind(path, bad)
    if shift is not None:
        findings = _one_finding("shifted-category-ids", path, shift.text) + findings
    try:
        annotations = index_sound(sound, path) if sound["categories"] else None
    except UserError as error:  # a rule of the parser that is not known here
        annotations, findings = None, findings + _one_finding("refused", path, str(error))
    if not findings:
        findings = _one_finding("refused", path, refusal)
    kept = {id(record) for key in LISTS for record in sound[key]}
    aside = {
        key: [r for r in values[key] if isinstance(r, dict) and id(r) not in kept] for key in LISTS
    }
    return Reading(
        path=path,
        annotations=annotations,
        findings=findings + _find_gaps(path, _optional_fields(sound["annotations"])),
        images_with_lost_boxes=frozenset(
            r["image_id"] for r in aside["annotations"] if is_id(r.get("image_id"))
        ),
        named=frozenset(r["file_name"] for r in aside["images"] if is_name(r.get("file_name"))),
    )


def _no_coco_file(path: Path, text: str) -> Reading:
    findings = _one_finding("no-coco-file", path, text)
    return Reading(path=path, annotations=None, findings=findings)


def _one_finding(kind: str, path: Path, text: str) -> list[Findings]:
    return findings_of(kind, path, [Finding("", text)])


def _without_path(path: Path, error: UserError) -> str:
    return str(error).removeprefix(f"{path}: ")


def read_values(path: Path, content: bytes) -> Values:
    """Return the content of a COCO file as plain values, with its three lists.

    Raises:
        UserError: not JSON, or a list is missing.
    """
    values = parse_leniently(path, content)
    for key in LISTS:
        if not isinstance(values.get(key), list):
            state = "is not a list" if key in values else "is missing"
            raise UserError(
                f'{path}: "{key}" {state}; a COCO file has the lists {", ".join(LISTS)}'
            )
    return values


def index_sound(sound: Values, path: Path) -> Annotations:
    """Return the index of records that are as they should be."""
    needed = {
        key: [{name: r[name] for name in FIELDS[key] if name in r} for r in sound[key]]
        for key in LISTS
    }
    return index_content(json.dumps(needed).encode(), path)


def _read_gaps(path: Path, content: bytes) -> list[Findings]:
    """Say which annotations of a sound file lack what is then filled in."""
    try:
        raw = memoryview(msgspec.json.decode(content, type=_RawFile).annotations)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN, for example
        return _find_gaps(path, _optional_fields(parse_leniently(path, content)["annotations"]))
    pieces = read_list(path, "annotations", raw, _OptionalFields, lambda piece: None, list)
    return _find_gaps(path, (record for piece in pieces for record in piece))


def _optional_fields(records: list[Any]) -> Iterator[_OptionalFields]:
    return (_OptionalFields(r.get("id"), r.get("area"), r.get("iscrowd")) for r in records)


def _find_gaps(path: Path, records: Iterable[_OptionalFields]) -> list[Findings]:
    without_area: list[int] = []
    bad_areas: list[Finding] = []
    without_iscrowd: list[int] = []
    count = 0
    for record in records:
        count += 1
        if record.area is None:
            without_area.append(record.id)
        elif not number_or_nan(record.area) >= 0:
            value = f"has area {record.area!r:.60}"
            bad_areas.append(Finding(f"annotation {record.id}", value, record.id))
        if record.iscrowd is None:
            without_iscrowd.append(record.id)
    findings = _annotations_named("missing-area", path, without_area)
    findings += findings_of("bad-area", path, bad_areas)
    # Files of data sets without crowds leave it out altogether, and nothing is wrong with that.
    if len(without_iscrowd) < count:
        findings += _annotations_named("missing-iscrowd", path, without_iscrowd)
    return findings


def _annotations_named(kind: str, path: Path, ids: list[int]) -> list[Findings]:
    """Return findings that name annotations and say no more."""

    def finding(i: int) -> Finding:
        return Finding(f"annotation {ids[i]}", "", ids[i])

    return [Findings(kind=kind, file=path, count=len(ids), finding=finding)] if ids else []
