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
        for mean, weight in trainable:
            mean.grad = weight.detach()
        # A step of it is mean -= lr * (mean - weight), in one kernel for all weights.
        self._descent = torch.optim.SGD(
            [mean for mean, _ in trainable], weight_decay=1.0, maximize=True, fused=True
        )
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    def update(self, step: int, skips: Tensor) -> None:
        """Move the average towards the weights after a step.

        Early steps keep less, (1 + t) / (10 + t) of the average, so that the initial weights are
        soon forgotten.

        Args:
            step: Number of the step t, from 0.
            skips: Scalar on the device: 1.0 if the step has updated nothing, else 0.0.
        """
        self._descent.param_groups[0]["lr"] = 1 - min(self._decay, (1 + step) / (10 + step))
        self._descent.found_inf = skips  # type: ignore[attr-defined]
        self._descent.step()

    @torch.no_grad()
    def refresh(self) -> Detector:
        """Return the averaged network with the newest statistics of batch norm."""
        for mean, new in self._buffers:
            mean.copy_(new)
        return self.model
