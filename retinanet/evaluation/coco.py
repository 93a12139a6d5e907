"""Score detections against ground truth: the twelve COCO metrics and a table by class.

pycocotools is the reference. hotcoco (extra `fast`) computes the same arrays in a fraction of the
time and is used if it is installed.

T IoU thresholds, R recalls, K classes, S sizes, M limits of detections, N boxes.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import columns_of, pad, shown_name, shown_names
from retinanet.errors import plural, some_of
from retinanet.evaluation.matching import match
from retinanet.evaluation.operating_points import best_point, format_threshold
from retinanet.evaluation.results import Result, in_order

_LIMITS = (1, 10, 100)
"""Limits of COCO for AR_1, AR_10, AR_100; a lower max_detections caps them."""
_UNLEARNT_AP50, _LEARNT_AP50 = 0.01, 0.5
"""AP50 below which a class counts as missed, and from which one counts as learned."""
_MANY = 10
"""Number of detections from which equal scores are not a coincidence."""
_SIZES = ("all", "small", "medium", "large")


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """Ground truth that detections are scored against."""

    image_ids: Sequence[int]
    category_ids: Sequence[int]
    """Ascending, as in COCO's arrays."""
    category_names: Sequence[str]
    boxes: NDArray[np.float64]
    """(N, 4) xywh px, as in the annotation file."""
    box_image_ids: NDArray[np.int64]
    """(N,) id of the image of each box."""
    box_category_ids: NDArray[np.int64]
    """(N,) id of the category of each box."""
    areas: NDArray[np.float64]
    """(N,) px²."""
    crowd: NDArray[np.bool_]
    """(N,) whether a box is a region to ignore."""


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """One row of the table by class; None if the class has no ground truth."""

    name: str
    category_id: int
    boxes: int
    ap: float | None
    ap50: float | None
    precision: float | None
    """At IoU 0.5, of detections with a score of at least `threshold`."""
    recall: float | None
    f1: float | None
    """Highest F1 of any threshold; 0 if no detection is correct."""
    threshold: float | None
    """Threshold with the highest F1; None if no detection is correct."""
    below: float
    """Highest score below the threshold; -inf if there is none."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of an evaluation, in [0, 1]; None if there is no ground truth."""

    figures: dict[str, float | None]
    """AP, AP50, AP75, AP_small, ..., AR_1, AR_10, AR_100, ... in COCO's order."""
    classes: list[ClassFigures]
    detections: int
    max_detections: int
    remarks: list[str]

    @property
    def ap(self) -> float | None:
        """AP, averaged over IoU 0.50 to 0.95."""
        return self.figures["AP"]

    def __str__(self) -> str:
        return format_metrics(self)


def evaluate_results(
    truth: GroundTruth, results: Sequence[Result], *, max_detections: int
) -> Metrics:
    """Score detections as COCO does.

    Annotation ids are renumbered and equal scores are put in a fixed order, so that neither an id 0
    nor the order of the results changes a metric.

    Args:
        truth: Ground truth; images without boxes are scored too.
        results: Detections in these images.
        max_detections: Highest-scored detections of an image and class that count (COCO: 100).
    """
    limits = sorted({min(limit, max_detections) for limit in _LIMITS} | {max_detections})
    ordered = in_order(results)
    precision, recall = _accumulate(truth, ordered, limits)
    classes = _class_figures(truth, ordered, precision, max_detections)
    return Metrics(
        figures=_figures(precision, recall, limits),
        classes=classes,
        detections=len(results),
        max_detections=max_detections,
        remarks=_remarks(truth, results, max_detections) + _unlearnt_remarks(classes),
    )


