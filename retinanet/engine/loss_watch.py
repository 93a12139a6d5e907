"""Finite losses that still say that a training has failed: far above the start, or never moving."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch import Tensor

from retinanet.schema import TrainConfig

_EXPLODED = 20
"""A step's loss, in those of the first step. One of 5 times as much occurs in sound trainings."""
_FAILED = 4
"""The loss of an evaluation in which nothing is found, in those of the first step."""
_LEARNT_AP50 = 0.01
_IMAGES_PER_BOX = 10
_FLAT_REPORTS = 4
"""Reports with the same loss to the last bit, from which on nothing is learnt."""


class LossWatch:
    """Compares losses with that of the first step that had a positive anchor."""

    def __init__(self) -> None:
        self.start: float | None = None
        """Loss of that step, once it is known on the host."""
        self._first: Tensor | None = None
        self._before: tuple[float, float] | None = None
        self._equal = 1
        self._has_said_exploded = False

    def resume(self, metrics: Path) -> None:
        """Take the start from the first report of a run that goes on, if it has one."""
        if not metrics.exists():
            return
        with metrics.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    values = json.loads(line)
                    total = values["loss_class/train"] + values["loss_box/train"]
                except (ValueError, TypeError, KeyError):  # of an evaluation, or damaged
                    continue
                self.start = float(total)
                return

    def note_step(self, losses: Tensor, positives: int) -> None:
        """Keep the first losses (2,) of a batch with positives, without waiting for the device."""
        if self.start is None and self._first is None and positives:
            self._first = losses

    def judge_step(self, losses: tuple[float, float], rate: float, config: TrainConfig) -> str:
        """Return a warning of a step's class and box loss that is to be reported, or nothing."""
        total = sum(losses)
        self._read_start()
        self._equal = self._equal + 1 if losses == self._before else 1
        self._before = losses
        if self._equal == _FLAT_REPORTS:
            return (
                f"warning: the loss has been exactly {total:g} in {_FLAT_REPORTS} reports: nothing "
                f"is learnt at lr {rate:.3g}; too low a train.lr does that, and too high a one"
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
            f"that of the first step ({self.start:.4g}). If it stays so, start again with "
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
        """Return a warning of an evaluation that found nothing and has a large loss, or nothing.

        Args:
            losses: class and box loss of all images.
            ap50: of the same evaluation; None where there is no ground truth.
            config: options that the remedy names.
            boxes: boxes of the ground truth; the loss is divided by them.
            images: images of it. Where boxes are few, all the negatives make a large loss.
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
            f"that of the first step of training ({self.start:.4g}), and nearly nothing is found: "
            f"the training has failed. Start again with {calmer_options(config)}"
        )

    def _read_start(self) -> None:
        """Wait for the device, if the loss of the first step is not on the host yet."""
        if self.start is None and self._first is not None:
            self.start = float(self._first.sum())

    def _limit(self, times: float) -> float:
        """Return what is too large a loss; a fine-tuned network may start near 0."""
        return math.inf if self.start is None else times * max(self.start, 1.0)


def calmer_options(config: TrainConfig) -> str:
    """Return the options that make a training diverge less easily."""
    clipping = "a smaller train.clip_norm" if config.clip_norm else "train.clip_norm=10"
    half = [] if config.precision in ("fp32", "fp64") else ["train.precision=fp32"]
    *others, last = ["a lower train.lr", "a longer train.warmup_steps", clipping, *half]
    return f"{', '.join(others)} or {last}"
