"""An exponential moving average of the weights during training (Polyak and Juditsky, 1992)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from retinanet.model.detector import Detector


class Ema:
    """The network with averaged weights."""

    def __init__(self, model: Detector, decay: float) -> None:
        """Start from the current weights.

        Args:
            model: The network that is trained.
            decay: Share of the average that a step keeps, from 0 to 1.
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
        """Move the average towards the weights after a step.

        Early steps keep less, (1 + t) / (10 + t) of the average, so that the initial weights are
        soon forgotten.

        Args:
            step: Number of the step t, from 0.
            moves: Scalar on the device: whether the step updated the weights.
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
