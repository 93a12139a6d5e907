"""The length of a run and its learning rates, as literal tables."""

from typing import Any

import pytest

from retinanet.config import override_config
from retinanet.engine.schedule import Schedule, build_schedule, learning_rate
from retinanet.schema import Config


def table(at: list[int], **options: Any) -> list[float]:
    defaults: dict[str, Any] = {
        "peak": 0.01,
        "steps": 90000,
        "warmup_steps": 1000,
        "warmup_factor": 0.001,
        "schedule": "multistep",
        "milestones": [60000, 80000],
        "drop": 0.1,
    }
    return [learning_rate(step, **{**defaults, **options}) for step in at]


def test_the_default_schedule() -> None:
    """Warm-up, then 0.01, a tenth of it at 60k and at 80k."""
    steps = [0, 250, 500, 999, 1000, 59999, 60000, 79999, 80000, 89999]
    assert table(steps) == pytest.approx(
        [1e-5, 0.0025075, 0.005005, 0.00999001, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rel=1e-12
    )


def test_cosine() -> None:
    """Half a cosine over the whole run: 1, (1 + cos 45°) / 2, 1/2, .., 0."""
    rates = table([0, 25, 50, 75, 100], schedule="cosine", steps=100, warmup_steps=0, peak=2.0)
    assert rates == pytest.approx([2, 1.7071067812, 1, 0.2928932188, 0], abs=1e-9)


def test_warm_up_times_the_cosine() -> None:
    rates = table(
        [0, 5, 10], schedule="cosine", steps=20, warmup_steps=10, warmup_factor=0.5, peak=1.0
    )
    assert rates == pytest.approx([0.5, 0.75 * 0.8535533906, 0.5], abs=1e-9)


def test_a_milestone_inside_the_warm_up() -> None:
    rates = table([4, 5, 9, 10], warmup_steps=10, warmup_factor=0.0, milestones=[5], peak=1.0)
    assert rates == pytest.approx([0.4, 0.05, 0.09, 0.1])


def test_no_warm_up_and_no_milestones() -> None:
    assert table([0, 1, 500], warmup_steps=0, milestones=[]) == [0.01, 0.01, 0.01]


def test_cosine_stays_at_0_past_the_end() -> None:
    assert table([100, 150], schedule="cosine", steps=100, warmup_steps=0) == [0.0, 0.0]


def schedule_of(*overrides: str, steps_per_epoch: int = 50) -> Schedule:
    config = override_config(Config(), list(overrides))
    return build_schedule(config, steps_per_epoch=steps_per_epoch)


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
    """Nothing needs rescaling: without milestones of its own, a schedule follows the length."""
    found = schedule_of(*overrides)
    assert (found.steps, [*found.milestones], found.evaluation_interval) == (
        steps,
        milestones,
        interval,
    )


def test_learning_rates_of_epochs() -> None:
    found = schedule_of("train.epochs=3", "train.milestones=[1, 2]", "train.warmup_steps=2")
    rates = [found.learning_rate(step) for step in (0, 1, 2, 49, 50, 99, 100, 149)]
    expected = [1e-5, 5.005e-3, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    assert rates == pytest.approx(expected)


def test_steps_that_are_evaluated() -> None:
    """Each interval, and at the end; without an interval, only there."""
    every = schedule_of("train.steps=10", "eval.every=4")
    assert [step for step in range(1, 11) if every.is_evaluated(step)] == [4, 8, 10]
    end = schedule_of("train.steps=10", "eval.every=0")
    assert [step for step in range(1, 11) if end.is_evaluated(step)] == [10]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["train.steps=9"], "train.milestones=[6, 8]"),
        (["train.epochs=9"], "train.milestones=[6, 8]"),
        (["train.epochs=2"], None),  # 1 1/3 epochs are no milestone that can be written
        (["train.steps=9", "train.schedule=cosine"], None),
        (["train.steps=9", "train.milestones=[]"], "train.milestones=[]"),
    ],
)
def test_the_option_that_keeps_drops(words: list[str], option: str | None) -> None:
    assert schedule_of(*words).option_that_keeps_drops() == option
