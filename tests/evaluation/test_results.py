"""Files of results: read, and every wrong record named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.errors import UserError
from retinanet.evaluation.results import Known, Result, parse_results, to_results

KNOWN = Known(image_ids=[1], file_names=["a/left.jpg"], category_ids=[1])
GOOD: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
READ = Result(image_id=1, category_id=1, bbox=[1.0, 2.0, 3.0, 4.0], score=0.5)
PATH = Path("results.json")


def read(content: object, known: Known = KNOWN) -> tuple[list[Result], list[str]]:
    text = content if isinstance(content, str) else json.dumps(content)
    return parse_results(text.encode(), PATH, known=known)


def test_a_results_file_is_read() -> None:
    """Numbers become floats; what other tools add to a record is left out."""
    assert read([{**GOOD, "segmentation": []}]) == ([READ], [])
    assert read([]) == ([], [])


@pytest.mark.parametrize("key", ["annotations", "results", "predictions", "detections"])
def test_an_object_with_the_list(key: str) -> None:
    """As tools write it that keep the images, or their own version, beside the detections."""
    assert read({key: [GOOD], "images": [], "info": {}}) == ([READ], [])


def test_whole_numbers_written_as_fractions() -> None:
    """As pandas writes a column of ids that had a gap."""
    assert read([{**GOOD, "image_id": 1.0, "category_id": 1.0}]) == ([READ], [])


@pytest.mark.parametrize("name", ["a/left.jpg", "left.jpg", "left", "a/left"])
def test_image_ids_that_are_file_names(name: str) -> None:
    """As ultralytics has them; the remark says so."""
    remark = f"image_id is the name of the image file in these results ('{name}' is image 1)."
    assert read([{**GOOD, "image_id": name}]) == ([READ], [remark])


def test_image_ids_that_are_numbers_of_file_names() -> None:
    """ultralytics writes the number of 000012.jpg, but other names as they are."""
    known = Known(
        image_ids=[7, 12, 3], file_names=["000012.jpg", "b.jpg", "3.jpg"], category_ids=[1]
    )
    both = [{**GOOD, "image_id": image} for image in (12, "b", 3)]
    results, remarks = read(both, known)
    assert [result["image_id"] for result in results] == [7, 12, 3]
    assert remarks[0].startswith("image_id is the name of the image file")
    # Ids of the annotation file come first.
    results, remarks = read([both[0]], known)
    assert ([result["image_id"] for result in results], remarks) == ([12], [])


def test_a_name_of_two_images_is_no_id() -> None:
    known = Known(image_ids=[1, 2], file_names=["a/x.jpg", "b/x.jpg"], category_ids=[1])
    with pytest.raises(UserError, match=r"detection 0 has image_id 'x', which is not in the"):
        read([{**GOOD, "image_id": "x"}], known)
    assert read([{**GOOD, "image_id": "b/x"}], known)[0][0]["image_id"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, r"detection 1 has image_id 2, which is not in the annotation file"),
        ({"image_id": "1"}, r"detection 1 has image_id '1', a number written as text; write 1"),
        ({"image_id": 1.5}, r"detection 1 has image_id 1\.5, which is not in the annotation file"),
        ({"image_id": "b.jpg"}, r"detection 1 has image_id 'b\.jpg', .* \(1 of 2 detections have"),
        ({"image_id": [1]}, r"detection 1 has image_id \[1\], which is not in the annotation file"),
        ({"image_id": None}, r"detection 1 has image_id None; each detection needs image_id, cat"),
        (
            {"category_id": "1"},
            r"detection 1 has category_id '1', a number written as text; write 1",
        ),
        ({"category_id": "cat"}, r"detection 1 has category_id 'cat', which is not in"),
        ({"category_id": None}, r"detection 1 has category_id None; each detection needs"),
        (
            {"category_id": 9},
            r"detection 1 has category_id 9, .* the results belong to another data set",
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
def test_wrong_records(change: dict[str, Any], message: str) -> None:
    """The file and the record are named."""
    with pytest.raises(UserError, match=r"results\.json: " + message):
        read([GOOD, {**GOOD, **change}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("7", "a results file is a list of detections, not 7"),
        ({"images": []}, r"a results file is a list .* this object has 'images'"),
        ({}, r"a results file is .* this object has nothing"),
        ({"results": [], "predictions": []}, r"a results file is .* has 'results', 'predictions'"),
        (
            {"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}]},
            "is an annotation file, .* score",
        ),
        ([GOOD, 7], "detection 1 is 7; it should be an object with image_id, cat"),
        ([[GOOD]], r"detection 0 is \[\{'image_id'.*; it should be an object"),
    ],
)
def test_what_is_no_results_file(content: object, message: str) -> None:
    with pytest.raises(UserError, match=r"results\.json: " + message):
        read(content)


def test_results_of_masks_or_key_points() -> None:
    record = {key: GOOD[key] for key in ("image_id", "category_id", "score")}
    for other in ("segmentation", "keypoints"):
        with pytest.raises(UserError, match=rf"detection 0 \(image 1\) has {other} but no bbox"):
            read([{**record, other: [1, 2, 3]}])


def test_classes_counted_from_0() -> None:
    """Only where every id of the results could be one."""
    known = Known(image_ids=[1], file_names=[], category_ids=[1, 2, 3])
    records = [{**GOOD, "category_id": category} for category in (2, 0, 1)]
    with pytest.raises(
        UserError, match=r"detection 1 has category_id 0, .*\(its categories are 1, "
    ):
        read(records, known)
    with pytest.raises(UserError, match=r"counted from 0; .* \(add 1 to each category_id\)$"):
        read(records, known)
    with pytest.raises(UserError, match=r"have others\); the results belong to another data set$"):
        read([*records, {**GOOD, "category_id": 90}], known)


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
