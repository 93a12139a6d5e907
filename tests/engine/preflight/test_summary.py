"""What the start of a run says about the canvases."""

import numpy as np
import pytest

from retinanet.config import override_config
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.preflight import summary
from retinanet.engine.schedule import build_schedule
from retinanet.schema import Config


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        # 64 x 64, 64 x 96 and 64 x 128 px: 18,432 px of 24,576 together, of 20,480 as one and two.
        (["data.canvas=batch_max"], "canvas: batch_max, 25.0% of its pixels are padding"),
        (
            ["data.canvas=batch_max", "data.canvas_group=2"],
            "canvas: batch_max for groups of 2 images, 10.0% of its pixels are padding",
        ),
        (
            ["data.canvas=batch_max", "data.canvas_group=1"],
            "canvas: batch_max for groups of 1 image, 0.0% of its pixels are padding",
        ),
        (
            ["data.canvas=batch_max", "data.canvas_group=1", "data.preset=mosaic"],
            "canvas: 64x64 px, from data.preset mosaic",
        ),
    ],
)
def test_the_canvas_and_its_padding(overrides: list[str], line: str) -> None:
    data = override_config(
        Config(), ["data.short_side=[64]", "data.long_side=128", *overrides]
    ).data
    plan = TrainingPlan(
        np.array([(64, 64), (64, 96), (64, 128)]),
        rows=np.arange(3),
        factors=None,
        seed=0,
        batch_size=3,
        short_sides=(64,),
        long_side=128,
        resize="per_batch",
        canvas="batch_max",
        canvas_group=data.images_per_canvas,
        fixed_canvas=None,
        partners=0,
    )
    assert summary._describe_canvas(data, plan) == line


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["data.canvas=batch_max", "train.micro_batch=3"],
            [
                "  train.micro_batch: only 2 images at a time, because no more share a canvas "
                "(data.canvas_group)"
            ],
        ),
        (["data.canvas=batch_max", "train.micro_batch=2"], []),
        (["train.micro_batch=3"], []),
    ],
)
def test_a_micro_batch_larger_than_a_group(overrides: list[str], expected: list[str]) -> None:
    config = override_config(Config(), ["data.canvas_group=2", *overrides])
    schedule = build_schedule(config, steps_per_epoch=10)
    assert summary._warn_of_options(config, schedule) == expected
