"""Boxes: numbers that a reader can check by hand, and the round trip."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retinanet import boxes as box_ops

EMPTY = torch.zeros(0, 4)
ANCHOR = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # 20 wide, 40 high, centre (20, 40)

coordinate = st.floats(0, 1000, width=32)
side = st.floats(1, 800, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(
    lambda xywh: [xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]]
)


def test_area_has_no_plus_one() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.5, 2.0, 4.0, 4.0], [3.0, 3.0, 3.0, 9.0]])
    assert box_ops.area(boxes).tolist() == [100.0, 5.0, 0.0]


def test_intersection_and_iou() -> None:
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    b = torch.tensor([[5.0, 0.0, 15.0, 10.0], [0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    assert box_ops.intersection(a, b).tolist() == [[50.0, 100.0, 0.0], [0.0, 0.0, 0.0]]
    wanted = [[pytest.approx(50 / 150), 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert box_ops.iou(a, b).tolist() == wanted


def test_iou_of_boxes_without_area_is_zero_not_nan() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    square = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert box_ops.iou(point, point).tolist() == [[0.0]]
    assert box_ops.iou(point, square).tolist() == [[0.0]]


def test_encode() -> None:
    """Centre 5 right and 10 up of an anchor 20x40, half as wide and twice as high."""
    boxes = torch.tensor([[20.0, -10.0, 30.0, 70.0]])  # 10 wide, 80 high, centre (25, 30)
    wanted = [0.25, -0.25, math.log(0.5), math.log(2)]
    assert box_ops.encode(boxes, ANCHOR)[0].tolist() == pytest.approx(wanted)
    assert box_ops.encode(ANCHOR, ANCHOR).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_decode() -> None:
    deltas = torch.tensor([[0.25, -0.25, math.log(0.5), math.log(2)]])
    assert box_ops.decode(deltas, ANCHOR)[0].tolist() == pytest.approx([20, -10, 30, 70], abs=1e-5)
    assert torch.equal(box_ops.decode(torch.zeros(1, 4), ANCHOR), ANCHOR)


def test_decode_clamps_the_log_size() -> None:
    """At most 1000/16 = 62.5 times the anchor: 1250 wide, 2500 high, around (20, 40)."""
    boxes = box_ops.decode(torch.tensor([[0.0, 0.0, 50.0, 1e30]]), ANCHOR)
    assert boxes[0].tolist() == pytest.approx([20 - 625, 40 - 1250, 20 + 625, 40 + 1250], rel=1e-5)
    small = box_ops.decode(torch.tensor([[0.0, 0.0, -50.0, -1e30]]), ANCHOR)
    assert small[0].tolist() == [20.0, 40.0, 20.0, 40.0]


def test_clip() -> None:
    boxes = torch.tensor([[-5.0, -6.0, 200.0, 300.0], [1.0, 2.0, 3.0, 4.0], [150, 150, 160, 160]])
    wanted = [[0.0, 0.0, 100.0, 50.0], [1.0, 2.0, 3.0, 4.0], [100.0, 50.0, 100.0, 50.0]]
    assert box_ops.clip(boxes, 50, 100).tolist() == wanted
    assert box_ops.clip(boxes, torch.tensor(50), torch.tensor(100)).tolist() == wanted


def test_formats() -> None:
    assert box_ops.xyxy_to_xywh(torch.tensor([[1.0, 2.0, 11.0, 22.0]])).tolist() == [[1, 2, 10, 20]]


def test_no_boxes() -> None:
    assert box_ops.area(EMPTY).shape == (0,)
    assert box_ops.iou(EMPTY, ANCHOR).shape == (0, 1)
    assert box_ops.iou(ANCHOR, EMPTY).shape == (1, 0)
    assert box_ops.encode(EMPTY, EMPTY).shape == (0, 4)
    assert box_ops.decode(EMPTY, EMPTY).shape == (0, 4)
    assert box_ops.clip(EMPTY, 10, 10).shape == (0, 4)
    assert box_ops.xyxy_to_xywh(EMPTY).shape == (0, 4)


@settings(deadline=None, max_examples=100)
@given(box, box)
def test_decode_undoes_encode(truth: list[float], anchor: list[float]) -> None:
    boxes = torch.tensor([truth], dtype=torch.float64)
    anchors = torch.tensor([anchor], dtype=torch.float64)
    deltas = box_ops.encode(boxes, anchors)
    if float(deltas[:, 2:].max()) <= box_ops.MAX_LOG_SIZE:
        assert torch.allclose(box_ops.decode(deltas, anchors), boxes, rtol=0, atol=1e-6)
    else:  # clamped: 62.5 times the anchor, and no more
        sizes = box_ops.xyxy_to_xywh(box_ops.decode(deltas, anchors))[:, 2:]
        limit = 62.5 * box_ops.xyxy_to_xywh(anchors)[:, 2:]
        assert bool((sizes <= limit * (1 + 1e-9)).all())


@settings(deadline=None, max_examples=100)
@given(st.lists(box, min_size=1, max_size=4), st.lists(box, min_size=1, max_size=4))
def test_iou_equals_torchvision_and_is_symmetric(a: list, b: list) -> None:
    first, second = torch.tensor(a), torch.tensor(b)
    ours = box_ops.iou(first, second)
    assert torch.allclose(ours, box_iou(first, second), rtol=1e-5, atol=1e-7)
    assert torch.equal(ours, box_ops.iou(second, first).T)
    assert bool(((ours >= 0) & (ours <= 1 + 1e-6)).all())
