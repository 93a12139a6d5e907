"""The size that boxes refer to, if the record and the file of an image differ."""

import numpy as np

from retinanet.doctor.repair.size_evidence import MismatchedBoxes, find_frame

Size = tuple[int, int]
SPREAD = [
    *([0, 0, 20, 10], [5, 60, 30, 20], [60, 5, 12, 40], [80, 70, 15, 8], [40, 40, 9, 9]),
    *([2, 2, 30, 4], [70, 75, 25, 6], [1, 30, 4, 20], [88, 3, 6, 7], [30, 1, 8, 5]),
]
"""In an image of 100x90 px, in all of its corners; none ends at its right or lower border."""


def frame(boxes: list[list[float]], record: Size, file: Size) -> str | None:
    """Find the frame of boxes in images of these heights and widths."""
    count = len(boxes)
    return find_frame(
        MismatchedBoxes(
            boxes=np.array(boxes, float),
            record_sizes=np.array([record] * count),
            file_sizes=np.array([file] * count),
        )
    )


def test_boxes_that_do_not_fit_the_record_belong_to_the_file() -> None:
    assert frame(SPREAD, record=(45, 50), file=(90, 100)) == "file"


def test_boxes_that_do_not_fit_the_file_belong_to_the_record() -> None:
    assert frame(SPREAD, record=(90, 100), file=(45, 50)) == "record"


def test_boxes_that_fit_both_decide_nothing() -> None:
    assert frame(SPREAD, record=(90, 100), file=(180, 200)) is None


def test_boxes_that_end_at_the_border_of_the_record_decide() -> None:
    """Five of ten do; by chance it would be a fifth of a box."""
    ending = [
        [100 - w, y, w, h] if i in (2, 3, 4, 6, 8) else [x, y, w, h]
        for i, (x, y, w, h) in enumerate(SPREAD)
    ]
    assert frame(ending, record=(90, 100), file=(180, 200)) == "record"


def test_a_file_of_another_shape_may_be_padded() -> None:
    ending = [[100 - w, y, w, h] for _, y, w, h in SPREAD]
    assert frame(ending, record=(90, 100), file=(200, 200)) is None


def test_boxes_that_stay_far_from_the_border_of_the_file_may_be_of_a_third_size() -> None:
    """They leave the record, but reach no further than half of the file."""
    assert frame(SPREAD, record=(45, 50), file=(180, 200)) is None


def test_few_boxes_decide_nothing() -> None:
    """Two that leave the record are mistakes."""
    assert frame(SPREAD[:2], record=(45, 50), file=(90, 100)) is None


def test_images_that_differ_in_many_ways_decide_nothing() -> None:
    boxes = np.array(SPREAD, float)
    sizes = np.array([(90, 100)] * 10)
    record = np.array([(45, 50), (30, 40)] * 5)
    found = find_frame(MismatchedBoxes(boxes=boxes, record_sizes=record, file_sizes=sizes))
    assert found is None
