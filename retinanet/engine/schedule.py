"""The learning rate as one pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal


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
    """Return the learning rate of a step, from 0.

    Linear warm-up from `warmup_factor` x peak, times the schedule: a factor `drop` from each
    milestone (a step) on, or half a cosine to 0 at `steps` (Loshchilov and Hutter, 1608.03983).
    """
    rate = peak
    if step < warmup_steps:
        rate *= warmup_factor + (1 - warmup_factor) * step / warmup_steps
    if schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    return rate * drop ** sum(step >= milestone for milestone in milestones)
