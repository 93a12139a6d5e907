"""Mistakes in a results file that show only in many records together.

N results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import shown_names
from retinanet.data.checks import fit_as_corners
from retinanet.data.coco.annotations import Annotations
from retinanet.errors import UserError, some_of
from retinanet.evaluation.coco import GroundTruth, Metrics, evaluate_results
from retinanet.evaluation.results import Result

_LEAST = 10
"""Number of results from which a mistake counts as systematic."""
_NOTHING_FOUND, _BOXES_FOUND = 0.05, 0.3
"""AP50 below which something is wrong, and from which boxes are right except for their class."""


def check_boxes(results: Sequence[Result], annotations: Annotations, path: Path) -> None:
    """Refuse boxes that are clearly not [x, y, width, height] px.

    Raises:
        UserError: They are corners, or fractions of the image.
    """
    if len(results) < _LEAST:
        return
    boxes = np.array([result["bbox"] for result in results], np.float64)
    sizes = _sizes(results, annotations)
    first = [round(value, 3) for value in boxes[0].tolist()]
    if boxes.max() <= 1.5 and sizes.min() > 16:
        raise UserError(
            f"{path}: every coordinate of the {len(boxes):,} boxes is at most 1.5, so they look "
            f"like fractions of the image (detection 0 has bbox {first}); write [x, y, width, "
            "height] in px"
        )
    x, y, w, h = boxes.T
    outside = (x + w > sizes[:, 1] + 2) | (y + h > sizes[:, 0] + 2)
    corners = fit_as_corners(boxes, sizes)
    if outside.sum() >= max(_LEAST / 2, 0.2 * len(boxes)) and corners.mean() > 0.99:
        raise UserError(
            f"{path}: {outside.sum():,} of {len(boxes):,} boxes extend beyond their image, but all "
            f"would fit as corners [x1, y1, x2, y2] (detection 0 has bbox {first}); write [x, y, "
            "width, height], that is [x1, y1, x2 - x1, y2 - y1]"
        )


def describe_results(
    results: Sequence[Result], truth: GroundTruth, metrics: Metrics
) -> Iterator[str]:
    """Yield notes on what is unusual in results."""
    if not results:
        return
    scores = np.array([result["score"] for result in results])
    if scores.max() > 1 or scores.min() < 0:
        yield (
            f"Scores are from {scores.min():g} to {scores.max():g}, not from 0 to 1 (in percent?). "
            "AP depends only on their order, but thresholds are in the same unit."
        )
    with_boxes = set(truth.box_image_ids[~truth.crowd].tolist())
    silent = len(with_boxes - {result["image_id"] for result in results})
    if 2 * silent > len(with_boxes):
        yield (
            f"{silent:,} of {len(with_boxes):,} images with boxes have no detections. Is this the "
            "whole file, and the right annotation file?"
        )
    yield from _describe_wrong_classes(results, truth, metrics)


def _describe_wrong_classes(
    results: Sequence[Result], truth: GroundTruth, metrics: Metrics
) -> Iterator[str]:
    """Yield a note if boxes are right but nearly none has the right class."""
    ap50 = metrics.figures["AP50"]
    if ap50 is None or ap50 > _NOTHING_FOUND or len(truth.category_ids) == 1:
        return
    # Scored again as if there were one class.
    one = truth.category_ids[0]
    same = replace(
        truth,
        category_ids=[one],
        category_names=truth.category_names[:1],
        box_category_ids=np.full_like(truth.box_category_ids, one),
    )
    merged: list[Result] = [{**result, "category_id": one} for result in results]
    found = evaluate_results(same, merged, max_detections=metrics.max_detections).figures["AP50"]
    if found is None or found < _BOXES_FOUND:
        return
    names = zip(truth.category_ids, shown_names(truth.category_names), strict=True)
    yield (
        f"AP50 is {ap50:.3f}, but {found:.3f} if the class is ignored: the boxes are right, but "
        "their category_id is wrong (ids from 0 instead of 1, or from another list of classes?). "
        f"The annotation file has {some_of([f'{i} {name}' for i, name in names])}."
    )


def _sizes(results: Sequence[Result], annotations: Annotations) -> NDArray[np.int64]:
    """Return height and width (N, 2) of the image of each result."""
    ids = np.array([result["image_id"] for result in results], np.int64)
    order = np.argsort(annotations.image_ids)
    return annotations.sizes[order[np.searchsorted(annotations.image_ids[order], ids)]]
