"""A COCO file -> its index and all that is wrong with its records.

A sound file is read as training reads it. One that training refuses is read once more record by
record: the bad ones are named and set aside, and the index is made of the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.ids import Ids
from retinanet.data.coco.index import index_content, open_annotations
from retinanet.data.coco.json_pieces import read_list
from retinanet.data.coco.parsing import parse_leniently
from retinanet.data.coco.records import (
    Problem,
    annotation_problems,
    id_problems,
    image_problems,
    is_id,
    is_name,
    number,
)
from retinanet.doctor.findings import Entry, Findings, findings_of
from retinanet.doctor.renumber import find_shift, shift_categories
from retinanet.errors import UserError

Values = dict[str, Any]
LISTS = ("images", "annotations", "categories")
_FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a file holds."""

    path: Path
    annotations: Annotations | None
    """The index of the sound records, if the file has the form of a COCO file."""
    found: list[Findings]
    images_with_lost_boxes: frozenset[int] = frozenset()
    """Ids of images some of whose annotations were set aside."""
    named: frozenset[str] = frozenset()
    """File names of the images that were set aside."""


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A record that is wrong."""

    row: int
    """In its list."""
    problem: Problem


class _Whole(msgspec.Struct):
    annotations: msgspec.Raw = msgspec.Raw(b"null")


class _Given(msgspec.Struct):
    """What an annotation may lack."""

    id: Any = None
    area: Any = None
    iscrowd: Any = None


def read(path: Path) -> Reading:
    """Read a file as training does, or record by record where that refuses it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
        return Reading(path=path, annotations=None, found=_refused("no-coco-file", path, text))
    try:
        annotations = open_annotations(path)
        return Reading(path=path, annotations=annotations, found=_find_gaps(path, content))
    except UserError as error:
        return _read_carefully(path, content, _without_name(path, error))


def _read_carefully(path: Path, content: bytes, refusal: str) -> Reading:
    try:
        values = read_values(path, content)
    except UserError as error:
        text = _without_name(path, error)
        return Reading(path=path, annotations=None, found=_refused("no-coco-file", path, text))
    shift = find_shift(values)
    if shift is not None and shift.sure:
        shift_categories(values, shift.step)
    bad = find_bad(values)
    sound = leave_out(values, bad)
    problems = group(path, bad)
    if shift is not None:
        problems = _refused("shifted-category-ids", path, shift.text) + problems
    try:
        annotations = index_sound(sound, path) if sound["categories"] else None
    except UserError as error:  # a rule of the parser that is not known here
        annotations, problems = None, problems + _refused("refused", path, str(error))
    if not problems:
        problems = _refused("refused", path, refusal)
    kept = {id(record) for key in LISTS for record in sound[key]}
    aside = {
        key: [r for r in values[key] if isinstance(r, dict) and id(r) not in kept] for key in LISTS
    }
    return Reading(
        path=path,
        annotations=annotations,
        found=problems + _gaps(path, _given(sound["annotations"])),
        images_with_lost_boxes=frozenset(
            r["image_id"] for r in aside["annotations"] if is_id(r.get("image_id"))
        ),
        named=frozenset(r["file_name"] for r in aside["images"] if is_name(r.get("file_name"))),
    )


def _refused(kind: str, path: Path, text: str) -> list[Findings]:
    return findings_of(kind, path, [Entry("", text)])


def _without_name(path: Path, error: UserError) -> str:
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
        key: [{name: r[name] for name in _FIELDS[key] if name in r} for r in sound[key]]
        for key in LISTS
    }
    return index_content(json.dumps(needed).encode(), path)


def find_bad(values: Values) -> dict[str, list[Bad]]:
    """Return the records of each list that training refuses, in their order."""
    categories = values["categories"]
    known: set[int] = set()
    images: set[int] = set()
    bad = {
        "categories": _bad_ids("category", categories, known) + _bad_names(categories),
        "images": _bad_ids("image", values["images"], images),
    }
    for row, record in with_ids("images", values["images"]):
        bad["images"] += [Bad(row=row, problem=problem) for problem in image_problems(record)]
    bad["annotations"] = _bad_ids("annotation", values["annotations"], set())
    image_ids, category_ids = _Known(images), _Known(known)
    for row, record in with_ids("annotations", values["annotations"]):
        if _is_plain(record, images, known):
            continue
        problems = annotation_problems(record, images=image_ids, categories=category_ids)
        bad["annotations"] += [Bad(row=row, problem=problem) for problem in problems]
    if not categories:
        problem = Problem(kind="no-categories", record="", value='has no "categories"')
        bad["categories"] = [Bad(row=-1, problem=problem)]
    return bad


class _Known(frozenset[int]):
    """Ids that records may refer to."""

    def __str__(self) -> str:
        return str(Ids(np.array(sorted(self), np.int64)))


def _is_plain(record: Any, images: set[int], categories: set[int]) -> bool:
    """Whether an annotation needs no closer look: nearly all do not."""
    return (
        type(record.image_id) is int
        and record.image_id in images
        and type(record.category_id) is int
        and record.category_id in categories
        and type(record.bbox) is list
        and len(record.bbox) == 4
        and all(type(value) in (int, float) and abs(value) < 2**31 for value in record.bbox)
        and record.bbox[2] >= 0 <= record.bbox[3]
        and (record.iscrowd is None or record.iscrowd in (0, 1))
    )


