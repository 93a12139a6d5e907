"""The learning rate as literal tables."""

from typing import Any

import pytest

from retinanet.engine.schedule import learning_rate


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
    """users.md ST1: warm-up, then 0.01, a tenth of it at 60k and at 80k."""
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
