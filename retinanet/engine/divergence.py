"""Check that training stays finite: tested on the device, read by the host when it logs or saves.

Reading the result after each step would make the device wait for the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GuardState:
    """The guard's counts, read from the device."""

    skipped: int
    """Number of bad steps whose update was skipped."""
    step: int | None
    """The bad step (from 0) that exceeded the limit; from it on nothing was updated."""
    losses: tuple[float, float]
    """Class and box loss of that step."""
    norm: float
    """Norm of that step's gradient."""


class DivergenceGuard:
    """Counts steps whose loss or gradient is not finite; past a limit, stops all updates.

    It stops them through `factor`, which multiplies the loss: NaN makes every later step a bad one,
    and a bad step updates nothing.
    """

    def __init__(self, device: torch.device, *, allowed: int, skipped: int) -> None:
        """Start counting.

        Args:
            device: Training device.
            allowed: Number of bad steps that may be skipped.
            skipped: Number of bad steps of the run so far, at most `allowed`.
        """
        assert skipped <= allowed
        self._allowed = allowed
        self._skipped = torch.full((), skipped, dtype=torch.int64, device=device)
        self._stopped_at = torch.full((4,), math.nan, device=device)
        """Step, class loss, box loss and norm of the step that exceeded the limit; NaN if none."""

    @property
    def factor(self) -> Tensor:
        """Scalar on the device: 1 while updates are made, NaN afterwards."""
        return torch.where(self._skipped > self._allowed, math.nan, 1.0)

    def judge(self, step: int, losses: Tensor, norm: Tensor, loss_scale: Tensor) -> Tensor:
        """Note a step; return, on the device, whether its update may be made.

        Args:
            step: Number of the step, from 0.
            losses: (2,) class and box loss of the global batch.
            norm: Norm of its gradient.
            loss_scale: Loss scale of fp16, 0 for other precisions. While it is at least 1, an
                infinite gradient is an overflow, which lowers the scale, not a failed training.
        """
        may_update = losses.isfinite().all() & (norm.isfinite() | (loss_scale >= 1))
        stops = ~may_update & (self._skipped == self._allowed)
        number = torch.full((1,), float(step), device=norm.device)
        this_step = torch.cat([number, losses.float(), norm.float().reshape(1)])
        self._stopped_at = torch.where(stops, this_step, self._stopped_at)
        self._skipped = self._skipped + (~may_update & (self._skipped <= self._allowed))
        return may_update

    def read(self) -> GuardState:
        """Wait for the device and return the counts."""
        step, class_loss, box_loss, norm = self._stopped_at.tolist()
        stopped = not math.isnan(step)
        return GuardState(
            skipped=int(self._skipped) - stopped,
            step=int(step) if stopped else None,
            losses=(class_loss, box_loss),
            norm=norm,
        )
