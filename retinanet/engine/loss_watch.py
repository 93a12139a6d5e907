"""Detect a failed training from finite losses: far above the start, or never changing."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch import Tensor

from retinanet.distributed.world import World
from retinanet.schema import TrainConfig

_EXPLODED = 20
"""Limit of a step's loss, relative to the first step's. A factor of 5 occurs in good trainings."""
_FAILED = 4
"""Limit of the loss of an evaluation that detects nothing, relative to the first step's."""
_LEARNT_AP50 = 0.01
_IMAGES_PER_BOX = 10
_FLAT_REPORTS = 4
"""Number of reports with exactly the same loss after which a warning is printed."""


class LossWatch:
    """Compares losses with the loss of the first step that had a positive anchor."""

    def __init__(self) -> None:
        self.start: float | None = None
        """Loss of that step, once the host has it."""
        self._first: Tensor | None = None
        self._before: tuple[float, float] | None = None
        self._equal = 1
        self._has_said_exploded = False

    def resume(self, metrics: Path, world: World) -> None:
        """Read the first loss from the metrics of a resumed run, if they have one.

        All ranks call it; the metrics may be on the machine of rank 0 alone.
        """
        if world.is_main and metrics.exists():
            self.start = _first_loss(metrics)
        self.start = world.broadcast(self.start)

    def note_step(self, losses: Tensor, positives: float, world: World) -> None:
        """Keep the first losses of a global batch with positives, without waiting for the device.

        All ranks call it, so that they sum up the same step.

        Args:
            losses: (2,) this rank's share of the class and box loss.
            positives: Number of positive anchors in the global batch.
            world: This process among the others.
        """
        if self.start is None and self._first is None and positives:
            self._first = losses.clone()
            world.add_up(self._first)

    def judge_step(self, losses: tuple[float, float], rate: float, config: TrainConfig) -> str:
        """Return a warning about a step's class and box loss, or ""."""
        total = sum(losses)
        self._read_start()
        self._equal = self._equal + 1 if losses == self._before else 1
        self._before = losses
        if self._equal == _FLAT_REPORTS:
            return (
                f"warning: the loss has been exactly {total:g} in {_FLAT_REPORTS} reports: the "
                f"network learns nothing at lr {rate:.3g}; train.lr is too low or too high"
            )
        limit = self._limit(_EXPLODED)
        if total <= limit or not math.isfinite(total):
            self._has_said_exploded &= total > limit
            return ""
        if self._has_said_exploded:
            return ""
        self._has_said_exploded = True
        return (
            f"warning: the loss {total:,.6g} is {total / max(self.start or 1, 1e-9):,.0f} times "
            f"that of the first step ({self.start:.4g}). If it stays that high, start again with "
            f"{calmer_options(config)}"
        )

    def judge_evaluation(
        self,
        losses: dict[str, float],
        ap50: float | None,
        config: TrainConfig,
        *,
        boxes: int,
        images: int,
    ) -> str:
        """Return a warning about an evaluation with a large loss and no detections, or "".

        Args:
            losses: Class and box loss of all images.
            ap50: AP50 of the same evaluation; None if there is no ground truth.
            config: Options that the remedy names.
            boxes: Number of boxes in the ground truth; the loss is divided by it.
            images: Number of images. If boxes are few, all the negatives add up to a large loss.
        """
        total = sum(losses.values())
        self._read_start()
        if not math.isfinite(total):
            return f"warning: this loss is not finite; start again with {calmer_options(config)}"
        is_known = ap50 is not None and images < _IMAGES_PER_BOX * boxes
        if not is_known or (ap50 or 0) >= _LEARNT_AP50 or total <= self._limit(_FAILED):
            return ""
        return (
            f"warning: this loss, {total:,.6g}, is {total / max(self.start or 1, 1e-9):,.0f} times "
            f"that of the first step of training ({self.start:.4g}), and almost nothing is "
            f"detected: the training has failed. Start again with {calmer_options(config)}"
        )

    def _read_start(self) -> None:
        """Wait for the device, if the loss of the first step is not on the host yet."""
        if self.start is None and self._first is not None:
            self.start = float(self._first.sum())

    def _limit(self, times: float) -> float:
        """Return the limit of the loss. A fine-tuned network may start near 0."""
        return math.inf if self.start is None else times * max(self.start, 1.0)


def _first_loss(metrics: Path) -> float | None:
    """Return the loss of the first step that a file of metrics holds."""
    with metrics.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                values = json.loads(line)
                return float(values["loss_class/train"] + values["loss_box/train"])
            except (ValueError, TypeError, KeyError):  # an evaluation, or a damaged line
                continue
    return None


def calmer_options(config: TrainConfig) -> str:
    """Return the options that make training less likely to diverge."""
    clipping = "a smaller train.clip_norm" if config.clip_norm else "train.clip_norm=10"
    half = [] if config.precision in ("fp32", "fp64") else ["train.precision=fp32"]
    *others, last = ["a lower train.lr", "a longer train.warmup_steps", clipping, *half]
    return f"{', '.join(others)} or {last}"
