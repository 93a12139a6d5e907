"""Boxes against their own outlines."""

import pytest

from retinanet.data.coco.geometry import Extent
from retinanet.data.coco.outlines import is_far

SIZE = (100, 200)


@pytest.mark.parametrize(
    ("box", "outline", "far"),
    [
        ([10, 20, 50, 30], (10, 20, 60, 50), False),
        ([10, 20, 25, 30], (10, 20, 60, 50), False),  # half of it is hidden
        ([10, 20, 20, 30], (10, 20, 60, 50), True),
        ([100, 20, 50, 30], (10, 20, 60, 50), True),
        ([10, 20, 1, 1], (10, 20, 13, 22), False),  # 2 px is rounding
        ([10, 20, 1, 1], (10, 20, 14, 22), True),
        ([150, 20, 50, 30], (150, 20, 300, 50), False),  # the box is cut, its outline not
        ([150, 20, 150, 30], (150, 20, 200, 50), False),
    ],
)
def test_boxes_far_from_their_outline(box: list[float], outline: Extent, far: bool) -> None:
    assert is_far(box, outline, SIZE) == far


def test_without_a_size_nothing_is_cut() -> None:
    assert is_far([150, 20, 50, 30], (150, 20, 300, 50), None)
