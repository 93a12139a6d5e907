"""Box losses: numbers by hand, equality with torchvision."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from retinanet import boxes as box_ops
from retinanet.losses.box import box_loss

ANCHOR = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
KINDS = ["smooth_l1", "l1", "giou", "diou", "ciou"]
PEERS = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


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


def test_diou_by_hand() -> None:
    """arXiv 1911.08287, equation 7: 1 - IoU + d² / c², of centres and of the hull's diagonal.

    Half an anchor to the right: IoU 1/3, d² 25, c² 15² + 20² = 625. Two to the right: IoU 0, d²
    400, c² 30² + 20² = 1300.
    """
    assert loss_of([0.0] * 4, kind="diou") == pytest.approx(0, abs=1e-6)
    half = torch.tensor([[5.0, 0.0, 15.0, 20.0]])
    assert loss_of([0.0] * 4, half, kind="diou") == pytest.approx(2 / 3 + 0.04)
    away = torch.tensor([[20.0, 0.0, 30.0, 20.0]])
    assert loss_of([0.0] * 4, away, kind="diou") == pytest.approx(1 + 400 / 1300)
    assert loss_of([2.0, 0.0, 0.0, 0.0], away, kind="diou") == pytest.approx(0, abs=1e-6)


def test_ciou_by_hand() -> None:
    """Equations 8-11: diou + v² / (1 - IoU + v), where v is (4 / π²) (atan of w / h)² apart.

    A box of the same shape: diou. A square of 10 px in the anchor's upper half: IoU 1/2, d² 25, c²
    500; atan(1) - atan(1/2) = 0.3217506, so v = 0.0419571.
    """
    half = torch.tensor([[5.0, 0.0, 15.0, 20.0]])
    assert loss_of([0.0] * 4, half, kind="ciou") == pytest.approx(2 / 3 + 0.04)
    square = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    v = 0.0419571
    wanted = 0.5 + 0.05 + v**2 / (0.5 + v)
    assert loss_of([0.0] * 4, square, kind="ciou") == pytest.approx(wanted, rel=1e-5)
    # The deltas give the anchor the square's place and height.
    exact = [0.0, -0.25, 0.0, -math.log(2)]
    assert loss_of(exact, square, kind="ciou") == pytest.approx(0, abs=1e-6)


def random_case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corner = 100 * torch.rand(50, 4, generator=generator)
    size = 5 + 50 * torch.rand(50, 4, generator=generator)
    anchors = torch.cat([corner[:, :2], corner[:, :2] + size[:, :2]], dim=1)
    boxes = torch.cat([corner[:, 2:], corner[:, 2:] + size[:, 2:]], dim=1)
    return 0.5 * torch.randn(50, 4, generator=generator), anchors, boxes


@pytest.mark.parametrize("kind", PEERS)
def test_equals_torchvision(kind: str) -> None:
    """Losses, and gradients of the deltas."""
    deltas, anchors, boxes = random_case()
    losses, gradients = [], []
    for ours in (True, False):
        leaf = deltas.clone().requires_grad_()
        if ours:
            loss = box_loss(leaf, anchors, boxes, kind=kind, beta=0.1)
        else:
            loss = PEERS[kind](box_ops.decode(leaf, anchors), boxes)
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    overlap = box_ops.iou(box_ops.decode(deltas, anchors), boxes).diagonal()
    assert bool((overlap > 0).any()) and bool((overlap == 0).any())
    assert bool((losses[0] >= 1 - overlap - 1e-6).all())  # GIoU, DIoU and CIoU <= IoU


def test_giou_equals_torchvision_bit_for_bit() -> None:
    deltas, anchors, boxes = random_case()
    peer = generalized_box_iou_loss(box_ops.decode(deltas, anchors), boxes)
    assert torch.equal(box_loss(deltas, anchors, boxes, kind="giou", beta=0.1), peer)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ciou"])
def test_gradients_are_those_of_the_value(kind: str) -> None:
    deltas, anchors, boxes = (values[:8].double() for values in random_case())
    deltas.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: box_loss(x, anchors, boxes, kind=kind, beta=0.1), (deltas,)
    )


def test_the_gradient_of_ciou_takes_alpha_for_a_constant() -> None:
    """arXiv 1911.08287, equation 11: finite differences of the loss with a constant weight."""
    deltas, anchors, boxes = (values[:8].double() for values in random_case())
    decoded = box_ops.decode(deltas, anchors)
    angles = [torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) for b in (decoded, boxes)]
    v = 4 / math.pi**2 * (angles[1] - angles[0]) ** 2
    alpha = v / (1 - box_ops.iou(decoded, boxes).diagonal() + v)

    def held(deltas: Tensor) -> Tensor:
        decoded = box_ops.decode(deltas, anchors)
        angle = torch.atan((decoded[:, 2] - decoded[:, 0]) / (decoded[:, 3] - decoded[:, 1]))
        v = 4 / math.pi**2 * (angles[1] - angle) ** 2
        return 1 - box_ops.distance_iou(decoded, boxes) + alpha * v

    leaf = deltas.clone().requires_grad_()
    box_loss(leaf, anchors, boxes, kind="ciou", beta=0.1).sum().backward()
    step = 1e-6
    for i in range(4):
        shift = step * torch.eye(4, dtype=torch.float64)[i]
        differences = (held(deltas + shift) - held(deltas - shift)) / (2 * step)
        torch.testing.assert_close(leaf.grad[:, i], differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_precision(kind: str) -> None:
    """At least float32, and float64 stays."""
    deltas, anchors, boxes = random_case()
    half = box_loss(deltas.bfloat16(), anchors, boxes, kind=kind, beta=0.1)
    assert half.dtype == torch.float32
    rounded = deltas.bfloat16().float()  # only the input is coarse, not the arithmetic
    assert torch.equal(half, box_loss(rounded, anchors, boxes, kind=kind, beta=0.1))
    exact = [values.double() for values in (deltas, anchors, boxes)]
    assert box_loss(*exact, kind=kind, beta=0.1).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_no_positives(kind: str) -> None:
    deltas = torch.zeros(0, 4, requires_grad=True)
    loss = box_loss(deltas, torch.zeros(0, 4), torch.zeros(0, 4), kind=kind, beta=0.1)
    assert loss.shape == (0,)
    loss.sum().backward()
    assert deltas.grad.shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [-1e30, -200.0, -50.0, -20.0, 20.0, 1e30])
@pytest.mark.parametrize("left", [-5.0, 0.0, 1000.0])
def test_deltas_of_empty_and_of_huge_boxes(left: float, size: float, kind: str) -> None:
    """The losses of boxes without width and height, and of the largest ones, have gradients."""
    anchors = torch.tensor([[left, left, left + 10, left + 10]])
    boxes = torch.tensor([[left, left, left + 20, left + 10]])
    deltas = torch.tensor([[0.0, 0.0, size, size]], requires_grad=True)
    loss = box_loss(deltas, anchors, boxes, kind=kind, beta=0.1)
    assert bool(loss.isfinite().all())
    loss.sum().backward()
    assert bool(deltas.grad.isfinite().all())
    if kind in PEERS and size < -100:  # empty: nothing is covered
        assert loss.item() >= 1
