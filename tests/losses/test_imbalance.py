"""Composition of the class loss: by hand, and compared with a dense version."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retinanet.losses.focal import build_term, class_weights
from retinanet.losses.imbalance import EDGES, GROUPS, MEASURES, contributions, histograms
from retinanet.losses.sparse import SparseLoss
from retinanet.positives import Assigned, find_assigned
from retinanet.schema import LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Target

KINDS: list[dict[str, Any]] = [
    {},
    {"gamma": 0.5, "alpha": None},
    {"class_loss": "cross_entropy"},
    {"class_loss": "balanced_cross_entropy", "alpha": 0.75},
    {"class_loss": "focal_star"},
]


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def assigned_of(labels: Tensor) -> Assigned:
    """Return the assignment for labels (B, A): 0..K-1, BACKGROUND or IGNORED."""
    target = Target(
        boxes=torch.zeros(9, 4), labels=torch.arange(9), crowd=torch.zeros(9, dtype=torch.bool)
    )
    return find_assigned([target] * len(labels), labels)


def contributions_of(logits: Tensor, labels: Tensor, levels: list[int], **options: Any) -> Tensor:
    config = LossConfig(**options)
    return contributions(
        logits,
        assigned_of(labels),
        levels,
        term=build_term(config),
        weights=class_weights(config),
    )


def test_groups_and_measures() -> None:
    assert GROUPS == ("easy_negatives", "hard_negatives", "positives")
    assert MEASURES == ("examples", "loss", "gradient")


# By hand


ODDS = torch.tensor(
    [
        [
            [logit(0.02), logit(0.05)],  # a negative, easy for both classes
            [logit(0.5), logit(0.02)],  # a negative, hard for the first
            [0.0, 0.0],  # ignored
            [logit(0.8), logit(0.2)],  # a positive of the first class, hard for the second
        ]
    ],
    dtype=torch.float64,
)
LABELS = torch.tensor([[BACKGROUND, BACKGROUND, IGNORED, 0]])


def test_contributions_by_hand() -> None:
    """Cross entropy: the loss is -ln(1 - p) of negatives, -ln p of positives, the slope 1 - p_t."""
    found = contributions_of(ODDS, LABELS, [2, 2], class_loss="cross_entropy")
    assert found.tolist() == [
        [
            pytest.approx([3, -math.log(0.98 * 0.95 * 0.98), 0.02 + 0.05 + 0.02]),
            pytest.approx([1, -math.log(0.5), 0.5]),
            [0, 0, 0],
        ],
        [
            pytest.approx([0, 0, 0], abs=1e-15),
            pytest.approx([1, -math.log(0.8), 0.2]),
            pytest.approx([1, -math.log(0.8), 0.2]),
        ],
    ]


def test_only_losses_and_gradients_are_weighted() -> None:
    plain = contributions_of(ODDS, LABELS, [4], class_loss="cross_entropy")
    options = {"class_loss": "balanced_cross_entropy", "alpha": 0.9}
    weighted = contributions_of(ODDS, LABELS, [4], **options)
    ratios = (weighted / plain)[0].tolist()
    assert ratios == [pytest.approx(row) for row in ([1, 0.1, 0.1], [1, 0.1, 0.1], [1, 0.9, 0.9])]


def test_histograms_by_hand() -> None:
    """p_t: 0.98, 0.95, 0.5, 0.98, 0.8 of negatives, 0.8 of the positive; moved off the edges."""
    assert EDGES == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999, 1)
    found = histograms(ODDS - 1e-6, assigned_of(LABELS)).tolist()
    # Now above 0.95, 0.5 and 0.8; the positive is under 0.8.
    negatives = {0.5: 1, 0.8: 1, 0.95: 3}
    assert dict(zip(EDGES, found[0], strict=False)) == {e: negatives.get(e, 0) for e in EDGES[:-1]}
    assert dict(zip(EDGES, found[1], strict=False)) == {e: int(e == 0.7) for e in EDGES[:-1]}


def test_a_negative_is_easy_above_nine_tenths() -> None:
    """Section 3: p_t > 0.9, that is p < 0.1."""
    for p, easy, hard in ((0.0999, 1, 0), (0.1001, 0, 1)):
        logits = torch.tensor([[[logit(p)]]])
        found = contributions_of(logits, torch.tensor([[BACKGROUND]]), [1])
        assert found[0, :, 0].tolist() == [easy, hard, 0]


# Against a dense version


def dense(logits: Tensor, labels: Tensor, levels: list[int], **options: Any) -> Tensor:
    """Sort all pairs of an anchor and a class by masks, and take gradients of their sum."""
    config = LossConfig(**options)
    positive, negative = class_weights(config)
    own = labels[..., None] == torch.arange(logits.shape[2])
    counted = (labels != IGNORED)[..., None].expand_as(own)
    leaf = logits.clone().requires_grad_()
    x_t = torch.where(own, leaf, -leaf)
    if config.class_loss == "focal_star":
        losses = -torch.sigmoid(config.gamma * x_t + config.star_beta).log() / config.gamma
    else:
        gamma = config.gamma if config.class_loss == "focal" else 0
        losses = -((1 - torch.sigmoid(x_t)) ** gamma) * torch.sigmoid(x_t).log()
    losses = torch.where(own, positive * losses, negative * losses)
    losses.sum().backward()
    assert leaf.grad is not None
    p_t = torch.sigmoid(x_t)
    groups = [counted & ~own & (p_t > 0.9), counted & ~own & (p_t <= 0.9), counted & own]
    measures = [torch.ones_like(logits), losses.detach(), leaf.grad.abs()]
    parts = [[(value * group).split(levels, dim=1) for value in measures] for group in groups]
    return torch.tensor(
        [[[part[i].sum() for part in row] for row in parts] for i in range(len(levels))],
        dtype=torch.float64,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[int]]:
    """Return logits (B, A, K), labels (B, A) and anchors of each level, which may be none."""
    levels = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(sum))
    images, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows = []
    for _ in range(images):
        highest = draw(st.sampled_from([IGNORED, BACKGROUND, classes - 1]))
        label = st.integers(IGNORED, highest)
        rows.append(draw(st.lists(label, min_size=sum(levels), max_size=sum(levels))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    shape = images, sum(levels), classes
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits.clamp(-8, 8), torch.tensor(rows), levels


@pytest.mark.parametrize("options", KINDS)
@given(case=cases(), chunk=st.sampled_from([1, 5, 2**16]))
@settings(max_examples=50, deadline=None)
def test_contributions_equal_a_dense_version(
    options: dict[str, Any], case: tuple[Tensor, Tensor, list[int]], chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinanet.losses.sparse._CHUNK", chunk)
        found = contributions_of(*case, **options)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, dense(*case, **options), rtol=1e-9, atol=1e-12)


@given(case=cases(), chunk=st.sampled_from([1, 5, 2**16]))
@settings(max_examples=100, deadline=None)
def test_histograms_equal_numpys(case: tuple[Tensor, Tensor, list[int]], chunk: int) -> None:
    logits, labels, _ = case
    own = labels[..., None] == torch.arange(logits.shape[2])
    counted = (labels != IGNORED)[..., None].expand_as(own)
    p_t = torch.sigmoid(torch.where(own, logits, -logits))
    wanted = [np.histogram(p_t[counted & of], EDGES)[0].tolist() for of in (~own, own)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinanet.losses.sparse._CHUNK", chunk)
        assert histograms(logits, assigned_of(labels)).tolist() == wanted


@pytest.mark.parametrize("options", KINDS)
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_the_parts_are_the_loss_and_its_gradient(
    options: dict[str, Any], case: tuple[Tensor, Tensor, list[int]]
) -> None:
    """Their sums are the loss and its gradient; everything except ignored anchors is an example."""
    logits, labels, levels = case
    config = LossConfig(**options)
    loss = SparseLoss(build_term(config), class_weights(config), compiled=False)
    leaf = logits.clone().requires_grad_()
    total = loss(leaf, assigned_of(labels)).sum()
    total.backward()
    assert leaf.grad is not None
    sums = contributions_of(logits, labels, levels, **options).sum(dim=(0, 1))
    examples = int((labels != IGNORED).sum()) * logits.shape[2]
    wanted = [examples, total.item(), leaf.grad.abs().sum().item()]
    assert sums.tolist() == pytest.approx(wanted, rel=1e-10, abs=1e-300)
    bins = histograms(logits, assigned_of(labels)).sum(dim=1)
    assert bins.tolist() == [examples - int((labels >= 0).sum()), int((labels >= 0).sum())]


# Precision, and what is not finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", KINDS)
def test_other_types_are_close(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """They are summed in float64, of float32 losses of the same logits."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    logits = logits.to(dtype)
    labels = torch.randint(IGNORED, 4, (2, 50), generator=generator)
    found = contributions_of(logits, labels, [30, 20], **options)
    assert found.dtype == torch.float64
    wanted = contributions_of(logits.double(), labels, [30, 20], **options)
    assert float(wanted.min()) > 1e-4
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=0)
    counts = [histograms(x, assigned_of(labels)).tolist() for x in (logits, logits.double())]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_ignored_anchors_are_not_examples(value: float, options: dict[str, Any]) -> None:
    """For any logits; also positives that mining ignores."""
    logits, labels = ODDS.clone(), LABELS.clone()
    clean = contributions_of(logits, labels, [2, 2], **options)
    bins = histograms(logits, assigned_of(labels))
    logits[0, 2] = value
    torch.testing.assert_close(
        contributions_of(logits, labels, [2, 2], **options), clean, rtol=1e-12, atol=1e-15
    )
    assert torch.equal(histograms(logits, assigned_of(labels)), bins)
    both = assigned_of(labels)
    both = Assigned(**{**vars(both), "ignored": torch.tensor([2, 3])})
    config = LossConfig(**options)
    given_both = contributions(
        logits, both, [2, 2], term=build_term(config), weights=class_weights(config)
    )
    torch.testing.assert_close(given_both[0], clean[0], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(given_both[1], torch.zeros(3, 3).double(), rtol=0, atol=1e-15)
    assert histograms(logits, both).sum(dim=1).tolist() == [4, 0]


def test_no_gradient_flows() -> None:
    leaf = ODDS.clone().requires_grad_()
    assert not contributions_of(leaf, LABELS, [4]).requires_grad
    assert not histograms(leaf, assigned_of(LABELS)).requires_grad
