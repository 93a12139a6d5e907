"""COCO's results format: a list of detections."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import UserError, some_of

_LISTS = ("results", "predictions", "detections", "annotations")
"""Keys of an object that may contain the list of detections."""


class Result(TypedDict):
    """One detection in COCO's results format: bbox is [x, y, width, height], original px."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


def to_results(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    image_id: int,
    category_ids: Sequence[int],
) -> list[Result]:
    """Return the detections of one image in COCO's results format.

    Args:
        boxes: (D, 4) xyxy, original px.
        scores: (D,).
        labels: (D,), indices into `category_ids`.
        image_id: Id of the image in the annotation file.
        category_ids: Ids of the classes, in the order of their labels.
    """
    rows = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    found = zip(rows, scores.tolist(), labels.tolist(), strict=True)
    return [
        Result(image_id=image_id, category_id=category_ids[label], bbox=box, score=score)
        for box, score, label in found
    ]


def in_order(results: Iterable[Result]) -> list[Result]:
    """Return results by image, highest score first, in a unique order."""
    return sorted(results, key=lambda r: (r["image_id"], -r["score"], r["category_id"], r["bbox"]))


@dataclass(frozen=True, kw_only=True)
class Known:
    """Ids and names in the annotation file that results may refer to."""

    image_ids: Sequence[int]
    file_names: Sequence[str]
    """File names of the images; if empty, an image_id cannot be a file name."""
    category_ids: Sequence[int]


