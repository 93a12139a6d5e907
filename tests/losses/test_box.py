"""Box losses: numbers by hand, equality with torchvision."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from retinanet import boxes as box_ops
from retinanet.losses.box import box_loss

ANCHOR = torch.tensor([[0.0, 0.0, 10.0, 20.0]])


def loss_of(deltas: list[float], boxes: Tensor = ANCHOR, *, kind: str, beta: float = 0.1) -> float:
    loss = box_loss(torch.tensor([deltas]), ANCHOR, boxes, kind=kind, beta=beta)
    assert loss.shape == (1,)
    return loss.item()


def test_smooth_l1_is_square_under_beta_and_linear_above() -> None:
    """β = 0.1: 0.5 · 0.05² / 0.1 = 0.0125 for 0.05, and 0.3 - 0.05 = 0.25 for 0.3."""
    assert loss_of([0.05, 0.0, 0.0, 0.0], kind="smooth_l1") == pytest.approx(0.0125)
    assert loss_of([-0.3, 0.0, 0.0, 0.0], kind="smooth_l1") == pytest.approx(0.25)
    assert loss_of([0.1, 0.0, 0.0, 0.0], kind="smooth_l1") == pytest.approx(0.05)
    assert loss_of([0.05, -0.3, 0.3, 0.0], kind="smooth_l1") == pytest.approx(0.5125)
    assert loss_of([0.3, 0.0, 0.0, 0.0], kind="smooth_l1", beta=1.0) == pytest.approx(0.045)


def test_l1_is_the_sum_over_the_four() -> None:
    assert loss_of([0.05, -0.3, 0.2, 1.0], kind="l1") == pytest.approx(1.55)


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_deltas_are_compared_with_the_encoded_box(kind: str) -> None:
    """The box is 5 right of the anchor and twice as wide: deltas (1, 0, ln 2, 0)."""
    box = torch.tensor([[5.0, 0.0, 25.0, 20.0]])
    assert loss_of([1.0, 0.0, math.log(2), 0.0], box, kind=kind) == pytest.approx(0, abs=1e-6)
    assert loss_of([0.0, 0.0, 0.0, 0.0], box, kind="l1") == pytest.approx(1 + math.log(2))


def test_giou_by_hand() -> None:
    """arXiv 1902.09630: 1 - IoU + (hull - union) / hull.

    The box is half an anchor to the right: IoU 100 / 300, the hull is the union: 2/3. Two anchors
    to the right: IoU 0, the hull 30x20 of which 400 are covered: 1 + 1/3.
    """
    assert loss_of([0.0] * 4, kind="giou") == pytest.approx(0, abs=1e-6)
    half = torch.tensor([[5.0, 0.0, 15.0, 20.0]])
    assert loss_of([0.0] * 4, half, kind="giou") == pytest.approx(2 / 3)
    away = torch.tensor([[20.0, 0.0, 30.0, 20.0]])
    assert loss_of([0.0] * 4, away, kind="giou") == pytest.approx(4 / 3)
    # The deltas move the anchor there: no loss.
    assert loss_of([2.0, 0.0, 0.0, 0.0], away, kind="giou") == pytest.approx(0, abs=1e-6)


def random_case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corner = 100 * torch.rand(50, 4, generator=generator)
    size = 5 + 50 * torch.rand(50, 4, generator=generator)
    anchors = torch.cat([corner[:, :2], corner[:, :2] + size[:, :2]], dim=1)
    boxes = torch.cat([corner[:, 2:], corner[:, 2:] + size[:, 2:]], dim=1)
    return 0.5 * torch.randn(50, 4, generator=generator), anchors, boxes


def test_giou_equals_torchvision() -> None:
    deltas, anchors, boxes = random_case()
    peer = generalized_box_iou_loss(box_ops.decode(deltas, anchors), boxes)
    ours = box_loss(deltas, anchors, boxes, kind="giou", beta=0.1)
    assert torch.equal(ours, peer)
    overlap = box_ops.iou(box_ops.decode(deltas, anchors), boxes).diagonal()
    assert bool((ours >= 1 - overlap - 1e-6).all())  # GIoU <= IoU


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
def test_gradients_are_those_of_the_value(kind: str) -> None:
    deltas, anchors, boxes = (values[:8].double() for values in random_case())
    deltas.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: box_loss(x, anchors, boxes, kind=kind, beta=0.1), (deltas,)
    )


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
def test_precision(kind: str) -> None:
    """users.md ST5: at least float32, and float64 stays."""
    deltas, anchors, boxes = random_case()
    half = box_loss(deltas.bfloat16(), anchors, boxes, kind=kind, beta=0.1)
    assert half.dtype == torch.float32
    rounded = deltas.bfloat16().float()  # only the input is coarse, not the arithmetic
    assert torch.equal(half, box_loss(rounded, anchors, boxes, kind=kind, beta=0.1))
    exact = [values.double() for values in (deltas, anchors, boxes)]
    assert box_loss(*exact, kind=kind, beta=0.1).dtype == torch.float64


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
def test_no_positives(kind: str) -> None:
    """users.md ST4."""
    deltas = torch.zeros(0, 4, requires_grad=True)
    loss = box_loss(deltas, torch.zeros(0, 4), torch.zeros(0, 4), kind=kind, beta=0.1)
    assert loss.shape == (0,)
    loss.sum().backward()
    assert deltas.grad.shape == (0, 4)
