"""The records of a COCO file that training refuses, each with what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from retinanet.data.coco.ids import Ids
from retinanet.data.coco.records import (
    Problem,
    annotation_problems,
    id_problems,
    image_problems,
    is_id,
    is_name,
)
from retinanet.doctor.findings import Finding, Findings, findings_of

Values = dict[str, Any]
"""The content of a COCO file as plain values."""
LISTS = ("images", "annotations", "categories")
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}
"""What is read of the records of each list."""


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that is wrong."""

    row: int
    """In its list."""
    problem: Problem


def find_bad(values: Values) -> dict[str, list[BadRecord]]:
    """Return the records of each list that training refuses, in their order."""
    categories = values["categories"]
    category_ids: set[int] = set()
    image_ids: set[int] = set()
    bad = {
        "categories": _bad_ids("category", categories, category_ids) + _bad_names(categories),
        "images": _bad_ids("image", values["images"], image_ids),
    }
    for row, record in records_with_ids("images", values["images"]):
        bad["images"] += [BadRecord(row=row, problem=problem) for problem in image_problems(record)]
    bad["annotations"] = _bad_ids("annotation", values["annotations"], set())
    known_images, known_categories = _KnownIds(image_ids), _KnownIds(category_ids)
    for row, record in records_with_ids("annotations", values["annotations"]):
        if _is_clearly_sound(record, image_ids, category_ids):
            continue
        problems = annotation_problems(record, images=known_images, categories=known_categories)
        bad["annotations"] += [BadRecord(row=row, problem=problem) for problem in problems]
    if not categories:
        problem = Problem(kind="no-categories", record="", value='has no "categories"')
        bad["categories"] = [BadRecord(row=-1, problem=problem)]
    return bad


class _KnownIds(frozenset[int]):
    """Ids that records may refer to."""

    def __str__(self) -> str:
        return str(Ids(np.array(sorted(self), np.int64)))


def _is_clearly_sound(record: Any, images: set[int], categories: set[int]) -> bool:
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


def _bad_ids(word: str, records: list[Any], seen: set[int]) -> list[BadRecord]:
    """Find what is no record, has no id, or the id of an earlier one; add the ids to `seen`."""
    bad: list[BadRecord] = []
    first: dict[int, int] = {}
    for row, record in enumerate(records):
        name = f"{word} record {row}"
        if not isinstance(record, dict):
            problem = Problem(kind="bad-record", record=name, value=f"is {record!r:.60}")
            bad.append(BadRecord(row=row, problem=problem))
            continue
        if not is_id(record.get("id")):
            problems = id_problems(word, row, record.get("id"))
            bad += [BadRecord(row=row, problem=problem) for problem in problems]
            continue
        record_id = record["id"]
        if record_id in seen:
            value = f"has id {record_id}, as record {first[record_id]} has"
            problem = Problem(kind=f"duplicate-{word}-id", record=name, value=value)
            bad.append(BadRecord(row=row, problem=problem))
        else:
            seen.add(record_id)
            first[record_id] = row
    return bad


def records_with_ids(key: str, records: list[Any]) -> Iterable[tuple[int, Any]]:
    """Yield the rows and the fields of records that have a whole number for an id."""
    for row, record in enumerate(records):
        if isinstance(record, dict) and is_id(record.get("id")):
            yield row, SimpleNamespace(**{name: record.get(name) for name in FIELDS[key]})


def _bad_names(categories: list[Any]) -> list[BadRecord]:
    bad: list[BadRecord] = []
    names: dict[str, int] = {}
    for row, record in records_with_ids("categories", categories):
        where = f"category {record.id}"
        if not is_name(record.name):
            value = f"has the name {record.name!r:.60}"
            problem = Problem(kind="bad-category-name", record=where, value=value)
            bad.append(BadRecord(row=row, problem=problem))
        elif record.name in names:
            value = f"is named {record.name!r}, as category {names[record.name]} is"
            problem = Problem(kind="duplicate-category-name", record=where, value=value)
            bad.append(BadRecord(row=row, problem=problem))
        else:
            names[record.name] = record.id
    return bad


def sound_records(values: Values, bad: dict[str, list[BadRecord]]) -> Values:
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


def group_by_kind(path: Path, bad: dict[str, list[BadRecord]]) -> list[Findings]:
    """Return the findings of a file, kind by kind."""
    found: dict[str, list[Finding]] = {}
    for key in ("categories", "images", "annotations"):
        for problem in (item.problem for item in bad[key]):
            finding = Finding(problem.record, problem.value + problem.hint, _id_of(problem))
            found.setdefault(problem.kind, []).append(finding)
    return [one for kind in found for one in findings_of(kind, path, found[kind])]


def _id_of(problem: Problem) -> int | None:
    """Return the id in the name of a record: 812 of `annotation 812 (image 37)`."""
    words = problem.record.rstrip(":").split()
    return int(words[1]) if words[1:] and words[1].lstrip("-").isdigit() else None
