"""What several processes must have in common."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.distributed.world import World
from retinanet.engine.preflight.process_checks import check_ranks_agree, check_sync_bn
from retinanet.errors import UserError
from retinanet.schema import Config


class Two(World):
    """Rank 0 of two; the other rank reports something else."""

    def gather(self, value: Any) -> list[Any]:
        return [value, {**value, **getattr(self, "other", {})}]

    def broadcast(self, value: Any) -> Any:
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
        (
            {"train.lr": 0.5},
            r"train\.lr is 0\.01 in process 0, but 0\.5 in process 1: all machines",
        ),
        ({"val.json": "5678"}, r"val\.json is 1234 in process 0, but 5678 in process 1"),
        ({"the state to resume from": 3}, "the state to resume from is None in process 0, but 3"),
        (
            {"the weights to start from": "ab"},
            "the weights to start from is None in process 0, but",
        ),
    ],
)
def test_processes_that_would_train_different_things(other: Any, message: str) -> None:
    rest = Config(), split("train.json"), split("val.json"), None, None
    with pytest.raises(UserError, match=message):
        check_ranks_agree(two(**other), *rest)
    check_ranks_agree(two(), *rest)


def test_sync_bn_takes_a_whole_share_at_a_time() -> None:
    """Processes with another number of passes would wait for each other for ever."""
    words = ["model.norm=sync_bn", "train.batch_size=5", "train.micro_batch=2"]
    words += ["model.weights=none", "model.freeze=none"]
    with pytest.raises(UserError, match="micro_batch is 2: set it to 3, or use model"):
        check_sync_bn(override_config(Config(), words), two())
    check_sync_bn(override_config(Config(), [*words, "train.micro_batch=3"]), two())
    check_sync_bn(override_config(Config(), [*words, "model.norm=gn"]), two())
    check_sync_bn(override_config(Config(), words), World(rank=0, size=1, device=two().device))
