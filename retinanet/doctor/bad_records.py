"""Finds the records of a COCO file that training refuses, and what is wrong with each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from retinanet.data.coco.annotation_records import reference_problems
from retinanet.data.coco.ids import Ids
from retinanet.data.coco.records import (
    Problem,
    id_problems,
    image_problems,
    is_id,
    is_name,
    meant_name,
    meant_number,
    name_in_url,
    name_remedy,
)
from retinanet.data.coco.resolve import find_unclear, image_sizes, is_plain, resolve
from retinanet.doctor.findings import Finding, Findings, findings_of
from retinanet.errors import plural

Values = dict[str, Any]
"""Content of a COCO file as plain values."""
LISTS = ("images", "annotations", "categories")
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}
"""Fields that are read from the records of each list."""


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that is wrong."""

    row: int
    """Position in its list."""
    problem: Problem


def find_bad(values: Values) -> dict[str, list[BadRecord]]:
    """Return the records of each list that training refuses, in the order of the file."""
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
    unknown = _find_unknown(values, bad, image_ids, category_ids)
    bad["annotations"] += [*unknown, *_bad_boxes(values)]
    for key, reference in (("images", "image_id"), ("categories", "category_id")):
        bad[key] = _with_references(values, key, bad[key], reference)
    if not categories:
        problem = Problem(kind="no-categories", record="", value='has no "categories"')
        bad["categories"] = [BadRecord(row=-1, problem=problem)]
    return bad


def _find_unknown(
    values: Values, bad: dict[str, list[BadRecord]], images: set[int], categories: set[int]
) -> Iterator[BadRecord]:
    """Yield annotations whose image or category does not exist.

    Annotations that refer to a record with a bad id are not yielded: that id has to be fixed.
    """
    known_images, known_categories = _KnownIds(images), _KnownIds(categories)
    wrong = {
        kind: _wrong_ids(values[key], bad[key])
        for kind, key in (("unknown-image", "images"), ("unknown-category", "categories"))
    }
    for row, record in _annotations(values):
        image_id, category_id = record.get("image_id"), record.get("category_id")
        are_ids = type(image_id) is int and type(category_id) is int
        if are_ids and image_id in images and category_id in categories:
            continue
        for problem in reference_problems(record, images=known_images, categories=known_categories):
            is_image = problem.kind == "unknown-image"
            named = _id_key(image_id if is_image else category_id)
            if named not in wrong[problem.kind] and (is_image or values["categories"]):
                yield BadRecord(row=row, problem=problem)


def _with_references(
    values: Values, key: str, bad: list[BadRecord], reference: str
) -> list[BadRecord]:
    """Add to each bad id the number of annotations that refer to it and are left out with it."""
    if not any(item.problem.kind == "bad-id" for item in bad):
        return bad
    records = (record for record in values["annotations"] if isinstance(record, dict))
    used = Counter(_id_key(record.get(reference)) for record in records)
    told = []
    for item in bad:
        record = values[key][item.row]
        count = used[_id_key(record.get("id"))] if item.problem.kind == "bad-id" else 0
        if count and record.get("id") is not None:
            value = f"{item.problem.value}, used by {plural(count, 'annotation')}"
            item = replace(item, problem=replace(item.problem, value=value))
        told.append(item)
    return told


def _wrong_ids(records: list[Any], bad: list[BadRecord]) -> set[Any]:
    """Return the bad ids, as the numbers that they mean."""
    rows = [item.row for item in bad if item.problem.kind == "bad-id"]
    ids = [records[row].get("id") if isinstance(records[row], dict) else None for row in rows]
    return {_id_key(value) for value in ids if value is not None}


def _id_key(value: Any) -> Any:
    """Return the key to compare ids by: the number that a text or a fraction means."""
    meant = meant_number(value)
    if meant is not None:
        return meant
    return value if isinstance(value, str) else repr(value)


