"""The comparison of boxes before and after a repair."""

from collections import Counter
from typing import Any

import pytest

from retinanet.doctor.repair.second_look import BoxesBefore


def values(*boxes: Any) -> dict[str, Any]:
    annotations = [{"id": i, "bbox": box} for i, box in enumerate(boxes)]
    return {"images": [], "categories": [], "annotations": annotations}


def test_what_happened_to_the_boxes() -> None:
    """One stays, one is cut in half, one is corrected, one is removed."""
    content = values([0, 0, 4, 4], [2, 0, 4, 4], [9, 9, -3, -3], [5, 5, 0, 0])
    before = BoxesBefore(content)
    content["annotations"][1]["bbox"] = [2, 0, 2, 4]
    content["annotations"][2]["bbox"] = [6, 6, 3, 3]
    del content["annotations"][3]
    found = before.compare(content, Counter({"negative-size": 1}))
    assert (found.same, found.cut, found.moved, found.least_kept) == (1, 1, 1, 0.5)
    assert str(found) == (
        "boxes: 1 unchanged, 1 cut to their image (each keeps 50% or more), 1 converted"
    )


def test_a_converted_box_in_the_old_one_is_not_cut() -> None:
    content = values([10, 10, 30, 30])
    before = BoxesBefore(content)
    content["annotations"][0]["bbox"] = [10, 10, 20, 20]
    found = before.compare(content, Counter({"corner-boxes": 1}))
    assert (found.cut, found.moved) == (0, 1)


def test_an_unexplained_change_is_our_bug() -> None:
    content = values([0, 0, 4, 4], [2, 0, 4, 4])
    before = BoxesBefore(content)
    content["annotations"][1]["bbox"] = [7, 0, 4, 4]
    with pytest.raises(AssertionError, match="1 boxes were moved, 0 should be"):
        before.compare(content, Counter({"overshoot": 5}))
