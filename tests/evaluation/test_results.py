"""Files of results: read, and every wrong record named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.errors import UserError
from retinanet.evaluation.results import Result, read_results, to_results

KNOWN: dict[str, Any] = {"image_ids": [1], "category_ids": [1]}
GOOD: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


def write_results(folder: Path, content: object) -> Path:
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_results_file_is_read(tmp_path: Path) -> None:
    """Numbers become floats; what other tools add to a record is left out."""
    path = write_results(tmp_path, [{**GOOD, "segmentation": []}])
    assert read_results(path, **KNOWN) == [
        Result(image_id=1, category_id=1, bbox=[1.0, 2.0, 3.0, 4.0], score=0.5)
    ]
    assert read_results(write_results(tmp_path, []), **KNOWN) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, r"detection 1 has image_id 2, which is not in the annotation file"),
        ({"image_id": "1"}, r"detection 1 has image_id '1', which is not in the annotation file"),
        ({"image_id": [1]}, r"detection 1 has image_id \[1\], which is not in the annotation file"),
        ({"image_id": None}, r"detection 1 has image_id None, which is not in the annotation file"),
        (
            {"category_id": 9},
            r"detection 1 has category_id 9, .* the results belong to another set",
        ),
        ({"category_id": True}, r"detection 1 has category_id True, which is not in"),
        ({"score": float("nan")}, r"detection 1 \(image 1\) has bbox \[1, 2, 3, 4\] and score nan"),
        ({"score": float("inf")}, r"detection 1 \(image 1\) .* score inf; .* finite numbers"),
        ({"score": 10**400}, r"detection 1 \(image 1\) .* score 1000"),
        ({"score": "0.5"}, r"detection 1 \(image 1\) .* score '0.5'; .* finite numbers"),
        ({"score": None}, r"detection 1 \(image 1\) .* score None"),
        ({"score": True}, r"detection 1 \(image 1\) .* score True"),
        ({"bbox": [1, 2, 3]}, r"detection 1 \(image 1\) has bbox \[1, 2, 3\] and"),
        ({"bbox": [1, 2, float("nan"), 4]}, r"detection 1 \(image 1\) has bbox \[1, 2, nan, 4\]"),
        ({"bbox": [1, 2, "3", 4]}, r"detection 1 \(image 1\) has bbox \[1, 2, '3', 4\]"),
        ({"bbox": [1, 2, -3, 4]}, r"detection 1 \(image 1\) has bbox \[1, 2, -3, 4\]"),
        ({"bbox": None}, r"detection 1 \(image 1\) has bbox None .* \[x, y, width, height\]"),
    ],
)
def test_wrong_records(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """The file and the record are named."""
    path = write_results(tmp_path, [GOOD, {**GOOD, **change}])
    with pytest.raises(UserError, match=r"results\.json: " + message):
        read_results(path, **KNOWN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON that can be read"),
        ({"images": []}, "a results file is a list of detections"),
        ([GOOD, 7], "detection 1 is 7, not a record"),
    ],
)
def test_what_is_no_results_file(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=r"results\.json: " + message):
        read_results(write_results(tmp_path, content), **KNOWN)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: there is no such file"):
        read_results(tmp_path / "none.json", **KNOWN)
    with pytest.raises(UserError, match=r"not JSON that can be read \(.*directory"):
        read_results(tmp_path, **KNOWN)


def test_detections_become_results() -> None:
    boxes = np.array([[1, 2, 11, 22], [0, 0, 1, 1]], np.float32)
    scores, labels = np.array([0.5, 0.25], np.float32), np.array([1, 0])
    found = to_results(boxes, scores, labels, image_id=7, category_ids=(3, 9))
    assert found == [
        Result(image_id=7, category_id=9, bbox=[1.0, 2.0, 10.0, 20.0], score=0.5),
        Result(image_id=7, category_id=3, bbox=[0.0, 0.0, 1.0, 1.0], score=0.25),
    ]
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert to_results(*none, image_id=7, category_ids=(3, 9)) == []
