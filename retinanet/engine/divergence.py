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
    """Class and box loss of that step; of several ranks, this rank's share."""
    norm: float
    """Norm of that step's gradient."""


class DivergenceGuard:
    """Counts steps whose loss or gradient is not finite; past a limit, stops all updates.

    It stops them through `factor`, which multiplies the loss: NaN makes every later step a bad one,
    and a bad step updates nothing. All ranks come to the same verdict.
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
        self._bad = torch.full((), skipped, dtype=torch.int64, device=device)
        """Number of bad steps, with those after the limit."""
        self._stopped_at = torch.full((4,), math.nan, device=device)
        """Step, class loss, box loss and norm of the step that exceeded the limit; NaN if none."""
        self._go, self._stop = (torch.full((), x, device=device) for x in (1.0, math.nan))

    @property
    def factor(self) -> Tensor:
        """Scalar on the device: 1 while updates are made, NaN afterwards."""
        return torch.where(self._bad > self._allowed, self._stop, self._go)

    def judge(
        self, step: int, losses: Tensor, norm: Tensor, is_overflow: Tensor | None = None
    ) -> Tensor:
        """Note a step; return, on the device, 1.0 if it may update nothing, else 0.0.

        The norm decides, because it is that of all ranks; a loss that is not finite made it NaN.

        Args:
            step: Number of the step, from 0.
            losses: (2,) this rank's share of the class and box loss of the global batch.
            norm: Norm of the gradient of the global batch.
            is_overflow: Whether a norm that is not finite is no failed training; never if None.
        """
        skips = ~(norm < math.inf)  # also if it is NaN
        is_bad = skips if is_overflow is None else skips & ~is_overflow
        stops = is_bad & (self._bad == self._allowed)
        number = torch.full((1,), float(step), device=norm.device)
        this_step = torch.cat([number, losses.float(), norm.float().reshape(1)])
        self._stopped_at = torch.where(stops, this_step, self._stopped_at)
        self._bad = self._bad + is_bad
        return skips.float()

    def read(self) -> GuardState:
        """Wait for the device and return the counts."""
        step, class_loss, box_loss, norm = self._stopped_at.tolist()
        return GuardState(
            skipped=min(int(self._bad), self._allowed),
            step=None if math.isnan(step) else int(step),
            losses=(class_loss, box_loss),
            norm=norm,
        )
