"""What several processes must have in common."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.distributed.world import World
from retinanet.engine.preflight.process_checks import (
    check_every_rank_has_images,
    check_ranks_agree,
    check_sync_bn,
)
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


def test_more_processes_than_images_in_a_batch() -> None:
    one, many = (override_config(Config(), [f"train.batch_size={size}"]) for size in (1, 2))
    check_every_rank_has_images(many, two())
    with pytest.raises(UserError) as caught:
        check_every_rank_has_images(one, two())
    assert str(caught.value) == (
        "train.batch_size is 1, but there are 2 processes, so some would have nothing to do: start "
        "at most 1 process, or set train.batch_size=2 (then train.lr may need to be higher, too)"
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"train.lr": 0.5},
            r"train\.lr is 0\.01 in process 0, but 0\.5 in process 1: all machines",
        ),
        ({"val.json": "5678"}, r"val\.json is 1234 in process 0, but 5678 in process 1"),
    ],
)
def test_processes_that_would_train_different_things(other: Any, message: str) -> None:
    rest = Config(), split("train.json"), split("val.json")
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


def test_sync_bn_takes_a_share_on_one_canvas() -> None:
    """Two images share a canvas: a rank of eight has one, also of a short batch (test_sampler)."""
    words = ["model.norm=sync_bn", "data.canvas=batch_max", "data.canvas_group=2"]
    words += ["model.weights=none", "model.freeze=none", "train.micro_batch=2"]
    message = (
        "but data.canvas_group 2 cuts the batch into 8 canvases for 2 processes: start 8 "
        "processes, or use data.canvas_group=null or model.norm=gn$"
    )
    with pytest.raises(UserError, match=message):
        check_sync_bn(override_config(Config(), words), two())
    for ranks in (1, 8, 16):
        check_sync_bn(
            override_config(Config(), words), World(rank=0, size=ranks, device=two().device)
        )
    for remedy in (["data.canvas_group=null", "train.micro_batch=8"], ["model.norm=gn"]):
        check_sync_bn(override_config(Config(), [*words, *remedy]), two())
