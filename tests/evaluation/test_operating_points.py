"""Precision, recall and threshold of a class: what a threshold gives, and nothing between."""

import contextlib
import io
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.evaluation.coco import (
    ClassFigures,
    GroundTruth,
    Metrics,
    evaluate_results,
    format_metrics,
)
from retinanet.evaluation.operating_points import best_point, format_threshold
from retinanet.evaluation.results import Result, in_order

Row = tuple[int, int, int, int]
"""Image, class, place of the box, and its kind (a crowd if 0) or its score in quarters."""

ROWS = st.lists(st.tuples(*(st.integers(0, high) for high in (1, 1, 9, 4))), max_size=14)


def box(place: int) -> list[float]:
    """Boxes on a line: neighbours have IoU 0.6, those two apart 1/3, equal ones 1."""
    return [10.0 * place, 0.0, 40.0, 40.0]


def make_truth(rows: list[Row]) -> GroundTruth:
    xywh = np.array([box(place) for _, _, place, _ in rows], np.float64).reshape(-1, 4)
    return GroundTruth(
        image_ids=[0, 1],
        category_ids=[0, 1],
        category_names=["cat", "dog"],
        boxes=xywh,
        box_image_ids=np.array([row[0] for row in rows], np.int64),
        box_category_ids=np.array([row[1] for row in rows], np.int64),
        areas=xywh[:, 2] * xywh[:, 3],
        crowd=np.array([row[3] == 0 for row in rows], bool),
    )


def make_results(rows: list[Row]) -> list[Result]:
    return [
        Result(image_id=image, category_id=category, bbox=box(place), score=score / 4)
        for image, category, place, score in rows
    ]