def parse_results(content: bytes, path: Path, *, known: Known) -> tuple[list[Result], list[str]]:
    """Read COCO results and check that each record refers to a known image and category.

    The file is a list of detections, or an object that contains one. An id may be a whole number
    written as 1.0, and an image_id may be the name of the image file, as in results of ultralytics.

    Args:
        content: Bytes of the file.
        path: Path of the file, for messages.
        known: Ids and names in the annotation file.

    Returns:
        The results, and notes for the user.

    Raises:
        UserError: The first wrong record, with its index, value and remedy.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        hint = ""
        if isinstance(error, json.JSONDecodeError):
            if error.msg == "Extra data" and content.lstrip().startswith(b"{"):
                hint = (
                    "; if it has one detection per line, write them all into one list: [..., ...]"
                )
            elif not error.doc[error.pos :].strip():
                hint = "; the file is cut off or empty; write or copy it again"
        raise UserError(f"{path}: not valid JSON ({error}){hint}") from None
    records = _find_records(values, path)
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(
                f"{path}: detection {i} is {record!r:.60}; it should be an object with image_id, "
                "category_id, bbox and score"
            )
    images, remarks = _image_ids([record.get("image_id") for record in records], known, path)
    categories = _category_ids([record.get("category_id") for record in records], known, path)
    results = [
        _read_record(record, image, category, f"{path}: detection {i} (image {image})")
        for i, (record, image, category) in enumerate(zip(records, images, categories, strict=True))
    ]
    return results, remarks


def _find_records(values: Any, path: Path) -> list[Any]:
    """Return the list of detections in the content of a file."""
    if isinstance(values, list):
        return values
    if not isinstance(values, dict):
        raise UserError(f"{path}: a results file is a list of detections, not {values!r:.60}")
    lists = {key: values[key] for key in _LISTS if isinstance(values.get(key), list)}
    is_truth = list(lists) == ["annotations"] and "images" in values
    if is_truth and not any(isinstance(r, dict) and "score" in r for r in lists["annotations"]):
        raise UserError(
            f"{path}: is an annotation file, because its boxes have no score. Give the results "
            "file here, and this one as --annotations"
        )
    if len(lists) != 1:
        raise UserError(
            f"{path}: a results file is a list of detections, or an object with one as "
            f"{', '.join(_LISTS[:-1])} or {_LISTS[-1]}; this object has "
            f"{', '.join(map(repr, list(values)[:8]))[:200] or 'nothing'}"
        )
    return next(iter(lists.values()))


def _image_ids(values: list[Any], known: Known, path: Path) -> tuple[list[int], list[str]]:
    """Return the image ids for values, and a note if the values are file names."""
    ids, images = [whole_number(value) for value in values], set(known.image_ids)
    unknown = [i for i, image in enumerate(ids) if image is None or image not in images]
    if not unknown:
        return [image for image in ids if image is not None], []
    by_name = _ids_by_name(known)
    named = [
        by_name.get(value if isinstance(value, str) else number)
        for value, number in zip(values, ids, strict=True)
    ]
    found = [image for image in named if image is not None]
    if len(found) == len(values):
        return found, [
            f"image_id is the name of the image file in these results ({values[unknown[0]]!r} is "
            f"image {named[unknown[0]]})."
        ]
    value = values[unknown[0]]
    where = f"{path}: detection {unknown[0]} has image_id {value!r:.60}"
    if value is None:
        raise UserError(f"{where}; each detection needs image_id, category_id, bbox and score")
    number = _number_in(value)
    if number in images:
        raise UserError(f"{where}, a number written as text; write {number}")
    raise UserError(
        f"{where}, which is not in the annotation file ({len(unknown):,} of {len(values):,} "
        "detections have such ids). The results belong to another data set, or number the images "
        "differently: "
        "image_id should be the id in the annotation file, or the name of the image file"
    )


def _ids_by_name(known: Known) -> dict[str | int | None, int]:
    """Return the image ids by file name, with and without folder and suffix, and by number.

    Names of several images, such as the same name in two folders, are left out.
    """
    found: dict[str | int | None, int] = {}
    seen: Counter[str | int] = Counter()
    for image, name in zip(known.image_ids, known.file_names, strict=False):
        path = PurePosixPath(name.replace("\\", "/"))
        keys: set[str | int] = {name, path.name, path.stem, str(path.with_suffix(""))}
        if path.stem.isdecimal() and len(path.stem) < 19:
            keys.add(int(path.stem))
        seen.update(keys)
        found |= dict.fromkeys(keys, image)
    return {key: image for key, image in found.items() if key is not None and seen[key] == 1}


def _category_ids(values: list[Any], known: Known, path: Path) -> list[int]:
    """Return the category ids for values."""
    ids, categories = [whole_number(value) for value in values], set(known.category_ids)
    unknown = [i for i, category in enumerate(ids) if category not in categories]
    found = [category for category in ids if category is not None]
    if not unknown:
        return found
    value = values[unknown[0]]
    where = f"{path}: detection {unknown[0]} has category_id {value!r:.60}"
    if value is None:
        raise UserError(f"{where}; each detection needs image_id, category_id, bbox and score")
    number = _number_in(value)
    if number in categories:
        raise UserError(f"{where}, a number written as text; write {number}")
    ordered = sorted(categories)
    theirs = some_of(list(map(str, ordered)))
    remedy = "the results belong to another data set"
    if len(found) == len(values) and set(found) <= set(range(len(ordered))):
        remedy = "classes seem to be counted from 0; write the ids of the annotation file instead"
        if ordered == list(range(1, len(ordered) + 1)):
            remedy += " (add 1 to each category_id)"
    raise UserError(
        f"{where}, which is not in the annotation file (its categories are {theirs}; "
        f"{len(unknown):,} of {len(values):,} detections have others); {remedy}"
    )


def whole_number(value: Any) -> int | None:
    """Return a JSON value as a whole number (1.0 is one); None if it is not one."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if type(value) is int else None


def _number_in(value: Any) -> int | None:
    """Return the number in a short text, such as "12", or None."""
    is_number = isinstance(value, str) and value.strip().isdecimal() and len(value) < 19
    return int(value) if is_number else None


def _read_record(record: dict[str, Any], image: int, category: int, where: str) -> Result:
    box, score = record.get("bbox"), record.get("score")
    for other in ("segmentation", "keypoints"):
        if box is None and other in record:
            raise UserError(
                f"{where} has {other} but no bbox; only boxes are scored here. Write bbox "
                "[x, y, width, height] into each detection"
            )
    numbers: list[Any] = [*box, score] if isinstance(box, list) and len(box) == 4 else [None]
    if not all(_is_finite(number) for number in numbers) or min(numbers[2:4]) < 0:
        raise UserError(
            f"{where} has bbox {box!r:.80} and score {score!r:.40}; bbox should be four finite "
            "numbers [x, y, width, height] without a negative side, and score one finite number"
        )
    *sides, score = map(float, numbers)
    return Result(image_id=image, category_id=category, bbox=sides, score=score)


def _is_finite(value: Any) -> bool:
    """Whether a JSON value is a number that fits into a float."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
