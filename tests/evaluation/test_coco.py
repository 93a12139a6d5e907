"""COCO's figures: equal to pycocotools' own, and said even where there is nothing to score."""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.data.coco.index import read_annotations
from retinanet.engine.splits import ground_truth
from retinanet.evaluation import coco as module
from retinanet.evaluation.coco import (
    GroundTruth,
    Metrics,
    evaluate_results,
    format_metrics,
    metrics_json,
)
from retinanet.evaluation.results import Result

Boxes = list[tuple[int, int, list[float]]]
"""(image id, category id, xywh)"""
ONE = pytest.approx(1, abs=1e-12)  # pycocotools divides by 1 + 2e-16
SQUARE = [10.0, 10.0, 50.0, 50.0]  # 2,500 px²: COCO's medium is 32² to 96²


def truth(
    boxes: Boxes,
    *,
    images: Sequence[int] = (1,),
    categories: Sequence[int] = (1,),
    crowd: Sequence[bool] | None = None,
) -> GroundTruth:
    xywh = np.array([box for _, _, box in boxes], np.float64).reshape(-1, 4)
    return GroundTruth(
        image_ids=images,
        category_ids=categories,
        category_names=[f"class {category}" for category in categories],
        boxes=xywh,
        box_image_ids=np.array([image for image, _, _ in boxes], np.int64),
        box_category_ids=np.array([category for _, category, _ in boxes], np.int64),
        areas=xywh[:, 2] * xywh[:, 3],
        crowd=np.array(crowd if crowd is not None else [False] * len(boxes), bool),
    )


def result(box: list[float], score: float, *, image: int = 1, category: int = 1) -> Result:
    return Result(image_id=image, category_id=category, bbox=box, score=score)


def score(known: GroundTruth, results: list[Result], max_detections: int = 100) -> Metrics:
    return evaluate_results(known, results, max_detections=max_detections)


def random_file(seed: int) -> dict[str, Any]:
    """A COCO file with crowds, gapped unsorted ids, images and a class without boxes."""
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.permutation(500)[:24]]
    annotations: list[dict[str, Any]] = []
    for image in ids[:18]:
        for _ in range(rng.integers(1, 9)):
            # 8 to 250 px, evenly on a log scale: every size of COCO occurs.
            sides = 2.0 ** rng.uniform(3, 8, 2)
            box = [*rng.uniform(0, 200, 2).tolist(), *sides.tolist()]
            annotations.append(
                {
                    "id": 7 * len(annotations) + 3,
                    "image_id": image,
                    "category_id": int(rng.choice([90, 3, 17])),
                    "bbox": box,
                    "area": box[2] * box[3] * float(rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 500, "height": 500} for i in ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in (90, 3, 17, 45)],
        "annotations": annotations,
    }


def random_results(file: dict[str, Any], seed: int, *, scores: int = 10**9) -> list[Result]:
    """Two disturbed copies of each box and some noise, with one of so many different scores."""
    rng = np.random.default_rng(seed)
    results = []
    for annotation in file["annotations"] * 2:
        box = (np.array(annotation["bbox"]) * rng.normal(1, 0.08, 4)).clip(1).tolist()
        category = annotation["category_id"] if rng.random() < 0.9 else 45
        value = int(rng.integers(1, scores)) / scores
        results.append(result(box, value, image=annotation["image_id"], category=category))
    for image in file["images"]:
        box = [*rng.uniform(0, 200, 2).tolist(), *rng.uniform(5, 200, 2).tolist()]
        results.append(result(box, int(rng.integers(1, scores)) / scores, image=image["id"]))
    known = {category["id"] for category in file["categories"]}
    return [r if r["category_id"] in known else {**r, "category_id": 3} for r in results]


def read_truth(folder: Path, file: dict[str, Any]) -> GroundTruth:
    path = folder / "val.json"
    path.write_text(json.dumps(file))
    return ground_truth(read_annotations(path))