def _bad_ids(word: str, records: list[Any], seen: set[int]) -> list[Bad]:
    """Find what is no record, has no id, or the id of an earlier one; collect the ids."""
    bad: list[Bad] = []
    first: dict[int, int] = {}
    for row, record in enumerate(records):
        name = f"{word} record {row}"
        if not isinstance(record, dict):
            value = f"is {record!r:.60}"
            bad.append(Bad(row=row, problem=Problem(kind="bad-record", record=name, value=value)))
            continue
        if not is_id(record.get("id")):
            problems = id_problems(word, row, record.get("id"))
            bad += [Bad(row=row, problem=problem) for problem in problems]
            continue
        number_ = record["id"]
        if number_ in seen:
            value = f"has id {number_}, as record {first[number_]} has"
            kind = f"duplicate-{word}-id"
            bad.append(Bad(row=row, problem=Problem(kind=kind, record=name, value=value)))
        else:
            seen.add(number_)
            first[number_] = row
    return bad


def with_ids(key: str, records: list[Any]) -> Iterable[tuple[int, Any]]:
    """Yield the rows and the fields of records that have a whole number for an id."""
    for row, record in enumerate(records):
        if isinstance(record, dict) and is_id(record.get("id")):
            yield row, SimpleNamespace(**{name: record.get(name) for name in _FIELDS[key]})


def _bad_names(categories: list[Any]) -> list[Bad]:
    bad: list[Bad] = []
    names: dict[str, int] = {}
    for row, record in with_ids("categories", categories):
        where = f"category {record.id}"
        if not is_name(record.name):
            value = f"has the name {record.name!r:.60}"
            problem = Problem(kind="bad-category-name", record=where, value=value)
            bad.append(Bad(row=row, problem=problem))
        elif record.name in names:
            value = f"is named {record.name!r}, as category {names[record.name]} is"
            problem = Problem(kind="duplicate-category-name", record=where, value=value)
            bad.append(Bad(row=row, problem=problem))
        else:
            names[record.name] = record.id
    return bad


def leave_out(values: Values, bad: dict[str, list[Bad]]) -> Values:
    """Return the sound records; annotations of an image or class set aside go with it."""
    rows = {key: {item.row for item in bad[key]} for key in LISTS}
    sound: Values = {
        key: [record for row, record in enumerate(values[key]) if row not in rows[key]]
        for key in LISTS
    }
    images = {record["id"] for record in sound["images"]}
    categories = {record["id"] for record in sound["categories"]}
    sound["annotations"] = [
        record
        for record in sound["annotations"]
        if record["image_id"] in images and record["category_id"] in categories
    ]
    return sound


def group(path: Path, bad: dict[str, list[Bad]]) -> list[Findings]:
    """Return the findings by kind."""
    lists = ("categories", "images", "annotations")
    problems = [item.problem for key in lists for item in bad[key]]
    kinds = Counter(problem.kind for problem in problems)
    return [
        one
        for kind in kinds
        for one in findings_of(kind, path, [_entry(p) for p in problems if p.kind == kind])
    ]


def _entry(problem: Problem) -> Entry:
    return Entry(problem.record, problem.value + problem.hint, _id_of(problem))


def _id_of(problem: Problem) -> int | None:
    """Return the id that a record's name ends in: `annotation 812 (image 37)`."""
    words = problem.record.rstrip(":").split()
    return int(words[1]) if words[1:] and words[1].lstrip("-").isdigit() else None


def _find_gaps(path: Path, content: bytes) -> list[Findings]:
    """Say which annotations of a sound file lack what is then filled in."""
    try:
        raw = memoryview(msgspec.json.decode(content, type=_Whole).annotations)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN, for example
        return _gaps(path, _given(parse_leniently(path, content)["annotations"]))
    pieces = read_list(path, "annotations", raw, _Given, lambda piece: None, list)
    return _gaps(path, (record for piece in pieces for record in piece))


def _given(records: list[Any]) -> Iterator[_Given]:
    return (_Given(r.get("id"), r.get("area"), r.get("iscrowd")) for r in records)


def _gaps(path: Path, records: Iterable[_Given]) -> list[Findings]:
    missing: list[int] = []
    wrong: list[Entry] = []
    unmarked: list[int] = []
    count = 0
    for record in records:
        count += 1
        if record.area is None:
            missing.append(record.id)
        elif not number(record.area) >= 0:
            value = f"has area {record.area!r:.60}"
            wrong.append(Entry(f"annotation {record.id}", value, record.id))
        if record.iscrowd is None:
            unmarked.append(record.id)
    gaps = _without("missing-area", path, missing) + findings_of("bad-area", path, wrong)
    # Files of data sets without crowds leave it out altogether, and nothing is wrong with that.
    return gaps + (_without("missing-iscrowd", path, unmarked) if len(unmarked) < count else [])


def _without(kind: str, path: Path, ids: list[int]) -> list[Findings]:
    def entry(i: int) -> Entry:
        return Entry(f"annotation {ids[i]}", "", ids[i])

    return [Findings(kind=kind, file=path, count=len(ids), entry=entry)] if ids else []
