"""The moving average of the weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinanet.engine.ema import Ema

TAKEN, LEFT_OUT = torch.tensor(0.0), torch.tensor(1.0)


def network() -> Any:
    """Return a network with a learned and a frozen weight, and batch norm's statistics."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model.append(nn.BatchNorm1d(1, affine=False))
    for layer in model[:2]:
        nn.init.constant_(layer.weight, 1.0)
    model[1].weight.requires_grad_(False)
    return model


def set_to(model: Any, value: float) -> None:
    with torch.no_grad():
        model[0].weight.fill_(value)


def test_literal_values() -> None:
    """From 1, towards 2: a share of (1 + t) / (10 + t) stays until that is over the decay."""
    model = network()
    average = Ema(model, 0.2)
    set_to(model, 2.0)
    average.update(0, TAKEN)  # 0.1 stays
    assert average.model[0].weight.item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    set_to(model, 3.0)
    average.update(50, TAKEN)  # 51 / 60 is over the decay: 0.2 stays
    assert average.model[0].weight.item() == pytest.approx(0.2 * 1.9 + 0.8 * 3)


def test_a_step_that_was_left_out_does_not_count() -> None:
    model = network()
    average = Ema(model, 0.9)
    set_to(model, 2.0)
    average.update(0, LEFT_OUT)
    assert average.model[0].weight.item() == 1.0


def test_training_does_not_see_it() -> None:
    model = network()
    average = Ema(model, 0.5)
    average.update(3, TAKEN)
    assert model[0].weight.item() == 1.0
    assert model.training and not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(
        mean.data_ptr() != new.data_ptr()
        for mean, new in zip(average.model.parameters(), model.parameters(), strict=True)
    )


def test_statistics_are_the_newest_whole_numbers_too() -> None:
    """Averaged, a count of batches would be no number of batches."""
    model = network()
    average = Ema(model, 0.9)
    for value in (4.0, 8.0):
        model[2](torch.tensor([[value], [value + 2]]))
    statistics: list[Tensor] = list(average.refresh().buffers())
    assert all(map(torch.equal, statistics, model.buffers()))
    assert int(average.model[2].num_batches_tracked) == 2


def test_float64_stays() -> None:
    model = network().double()
    average = Ema(model, 0.9)
    with torch.no_grad():
        model[0].weight.add_(1e-12)
    average.update(100, TAKEN)
    assert average.model[0].weight.item() - 1 == pytest.approx(1e-13, rel=1e-3)
