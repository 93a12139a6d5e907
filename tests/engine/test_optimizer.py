"""Which parameters an optimiser holds, with which decay."""

import pytest
import torch
from torch import nn

from retinanet.config import override_config
from retinanet.engine.optimizer import build_optimizer
from retinanet.schema import Config, TrainConfig


def network() -> nn.Sequential:
    """Two convolutions (the first one frozen) and a group norm between them."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 5, 1))
    model[0].requires_grad_(False)
    return model


def train_config(*overrides: str) -> TrainConfig:
    return override_config(Config(), [f"train.{text}" for text in overrides]).train


def decay_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return name -> weight decay of every parameter in it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_frozen_parameters_are_left_out() -> None:
    """users.md ST6."""
    optimizer = build_optimizer(network(), train_config())
    shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(shapes) == [(4,), (4,), (5,), (5, 4, 1, 1)]


@pytest.mark.parametrize(
    ("exempt", "norm", "bias"),
    [("none", 0.25, 0.25), ("norms", 0.0, 0.25), ("norms_and_biases", 0.0, 0.0)],
)
def test_what_has_no_weight_decay(exempt: str, norm: float, bias: float) -> None:
    model = network()
    config = train_config("weight_decay=0.25", f"decay_exempt={exempt}")
    assert decay_of(model, build_optimizer(model, config)) == {
        "1.weight": norm,
        "1.bias": norm,
        "2.weight": 0.25,
        "2.bias": bias,
    }


def test_sgd_takes_its_options() -> None:
    optimizer = build_optimizer(network(), train_config("lr=0.5", "momentum=0.75"))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(group["lr"], group["momentum"]) for group in optimizer.param_groups} == {(0.5, 0.75)}


def test_adamw_takes_its_options() -> None:
    optimizer = build_optimizer(network(), train_config("optimizer=adamw", "lr=0.5"))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


def test_a_literal_step_of_sgd() -> None:
    """Weight 2, gradient 1, decay 0.5, lr 0.1: 2 - 0.1 * (1 + 0.5 * 2) = 1.8."""
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(2.0)
    optimizer = build_optimizer(model, train_config("lr=0.1", "weight_decay=0.5"))
    model.weight.grad = torch.ones(1, 1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1.8)