def _accumulate(
    truth: GroundTruth, results: Sequence[Result], limits: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return COCO's precision (T, R, K, S, M) and recall (T, K, S, M)."""
    coco_kind, evaluation_kind = _backend()
    # Renumbered from 1, because a library may not accept negative ids.
    labels = {category: label for label, category in enumerate(truth.category_ids, 1)}
    with contextlib.redirect_stdout(io.StringIO()):  # both print their own progress
        evaluation = evaluation_kind(
            _make_coco(coco_kind, truth, _ground_truth_records(truth, labels)),
            _make_coco(coco_kind, truth, _result_records(results, labels)),
            "bbox",
        )
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def _backend() -> tuple[Any, Any]:
    """Return the classes COCO and COCOeval of the fastest installed library."""
    try:
        import hotcoco as library
    except ImportError:
        from pycocotools import coco, cocoeval

        return coco.COCO, cocoeval.COCOeval
    return library.COCO, library.COCOeval


def _make_coco(kind: Any, truth: GroundTruth, records: list[dict[str, Any]]) -> Any:
    dataset = {
        "images": [
            {"id": int(i), "width": 1, "height": 1, "file_name": ""} for i in truth.image_ids
        ],
        "categories": [
            {"id": label, "name": name} for label, name in enumerate(truth.category_names, 1)
        ],
        "annotations": records,
    }
    coco = kind()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _ground_truth_records(truth: GroundTruth, labels: dict[int, int]) -> list[dict[str, Any]]:
    return [
        {
            "id": i + 1,
            "image_id": int(truth.box_image_ids[i]),
            "category_id": labels[int(truth.box_category_ids[i])],
            "bbox": truth.boxes[i].tolist(),
            "area": float(truth.areas[i]),
            "iscrowd": int(truth.crowd[i]),
        }
        for i in range(len(truth.boxes))
    ]


def _result_records(results: Sequence[Result], labels: dict[int, int]) -> list[dict[str, Any]]:
    return [
        {
            "id": i + 1,
            "image_id": result["image_id"],
            "category_id": labels[result["category_id"]],
            "bbox": result["bbox"],
            "score": result["score"],
            "area": result["bbox"][2] * result["bbox"][3],
            "iscrowd": 0,
        }
        for i, result in enumerate(results)
    ]


def _figures(
    precision: NDArray[np.float64], recall: NDArray[np.float64], limits: list[int]
) -> dict[str, float | None]:
    """Average the arrays as COCO's summary does, at the given limits."""
    figures = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
    }
    figures |= {f"AP_{_SIZES[i]}": _mean(precision[:, :, :, i, -1]) for i in (1, 2, 3)}
    for limit in _LIMITS:
        place = limits.index(min(limit, limits[-1]))
        figures[f"AR_{limit}"] = _mean(recall[:, :, 0, place])
    figures |= {f"AR_{_SIZES[i]}": _mean(recall[:, :, i, -1]) for i in (1, 2, 3)}
    return figures


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the valid values; COCO marks the others with -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _class_figures(
    truth: GroundTruth,
    results: Sequence[Result],
    precision: NDArray[np.float64],
    max_detections: int,
) -> list[ClassFigures]:
    scores = np.array([result["score"] for result in results], np.float64)
    categories = np.array([result["category_id"] for result in results], np.int64)
    images = np.array([result["image_id"] for result in results], np.int64)
    known = np.unique(np.concatenate([images, truth.box_image_ids]))
    labels = np.array(truth.category_ids, np.int64)
    verdicts = match(
        found=np.array([result["bbox"] for result in results], np.float64).reshape(-1, 4),
        found_group=_group(images, categories, known, labels),
        boxes=truth.boxes,
        box_group=_group(truth.box_image_ids, truth.box_category_ids, known, labels),
        areas=truth.areas,
        crowd=truth.crowd,
        limit=max_detections,
    )
    rows = []
    for k, (category, name) in enumerate(
        zip(truth.category_ids, truth.category_names, strict=True)
    ):
        boxes = int(((truth.box_category_ids == category) & ~truth.crowd).sum())
        counted = (categories == category) & (verdicts >= 0)
        point = best_point(scores[counted], verdicts[counted] > 0, boxes) if boxes else None
        missed = 0.0 if boxes else None
        rows.append(
            ClassFigures(
                name=name,
                category_id=category,
                boxes=boxes,
                ap=_mean(precision[:, :, k, 0, -1]),
                ap50=_mean(precision[0, :, k, 0, -1]),
                precision=point.precision if point else missed,
                recall=point.recall if point else missed,
                f1=point.f1 if point else missed,
                threshold=point.threshold if point else None,
                below=point.below if point else -math.inf,
            )
        )
    return rows


