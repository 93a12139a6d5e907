"""`data.canvas_group`: however a step is cut, the images keep their canvases, and the losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.data.loader import RankStep, training_loader
from retinanet.engine.splits import build_dataset, check_split, training_plan
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import build_detector
from retinanet.schema import Config

STEPS = 2
SMALL = [
    *("model.backbone=resnet18", "model.weights=none", "model.norm=gn", "model.freeze=none"),
    *("model.fpn_channels=32", "model.head_convs=1", "model.head_channels=32"),
    "anchors.sizes=[[8], [16], [32], [64], [128]]",
]
OPTIONS = [
    *("train.batch_size=5", "data.canvas=batch_max", "data.canvas_group=2"),
    *("data.short_side=[24, 48]", "data.long_side=64", "data.resize=per_image"),
]
Seen = list[tuple[int, tuple[int, ...]]]
"""(id, canvas) of the images of a step."""
Measure = Callable[..., tuple[list[Seen], list[float]]]


@pytest.fixture(scope="module")
def config() -> Config:
    return override_config(Config(), [*SMALL, *OPTIONS])


@pytest.fixture
def measure(config: Config, tiny_coco: Any) -> Measure:
    """Return a function that loads steps as some ranks do: what they see, and their losses.

    Eight images of five shapes, in batches of five and three; each has one box or two.
    """
    sizes = [(32, 40), (40, 32), (32, 44), (60, 30), (32, 32), (30, 60), (32, 40), (44, 32)]
    path: Path = tiny_coco(sizes, [[[4, 4, 16, 20], [1, 1, 24, 24]][: 1 + i % 2] for i in range(8)])
    split = check_split(read_annotations(path), path.with_suffix(""), config.data, name="train")
    torch.manual_seed(0)
    model = build_detector(config, classes=3).double()
    criterion = build_criterion(config.loss)

    def load(ranks: int, rank: int, micro_batch: int) -> list[RankStep]:
        loader = training_loader(
            build_dataset(config, split, augment=True, losses=True),
            training_plan(config, split),
            start=0,
            stop=STEPS,
            rank=rank,
            ranks=ranks,
            micro_batch=micro_batch,
            workers=0,
            pin_memory=False,
        )
        return list(loader)

    def measure(*, ranks: int, micro_batch: int) -> tuple[list[Seen], list[float]]:
        seen, losses = [], []
        for parts in zip(*(load(ranks, rank, micro_batch) for rank in range(ranks)), strict=True):
            batches = [batch for part in parts for batch in part.micro_batches]
            assert max(len(batch.images) for batch in batches) <= min(2, micro_batch)
            seen.append(
                [
                    (image_id, tuple(batch.images.shape[-2:]))
                    for batch in batches
                    for image_id in batch.image_ids.tolist()
                    if image_id != -1  # a rank without images has a blank one
                ]
            )
            with torch.no_grad():
                sums = [criterion(model(b.images, b.sizes), b) for b in batches]
            losses.append(float(sum(s["class"] + s["box"] for s in sums)))
        return seen, losses

    return measure


def test_ranks_and_micro_batches_do_not_matter(measure: Measure) -> None:
    """Five images have three canvases: with two ranks, one of them lies across both."""
    seen, losses = measure(ranks=1, micro_batch=5)
    assert [len(step) for step in seen] == [5, 3]
    assert all(len({canvas for _, canvas in step}) > 1 for step in seen)
    assert min(losses) > 0.1
    for ranks, micro_batch in [(1, 1), (2, 5), (3, 2)]:
        others, other_losses = measure(ranks=ranks, micro_batch=micro_batch)
        assert others == seen
        assert other_losses == pytest.approx(losses, rel=1e-12)
