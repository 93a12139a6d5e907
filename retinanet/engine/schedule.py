"""The length of a run and the learning rate of each step, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from retinanet.schema import Config, TrainConfig


def learning_rate(
    step: int,
    *,
    peak: float,
    steps: int,
    warmup_steps: int,
    warmup_factor: float,
    schedule: Literal["multistep", "cosine"],
    milestones: Sequence[int],
    drop: float,
) -> float:
    """Return the learning rate of a step (counted from 0).

    Linear warm-up from `warmup_factor` x peak, times the schedule: a factor `drop` from each
    milestone (a step) on, or half a cosine to 0 at `steps` (Loshchilov and Hutter, 1608.03983).
    """
    rate = peak
    if step < warmup_steps:
        rate *= warmup_factor + (1 - warmup_factor) * step / warmup_steps
    if schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    return rate * drop ** sum(step >= milestone for milestone in milestones)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length of a run, and the steps at which the rate drops or an evaluation follows."""

    train: TrainConfig
    unit: int
    """Steps in one unit of the config's length: the steps of an epoch, or 1."""
    steps: int
    """Steps of the whole run."""
    milestones: tuple[int, ...]
    """Steps at which the learning rate drops."""
    evaluation_interval: int
    """Steps between evaluations; 0 evaluates only at the end."""

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step (counted from 0)."""
        train = self.train
        return learning_rate(
            step,
            peak=train.lr,
            steps=self.steps,
            warmup_steps=train.warmup_steps,
            warmup_factor=train.warmup_factor,
            schedule=train.schedule,
            milestones=self.milestones,
            drop=train.lr_drop,
        )

    def option_that_keeps_drops(self) -> str | None:
        """Return the option with which a longer run drops at the same steps; None if none does."""
        if self.train.schedule != "multistep" or any(m % self.unit for m in self.milestones):
            return None
        return f"train.milestones={[milestone // self.unit for milestone in self.milestones]}"

    def _decides_rates(self) -> tuple[object, ...]:
        """Return everything that the learning rates depend on."""
        train = self.train
        return (
            *(train.lr, train.warmup_steps, train.warmup_factor, train.schedule, train.lr_drop),
            *(self.milestones, self.steps if train.schedule == "cosine" else None),
        )

    def is_evaluated(self, step: int) -> bool:
        """Whether an evaluation follows after this many steps: every interval, and at the end."""
        interval = self.evaluation_interval
        return step == self.steps or (interval > 0 and step % interval == 0)


def first_different_rate(before: Schedule, now: Schedule, steps: range) -> int | None:
    """Return the first of `steps` whose learning rate differs; None if all are equal."""
    if before._decides_rates() == now._decides_rates():
        return None
    candidates: Iterable[int] = steps
    if before.train.schedule == now.train.schedule == "multistep":
        # Between warm-up and the milestones nothing changes, so a long run is compared quickly.
        warm = max(schedule.train.warmup_steps for schedule in (before, now))
        turns = {steps.start, warm, *before.milestones, *now.milestones}
        near = range(steps.start, min(steps.stop, warm))
        candidates = [*near, *sorted(turn for turn in turns if turn >= warm and turn in steps)]
    return next(
        (step for step in candidates if before.learning_rate(step) != now.learning_rate(step)),
        None,
    )


def build_schedule(config: Config, *, steps_per_epoch: int) -> Schedule:
    """Build the schedule of an experiment. Default milestones are at 2/3 and 8/9 of the length."""
    train = config.train
    unit = steps_per_epoch if train.epochs else 1
    steps = (train.epochs or train.steps or 0) * unit
    milestones: tuple[int, ...] = (round(steps * 2 / 3), round(steps * 8 / 9))
    if train.milestones is not None:
        milestones = tuple(milestone * unit for milestone in train.milestones)
    every = config.eval.every
    if every is None:
        every = 1 if train.epochs else 5000
    return Schedule(
        train=train,
        unit=unit,
        steps=steps,
        milestones=milestones,
        evaluation_interval=every * unit,
    )
