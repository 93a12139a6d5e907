"""How boxes would have to be read to cover their outlines."""

import re

import numpy as np
import pytest

from retinanet.doctor.box_readings import describe_by_outlines

OUTLINES = [(10, 20, 60, 50), (100, 10, 140, 90), (30, 40, 90, 60)]


def describe(boxes: list[list[float]]) -> str:
    sizes = np.array([(100, 200)] * 3)
    return describe_by_outlines(np.array(boxes, float), sizes, np.array(OUTLINES, float))


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([list(o) for o in OUTLINES], r"they fit if they are read as corners \[x1, y1, x2, y2\]"),
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
            "they fit if they are multiplied by 2: one of the two is of a scaled copy",
        ),
        (
            [[a / 4, b / 2, (c - a) / 4, (d - b) / 2] for a, b, c, d in OUTLINES],
            "they fit if they are multiplied by 4 across and 2 down: one",
        ),
    ],
)
def test_how_boxes_would_have_to_be_read(boxes: list[list[float]], said: str) -> None:
    assert re.search(said, describe(boxes))


def test_no_reading_is_named_that_does_not_fit() -> None:
    assert describe([[150, 70, 10, 10]] * 3) == ""