def reference(file: dict[str, Any], results: list[Result]) -> list[float]:
    """The 12 figures as pycocotools' own documentation computes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = file
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes([dict(r) for r in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.fixture(params=["pycocotools", "hotcoco"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate with one library, then with the other."""
    if request.param == "hotcoco":
        pytest.importorskip("hotcoco")
    else:
        monkeypatch.setitem(sys.modules, "hotcoco", None)


@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_figures_are_pycocotools(tmp_path: Path, backend: None, seed: int) -> None:
    """The same numbers as the reference tool, to 1e-12."""
    file = random_file(seed)
    results = random_results(file, seed)
    figures = score(read_truth(tmp_path, file), results).figures
    wanted = reference(file, results)
    assert 0.1 < wanted[0] < 0.9 and min(wanted) > 0  # the set tells right from wrong
    assert list(figures) == [
        *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
        *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
    ]
    assert list(figures.values()) == pytest.approx(wanted, abs=1e-12, rel=0)


def test_annotation_id_0_matches(tmp_path: Path, backend: None) -> None:
    """The perfect detection of annotation 0 counts; in pycocotools it does not."""
    file = random_file(0)
    image = file["images"][0]["id"]
    file["annotations"] = [
        {"id": 0, "image_id": image, "category_id": 17, "bbox": SQUARE, "area": 2500, "iscrowd": 0}
    ]
    results = [result(SQUARE, 0.9, image=image, category=17)]
    assert reference(file, results)[0] == 0.0
    assert score(read_truth(tmp_path, file), results).figures["AP"] == ONE


def test_negative_category_ids(backend: None) -> None:
    """Whatever whole numbers a file uses."""
    known = truth([(1, -3, SQUARE), (1, 5, [200.0, 10.0, 50.0, 50.0])], categories=(-3, 5))
    metrics = score(known, [result(SQUARE, 0.9, category=-3)])
    assert metrics.figures["AP"] == pytest.approx(0.5, abs=1e-12)
    assert [row.ap for row in metrics.classes] == [ONE, 0]


def test_another_limit_than_cocos_is_said(backend: None) -> None:
    """The figures of a peer are at 100 detections of an image and class."""
    remarks = score(truth([(1, 1, SQUARE)]), [result(SQUARE, 0.9)], 300).remarks
    assert remarks == [
        "AP and AR count up to 300 detections per image and class; COCO counts up to 100 "
        "(postprocess.max_detections)."
    ]
    assert score(truth([(1, 1, SQUARE)]), [result(SQUARE, 0.9)]).remarks == []


def test_one_perfect_box(backend: None) -> None:
    """2,500 px² is medium: the other sizes have no ground truth."""
    metrics = score(truth([(1, 1, SQUARE)]), [result(SQUARE, 0.9)])
    assert metrics.figures == {
        **{"AP": ONE, "AP50": ONE, "AP75": ONE},
        **{"AP_small": None, "AP_medium": ONE, "AP_large": None},
        **{"AR_1": 1.0, "AR_10": 1.0, "AR_100": 1.0},
        **{"AR_small": None, "AR_medium": 1.0, "AR_large": None},
    }
    assert (metrics.detections, metrics.max_detections, metrics.remarks) == (1, 100, [])


def test_one_box_at_iou_062(backend: None) -> None:
    """62 of 100 px: of the thresholds 0.5, 0.55, .. 0.95 it passes three, so AP is 3 / 10."""
    metrics = score(truth([(1, 1, [0, 0, 100, 100])]), [result([0, 0, 62, 100], 0.9)])
    assert metrics.figures["AP"] == pytest.approx(0.3, abs=1e-12)
    assert (metrics.figures["AP50"], metrics.figures["AP75"]) == (ONE, 0.0)
    assert metrics.figures["AR_100"] == pytest.approx(0.3, abs=1e-12)


def test_a_crowd_is_no_mistake_and_no_box(backend: None) -> None:
    """A detection inside a crowd region is neither right nor wrong; one outside is wrong."""
    known = truth([(1, 1, SQUARE), (1, 1, [100, 100, 200, 200])], crowd=[False, True])
    inside, outside = result([120, 120, 50, 50], 0.95), result([400, 400, 50, 50], 0.95)
    right = result(SQUARE, 0.9)
    metrics = score(known, [inside, right])
    assert (metrics.figures["AP"], metrics.classes[0].boxes) == (ONE, 1)
    assert score(known, [outside, right]).figures["AP"] == pytest.approx(0.5, abs=1e-12)


