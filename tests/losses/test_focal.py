"""The class losses of single logits: numbers by hand, equality with peers, precision, slopes."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_losses import anchor_losses
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from retinanet.losses.focal import (
    at_least_float32,
    build_term,
    class_weights,
    focal,
    focal_star,
)
from retinanet.schema import LossConfig

POSITIVE, NEGATIVE = torch.tensor([0]), torch.tensor([-1])
HALVES = [torch.float16, torch.bfloat16]
KINDS: list[dict[str, Any]] = [
    {},
    {"gamma": 0.5, "alpha": None},
    {"gamma": 5.0, "alpha": 0.1},
    {"class_loss": "cross_entropy"},
    {"class_loss": "balanced_cross_entropy", "alpha": 0.75},
    {"class_loss": "focal_star"},  # γ 2, β 1
    {"class_loss": "focal_star", "gamma": 4.0, "star_beta": 0.0, "alpha": None},
]


def losses_of(logits: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the results of `anchor_losses` for the loss of an experiment."""
    config = LossConfig(**options)
    return anchor_losses(logits, labels, term=build_term(config), weights=class_weights(config))


def loss_of(probability: float, labels: Tensor, **options: Any) -> float:
    logit = math.log(probability / (1 - probability))
    losses, _ = losses_of(torch.tensor([[logit]], dtype=torch.float64), labels, **options)
    return losses.item()


