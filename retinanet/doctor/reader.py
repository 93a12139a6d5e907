"""Reads a COCO file: its index, and everything that is wrong with its records.

A sound file is read as training reads it. A file that training refuses is read again record by
record: bad records are reported and left out, and the index contains the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.content import read_content
from retinanet.data.coco.foreign import name_values
from retinanet.data.coco.index import index_content, open_annotations
from retinanet.data.coco.json_pieces import read_list
from retinanet.data.coco.parsing import name_foreign, parse_leniently
from retinanet.data.coco.records import is_id, is_name
from retinanet.data.coco.resolve import GEOMETRY, image_sizes, is_plain
from retinanet.doctor.bad_records import (
    FIELDS,
    LISTS,
    Values,
    find_bad,
    group_by_kind,
    sound_records,
)
from retinanet.doctor.findings import Finding, Findings, findings_of
from retinanet.doctor.record_findings import find_named_by_url, find_odd_records
from retinanet.doctor.renumber import find_shift, shift_categories
from retinanet.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Content of a file."""

    path: Path
    annotations: Annotations | None
    """Index of the sound records, if this is a COCO file."""
    findings: list[Findings]
    images_with_lost_boxes: frozenset[int] = frozenset()
    """Ids of images with annotations that were left out."""
    classes_with_lost_boxes: frozenset[int] = frozenset()
    """Ids of categories with annotations that were left out."""
    aside: dict[str, int] = field(default_factory=dict)
    """Number of records of each list that were left out; without them, a list may look empty."""
    named: frozenset[str] = frozenset()
    """File names of the images that were left out."""


class _RawFile(msgspec.Struct):
    """A COCO file with records that are not parsed yet."""

    images: msgspec.Raw = msgspec.Raw(b"null")
    annotations: msgspec.Raw = msgspec.Raw(b"null")


def read_file(path: Path) -> Reading:
    """Read a file as training does, or record by record if training refuses it."""
    try:
        content = read_content(path)
    except UserError as error:
        return _no_coco_file(path, _without_path(path, error))
    try:
        annotations = open_annotations(path)
    except UserError as error:
        return _read_record_by_record(path, content, _without_path(path, error))
    findings = _find_odd(path, content, annotations)
    return Reading(path=path, annotations=annotations, findings=findings)


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
    except UserError as error:  # a rule of the parser that `find_bad` does not check
        annotations, findings = None, findings + _one_finding("refused", path, str(error))
    if not findings:
        findings = _one_finding("refused", path, refusal)
    kept = {id(record) for key in LISTS for record in sound[key]}
    aside = {
        key: [r for r in values[key] if isinstance(r, dict) and id(r) not in kept] for key in LISTS
    }
    sizes = image_sizes(sound["images"])
    return Reading(
        path=path,
        annotations=annotations,
        findings=findings
        + find_named_by_url(path, sound["images"])
        + find_odd_records(path, sound["annotations"], sizes),
        images_with_lost_boxes=_ids_of(aside["annotations"], "image_id"),
        classes_with_lost_boxes=_ids_of(aside["annotations"], "category_id"),
        aside={key: len(values[key]) - len(sound[key]) for key in LISTS},
        named=frozenset(r["file_name"] for r in aside["images"] if is_name(r.get("file_name"))),
    )


def _no_coco_file(path: Path, text: str) -> Reading:
    findings = _one_finding("no-coco-file", path, text)
    return Reading(path=path, annotations=None, findings=findings)


def _one_finding(kind: str, path: Path, text: str) -> list[Findings]:
    return findings_of(kind, path, [Finding("", text)])


def _without_path(path: Path, error: UserError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _ids_of(records: list[dict[str, Any]], key: str) -> frozenset[int]:
    return frozenset(record[key] for record in records if is_id(record.get(key)))


def read_values(path: Path, content: bytes) -> Values:
    """Return the content of a COCO file as plain values, with its three lists.

    Raises:
        UserError: The content is not JSON, not COCO JSON with boxes, or lacks a list.
    """
    try:
        values = parse_leniently(path, content)
    except UserError as error:
        raise UserError(name_foreign(content, path) or str(error)) from None
    named = name_values(values, path)
    if named is not None:
        raise UserError(f"{path}: {named}")
    for key in LISTS:
        if not isinstance(values.get(key), list):
            state = "is not a list" if key in values else "is missing"
            raise UserError(
                f'{path}: "{key}" {state}; a COCO file has the lists {", ".join(LISTS)}'
            )
    return values


def index_sound(sound: Values, path: Path) -> Annotations:
    """Return the index of sound records."""
    needed = {key: [_needed_fields(key, record) for record in sound[key]] for key in LISTS}
    return index_content(json.dumps(needed).encode(), path)


def _needed_fields(key: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that an index needs."""
    fields = FIELDS[key]
    if key == "annotations" and not is_plain(record):
        fields = (*fields, *GEOMETRY)
    elif key == "images" and record.get("file_name") is None:
        fields = (*fields, "coco_url")
    return {name: record[name] for name in fields if name in record}


def _find_odd(path: Path, content: bytes, annotations: Annotations) -> list[Findings]:
    """Find annotations of a sound file with gaps that are filled in, or in an unusual form."""
    heights_and_widths = annotations.sizes.tolist()
    pairs = zip(annotations.image_ids.tolist(), heights_and_widths, strict=True)
    sizes = {image_id: (height, width) for image_id, (height, width) in pairs}
    try:
        file = msgspec.json.decode(content, type=_RawFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN, for example
        values = parse_leniently(path, content)
        findings = find_named_by_url(path, values["images"])
        return findings + find_odd_records(path, values["annotations"], sizes)

    def records(key: str, raw: msgspec.Raw) -> Iterator[dict[str, Any]]:
        for piece in read_list(
            path, key, memoryview(raw), dict[str, Any], lambda piece: None, list
        ):
            yield from piece

    findings = find_named_by_url(path, records("images", file.images))
    return findings + find_odd_records(path, records("annotations", file.annotations), sizes)
