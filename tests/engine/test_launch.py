"""What is refused between the config and the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.distributed import world as distributed
from retinanet.distributed.world import World
from retinanet.engine.launch import _check_ranks_agree, _check_sync_bn
from retinanet.errors import InterruptedRunError, TrainingError, UserError
from retinanet.schema import Config


class Two(World):
    """Rank 0 of two, the other one of which says something else, and what was broadcast."""

    def gather(self, value: Any) -> list[Any]:
        return [value, {**value, **getattr(self, "other", {})}]

    def broadcast(self, value: Any) -> Any:
        vars(self).setdefault("told", []).append(value)
        return value


def two(**other: Any) -> Two:
    world = Two(rank=0, size=2, device=torch.device("cpu"))
    vars(world)["other"] = other
    return world


def split(name: str) -> Any:
    return SimpleNamespace(annotations=SimpleNamespace(path=name, fingerprint="1234"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"train.lr": 0.5}, r"train\.lr is 0\.01 in process 0 but 0\.5 in process 1: all machines"),
        ({"val.json": "5678"}, r"val\.json is 1234 in process 0 but 5678 in process 1"),
        ({"the state to resume from": 3}, "the state to resume from is None in process 0 but 3"),
        ({"the weights to start from": "ab"}, "the weights to start from is None in process 0 but"),
    ],
)
def test_processes_that_would_train_different_things(other: Any, message: str) -> None:
    rest = Config(), split("train.json"), split("val.json"), None, None
    with pytest.raises(UserError, match=message):
        _check_ranks_agree(two(**other), *rest)
    _check_ranks_agree(two(), *rest)


def test_sync_bn_takes_a_whole_share_at_a_time() -> None:
    """Processes with another number of passes would wait for each other for ever."""
    words = ["model.norm=sync_bn", "train.batch_size=5", "train.micro_batch=2"]
    words += ["model.weights=none", "model.freeze=none"]
    with pytest.raises(UserError, match="micro_batch is 2: set it to 3, or take model"):
        _check_sync_bn(override_config(Config(), words), two())
    _check_sync_bn(override_config(Config(), [*words, "train.micro_batch=3"]), two())
    _check_sync_bn(override_config(Config(), [*words, "model.norm=gn"]), two())
    _check_sync_bn(override_config(Config(), words), World(rank=0, size=1, device=two().device))


def test_bad_steps_are_not_left_out_of_running_statistics() -> None:
    with pytest.raises(UserError, match=r"train.max_bad_steps: with model.norm bn a bad step"):
        override_config(Config(), ["model.norm=bn", "train.max_bad_steps=1"])


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
    monkeypatch.setattr(distributed, "_settle", lambda wrapped, device: settled.append(wrapped))
    wrapped = two().wrap(torch.nn.Linear(1, 1))
    assert settled == [wrapped]
    assert given.pop("gradient_as_bucket_view") is True
    assert given.pop("device_ids") is None
    assert list(given.values()) == [False]  # by either of its names
