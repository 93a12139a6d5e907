"""What a run records of its class loss."""

from __future__ import annotations

import math

import torch

from retinanet.engine.imbalance import Imbalance
from retinanet.schema import LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Batch, Outputs, Target, find_assigned


def read(matches: list[list[int]], logits: torch.Tensor) -> dict[str, float]:
    target = Target(
        boxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]),
        labels=torch.tensor([1]),
        crowd=torch.tensor([False]),
    )
    found = torch.tensor(matches, dtype=torch.int32)
    none = torch.zeros(0)
    batch = Batch(
        images=none,
        sizes=none,
        original_sizes=none,
        image_ids=none,
        targets=[target] * len(matches),
        matches=found,
        assigned=find_assigned([target] * len(matches), found),
    )
    outputs = Outputs(
        logits=logits,
        deltas=torch.zeros(*logits.shape[:2], 4),
        anchors=torch.zeros(logits.shape[1], 4),
        anchors_per_level=[2, 1, 1, 0, 0],
    )
    look = Imbalance(LossConfig())
    look.add(outputs, batch)
    values, _ = look.read()
    return values


def test_numbers_by_hand() -> None:
    """Two classes at p = 0.5: a positive anchor (a positive, a hard negative), two negatives.

    Each example has the focal loss 0.25 ln 2 before alpha: 0.25 of it, and five times 0.75.
    """
    values = read([[0, BACKGROUND, BACKGROUND, IGNORED]], torch.zeros(1, 4, 2))
    counts = [values[f"imbalance/{name}"] for name in ("positives", "negatives", "ignored")]
    assert counts == [1, 2, 1]
    assert values["imbalance/loss/positives"] == 0.25 / (0.25 + 5 * 0.75)
    assert values["imbalance/loss/hard_negatives"] == 5 * 0.75 / (0.25 + 5 * 0.75)
    assert values["imbalance/loss/easy_negatives"] == 0
    by_level = [values[f"imbalance_{level}/positives"] for level in ("P3", "P4", "P7")]
    assert by_level == [1, 0, 0]
    # The positive is on P3, with three of the negatives; the others on P4.
    assert math.isclose(values["imbalance_P4/cross_entropy_loss/hard_negatives"], 2 / 6)
    assert math.isclose(values["imbalance_P3/cross_entropy_loss/hard_negatives"], 3 / 6)
    assert sum(values["imbalance/p_t_of_negatives"]) == 5
    assert sum(values["imbalance/p_t_of_positives"]) == 1


def test_a_blank_image_is_none() -> None:
    """It fills a place on some hardware alone: no number may change by it."""
    rows = [[0, BACKGROUND, BACKGROUND, IGNORED]]
    logits = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    assert read(rows, logits[:1]) == read([*rows, [IGNORED] * 4], logits)
