"""Processes leave together, and exchange gradients in one layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from retinanet.distributed import world as distributed
from retinanet.distributed.world import World
from retinanet.errors import InterruptedRunError, TrainingError, UserError


class Two(World):
    """Rank 0 of two, which keeps what it broadcasts."""

    def broadcast(self, value: Any) -> Any:
        vars(self).setdefault("told", []).append(value)
        return value


def two() -> Two:
    return Two(rank=0, size=2, device=torch.device("cpu"))


def agreed(error: Any) -> Any:
    error.agreed = True
    return error


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (None, True),
        (InterruptedRunError(15, ""), True),
        (agreed(TrainingError("")), True),
        (agreed(UserError("")), True),
        (TrainingError("a full disk: rank 0 alone"), False),
        (ValueError("a bug of one rank"), False),
    ],
)
def test_who_leaves_together(error: Exception | None, waits: bool) -> None:
    """Waiting after an end that is one rank's own would hang: the others go on."""
    world, caught = two(), None
    try:
        with world.leaving_together():
            if error is not None:
                raise error
    except Exception as raised:
        caught = raised
    assert caught is error
    assert getattr(world, "told", []) == ([None] if waits else [])


def test_how_gradients_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets are views, no buffer travels, and the layout is settled before the first step."""
    given: dict[str, Any] = {}

    class Parallel(torch.nn.Module):
        def __init__(self, module: torch.nn.Module, **options: Any) -> None:
            super().__init__()
            given.update(options)

    settled: list[Any] = []
    monkeypatch.setattr(distributed, "DistributedDataParallel", Parallel)
    monkeypatch.setattr(
        distributed, "_settle_gradient_buckets", lambda wrapped, *_: settled.append(wrapped)
    )
    wrapped = two().wrap(torch.nn.Linear(1, 1), (64, 96))
    assert settled == [wrapped]
    assert given.pop("gradient_as_bucket_view") is True
    assert given.pop("device_ids") is None
    assert list(given.values()) == [False]  # by either of its names
