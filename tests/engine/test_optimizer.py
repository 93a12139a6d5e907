"""Which parameters an optimiser holds, with which decay."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from retinanet.config import override_config
from retinanet.engine.optimizer import build_optimizer, restore_optimizer, set_learning_rate
from retinanet.schema import Config, TrainConfig


class Network(nn.Module):
    """A backbone of two convolutions (the first one frozen), a group norm, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False))
        self.backbone[0].requires_grad_(False)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Conv2d(4, 5, 1)


def network() -> Any:
    return Network()


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
    optimizer = build_optimizer(network(), train_config())
    shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(shapes) == [(4,), (4,), (4, 4, 1, 1), (5,), (5, 4, 1, 1)]


@pytest.mark.parametrize(
    ("exempt", "norm", "bias"),
    [("none", 0.25, 0.25), ("norms", 0.0, 0.25), ("norms_and_biases", 0.0, 0.0)],
)
def test_what_has_no_weight_decay(exempt: str, norm: float, bias: float) -> None:
    model = network()
    config = train_config("weight_decay=0.25", f"decay_exempt={exempt}")
    assert decay_of(model, build_optimizer(model, config)) == {
        "backbone.1.weight": 0.25,
        "norm.weight": norm,
        "norm.bias": norm,
        "head.weight": 0.25,
        "head.bias": bias,
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
    model = network()
    weight = model.head.weight
    weight.data.fill_(2.0)
    optimizer = build_optimizer(model, train_config("lr=0.1", "weight_decay=0.5"))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert weight.flatten().tolist() == pytest.approx([1.8] * 20)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_backbone_has_its_own_learning_rate(name: str) -> None:
    model = network()
    config = train_config(f"optimizer={name}", "weight_decay=0", "backbone_lr_factor=0.25")
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.5)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {key: (before[key] - p.detach()).max().item() for key, p in model.named_parameters()}
    assert moved["backbone.0.weight"] == 0  # frozen
    assert moved["backbone.1.weight"] == pytest.approx(0.125)
    assert moved["head.weight"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_that_is_left_out_moves_nothing(name: str) -> None:
    """Neither weights nor momenta, nor AdamW's count of steps."""
    model = network()
    optimizer: Any = build_optimizer(model, train_config(f"optimizer={name}", "lr=0.5"))

    def step(gradient: float, *, left_out: bool) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.found_inf = torch.tensor(float(left_out))
        optimizer.step()

    def everything() -> list[torch.Tensor]:
        learned = (p for p in model.parameters() if p.requires_grad)
        moments = [value for state in optimizer.state.values() for value in state.values()]
        return [tensor.detach().clone() for tensor in [*learned, *moments]]

    step(1.0, left_out=False)
    before = everything()
    step(math.nan, left_out=True)
    assert all(map(torch.equal, before, everything()))
    step(1.0, left_out=False)
    assert not any(map(torch.equal, before, everything()))


def test_a_first_step_that_is_left_out_leaves_no_momentum() -> None:
    model = network()
    optimizer: Any = build_optimizer(model, train_config("optimizer=sgd"))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert not any(bool(state["momentum_buffer"].any()) for state in optimizer.state.values())


def test_momenta_come_back_but_the_config_rules_decay() -> None:
    model = network()
    first = build_optimizer(model, train_config("optimizer=sgd", "weight_decay=0.5"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_learning_rate(first, 0.125)
    first.step()
    second = build_optimizer(model, train_config("optimizer=sgd", "weight_decay=0.25"))
    restore_optimizer(second, first.state_dict())
    for parameter in second.param_groups[0]["params"]:
        ours, theirs = (o.state[parameter]["momentum_buffer"] for o in (second, first))
        assert torch.equal(ours, theirs) and bool(ours.any())
    (group,) = second.param_groups
    assert (group["weight_decay"], group["lr"], group["factor"]) == (0.25, 0.125, 1.0)


def test_momenta_are_laid_out_as_the_weights_are_now() -> None:
    """With --allow-changes a run may change its layout; the fused step goes through raw memory."""
    config = train_config("optimizer=sgd", "lr=0.5", "momentum=0.5", "weight_decay=0")

    def convolution(layout: torch.memory_format) -> Any:
        torch.manual_seed(0)
        model = nn.Module()
        model.backbone = nn.Conv2d(3, 4, 3)
        return model.to(memory_format=layout)

    def step(model: Any, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()

    one, other = (convolution(x) for x in (torch.contiguous_format, torch.channels_last))
    first, second = (build_optimizer(model, config) for model in (one, other))
    step(one, first, seed=1)
    other.load_state_dict(one.state_dict())
    restore_optimizer(second, first.state_dict())
    step(one, first, seed=2)
    step(other, second, seed=2)
    assert torch.equal(one.backbone.weight, other.backbone.weight)
