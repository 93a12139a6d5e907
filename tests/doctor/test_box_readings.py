"""What the numbers of boxes show about their format."""

import re

import numpy as np
import pytest

from retinanet.doctor.box_readings import BoxReading, Verdict, describe_by_outlines, read_boxes

OUTLINES = [(10, 20, 60, 50), (100, 10, 140, 90), (30, 40, 90, 60)]


def describe(boxes: list[list[float]]) -> str:
    sizes = np.array([(100, 200)] * 3)
    return describe_by_outlines(np.array(boxes, float), sizes, np.array(OUTLINES, float))


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([list(o) for o in OUTLINES], r"they fit if read as corners \[x1, y1, x2, y2\]"),
        (
            [[(a + c) / 2, (b + d) / 2, c - a, d - b] for a, b, c, d in OUTLINES],
            r"read as \[centre x, centre y, width, height\]",
        ),
        (
            [[a / 200, b / 100, (c - a) / 200, (d - b) / 100] for a, b, c, d in OUTLINES],
            r"read as \[x, y, width, height\] in shares of the image's sides",
        ),
        ([[b, a, d - b, c - a] for a, b, c, d in OUTLINES], r"read as \[y, x, height, width\]"),
        (
            [[a / 2, b / 2, (c - a) / 2, (d - b) / 2] for a, b, c, d in OUTLINES],
            "they fit if multiplied by 2: boxes or segmentations belong to a scaled copy",
        ),
        (
            [[a / 4, b / 2, (c - a) / 4, (d - b) / 2] for a, b, c, d in OUTLINES],
            "they fit if multiplied by 4 horizontally and 2 vertically: boxes",
        ),
    ],
)
def test_how_boxes_would_have_to_be_read(boxes: list[list[float]], said: str) -> None:
    assert re.search(said, describe(boxes))


def test_no_reading_is_named_that_does_not_fit() -> None:
    assert describe([[150, 70, 10, 10]] * 3) == ""


def read(boxes: list[list[float]], areas: list[float] | None = None) -> Verdict:
    """Read boxes of images of 100x60 px without outlines."""
    count = len(boxes)
    areas = areas or [box[2] * box[3] for box in boxes]
    return read_boxes(
        np.array(boxes, float),
        np.array([(60, 100)] * count),
        np.array(areas, float),
        np.full((count, 4), np.nan),
    )


FULL = [[1, 1, 100, 60]] * 6


def test_readings_that_cut_to_the_same_boxes_are_no_doubt() -> None:
    """The whole image, counted from 1: corners, or sides that are 1 px too long."""
    assert read(FULL) == Verdict(readings=(BoxReading("xywh"),))


def test_areas_that_are_those_of_corners_decide_against_centres() -> None:
    """One large box in the middle of each image fits as both."""
    boxes = [[40, 25, 70, 45]] * 20
    assert not read(boxes).is_clear
    assert read(boxes, [30 * 20] * 20) == Verdict(readings=(BoxReading("xyxy"),))


def test_areas_that_are_too_large_refute_a_reading() -> None:
    """Corners of 30x20 whose areas are 900: the boxes may be scaled."""
    boxes = [[50 + i % 3, 30, 80 + i % 3, 50] for i in range(20)]
    assert read(boxes, [30 * 20] * 20).is_clear
    assert not read(boxes, [900] * 20).is_clear


def test_areas_of_one_ratio_to_all_boxes_show_a_scaled_copy() -> None:
    boxes = [[10.0 + 3 * i, 10, 8 + i, 9] for i in range(12)]
    assert read(boxes).is_clear
    verdict = read(boxes, [4 * w * h for _, _, w, h in boxes])
    assert verdict.text == "every area is 4 times width x height, as if the boxes were scaled"


def test_shares_among_px_are_not_passed_over() -> None:
    boxes = [[10.0 + 3 * i, 10, 8 + i, 9] for i in range(12)] + [[0.2, 0.3, 0.4, 0.5]]
    assert read(boxes).text.startswith("1 of 13 boxes have no number above 1.5")