def reference_verdicts(
    truth: GroundTruth, results: list[Result], limit: int
) -> dict[int, tuple[bool, bool]]:
    """What COCOeval says of each result, by its place in `results`: is it right, does it count."""
    images = [{"id": i} for i in truth.image_ids]
    categories = [{"id": i, "name": str(i)} for i in truth.category_ids]
    annotations: list[dict[str, Any]] = [
        {
            **{"id": i + 1, "image_id": int(truth.box_image_ids[i])},
            **{"category_id": int(truth.box_category_ids[i]), "bbox": truth.boxes[i].tolist()},
            **{"area": float(truth.areas[i]), "iscrowd": int(truth.crowd[i])},
        }
        for i in range(len(truth.boxes))
    ]
    known, found = COCO(), COCO()
    known.dataset = {"images": images, "categories": categories, "annotations": annotations}
    records = [
        {**result, "id": i + 1, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
        for i, result in enumerate(results)
    ]
    found.dataset = {"images": images, "categories": categories, "annotations": records}
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        found.createIndex()
        evaluation = COCOeval(known, found, "bbox")
        evaluation.params.maxDets = [limit]
        evaluation.evaluate()
    verdicts = {}
    for part in evaluation.evalImgs:
        if part is not None and part["aRng"] == [0, 1e10]:
            for i, right, ignored in zip(
                part["dtIds"], part["dtMatches"][0] > 0, part["dtIgnore"][0], strict=True
            ):
                verdicts[i - 1] = bool(right), not ignored
    return verdicts


def sweep(
    truth: GroundTruth, results: list[Result], category: int, limit: int
) -> list[tuple[float, float, float, float]]:
    """(F1, threshold, precision, recall) at each score, by looking at all results each time."""
    results = in_order(results)
    verdicts = reference_verdicts(truth, results, limit)
    boxes = int(((truth.box_category_ids == category) & ~truth.crowd).sum())
    points = []
    for threshold in {result["score"] for result in results if result["category_id"] == category}:
        kept = [
            verdicts[i][0]
            for i, result in enumerate(results)
            if result["category_id"] == category and result["score"] >= threshold
            if i in verdicts and verdicts[i][1]
        ]
        if kept:
            precision, recall = sum(kept) / len(kept), sum(kept) / boxes if boxes else 0
            f1 = 2 * sum(kept) / (len(kept) + boxes)
            points.append((f1, threshold, precision, recall))
    return points


def one_class(boxes: list[Row], found: list[Row], limit: int = 100) -> ClassFigures:
    return evaluate_results(make_truth(boxes), make_results(found), max_detections=limit).classes[0]


def test_one_of_three_equal_scores_is_right() -> None:
    """No threshold keeps the right one alone: precision 1/3, whatever COCO's curve shows."""
    row = one_class([(0, 0, 0, 1)], [(0, 0, 0, 2), (0, 0, 6, 2), (0, 0, 9, 2)])
    assert (row.precision, row.recall, row.f1, row.threshold) == (1 / 3, 1.0, 0.5, 0.5)


def test_a_group_is_kept_or_dropped_whole() -> None:
    """Scores .75 right; .5 right, wrong, wrong; 2 boxes: F1 is 2/3 at each of the two thresholds,
    and the higher one is shown."""
    found = [(0, 0, 0, 3), (1, 0, 0, 2), (0, 0, 6, 2), (0, 0, 9, 2)]
    row = one_class([(0, 0, 0, 1), (1, 0, 0, 1)], found)
    assert (row.precision, row.recall, row.f1, row.threshold) == (1.0, 0.5, 2 / 3, 0.75)
    assert row.below == 0.5


def test_detections_in_crowds_count_neither_way() -> None:
    """A crowd at place 8; one right detection, and two in the crowd of the same score."""
    found = [(0, 0, 0, 2), (0, 0, 8, 2), (0, 0, 8, 2)]
    row = one_class([(0, 0, 0, 1), (0, 0, 8, 0)], found)
    assert (row.precision, row.recall, row.f1) == (1.0, 1.0, 1.0)


def test_what_lies_past_the_limit_is_not_counted() -> None:
    """The limit takes the first two of three equal scores, as COCO does, then a threshold all."""
    found = [(0, 0, 0, 2), (0, 0, 6, 2), (0, 0, 9, 2)]
    assert one_class([(0, 0, 0, 1)], found, limit=2).precision == 1 / 2
    assert one_class([(0, 0, 9, 1)], found, limit=2).threshold is None


@pytest.mark.parametrize("library", ["pycocotools", "hotcoco"])
@given(boxes=ROWS, found=ROWS, limit=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_the_best_point_is_that_of_a_sweep(
    library: str, boxes: list[Row], found: list[Row], limit: int
) -> None:
    """Against every threshold, with COCOeval's own matches: ties, crowds, a limit inside a tie."""
    if library == "hotcoco":
        pytest.importorskip("hotcoco")
    truth, results = make_truth(boxes), make_results(found)
    with pytest.MonkeyPatch.context() as patch:
        if library == "pycocotools":
            patch.setitem(sys.modules, "hotcoco", None)
        rows = evaluate_results(truth, results, max_detections=limit).classes
    for category, row in enumerate(rows):
        points = sweep(truth, results, category, limit)
        best = max((point for point in points if point[0] > 0), default=None)
        if not row.boxes:
            assert (row.precision, row.recall, row.f1, row.threshold) == (None,) * 4
        elif best is None:
            assert (row.precision, row.recall, row.f1, row.threshold) == (0.0, 0.0, 0.0, None)
        else:
            assert (row.f1, row.threshold, row.precision, row.recall) == best


def test_no_right_detection_has_no_threshold() -> None:
    assert best_point(np.array([0.5]), np.array([False]), 3) is None
    assert best_point(np.zeros(0), np.zeros(0, bool), 3) is None


@pytest.mark.parametrize(
    ("threshold", "below", "text"),
    [
        (0.5, -math.inf, "0.500"),
        (0.49987, 0.3, "0.499"),
        (0.49987, 0.49985, "0.49987"),  # 0.499 would keep another one, 0.500 drop this one
        (0.499874, 0.49985, "0.49987"),
        (0.9, 0.8, "0.900"),
        (0.6, 0.5, "0.600"),  # as a float64 it is a little less
        (float(np.float32(0.7)), 0.5, "0.699"),  # as a float32 it is less, too
        (1.0, 0.99999, "1.000"),
        (0.0004, -math.inf, "0.0004"),  # 0 would keep everything
        (float(np.float32(0.3)), 0.2, "0.300"),
        (0.5, float(np.nextafter(np.float32(0.5), np.float32(0))), "0.500"),
        (1e-12, -math.inf, "1e-12"),
        (87.25, 87.2, "87.250"),
        (1e308, 0.5, "1e+308"),
        (0.5, -1e308, "0.500"),
    ],
)
def test_a_printed_threshold_keeps_the_same(threshold: float, below: float, text: str) -> None:
    assert format_threshold(threshold, below) == text
    assert below < float(text) <= threshold


@given(st.sets(st.floats(0, 1, width=32, exclude_min=True), min_size=2, max_size=2))
@settings(max_examples=60, deadline=None)
def test_any_threshold_can_be_typed(scores: set[float]) -> None:
    """In float64, and in float32 as the network's scores are."""
    below, threshold = sorted(scores)
    typed = float(format_threshold(threshold, below))
    assert below < typed <= threshold
    assert np.float32(below) < np.float32(typed) <= np.float32(threshold)


def test_rounding_does_not_make_a_figure_perfect() -> None:
    """1 of 5,000 wrong is not 1.000; nothing right but one in 5,000 is not 0.000."""
    figures: dict[str, float | None] = {"AP": 0.9998, "AP50": 1 - 2e-16, "AP75": 0.0, "AR_1": 2e-4}
    metrics = Metrics(figures=figures, classes=[], detections=1, max_detections=100, remarks=[])
    assert format_metrics(metrics).splitlines()[:4] == [
        "AP         >0.999",
        "AP50       1.000",
        "AP75       0.000",
        "AR_1       <0.001",
    ]