def test_no_detections(backend: None) -> None:
    """AP is 0, not a crash, and a remark says why."""
    metrics = score(truth([(1, 1, SQUARE)]), [])
    there = {name: value for name, value in metrics.figures.items() if value is not None}
    assert there == dict.fromkeys(
        ("AP", "AP50", "AP75", "AP_medium", "AR_1", "AR_10", "AR_100", "AR_medium"), 0.0
    )
    assert metrics.remarks == ["There are no detections, so every AP is 0."]
    assert "There are no detections, so every AP is 0." in format_metrics(metrics)
    row = metrics.classes[0]
    assert (row.ap, row.ap50, row.precision, row.recall, row.f1) == (0.0,) * 5
    assert row.threshold is None


def test_a_class_that_is_not_learnt_is_named() -> None:
    """One class beside one that is found; class 3 has no boxes."""
    known = truth([(1, 1, SQUARE), (1, 2, [300, 300, 50, 50])], categories=(1, 2, 3))
    remark = "AP50 is under 0.01 for 1 of 2 classes: class 2 (1 box). More epochs or a higher "
    metrics = score(known, [result(SQUARE, 0.9)])
    assert len(metrics.remarks) == 1 and metrics.remarks[0].startswith(remark)
    found = result([300, 300, 50, 50], 0.9, category=2)
    assert score(known, [result(SQUARE, 0.9), found]).remarks == []
    assert score(known, [result([400, 400, 50, 50], 0.9)]).remarks == []  # nothing is learnt yet


@pytest.mark.parametrize("crowd", [True, False])
def test_no_ground_truth_at_all(backend: None, crowd: bool) -> None:
    """No figure exists, whether there is nothing or nothing but a crowd."""
    known = truth([(1, 1, SQUARE)], crowd=[True]) if crowd else truth([])
    metrics = score(known, [result(SQUARE, 0.9)])
    assert set(metrics.figures.values()) == {None}
    row = metrics.classes[0]
    assert (row.boxes, row.ap, row.ap50, row.precision, row.recall) == (0, None, None, None, None)
    assert (row.f1, row.threshold) == (None, None)
    what = ", only 1 region to ignore (iscrowd 1)" if crowd else ""
    assert metrics.remarks == [f"There is no AP: the ground truth has no boxes{what}."]
    assert score(known, []).remarks == ["There are no detections.", *metrics.remarks]


def test_equal_scores_are_said() -> None:
    """From ten on: then no threshold tells right from wrong."""
    known = truth([(1, 1, SQUARE)])
    ten = [result(SQUARE, 1.0)] * 10
    remarks = score(known, ten).remarks
    assert remarks[0].startswith("All 10 detections have the score 1, so AP depends on their order")
    assert score(known, ten[:9]).remarks == score(known, [*ten, result(SQUARE, 0.9)]).remarks == []


def test_missing_figures_in_text_and_json() -> None:
    """ "n/a" in the text, null in JSON, never -1."""
    metrics = score(truth([(1, 1, SQUARE)], categories=(1, 2)), [result(SQUARE, 0.9)])
    text = format_metrics(metrics)
    lines = text.splitlines()
    assert lines[:4] == [
        "AP         1.000",
        "AP50       1.000",
        "AP75       1.000",
        "AP_small   n/a",
    ]
    assert lines[-1] == "n/a: no ground truth"
    assert next(line for line in lines if line.startswith("class 2")).split()[2:] == [
        "0",
        *["n/a"] * 6,
    ]
    content = json.loads(json.dumps(metrics_json(metrics), allow_nan=False))
    assert (content["AP"], content["AP_small"], content["AR_large"]) == (ONE, None, None)
    assert (content["detections"], content["max_detections"]) == (1, 100)
    assert content["classes"]["class 1"] == {
        **{"boxes": 1, "AP": ONE, "AP50": ONE},
        **{"precision": ONE, "recall": 1.0, "F1": ONE, "threshold": 0.9},
    }
    assert content["classes"]["class 2"] == {
        **{"boxes": 0, "AP": None, "AP50": None},
        **{"precision": None, "recall": None, "F1": None, "threshold": None},
    }
    assert "-1" not in text


