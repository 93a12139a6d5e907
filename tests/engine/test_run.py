"""What `auto` means, and the size of a checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.engine.run import Run
from retinanet.schema import Config

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def planned(*overrides: str, steps_per_epoch: int = 50) -> Run:
    """Return a run that knows its config and the length of an epoch alone."""
    run: Any = object.__new__(Run)
    run.config = override_config(Config(), list(overrides))
    run.plan = SimpleNamespace(steps_per_epoch=steps_per_epoch)
    return run


@pytest.mark.parametrize(
    ("overrides", "steps", "milestones", "interval"),
    [
        ([], 90_000, [60_000, 80_000], 5000),
        (["train.steps=270000"], 270_000, [180_000, 240_000], 5000),
        (["train.steps=20"], 20, [13, 18], 5000),
        (["train.epochs=12"], 600, [400, 533], 50),
        (["train.epochs=12", "train.milestones=[8, 11]", "eval.every=3"], 600, [400, 550], 150),
        (["train.steps=100", "train.milestones=[]", "eval.every=0"], 100, [], 0),
    ],
)
def test_the_schedule_counts_in_the_unit_of_the_length(
    overrides: list[str], steps: int, milestones: list[int], interval: int
) -> None:
    """users.md ST2: nothing to scale: without milestones of its own, it follows the length."""
    run = planned(*overrides)
    assert (run.steps, run.milestones, run.evaluation_interval) == (steps, milestones, interval)


def test_learning_rates_of_epochs() -> None:
    run = planned("train.epochs=3", "train.milestones=[1, 2]", "train.warmup_steps=2")
    rates = [run.learning_rate(step) for step in (0, 1, 2, 49, 50, 99, 100, 149)]
    expected = [1e-5, 5.005e-3, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    assert rates == pytest.approx(expected)
