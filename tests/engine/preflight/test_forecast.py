"""The forecast that a dry run prints."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from retinanet.config import override_config
from retinanet.engine.ema import Ema
from retinanet.engine.flops import Work
from retinanet.engine.optimizer import build_optimizer
from retinanet.engine.preflight.forecast import (
    DryRunTimes,
    aligned,
    count_evaluations,
    describe_events,
    describe_memory,
    describe_parameters,
    describe_schedule,
    describe_time,
    step_period,
)
from retinanet.engine.run import Run
from retinanet.engine.schedule import build_schedule
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

SMALL = [
    *("model.backbone=resnet18", "model.fpn_channels=32", "model.head_convs=1"),
    *("model.head_channels=32",),
]
TRIAL = DryRunTimes(
    images=8,
    pixels=800_000,
    load_seconds=1.0,
    step_seconds=2.0,
    step_memory=3.25,
    evaluated=4,
    evaluation_seconds=1.0,
    evaluation_memory=1.5,
)


def planned(*overrides: str, ranks: int = 1, device: str = "cpu") -> Run:
    """Return a run with 100 steps an epoch and 50 images to evaluate on, without a network."""
    run: Any = object.__new__(Run)
    run.config = override_config(Config(), list(overrides))
    run.plan = SimpleNamespace(steps_per_epoch=100, entries=1600)
    run.schedule = build_schedule(run.config, steps_per_epoch=100)
    run.val = SimpleNamespace(annotations=range(50))
    run.world = SimpleNamespace(size=ranks, device=torch.device(device))
    run.progress = SimpleNamespace(step=0)
    run.ema = None
    return run


def detector(config: Config) -> Detector:
    return build_detector(config, classes=3, pretrained=False)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["train.steps=90000"],
            [
                "                   step    epoch   learning rate",
                "first step            0     0.00           1e-05",
                "end of warm-up    1,000    10.00            0.01",
                "times 0.1        60,000   600.00           0.001",
                "times 0.1        80,000   800.00          0.0001",
                "last step        89,999   899.99          0.0001",
            ],
        ),
        (
            ["train.epochs=4", "train.warmup_steps=0", "train.schedule=cosine", "train.lr=0.02"],
            [
                "                 step   epoch   learning rate",
                "first step          0    0.00            0.02",
                "cosine, 1 of 4    100    1.00         0.01707",
                "cosine, 2 of 4    200    2.00            0.01",
                "cosine, 3 of 4    300    3.00        0.002929",
                "last step         399    3.99       3.084e-07",
            ],
        ),
        (
            ["train.epochs=1", "train.milestones=[]", "train.warmup_steps=500"],
            [
                "             step   epoch   learning rate",
                "first step      0    0.00           1e-05",
                "last step      99    0.99        0.001988",
            ],
        ),
        (
            ["train.steps=1", "train.warmup_steps=0"],
            [
                "             step   epoch   learning rate",
                "first step      0    0.00            0.01",
            ],
        ),
    ],
)
def test_the_learning_rate_at_its_turns(overrides: list[str], expected: list[str]) -> None:
    config = override_config(Config(), overrides)
    assert describe_schedule(build_schedule(config, steps_per_epoch=100), 100) == expected


def test_evaluations_and_checkpoints() -> None:
    """Weights of 10 MB in float32, 6 MB of them trained with one moment each, averaged too."""
    run = planned("train.steps=250", "eval.every=100", "train.checkpoint_every=50")
    run.model = nn.Linear(2_500_000, 1, bias=False)  # type: ignore[assignment]
    assert describe_events(run) == [
        "250 steps of 16 images, 2.50 epochs of 100 steps",
        "3 evaluations of 50 images: every 100 steps and at the end",
        "checkpoints: last.pt every 50 steps and at evaluations, best.pt: 2 files of 20.0 MB, "
        "40.0 MB in all",
    ]
    run.config = override_config(
        run.config, ["train.snapshot_every=60", "train.optimizer=adamw", "eval.every=0"]
    )
    run.schedule = build_schedule(run.config, steps_per_epoch=100)
    run.ema = SimpleNamespace()  # type: ignore[assignment]
    assert describe_events(run)[1:] == [
        "1 evaluation of 50 images: at the end, of the weights and of their average",
        "checkpoints: last.pt every 50 steps and at evaluations, best.pt, the newest 3 of 4 "
        "step_*.pt: 5 files of 40.0 MB, 200.0 MB in all",
    ]
    run.config = override_config(run.config, ["train.keep_snapshots=0"])
    assert ", the newest 4 of 4 step_*.pt: 6 files of 40.0 MB" in describe_events(run)[2]


@pytest.mark.parametrize(
    ("steps", "interval", "evaluations"),
    [(100, 0, 1), (100, 50, 2), (100, 33, 4), (100, 100, 1), (100, 5000, 1), (1, 1, 1)],
)
def test_the_number_of_evaluations(steps: int, interval: int, evaluations: int) -> None:
    assert count_evaluations(steps, interval) == evaluations


def test_what_is_trained_of_each_part() -> None:
    """The stem and layer1 are frozen; the rest of the backbone has a fifth of the rate."""
    overrides = ["train.backbone_lr_factor=0.2", "train.decay_exempt=norms_and_biases"]
    config = override_config(Config(), [*SMALL, *overrides])
    model = detector(config)
    assert describe_parameters(model, build_optimizer(model, config.train)) == [
        "                  parameters    frozen    trainable   lr factor   weight decay",
        "backbone stem          9,408     9,408            0           -              -",
        "backbone layer1      147,456   147,456            0           -              -",
        "backbone layer2      524,288         0      524,288         0.2         0.0001",
        "backbone layer3    2,097,152         0    2,097,152         0.2         0.0001",
        "backbone layer4    8,388,608         0    8,388,608         0.2         0.0001",
        "fpn                  213,248         0      213,248           1      0.0001, 0",
        "class subnet          17,051         0       17,051           1      0.0001, 0",
        "box subnet            19,652         0       19,652           1      0.0001, 0",
        "all               11,416,863   156,864   11,259,999      1, 0.2      0.0001, 0",
    ]


def test_memory_is_told_by_what_holds_it() -> None:
    config = override_config(Config(), [*SMALL, "train.optimizer=adamw"])
    run = planned()
    run.model = detector(config)
    run.optimizer = build_optimizer(run.model, config.train)
    weights = sum(x.nbytes for x in [*run.model.parameters(), *run.model.buffers()]) / 1e6
    learned = 4 * 11_259_999 / 1e6
    assert describe_memory(run, TRIAL) == [
        f"weights {weights:.1f} MB, gradients {learned:.1f} MB",
        "peak of this process without its loaders: 3.25 GB in the step, 1.50 GB with the "
        "evaluation after it",
    ]
    for parameter in run.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    run.ema = Ema(run.model, 0.999)
    run.world = SimpleNamespace(device=torch.device("cuda"))  # type: ignore[assignment]
    assert describe_memory(run, TRIAL) == [
        f"weights {weights:.1f} MB, gradients {learned:.1f} MB, optimiser {2 * learned:.1f} MB, "
        f"average of the weights {weights:.1f} MB",
        "peak of the device: 3.25 GB in the step, 1.50 GB in the evaluation",
    ]


@pytest.mark.parametrize(
    ("step", "load", "workers", "period", "waiting"),
    [
        (2.0, 1.0, 0, 3.0, 1 / 3),  # nothing loads while it trains
        (2.0, 1.0, 1, 2.0, 0.0),
        (2.0, 8.0, 4, 2.0, 0.0),
        (2.0, 8.0, 2, 4.0, 0.5),
    ],
)
def test_loaders_work_beside_the_training(
    step: float, load: float, workers: int, period: float, waiting: float
) -> None:
    assert step_period(step, load, workers) == pytest.approx((period, waiting))


def test_the_time_of_a_run() -> None:
    """250 steps of 2 s, and 3 evaluations of 50 images at 0.25 s."""
    run = planned("train.steps=250", "eval.every=100", "data.workers=1")
    assert describe_time(run, TRIAL) == [
        "step 2.000 s for 8 images",
        "loading 1.000 s in one process; with data.workers 1, training waits 0% of its time for "
        "data: 8.0 images/s",
        "evaluation 0.250 s per image, including loading and scoring",
        "whole run about 0:08:58: 250 steps 0:08:20, 3 evaluations 0:00:38",
    ]


def test_the_time_of_a_run_that_waits_on_several_processes() -> None:
    """Two thirds as fast without workers; two ranks halve an evaluation, an average doubles it."""
    run = planned("train.steps=250", "eval.every=0", "data.workers=0", ranks=2)
    run.ema = SimpleNamespace()  # type: ignore[assignment]
    run.work = Work(flops_per_pixel=5000.0, attainable=4e9)
    assert describe_time(run, TRIAL) == [
        "step 2.000 s for 8 images, the share of one of 2 processes: 0.002 TFLOP/s, 50% of the "
        "speed of a large matrix product here",
        "loading 1.000 s in one process; with data.workers 0, training waits 33% of its time for "
        "data: 5.3 images/s",
        "evaluation 0.250 s per image, including loading and scoring",
        "whole run about 0:12:42: 250 steps 0:12:30, 1 evaluation 0:00:12",
    ]


def test_columns_are_aligned() -> None:
    assert aligned([("", "a"), ("word", "1,000"), ("x", "")]) == [
        "           a",
        "word   1,000",
        "x",
    ]
