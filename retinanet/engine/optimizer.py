"""Parameters -> an optimiser."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from retinanet.schema import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the trainable parameters.

    The parameters that `decay_exempt` names have no weight decay.
    """
    exempt = {id(p) for p in _exempt(model, config.decay_exempt)}
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in trainable if id(p) not in exempt],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in trainable if id(p) in exempt], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def _exempt(model: nn.Module, which: str) -> Iterator[nn.Parameter]:
    norms = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, norms)
            if which != "none" and (is_norm or (which == "norms_and_biases" and name == "bias")):
                yield parameter
