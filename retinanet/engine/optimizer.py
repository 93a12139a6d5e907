"""Parameters -> an optimiser."""

from __future__ import annotations

import torch
from torch import nn

from retinanet.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the trainable parameters.

    With `decay_norms_and_biases: false`, vectors (normalisation and biases) have no weight decay.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    decay = config.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": decay if config.decay_norms_and_biases else 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
