"""What a run records of its class loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from retinanet.batch import Batch
from retinanet.engine.imbalance_meter import ImbalanceMeter
from retinanet.schema import LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Outputs


@pytest.fixture
def read(scored: Callable[..., tuple[Outputs, Batch]]) -> Callable[..., dict[str, Any]]:
    """Return a function that reads what a run records, anchors on P3, P3, P4, P5."""

    def look(matches: list[list[int]], logits: torch.Tensor) -> dict[str, Any]:
        imbalance = ImbalanceMeter(LossConfig())
        imbalance.add(*scored(matches, logits, levels=[2, 1, 1, 0, 0]))
        values, _ = imbalance.read()
        return values

    return look


def test_numbers_by_hand(read: Callable[..., dict[str, Any]]) -> None:
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


def test_a_blank_image_is_none(read: Callable[..., dict[str, Any]]) -> None:
    """Only some hardware needs such a filler: no number may change because of it."""
    rows = [[0, BACKGROUND, BACKGROUND, IGNORED]]
    logits = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    assert read(rows, logits[:1]) == read([*rows, [IGNORED] * 4], logits)
