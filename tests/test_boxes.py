"""Boxes: numbers that a reader can check by hand, and the round trip."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import (
    box_iou,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

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


# Of the first box with each: itself, half to the right, one to the right, its upper half, a corner
# of four times the area.
FIRST = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(5, 1)
OTHERS = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],
        [5.0, 0.0, 15.0, 10.0],
        [10.0, 0.0, 20.0, 10.0],
        [0.0, 0.0, 10.0, 5.0],
        [0.0, 0.0, 20.0, 20.0],
    ]
)


def test_generalized_iou() -> None:
    """IoU - (hull - union) / hull: the hulls are the unions."""
    wanted = [1, 1 / 3, 0, 1 / 2, 1 / 4]
    assert box_ops.generalized_iou(FIRST, OTHERS).tolist() == pytest.approx(wanted, abs=1e-6)
    apart = torch.tensor([[20.0, 20.0, 30.0, 30.0]])  # hull 900, of which 200 are covered
    assert box_ops.generalized_iou(FIRST[:1], apart).item() == pytest.approx(-7 / 9)


def test_distance_iou() -> None:
    """IoU - d² / c²: centres 0, 5, 10, 2.5 and 7.07 px apart; hulls 10x10, 15x10, 20x10, .."""
    wanted = [1, 1 / 3 - 25 / 325, -100 / 500, 1 / 2 - 6.25 / 200, 1 / 4 - 50 / 800]
    assert box_ops.distance_iou(FIRST, OTHERS).tolist() == pytest.approx(wanted, abs=1e-6)


def test_complete_iou() -> None:
    """The distance IoU, but for the one of another shape: v is (4 / π²) (atan 2 - atan 1)²."""
    v = 0.0419571
    wanted = box_ops.distance_iou(FIRST, OTHERS)
    wanted[3] -= v * v / (1 - 0.5 + v)
    assert box_ops.complete_iou(FIRST, OTHERS).tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


OVERLAPS = {
    box_ops.generalized_iou: generalized_box_iou_loss,
    box_ops.distance_iou: distance_box_iou_loss,
    box_ops.complete_iou: complete_box_iou_loss,
}


@pytest.mark.parametrize("overlap", OVERLAPS, ids=lambda f: f.__name__)
def test_empty_boxes_are_finite(overlap: Callable[[Tensor, Tensor], Tensor]) -> None:
    """A point on itself, in a box, and away from one; a line; and their gradients."""
    empty = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [20, 20, 20, 20], [5, 2, 5, 8]])
    boxes = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    empty.requires_grad_()
    values = overlap(empty, boxes)
    # At most the IoU, which is 0; of a point in the middle nothing is off but the shape.
    assert bool(values.isfinite().all()) and bool((values <= 1e-6).all())
    assert values.min().item() > -2
    values.sum().backward()
    assert empty.grad is not None
    assert bool(empty.grad.isfinite().all())


@pytest.mark.parametrize("overlap", OVERLAPS, ids=lambda f: f.__name__)
@settings(deadline=None, max_examples=100)
@given(pairs=st.lists(st.tuples(box, box), min_size=1, max_size=4))
def test_overlaps_equal_torchvisions(
    overlap: Callable[[Tensor, Tensor], Tensor], pairs: list[tuple[list[float], list[float]]]
) -> None:
    """Values and gradients, in float64."""
    first, second = (torch.tensor(boxes).double() for boxes in zip(*pairs, strict=True))
    ours, theirs = first.clone().requires_grad_(), first.clone().requires_grad_()
    values = overlap(ours, second)
    wanted = 1 - OVERLAPS[overlap](theirs, second)
    torch.testing.assert_close(values, wanted, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(values.sum(), ours)
    (peers,) = torch.autograd.grad(wanted.sum(), theirs)
    torch.testing.assert_close(gradient, peers, rtol=1e-9, atol=1e-12)


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


def test_no_boxes() -> None:
    assert box_ops.area(EMPTY).shape == (0,)
    assert box_ops.iou(EMPTY, ANCHOR).shape == (0, 1)
    assert box_ops.iou(ANCHOR, EMPTY).shape == (1, 0)
    assert box_ops.encode(EMPTY, EMPTY).shape == (0, 4)
    assert [overlap(EMPTY, EMPTY).shape for overlap in OVERLAPS] == [(0,)] * 3
    assert box_ops.decode(EMPTY, EMPTY).shape == (0, 4)
    assert box_ops.clip(EMPTY, 10, 10).shape == (0, 4)


@settings(deadline=None, max_examples=100)
@given(box, box)
def test_decode_undoes_encode(truth: list[float], anchor: list[float]) -> None:
    boxes = torch.tensor([truth], dtype=torch.float64)
    anchors = torch.tensor([anchor], dtype=torch.float64)
    deltas = box_ops.encode(boxes, anchors)
    if float(deltas[:, 2:].max()) <= box_ops.MAX_LOG_SIZE:
        assert torch.allclose(box_ops.decode(deltas, anchors), boxes, rtol=0, atol=1e-6)
    else:  # clamped: 62.5 times the anchor, and no more
        decoded = box_ops.decode(deltas, anchors)
        sizes, limit = (part[:, 2:] - part[:, :2] for part in (decoded, 62.5 * anchors))
        assert bool((sizes <= limit * (1 + 1e-9)).all())


@settings(deadline=None, max_examples=100)
@given(st.lists(box, min_size=1, max_size=4), st.lists(box, min_size=1, max_size=4))
def test_iou_equals_torchvision_and_is_symmetric(a: list, b: list) -> None:
    first, second = torch.tensor(a), torch.tensor(b)
    ours = box_ops.iou(first, second)
    assert torch.allclose(ours, box_iou(first, second), rtol=1e-5, atol=1e-7)
    assert torch.equal(ours, box_ops.iou(second, first).T)
    assert bool(((ours >= 0) & (ours <= 1 + 1e-6)).all())
