"""What `auto` means, and the size of a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.data.index import read_annotations
from retinanet.engine.distributed import World
from retinanet.engine.run import resolve_micro_batch
from retinanet.engine.splits import check_split
from retinanet.schema import Config

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "ranks", "overrides", "expected"),
    [
        (CPU, 1, [], 2),  # 800 x 1088 px: two of them are 1.74 million
        (CPU, 1, ["data.short_side=[1200]", "data.long_side=2000"], 1),
        (CPU, 1, ["data.short_side=[1600]", "data.long_side=2600"], 1),  # never less
        (CPU, 1, ["data.short_side=[200]"], 16),  # 224 x 288 px: the whole batch
        (CPU, 3, ["data.short_side=[200]"], 6),
        (CUDA, 1, [], 16),
        (CUDA, 8, [], 2),
        (CPU, 1, ["train.micro_batch=5"], 5),
        (CUDA, 8, ["train.micro_batch=1"], 1),
    ],
)
def test_micro_batch(
    tiny_coco: Any, device: torch.device, ranks: int, overrides: list[str], expected: int
) -> None:
    """A laptop runs the recipe of eight GPUs, without a thought about memory."""
    path: Path = tiny_coco([(60, 70), (60, 80)], [[[0, 0, 20, 20]], []])
    config = override_config(Config(), overrides)
    split = check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")
    world = World(rank=0, size=ranks, device=device)
    assert resolve_micro_batch(config, split, world) == expected