def test_text_without_gaps_needs_no_legend() -> None:
    boxes: Boxes = [(1, 1, [0, 0, 10, 10]), (1, 1, SQUARE), (1, 1, [100, 100, 200, 200])]
    metrics = score(truth(boxes), [result(box, 0.9) for _, _, box in boxes])
    assert "n/a" not in format_metrics(metrics)


def crowded_image() -> tuple[GroundTruth, list[Result]]:
    """120 boxes of one class in image 1, all found, the best first."""
    boxes: Boxes = [(1, 1, [20.0 * i, 0.0, 10.0, 10.0]) for i in range(120)]
    return truth(boxes), [result(box, 1 - i / 1000) for i, (_, _, box) in enumerate(boxes)]


def test_max_detections_and_its_warning(backend: None) -> None:
    """At 100, 100 of 120 are found, so precision is 1 at recalls 0, 0.01, .. 0.83."""
    known, results = crowded_image()
    metrics = score(known, results)
    assert metrics.figures["AR_100"] == pytest.approx(100 / 120, abs=1e-12)
    assert metrics.figures["AP"] == pytest.approx(84 / 101, abs=1e-12)
    assert metrics.remarks == [
        "20 of 120 detections are not counted: only the 100 with the highest scores per image "
        "and class count (postprocess.max_detections).",
        "Images with more than 100 boxes: 1 (up to 120 boxes). Raise postprocess.max_detections to "
        "find them all.",
    ]


@pytest.mark.parametrize(
    ("limit", "recall"),
    [(300, 1.0), (120, 1.0), (60, 0.5), (10, 10 / 120), (6, 6 / 120), (1, 1 / 120)],
)
def test_other_limits(backend: None, limit: int, recall: float) -> None:
    """One setting; no -1 at limits that COCO's own summary does not know."""
    known, results = crowded_image()
    metrics = score(known, results, limit)
    names = ["AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"]
    assert [name for name in metrics.figures if name.startswith("AR_")] == names
    for name, cap in (("AR_1", 1), ("AR_10", 10), ("AR_100", 100)):
        assert metrics.figures[name] == pytest.approx(min(limit, cap) / 120, abs=1e-12)
    assert metrics.figures["AR_small"] == pytest.approx(recall, abs=1e-12)
    points = int(100 * recall + 1e-9) + 1
    assert metrics.figures["AP"] == pytest.approx(points / 101, abs=1e-12)
    assert any("more than" in remark for remark in metrics.remarks) == (limit < 120)
    assert metrics.max_detections == limit


def test_crowds_do_not_count_towards_the_limit() -> None:
    known = truth([(1, 1, SQUARE)] * 3, crowd=[False, False, True])
    (remark,) = score(known, [result(SQUARE, 0.9)], max_detections=2).remarks
    assert "more than" not in remark


def test_order_of_tied_results_does_not_matter(tmp_path: Path, backend: None) -> None:
    """9 different scores, so nearly every detection is tied with others."""
    file = random_file(5)
    results = random_results(file, 5, scores=10)
    known = read_truth(tmp_path, file)
    first = score(known, results)
    others = set()
    for seed in range(4):
        shuffled = [results[i] for i in np.random.default_rng(seed).permutation(len(results))]
        again = score(known, shuffled)
        assert again == first
        others.add(reference(file, shuffled)[0])
    assert len(others) > 1  # pycocotools itself depends on the order