def _bad_boxes(values: Values) -> Iterator[BadRecord]:
    """Yield annotations whose box or flags are wrong, or not clear from this file."""
    sizes = image_sizes(values["images"])
    rows: dict[int, int] = {}
    clear: list[dict[str, Any]] = []
    for row, record in _annotations(values):
        if _is_clearly_sound(record):
            continue
        image_id = record.get("image_id")
        found = resolve(record, sizes.get(image_id) if type(image_id) is int else None)
        if isinstance(found, Problem):
            yield BadRecord(row=row, problem=found)
        rows[id(record)] = row
        clear.append(record)
    for unclear, problem in find_unclear(clear, sizes, len(values["annotations"])):
        yield BadRecord(row=rows[id(unclear)], problem=problem)


def _annotations(values: Values) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield row and record of the annotations whose id is a whole number."""
    for row, record in enumerate(values["annotations"]):
        if isinstance(record, dict) and is_id(record.get("id")):
            yield row, record


class _KnownIds(frozenset[int]):
    """Ids that records may refer to."""

    def __str__(self) -> str:
        return str(Ids(np.array(sorted(self), np.int64)))


def _is_clearly_sound(record: dict[str, Any]) -> bool:
    """Whether an annotation needs no closer look; nearly all need none."""
    return (
        is_plain(record)
        and all(abs(value) < 2**31 for value in record["bbox"])
        and (record.get("iscrowd") is None or record["iscrowd"] in (0, 1))
    )


def _bad_ids(word: str, records: list[Any], seen: set[int]) -> list[BadRecord]:
    """Find records that are not objects, or have no id or a duplicate; add the ids to `seen`."""
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
            value = f"has id {record_id}, like record {first[record_id]}"
            problem = Problem(kind=f"duplicate-{word}-id", record=name, value=value)
            bad.append(BadRecord(row=row, problem=problem))
        else:
            seen.add(record_id)
            first[record_id] = row
    return bad


def records_with_ids(key: str, records: list[Any]) -> Iterable[tuple[int, Any]]:
    """Yield row and fields of the records whose id is a whole number."""
    for row, record in enumerate(records):
        if isinstance(record, dict) and is_id(record.get("id")):
            fields = {name: record.get(name) for name in FIELDS[key]}
            if key == "images" and fields["file_name"] is None:
                fields["file_name"] = name_in_url(record.get("coco_url"))
            yield row, SimpleNamespace(**fields)


def _bad_names(categories: list[Any]) -> list[BadRecord]:
    bad: list[BadRecord] = []
    names: dict[str, int] = {}
    for row, record in records_with_ids("categories", categories):
        where, name = f"category {record.id}", meant_name(record.name)
        if not is_name(name):
            problem = Problem(
                kind="bad-category-name",
                record=where,
                value=f"has the name {name!r:.60}",
                remedy=name_remedy(name),
            )
            bad.append(BadRecord(row=row, problem=problem))
        elif name in names:
            value = f"is named {name!r:.60}, like category {names[name]}"
            problem = Problem(kind="duplicate-category-name", record=where, value=value)
            bad.append(BadRecord(row=row, problem=problem))
        else:
            names[name] = record.id
    return bad


def sound_records(values: Values, bad: dict[str, list[BadRecord]]) -> Values:
    """Return the records without faults, and without the annotations of faulty records."""
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
        if is_id(record.get("image_id"))
        and record["image_id"] in images
        and is_id(record.get("category_id"))
        and record["category_id"] in categories
    ]
    return sound


def group_by_kind(path: Path, bad: dict[str, list[BadRecord]]) -> list[Findings]:
    """Return the findings of a file, kind by kind."""
    found: dict[str, list[Finding]] = {}
    for key in ("categories", "images", "annotations"):
        for problem in (item.problem for item in bad[key]):
            value = problem.value + problem.hint
            if problem.kind == "unclear-rotation":  # each has its own remedy
                value += f"; {problem.remedy}"
            finding = Finding(problem.record, value, _id_of(problem))
            found.setdefault(problem.kind, []).append(finding)
    return [one for kind in found for one in findings_of(kind, path, found[kind])]


def _id_of(problem: Problem) -> int | None:
    """Return the id in the name of a record: 812 for `annotation 812 (image 37)`."""
    words = problem.record.rstrip(":").split()
    return int(words[1]) if words[1:] and words[1].lstrip("-").isdigit() else None
