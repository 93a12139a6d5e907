"""Focal loss: numbers by hand, equality with torchvision, precision, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from retinanet.losses.focal import at_least_float32, focal_loss

POSITIVE, NEGATIVE = torch.tensor([0]), torch.tensor([-1])


def loss_of(
    probability: float, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> float:
    logit = math.log(probability / (1 - probability))
    logits = torch.tensor([[logit]], dtype=torch.float64)
    return focal_loss(logits, labels, alpha=alpha, gamma=gamma).item()


def test_numbers_by_hand() -> None:
    """Equation 5: 0.25 · (1 - p)² · -ln p of a positive, 0.75 · p² · -ln(1 - p) of a negative."""
    assert loss_of(0.5, POSITIVE) == pytest.approx(0.25 * 0.25 * math.log(2))  # 0.04332
    assert loss_of(0.9, POSITIVE) == pytest.approx(0.25 * 0.01 * 0.1053605)
    assert loss_of(0.1, POSITIVE) == pytest.approx(0.25 * 0.81 * 2.3025851)
    assert loss_of(0.5, NEGATIVE) == pytest.approx(0.75 * 0.25 * math.log(2))
    assert loss_of(0.1, NEGATIVE) == pytest.approx(0.75 * 0.01 * 0.1053605)
    assert loss_of(0.9, NEGATIVE) == pytest.approx(0.75 * 0.81 * 2.3025851)


def test_the_well_classified_count_100_and_1000_times_less() -> None:
    """Section 3.2: with γ = 2, 100x less than cross entropy at p_t = 0.9, 1000x at 0.968."""
    for p_t, factor in ((0.9, 100), (0.968, 977)):
        ratio = loss_of(p_t, POSITIVE, gamma=0.0) / loss_of(p_t, POSITIVE, gamma=2.0)
        assert ratio == pytest.approx(factor, rel=1e-3)


def test_sum_over_the_classes_of_each_anchor() -> None:
    logits = torch.zeros(3, 4, dtype=torch.float64)
    labels = torch.tensor([2, -1, 0])
    one = 0.25 * math.log(2)  # (1 - p_t)² · ln 2 at p_t = 0.5
    wanted = [one * (0.25 + 3 * 0.75), one * 4 * 0.75, one * (0.25 + 3 * 0.75)]
    assert focal_loss(logits, labels, alpha=0.25, gamma=2.0).tolist() == pytest.approx(wanted)


def test_only_the_anchors_class_is_a_positive() -> None:
    logits = torch.tensor([[10.0, -10.0, -10.0]])
    right = focal_loss(logits, torch.tensor([0]), alpha=0.25, gamma=2.0).item()
    wrong = focal_loss(logits, torch.tensor([1]), alpha=0.25, gamma=2.0).item()
    assert right < 1e-9
    assert wrong == pytest.approx(0.25 * 10 + 0.75 * 10, rel=1e-3)


def test_background_has_any_negative_label() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).expand(2, 3)
    losses = focal_loss(logits[:1].repeat(2, 1), torch.tensor([-1, -2]), alpha=0.25, gamma=2.0)
    assert losses[0].item() == losses[1].item() > 0


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 1.5), (0.1, 5.0)])
def test_equals_torchvision(alpha: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(200, 7, generator=generator)
    labels = torch.randint(-1, 7, (200,), generator=generator)
    one_hot = torch.zeros(200, 7)
    one_hot[labels >= 0, labels[labels >= 0]] = 1
    mine = logits.clone().requires_grad_()
    peers = logits.clone().requires_grad_()
    ours = focal_loss(mine, labels, alpha=alpha, gamma=gamma)
    theirs = sigmoid_focal_loss(peers, one_hot, alpha=alpha, gamma=gamma).sum(dim=1)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    assert torch.allclose(mine.grad, peers.grad, rtol=1e-4, atol=1e-6)


def test_gamma_zero_is_weighted_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 1, (50,), generator=generator)
    targets = (labels == 0).double()[:, None]
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wanted = torch.where(targets == 1, 0.3, 0.7) * cross_entropy
    assert torch.allclose(focal_loss(logits, labels, alpha=0.3, gamma=0.0), wanted[:, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    """users.md ST5: a negative at p = 0.01 has a loss of 7.5e-7, which float16 cannot hold."""
    logits = torch.full((1, 1), -4.6, dtype=dtype)
    loss = focal_loss(logits, NEGATIVE, alpha=0.25, gamma=2.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, focal_loss(logits.float(), NEGATIVE, alpha=0.25, gamma=2.0))
    assert loss.item() == pytest.approx(7.5e-7, rel=0.05)


def test_float64_stays_float64() -> None:
    logits = torch.zeros(2, 3, dtype=torch.float64)
    loss = focal_loss(logits, torch.tensor([0, -1]), alpha=0.25, gamma=2.0)
    assert loss.dtype == torch.float64
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    kept = [at_least_float32(torch.zeros(1, dtype=kind)).dtype for kind in kinds]
    assert kept == [torch.float32, torch.float32, torch.float32, torch.float64]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradients_are_those_of_the_value(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, -1, -1, 0])
    assert torch.autograd.gradcheck(
        lambda x: focal_loss(x, labels, alpha=0.25, gamma=gamma), (logits,)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_saturated_logits_have_finite_gradients(gamma: float, size: float) -> None:
    """A wrong anchor pulls with its full weight, a right one does not, and none is NaN."""
    logits = torch.tensor([[size, -size, -size], [size, -size, size]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 1]), alpha=0.25, gamma=gamma)
    assert loss.tolist() == pytest.approx([0.0, size * (0.75 + 0.25 + 0.75)], abs=1e-6, rel=1e-5)
    loss.sum().backward()
    wanted = [[0.0, 0.0, 0.0], [0.75, -0.25, 0.75]]
    assert logits.grad.tolist() == [pytest.approx(row, abs=1e-5) for row in wanted]


def test_no_anchors() -> None:
    loss = focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), alpha=0.25, gamma=2.0)
    assert loss.shape == (0,)