def test_class_table(backend: None) -> None:
    """Scores .9 right, .8 wrong, .7 right, .6 right, .5 wrong; 4 boxes.

    Precision / recall at .9: 1 / .25, at .7: 2/3 / .5, at .6: .75 / .75, the best F1. AP: the 26
    recalls up to 0.25 at precision 1, the 50 up to 0.75 at 0.75.
    """
    boxes: Boxes = [(1, 1, [100.0 * i, 0.0, 50.0, 50.0]) for i in range(4)]
    wrong = [0.0, 300.0, 50.0, 50.0]
    found = [(boxes[0][2], 0.9), (wrong, 0.8), (boxes[1][2], 0.7), (boxes[2][2], 0.6), (wrong, 0.5)]
    known = truth([*boxes, (1, 2, SQUARE)], categories=(1, 2, 3))
    metrics = score(known, [result(box, value) for box, value in found])
    one, two, three = metrics.classes
    assert (one.name, one.boxes) == ("class 1", 4)
    assert one.ap == pytest.approx((26 + 50 * 0.75) / 101, abs=1e-12)
    assert one.ap50 == pytest.approx((26 + 50 * 0.75) / 101, abs=1e-12)
    assert (one.precision, one.recall) == pytest.approx((0.75, 0.75), abs=1e-12)
    assert (one.f1, one.threshold) == pytest.approx((0.75, 0.6), abs=1e-12)
    assert (two.name, two.boxes, two.ap, two.f1, two.threshold) == ("class 2", 1, 0.0, 0.0, None)
    assert (three.name, three.boxes, three.ap, three.f1) == ("class 3", 0, None, None)
    # A class without ground truth takes no part in the mean.
    assert metrics.figures["AP"] == pytest.approx((26 + 50 * 0.75) / 101 / 2, abs=1e-12)


def test_recall_of_the_class_table_is_exact(backend: None) -> None:
    """2 of 3 found is 0.667, not the 0.66 of COCO's grid of recalls; F1 is 0.8."""
    boxes: Boxes = [(1, 1, [100.0 * i, 0.0, 50.0, 50.0]) for i in range(3)]
    row = score(truth(boxes), [result(boxes[0][2], 0.9), result(boxes[1][2], 0.8)]).classes[0]
    assert (row.precision, row.recall, row.f1, row.threshold) == pytest.approx((1, 2 / 3, 0.8, 0.8))


def test_class_table_as_text() -> None:
    """1,000 of 1,250 boxes found, none wrong: recalls 0, 0.01, .. 0.8 at precision 1."""
    boxes: Boxes = [(image, 1, SQUARE) for image in range(1250)]
    found = [result(SQUARE, 0.875, image=image) for image in range(1000)]
    metrics = score(truth(boxes, images=range(1250)), found)
    assert format_metrics(metrics).splitlines()[13:15] == [
        "class        boxes         AP       AP50  precision     recall         F1  threshold",
        "class 1      1,250      0.802      0.802      1.000      0.800      0.889      0.875",
    ]


@pytest.mark.parametrize("limits", [[1, 10, 100], [1, 10], [1, 1, 5]])
def test_hotcoco_gives_pycocotools_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: list[int]
) -> None:
    """Bit-equal in every entry of precision, recall and scores."""
    installed = pytest.importorskip("hotcoco")
    for seed, scores in ((1, 10**9), (2, 10)):
        file = random_file(seed)
        known = read_truth(tmp_path, file)
        for results in (random_results(file, seed, scores=scores), []):
            arrays = []
            for library in (None, installed):
                monkeypatch.setitem(sys.modules, "hotcoco", library)
                arrays.append(module._accumulate(known, results, limits))
            for ours, theirs in zip(*arrays, strict=True):
                assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
                assert np.array_equal(ours, theirs)
            assert arrays[0][0].shape == (10, 101, 4, 4, len(limits))


def test_pycocotools_where_hotcoco_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    assert module._backend() == (COCO, COCOeval)
    assert score(truth([(1, 1, SQUARE)]), [result(SQUARE, 0.9)]).figures["AP"] == ONE


def test_hotcoco_where_it_is_installed() -> None:
    library = pytest.importorskip("hotcoco")
    assert module._backend() == (library.COCO, library.COCOeval)


def test_nothing_is_printed(backend: None, capfd: pytest.CaptureFixture[str]) -> None:
    score(truth([(1, 1, SQUARE)]), [result(SQUARE, 0.9)])
    assert capfd.readouterr() == ("", "")