def _group(
    images: NDArray[np.int64],
    categories: NDArray[np.int64],
    known_images: NDArray[np.int64],
    known_categories: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return a number for each pair of image and class; the known ids are ascending."""
    place = np.searchsorted(known_images, images) * len(known_categories)
    return place + np.searchsorted(known_categories, categories)


def _remarks(truth: GroundTruth, results: Sequence[Result], max_detections: int) -> list[str]:
    remarks = []
    if not results:
        scored = ", so every AP is 0" if not truth.crowd.all() else ""
        remarks.append(f"There are no detections{scored}.")
    if truth.crowd.all():
        crowds = len(truth.crowd)
        only = f", only {plural(crowds, 'region')} to ignore (iscrowd 1)" if crowds else ""
        remarks.append(f"There is no AP: the ground truth has no boxes{only}.")
    if len(results) >= _MANY and len({result["score"] for result in results}) == 1:
        remarks.append(
            f"All {len(results):,} detections have the score {results[0]['score']:g}, so AP "
            "depends on their order, and no threshold separates them."
        )
    groups = Counter((result["image_id"], result["category_id"]) for result in results)
    surplus = sum(max(0, count - max_detections) for count in groups.values())
    if surplus:
        remarks.append(
            f"{surplus:,} of {len(results):,} detections are not counted: only the "
            f"{max_detections} with the highest scores per image and class count "
            "(postprocess.max_detections)."
        )
    if max_detections != _LIMITS[-1]:
        remarks.append(
            f"AP and AR count up to {max_detections} detections per image and class; COCO counts "
            f"up to {_LIMITS[-1]} (postprocess.max_detections)."
        )
    _, counts = np.unique(truth.box_image_ids[~truth.crowd], return_counts=True)
    if counts.size and counts.max() > max_detections:
        many = int((counts > max_detections).sum())
        remarks.append(
            f"Images with more than {max_detections} boxes: {many:,} "
            f"(up to {counts.max()} boxes). Raise postprocess.max_detections to find them all."
        )
    return remarks


def _unlearnt_remarks(classes: Sequence[ClassFigures]) -> list[str]:
    """Name the classes that are missed although another one is learned."""
    known = [(row, row.ap50) for row in classes if row.ap50 is not None]
    missed = [
        f"{shown_name(row.name)} ({plural(row.boxes, 'box')})"
        for row, ap50 in known
        if ap50 < _UNLEARNT_AP50
    ]
    if not missed or max(ap50 for _, ap50 in known) < _LEARNT_AP50:
        return []
    return [
        f"AP50 is under {_UNLEARNT_AP50} for {len(missed)} of {len(known)} classes: "
        f"{some_of(missed)}. More epochs or a higher train.lr may help, unless these classes have "
        "few boxes, or boxes that match no anchor (`retinanet check`)."
    ]


def metrics_json(metrics: Metrics) -> dict[str, Any]:
    """Return the metrics as plain values for JSON; null if there is no ground truth.

    The keys of classes are their full names.
    """
    names = [row.name for row in metrics.classes]
    return {
        **metrics.figures,
        "detections": metrics.detections,
        "max_detections": metrics.max_detections,
        "classes": {
            row.name if names.count(row.name) == 1 else f"{row.name} ({row.category_id})": {
                "boxes": row.boxes,
                "AP": row.ap,
                "AP50": row.ap50,
                "precision": row.precision,
                "recall": row.recall,
                "F1": row.f1,
                "threshold": row.threshold,
            }
            for row in metrics.classes
        },
    }


def format_metrics(metrics: Metrics) -> str:
    """Return the twelve metrics and the table by class as text."""
    lines = [f"{name:<10} {format_figure(value)}" for name, value in metrics.figures.items()]
    names = shown_names([row.name for row in metrics.classes])
    width = max(map(columns_of, ["class", *names]))
    titles = ("boxes", "AP", "AP50", "precision", "recall", "F1", "threshold")
    lines += ["", pad("class", width) + "".join(f"{title:>11}" for title in titles)]
    for name, row in zip(names, metrics.classes, strict=True):
        values = (row.ap, row.ap50, row.precision, row.recall, row.f1)
        threshold = "n/a" if row.threshold is None else format_threshold(row.threshold, row.below)
        cells = [f"{row.boxes:,}", *map(format_figure, values), threshold]
        lines.append(pad(name, width) + "".join(f" {cell:>10}" for cell in cells))
    lines.append(
        "precision, recall: at IoU 0.5, of detections with a score of at least the threshold, "
        "which is the one with the best F1"
    )
    if any(value is None for value in metrics.figures.values()):
        lines.append("n/a: no ground truth")
    if any(row.threshold is None and row.boxes for row in metrics.classes):
        lines.append("threshold n/a: no detection is correct")
    return "\n".join(lines + list(metrics.remarks))


def format_figure(value: float | None) -> str:
    """Return a metric with three decimals; only exactly 0 or 1 becomes 0.000 or 1.000."""
    if value is None:
        return "n/a"
    text = f"{value:.3f}"
    if text == "1.000" and value < 1 - 1e-9:  # COCO's mean of ones can differ by 1e-16
        return ">0.999"
    return "<0.001" if text == "0.000" and value > 0 else text
