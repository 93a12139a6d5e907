"""A step that is not finite is judged on the device, and told when the host asks."""

import math

import pytest
import torch

from retinanet.config import override_config
from retinanet.engine.divergence import DivergenceGuard
from retinanet.errors import UserError
from retinanet.schema import Config

CPU = torch.device("cpu")
FINE, BAD = (1.0, 2.0), (math.nan, 2.0)


def judge(
    guard: DivergenceGuard,
    step: int,
    losses: tuple[float, float] = FINE,
    norm: float = 3.0,
    overflow: bool | None = None,
) -> bool:
    """Whether the step may update something."""
    is_overflow = None if overflow is None else torch.tensor(overflow)
    skips = guard.judge(step, torch.tensor(losses), torch.tensor(norm), is_overflow)
    return {0.0: True, 1.0: False}[skips.item()]


def test_finite_steps_pass() -> None:
    guard = DivergenceGuard(CPU, allowed=0, skipped=0)
    assert all(judge(guard, step) for step in range(3))
    reading = guard.read()
    assert (reading.step, reading.skipped, float(guard.factor)) == (None, 0, 1.0)


@pytest.mark.parametrize(
    ("losses", "norm"),
    [(BAD, math.nan), ((1.0, math.inf), math.nan), (FINE, math.nan), (FINE, math.inf)],
)
def test_the_first_bad_step_is_kept_with_its_losses_and_norm(
    losses: tuple[float, float], norm: float
) -> None:
    """Later steps, made bad by the factor, do not replace it."""
    guard = DivergenceGuard(CPU, allowed=0, skipped=0)
    assert judge(guard, 4)
    assert not judge(guard, 5, losses, norm)
    assert math.isnan(float(guard.factor))  # no later loss is finite
    assert not judge(guard, 6, (math.nan, math.nan), math.nan)
    reading = guard.read()
    assert (reading.step, reading.skipped) == (5, 0)
    assert str((*reading.losses, reading.norm)) == str((*losses, norm))  # nan is not nan


def test_as_many_as_allowed_are_skipped_and_the_next_one_stops() -> None:
    """Three are allowed, one of which an earlier launch has used up."""
    guard = DivergenceGuard(CPU, allowed=3, skipped=1)
    assert not judge(guard, 10, BAD, math.nan)
    assert judge(guard, 11)
    assert not judge(guard, 12, BAD, math.nan)
    assert (guard.read().step, guard.read().skipped, float(guard.factor)) == (None, 3, 1.0)
    assert not judge(guard, 13, BAD, math.nan)
    assert (guard.read().step, guard.read().skipped) == (13, 3)
    assert math.isnan(float(guard.factor))


def test_an_overflow_of_fp16_is_no_fault_while_the_scale_may_fall() -> None:
    """It updates nothing, and does not count."""
    guard = DivergenceGuard(CPU, allowed=0, skipped=0)
    assert not judge(guard, 0, norm=math.inf, overflow=True)
    assert not judge(guard, 1, norm=math.nan, overflow=True)
    assert judge(guard, 2, overflow=True)
    assert (guard.read().step, guard.read().skipped, float(guard.factor)) == (None, 0, 1.0)
    assert not judge(guard, 3, norm=math.inf, overflow=False)
    assert guard.read().step == 3


def test_bad_steps_are_not_left_out_of_running_statistics() -> None:
    with pytest.raises(UserError, match=r"train.max_bad_steps: with model.norm bn a bad step"):
        override_config(Config(), ["model.norm=bn", "train.max_bad_steps=1"])
