"""COCO's results format: a list of detections."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import UserError


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
    """Return results by image, highest score first, in an order without ties."""
    return sorted(results, key=lambda r: (r["image_id"], -r["score"], r["category_id"], r["bbox"]))


def read_results(
    path: Path, *, image_ids: Iterable[int], category_ids: Iterable[int]
) -> list[Result]:
    """Read a COCO results file and check that each record is of these images and categories.

    Raises:
        UserError: the first record that is wrong, with its place and value.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON that can be read ({error})") from None
    if not isinstance(records, list):
        raise UserError(f"{path}: a results file is a list of detections")
    images, categories = set(image_ids), set(category_ids)
    results: list[Result] = []
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(f"{path}: detection {i} is {record!r:.60}, not a record")
        for key, known in (("image_id", images), ("category_id", categories)):
            if type(record.get(key)) is not int or record[key] not in known:
                raise UserError(
                    f"{path}: detection {i} has {key} {record.get(key)!r:.60}, which is not in the "
                    "annotation file; the results belong to another set"
                )
        box, score = record.get("bbox"), record.get("score")
        numbers: list[Any] = [*box, score] if isinstance(box, list) and len(box) == 4 else [None]
        if not all(_is_finite(number) for number in numbers) or min(numbers[2:4]) < 0:
            raise UserError(
                f"{path}: detection {i} (image {record['image_id']}) has bbox {box!r:.80} and "
                f"score {score!r:.40}; they must be four finite numbers [x, y, width, height], no "
                "side negative, and one"
            )
        results.append(
            Result(
                image_id=record["image_id"],
                category_id=record["category_id"],
                bbox=[float(value) for value in numbers[:4]],
                score=float(numbers[4]),
            )
        )
    return results


def _is_finite(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
