"""An exponential moving average of the weights (Polyak and Juditsky, 1992), beside the training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from retinanet.model.detector import Detector


class Ema:
    """The network with averaged weights."""

    def __init__(self, model: Detector, decay: float) -> None:
        """Start from the weights as they are.

        Args:
            model: the network that is trained.
            decay: share of the average that a step keeps, 0..1.
        """
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        trainable = [(mean, weight) for mean, weight in pairs if weight.requires_grad]
        self._means: list[Tensor] = [mean for mean, _ in trainable]
        self._weights: list[Tensor] = [weight for _, weight in trainable]
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int, moves: Tensor) -> None:
        """Move towards the weights after a step.

        The first steps keep less, (1 + t) / (10 + t) of the average: the weights that training
        starts from are soon forgotten.

        Args:
            step: t, from 0.
            moves: scalar on the device, whether the step updated the weights.
        """
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        move = moves.to(self._means[0].dtype) * share
        torch._foreach_lerp_(self._means, self._weights, [move] * len(self._means))

    @torch.no_grad()
    def refresh(self) -> Detector:
        """Return the averaged network with the newest statistics of batch norm."""
        for mean, new in self._buffers:
            mean.copy_(new)
        return self.model
