"""Boxes around turned boxes, polygons and masks."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from retinanet.data.coco.geometry import (
    box_of,
    decode_counts,
    extent_of,
    find_outline,
    iou,
    outline_extents,
    turn,
)


@pytest.mark.parametrize(
    ("degrees", "around"),
    [
        (0, [10, 20, 40, 20]),
        (90, [20, 10, 20, 40]),
        (180, [10, 20, 40, 20]),
        (-270, [20, 10, 20, 40]),
        (30, [7.679, 11.340, 44.641, 37.321]),  # 40 cos + 20 sin, 40 sin + 20 cos
        (-30, [7.679, 11.340, 44.641, 37.321]),
        (330, [7.679, 11.340, 44.641, 37.321]),
    ],
)
def test_the_box_around_a_turned_box(degrees: float, around: list[float]) -> None:
    """40 x 20 px about (30, 30), either way round."""
    assert turn([10, 20, 40, 20], degrees) == pytest.approx(around, abs=1e-3)


@given(angle=st.floats(-720, 720), width=st.floats(1, 99), height=st.floats(1, 99))
@settings(max_examples=40)
def test_all_corners_touch_the_box_around(angle: float, width: float, height: float) -> None:
    x, y, w, h = turn([-width / 2, -height / 2, width, height], angle)
    corners = [(sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turned = np.array([(a * cos - b * sin, a * sin + b * cos) for a, b in corners])
    assert [x, y, x + w, y + h] == pytest.approx([*turned.min(0), *turned.max(0)], abs=1e-6)


POLYGON = [10, 20, 50, 25, 30, 60]


@pytest.mark.parametrize(
    "segmentation",
    [
        [POLYGON],
        POLYGON,
        [[10, 20], [50, 25], [30, 60]],
        [[[10, 20], [50, 25], [30, 60]]],
        [[10, 20, 30, 25, 30, 60], [40, 30, 50, 30, 45, 35]],
        [[0, 0, 99, 99], POLYGON],  # two points enclose nothing
    ],
)
def test_polygons_in_their_forms(segmentation: Any) -> None:
    outline = find_outline(segmentation)
    assert outline is not None
    assert outline.extent == (10, 20, 50, 60)
    assert not outline.is_rectangle


@pytest.mark.parametrize(
    "segmentation",
    [
        *(
            None,
            [],
            [[]],
            {},
            "x",
            7,
            [[1, 2, 3, 4]],
            [[1, 2, 3, 4, 5, 6, 7]],
            [None],
            [[None] * 6],
        ),
        *(
            [["1", "2", "3", "4", "5", "6"]],
            [[1, 2, math.nan, 4, 5, 6]],
            [[1, 2, math.inf, 4, 5, 6]],
        ),
        *({"size": [2, 3]}, {"size": [2, 3], "counts": [6]}, {"size": [2, 3], "counts": [1, 2]}),
        *({"size": [2, 3], "counts": [-1, 7]}, {"size": [2], "counts": [0, 6]}),
        *({"size": [2, 3], "counts": "\0"}, {"size": [2, 3], "counts": "ZZZZZZZZZZZZZZZ"}),
        *({"size": [2**30, 2**30], "counts": [0, 2**60]}, [{"size": [2, 3], "counts": [0, 6]}]),
        [[10**400] * 6],
    ],
)
def test_what_is_no_outline(segmentation: Any) -> None:
    assert find_outline(segmentation) is None


def test_an_axis_parallel_rectangle_is_told_from_other_shapes() -> None:
    def is_rectangle(*polygons: list[float]) -> bool:
        outline = find_outline(list(polygons))
        assert outline is not None
        return outline.is_rectangle

    assert is_rectangle([1, 2, 31, 2, 31, 42, 1, 42])
    assert is_rectangle([1, 2, 31, 2, 31, 42, 1, 42, 1, 2])
    assert is_rectangle([1, 2.5, 31, 2, 31, 42, 1.5, 42])
    assert is_rectangle([0, 0, 0.1, 0, 0.1, 0.2, 0, 0.2])
    assert not is_rectangle([16, 2, 31, 22, 16, 42, 1, 22])
    assert not is_rectangle([0.05, 0, 0.1, 0.1, 0.05, 0.2, 0, 0.1])  # of an image of shares
    assert not is_rectangle([1, 2, 31, 2, 31, 42])
    assert not is_rectangle([1, 2, 31, 2, 31, 42, 1, 42], [1, 2, 9, 2, 9, 9, 1, 9])


@given(data=st.data(), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_masks_as_pycocotools_reads_them(data: st.DataObject, height: int, width: int) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.asfortranarray(np.array(bits, np.uint8).reshape(height, width))
    compressed = coco_mask.encode(mask)
    text = compressed["counts"].decode()
    runs = decode_counts(text)
    assert runs is not None and sum(runs) == height * width
    for counts in (text, runs):
        outline = find_outline({"size": [height, width], "counts": counts})
        if not any(bits):
            assert outline is None
            continue
        assert outline is not None and outline.mask_size == (height, width)
        assert box_of(outline.extent) == coco_mask.toBbox(compressed).tolist()


def test_extents_of_records_of_any_kind() -> None:
    records = [{"segmentation": [POLYGON]}, {"segmentation": []}, {}, None, 7]
    assert outline_extents(records) == [(10, 20, 50, 60), None, None, None, None]


def test_iou() -> None:
    a = extent_of([0, 0, 10, 10])
    assert iou(a, a) == 1
    assert iou(a, (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert iou(a, (20, 0, 30, 10)) == iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0