def plain(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The losses (N, K) as the paper writes them, of p_t and its logit x_t."""
    config = LossConfig(**options)
    is_positive = labels[:, None] == torch.arange(logits.shape[1])
    x_t = torch.where(is_positive, logits, -logits)
    p_t = torch.sigmoid(x_t)
    alpha, gamma = config.alpha, config.gamma
    if config.class_loss == "focal":
        losses = -((1 - p_t) ** gamma) * p_t.log()
    elif config.class_loss == "focal_star":
        losses = -torch.sigmoid(gamma * x_t + config.star_beta).log() / gamma
    else:
        losses = -p_t.log()
        alpha = alpha if config.class_loss == "balanced_cross_entropy" else None
    if alpha is None:
        return losses
    return torch.where(is_positive, alpha * losses, (1 - alpha) * losses)


def random_case(count: int = 200, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Return float64 logits, nearly all between -12 and 12, and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(-1, classes, (count,), generator=generator)


# By hand


def test_focal_by_hand() -> None:
    """Equation 5: 0.25 · (1 - p)² · -ln p of a positive, 0.75 · p² · -ln(1 - p) of a negative."""
    assert loss_of(0.5, POSITIVE) == pytest.approx(0.25 * 0.25 * math.log(2))  # 0.04332
    assert loss_of(0.9, POSITIVE) == pytest.approx(0.25 * 0.01 * 0.1053605)
    assert loss_of(0.1, POSITIVE) == pytest.approx(0.25 * 0.81 * 2.3025851)
    assert loss_of(0.5, NEGATIVE) == pytest.approx(0.75 * 0.25 * math.log(2))
    assert loss_of(0.1, NEGATIVE) == pytest.approx(0.75 * 0.01 * 0.1053605)
    assert loss_of(0.9, NEGATIVE) == pytest.approx(0.75 * 0.81 * 2.3025851)


def test_without_alpha_both_kinds_weigh_1() -> None:
    assert loss_of(0.1, POSITIVE, alpha=None) == pytest.approx(0.81 * 2.3025851)
    assert loss_of(0.9, NEGATIVE, alpha=None) == pytest.approx(0.81 * 2.3025851)


def test_the_well_classified_count_100_and_1000_times_less() -> None:
    """Section 3.2: with γ = 2, 100x less than cross entropy at p_t = 0.9, 1000x at 0.968."""
    for p_t, factor in ((0.9, 100), (0.968, 977)):
        ratio = loss_of(p_t, POSITIVE, gamma=0.0) / loss_of(p_t, POSITIVE, gamma=2.0)
        assert ratio == pytest.approx(factor, rel=1e-3)


def test_cross_entropy_by_hand() -> None:
    """Equation 2, -ln p_t; equation 3 weighs it by α: 0.75 and 0.25."""
    assert loss_of(0.1, POSITIVE, class_loss="cross_entropy") == pytest.approx(2.3025851)
    assert loss_of(0.1, NEGATIVE, class_loss="cross_entropy") == pytest.approx(0.1053605)
    balanced = {"class_loss": "balanced_cross_entropy", "alpha": 0.75}
    assert loss_of(0.1, POSITIVE, **balanced) == pytest.approx(0.75 * 2.3025851)
    assert loss_of(0.1, NEGATIVE, **balanced) == pytest.approx(0.25 * 0.1053605)


def test_focal_star_by_hand() -> None:
    """Appendix A: -ln(sigmoid(γ x_t + β)) / γ.

    At p_t = 0.5, x_t is 0: ln(1 + 1/e) / 2 for γ 2 and β 1, ln(2) / 4 for γ 4 and β 0. At p_t =
    e / (1 + e), x_t is 1: ln(1 + e⁻³) / 2.
    """
    star: dict[str, Any] = {"class_loss": "focal_star", "gamma": 2.0, "star_beta": 1.0}
    assert loss_of(0.5, POSITIVE, alpha=None, **star) == pytest.approx(0.3132617 / 2)
    assert loss_of(0.5, NEGATIVE, alpha=None, **star) == pytest.approx(0.3132617 / 2)
    assert loss_of(0.5, POSITIVE, alpha=0.25, **star) == pytest.approx(0.25 * 0.3132617 / 2)
    assert loss_of(0.5, NEGATIVE, alpha=0.25, **star) == pytest.approx(0.75 * 0.3132617 / 2)
    right = math.e / (1 + math.e)
    assert loss_of(right, POSITIVE, alpha=None, **star) == pytest.approx(0.0485874 / 2)
    assert loss_of(1 - right, NEGATIVE, alpha=None, **star) == pytest.approx(0.0485874 / 2)
    star |= {"gamma": 4.0, "star_beta": 0.0}
    assert loss_of(0.5, NEGATIVE, alpha=None, **star) == pytest.approx(0.6931472 / 4)


def test_slopes_by_hand() -> None:
    """Of negatives at p = 0.5, where -ln(p_t) is ln 2.

    Appendix B: p for cross entropy, p^γ (p + γ (1 - p) ln 2) for focal loss, sigmoid(γ x - β) for
    the other form.
    """
    zero = torch.zeros(1, dtype=torch.float64)
    assert focal(zero, gamma=0.0)[1].item() == pytest.approx(0.5)
    assert focal(zero, gamma=2.0)[1].item() == pytest.approx(0.25 * (0.5 + 2 * 0.5 * math.log(2)))
    assert focal_star(zero, gamma=2.0, beta=1.0)[1].item() == pytest.approx(0.2689414)


def test_sum_over_the_classes_of_each_anchor() -> None:
    logits = torch.zeros(3, 4, dtype=torch.float64)
    losses, gradient = losses_of(logits, torch.tensor([2, -1, 0]))
    one = 0.25 * math.log(2)  # (1 - p_t)² · ln 2 at p_t = 0.5
    wanted = [one * (0.25 + 3 * 0.75), one * 4 * 0.75, one * (0.25 + 3 * 0.75)]
    assert losses.tolist() == pytest.approx(wanted)
    slope = 0.25 * (0.5 + math.log(2))
    up, down = pytest.approx(-0.25 * slope), pytest.approx(0.75 * slope)
    assert gradient.tolist() == [[down, down, up, down], [down] * 4, [up, down, down, down]]


def test_only_the_anchors_class_is_a_positive() -> None:
    logits = torch.tensor([[10.0, -10.0, -10.0]])
    assert losses_of(logits, torch.tensor([0]))[0].item() < 1e-9
    wrong = losses_of(logits, torch.tensor([1]))[0].item()
    assert wrong == pytest.approx(0.25 * 10 + 0.75 * 10, rel=1e-3)


def test_background_has_any_negative_label() -> None:
    logits = torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    losses, gradient = losses_of(logits, torch.tensor([-1, -2]))
    assert losses[0].item() == losses[1].item() > 0
    assert torch.equal(gradient[0], gradient[1])


def test_no_anchors() -> None:
    losses, gradient = losses_of(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert (losses.shape, gradient.shape) == ((0,), (0, 3))


# What an experiment's options choose


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, (0.25, 0.75)),
        ({"alpha": 0.1}, (0.1, 0.9)),
        ({"alpha": None}, (1.0, 1.0)),
        ({"class_loss": "balanced_cross_entropy", "alpha": 0.75}, (0.75, 0.25)),
        ({"class_loss": "focal_star"}, (0.25, 0.75)),
        ({"class_loss": "focal_star", "alpha": None}, (1.0, 1.0)),
        # Cross entropy has no α, whatever stands there (0.25 is the default).
        ({"class_loss": "cross_entropy"}, (1.0, 1.0)),
        ({"class_loss": "ohem", "alpha": 0.9}, (1.0, 1.0)),
    ],
)
def test_weights(options: dict[str, Any], weights: tuple[float, float]) -> None:
    assert class_weights(LossConfig(**options)) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("options", "loss"),
    [  # of a negative with p = 0.9, whose logit is ln 9
        ({}, 0.81 * 2.3025851),
        ({"gamma": 1.0}, 0.9 * 2.3025851),
        ({"class_loss": "focal_star"}, math.log(1 + 81 / math.e) / 2),
        ({"class_loss": "focal_star", "gamma": 1.0, "star_beta": 2.0}, math.log(1 + 9 / math.e**2)),
        # γ is focal loss's alone.
        ({"class_loss": "cross_entropy", "gamma": 5.0}, 2.3025851),
        ({"class_loss": "balanced_cross_entropy", "gamma": 5.0}, 2.3025851),
        ({"class_loss": "ohem", "gamma": 5.0}, 2.3025851),
    ],
)
def test_terms(options: dict[str, Any], loss: float) -> None:
    term = build_term(LossConfig(**options))
    logit = torch.tensor(math.log(9), dtype=torch.float64)
    assert term(logit)[0].item() == pytest.approx(loss)


# Identities, peers, and the plain formulas


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 0.0, "alpha": None},
        {"class_loss": "cross_entropy"},
        {"class_loss": "focal_star", "gamma": 1.0, "star_beta": 0.0, "alpha": None},
    ],
)
def test_three_ways_to_torchs_cross_entropy(options: dict[str, Any]) -> None:
    logits, labels = random_case()
    targets = (labels[:, None] == torch.arange(7)).double()
    wanted = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    torch.testing.assert_close(losses_of(logits, labels, **options)[0], wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    "options", [{"gamma": 0.0}, {"class_loss": "balanced_cross_entropy", "gamma": 3.0}]
)
def test_gamma_zero_is_balanced_cross_entropy(options: dict[str, Any]) -> None:
    logits, labels = random_case()
    targets = (labels[:, None] == torch.arange(7)).double()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wanted = ((0.3 * targets + 0.7 * (1 - targets)) * cross_entropy).sum(dim=1)
    losses, _ = losses_of(logits, labels, alpha=0.3, **options)
    torch.testing.assert_close(losses, wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 1.5), (0.1, 5.0)])
def test_equals_torchvision(alpha: float, gamma: float, dtype: torch.dtype) -> None:
    """Value by value and slope by slope; the peer computes in float64, which rounds less."""
    logits, labels = random_case()
    logits = logits.to(dtype)
    losses, gradient = losses_of(logits, labels, alpha=alpha, gamma=gamma)
    assert losses.dtype == gradient.dtype == dtype
    peers = logits.double().requires_grad_()
    one_hot = (labels[:, None] == torch.arange(7)).double()
    theirs = sigmoid_focal_loss(peers, one_hot, alpha=alpha, gamma=gamma).sum(dim=1)
    theirs.sum().backward()
    limit = {torch.float64: 1e-9, torch.float32: 1e-6}[dtype]  # in float64, theirs rounds 1 - p_t
    torch.testing.assert_close(losses.double(), theirs.detach(), rtol=limit, atol=0)
    # Of hard examples it has γ times a rounded 1 - p_t in it.
    torch.testing.assert_close(gradient.double(), peers.grad, rtol=(1 + gamma) * limit, atol=0)
    torch.testing.assert_close(gradient.double().norm(), peers.grad.norm(), rtol=limit, atol=0)


@pytest.mark.parametrize("options", KINDS)
def test_equals_the_plain_formula(options: dict[str, Any]) -> None:
    logits, labels = random_case()
    logits = logits.clamp(-8, 8)  # where 1 - p_t of the plain formula keeps its digits
    wanted = plain(logits.requires_grad_(), labels, **options).sum(dim=1)
    wanted.sum().backward()
    losses, gradient = losses_of(logits.detach(), labels, **options)
    torch.testing.assert_close(losses, wanted.detach(), rtol=1e-11, atol=0)
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("options", KINDS)
def test_slopes_are_differences_of_the_losses(options: dict[str, Any]) -> None:
    """Of the term itself, over the whole range."""
    term = build_term(LossConfig(**options))
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    step = 1e-5
    differences = (term(x + step)[0] - term(x - step)[0]) / (2 * step)
    torch.testing.assert_close(term(x)[1], differences, rtol=1e-6, atol=1e-9)


# Precision


@pytest.mark.parametrize("dtype", HALVES)
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    """The logits are rounded, the arithmetic is not."""
    logits = torch.full((1, 1), -4.6, dtype=dtype)  # p = 0.01, where training starts
    losses, gradient = losses_of(logits, NEGATIVE)
    assert losses.dtype == gradient.dtype == torch.float32
    exact = losses_of(logits.float(), NEGATIVE)
    assert torch.equal(losses, exact[0]) and torch.equal(gradient, exact[1])
    assert losses.item() == pytest.approx(7.5e-7, rel=0.05)


def test_float64_stays_float64() -> None:
    """In both weights, too: 0.3 and 0.7 have no exact float32."""
    logits = torch.zeros(2, 1, dtype=torch.float64)
    options = {"class_loss": "balanced_cross_entropy", "alpha": 0.3}
    losses, gradient = losses_of(logits, torch.tensor([0, -1]), **options)
    assert losses.dtype == gradient.dtype == torch.float64
    assert losses.tolist() == pytest.approx([0.3 * math.log(2), 0.7 * math.log(2)], rel=1e-15)
    assert gradient[:, 0].tolist() == pytest.approx([-0.15, 0.35], rel=1e-15)
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    kept = [at_least_float32(torch.zeros(1, dtype=kind)).dtype for kind in kinds]
    assert kept == [torch.float32, torch.float32, torch.float32, torch.float64]


DTYPES = [torch.float64, torch.float32, *HALVES]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_saturated_logits_have_finite_gradients(
    gamma: float, size: float, dtype: torch.dtype
) -> None:
    """A wrong anchor pulls with its full weight, a right one does not, and none is NaN."""
    logits = torch.tensor([[size, -size, -size], [size, -size, size]], dtype=dtype)
    size = float(logits[0, 0])  # 9984 in bfloat16
    losses, gradient = losses_of(logits, torch.tensor([0, 1]), gamma=gamma)
    assert losses.tolist() == pytest.approx([0.0, size * (0.75 + 0.25 + 0.75)], abs=1e-6, rel=1e-5)
    wanted = [[0.0, 0.0, 0.0], [0.75, -0.25, 0.75]]
    assert gradient.tolist() == [pytest.approx(row, abs=1e-5) for row in wanted]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_saturated_logits_of_focal_star(size: float, dtype: torch.dtype) -> None:
    """Far out it is |x| - β / γ, with a slope of 1, whatever γ."""
    logits = torch.tensor([[size, -size], [-size, size]], dtype=dtype)
    size = float(logits[0, 0])
    options = {"class_loss": "focal_star", "gamma": 4.0, "star_beta": 2.0}
    losses, gradient = losses_of(logits, torch.tensor([0, 0]), **options)
    assert losses.tolist() == pytest.approx([0.0, (size - 0.5) * (0.25 + 0.75)], abs=1e-6, rel=1e-6)
    wanted = [[0.0, 0.0], [-0.25, 0.75]]
    assert gradient.tolist() == [pytest.approx(row, abs=1e-6) for row in wanted]


def test_a_float32_negative_keeps_its_digits_however_easy_it_is() -> None:
    """p = 1e-8 at a logit of -18.42: 1 - (1 - p) would be 0 in float32. p³ is 1e-24."""
    logits = torch.tensor([[math.log(1e-8)]])
    losses, gradient = losses_of(logits, NEGATIVE, alpha=None)
    assert losses.item() == pytest.approx(1e-24, rel=1e-5)
    assert gradient.item() == pytest.approx(3e-24, rel=1e-5)
