"""Build and restore the optimiser."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from retinanet.model.detector import Detector
from retinanet.schema import TrainConfig


def build_optimizer(
    model: Detector, config: TrainConfig, *, fused: bool = True
) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the trainable parameters.

    The parameters that `decay_exempt` names have no weight decay. Each group has a `factor` that
    scales its learning rate.

    Args:
        model: The network, on its device.
        config: Training config.
        fused: Use one kernel for all parameters. It skips the step if `found_inf` is 1.
    """
    exempt = {id(p) for p in _parameters_without_decay(model, config.decay_exempt)}
    backbone = {id(p) for p in model.backbone.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = 0.0 if id(parameter) in exempt else config.weight_decay
            factor = config.backbone_lr_factor if id(parameter) in backbone else 1.0
            groups.setdefault((decay, factor), []).append(parameter)
    options = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (decay, factor), parameters in groups.items()
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(options, lr=config.lr, fused=fused)
    optimizer = torch.optim.SGD(options, lr=config.lr, momentum=config.momentum, fused=fused)
    if config.momentum:
        # As the first step would create them. If that step is skipped, torch leaves them undefined.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load momenta, but keep weight decay and learning rates of the config.

    Raises:
        KeyError, ValueError, TypeError, AttributeError, RuntimeError: The state does not fit.
    """
    options = [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, given in zip(optimizer.param_groups, options, strict=True):
        group.update(given)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:  # same memory layout as the parameter
                moments[name] = torch.empty_like(parameter).copy_(moment)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of a step, times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _parameters_without_decay(model: nn.Module, which: str) -> Iterator[nn.Parameter]:
    """Yield the parameters that `decay_exempt` names: none, norms, or norms and biases."""
    norms = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, norms)
            if which != "none" and (is_norm or (which == "norms_and_biases" and name == "bias")):
                yield parameter
