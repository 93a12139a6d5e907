"""Timing of the data path: every stage measures the right work."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.benchmark.data_path import measure_data
from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.schema import Config

STAGES = ["decode", "augment", "resize", "pad", "assign anchors", "whole, one core"]


def experiment(path: Path, *overrides: str) -> Config:
    words = [
        *(f"data.{split}.annotations={path}" for split in ("train", "val")),
        *(f"data.{split}.images={path.parent / path.stem}" for split in ("train", "val")),
        *("data.short_side=64", "data.long_side=96", "train.batch_size=4"),
    ]
    return override_config(Config(), [*words, *overrides])


@pytest.fixture
def path(tiny_coco: Any) -> Path:
    return tiny_coco([(48, 64)] * 8, [[[4, 8, 20, 22]]] * 8)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.hflip=0",),
        ("data.preset=mosaic", "data.preset_canvas=[96,96]"),
        ("data.preset=large_scale_jitter",),
        ("data.augment=[{VerticalFlip: {p: 1}}]",),
    ],
)
def test_every_stage_is_timed(path: Path, overrides: tuple[str, ...]) -> None:
    timings = list(measure_data(experiment(path, *overrides), images=8, workers=[0]))
    assert [timing.stage for timing in timings] == [*STAGES, "loader, data.workers=0"]
    assert all(timing.seconds >= 0 for timing in timings)
    assert timings[5].seconds > 0


def test_decoding_is_timed_apart_from_augmenting(path: Path) -> None:
    """Reading a file takes 5 ms, which counts as decoding: four of them in a mosaic."""

    def read(*arguments: object, reduction: int = 1) -> np.ndarray:
        time.sleep(0.005)
        return np.zeros((48, 64, 3), np.uint8)

    for overrides, files in ((), 1), (("data.preset=mosaic",), 4):
        config = experiment(path, *overrides)
        timings = list(measure_data(config, images=8, workers=[], read=read))
        seconds = {timing.stage: timing.seconds for timing in timings}
        assert 0.9 * files * 0.005 < seconds["decode"]
        assert seconds["augment"] < 0.005


def test_an_unreadable_image(path: Path) -> None:
    (path.parent / path.stem / "000.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"000\.jpg: not an image that can be decoded"):
        list(measure_data(experiment(path), images=8, workers=[]))
