"""`train.speed`: what it sets, what it gives up, and what is said of it."""

import sys
from typing import Any

import pytest
import torch

from retinanet.config import dump_config, override_config
from retinanet.engine.preflight import speed
from retinanet.engine.preflight.speed import describe_speed
from retinanet.schema import Config, TrainConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DIGITS = "chooses operations by trial, so that two runs differ in their last digits"


def train_config(*words: str) -> TrainConfig:
    return override_config(Config(), list(words)).train


def choices(train: TrainConfig) -> tuple[Any, ...]:
    return train.precision, train.deterministic, train.compile_loss


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend that there is a GPU with bf16, and a compiler."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for module in ("retinanet.distributed.compiler", speed.__name__):
        monkeypatch.setattr(sys.modules[module], "missing_compiler", lambda device: "")
    return monkeypatch


# What it sets


def test_fast_stands_for_three_options() -> None:
    assert choices(train_config()) == ("fp32", True, False)
    assert choices(train_config("train.speed=fast")) == ("auto", False, "auto")
    assert choices(train_config("train.speed=normal")) == ("fp32", True, False)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.precision=fp32", ("fp32", False, "auto")),
        ("train.deterministic=true", ("auto", True, "auto")),
        ("train.compile_loss=false", ("auto", False, False)),
    ],
)
def test_what_is_set_stays(word: str, expected: tuple[Any, ...]) -> None:
    """In any order, and if it is set later."""
    assert choices(train_config(word, "train.speed=fast")) == expected
    assert choices(train_config("train.speed=fast", word)) == expected
    later = override_config(override_config(Config(), ["train.speed=fast"]), [word])
    assert choices(later.train) == expected
    earlier = override_config(override_config(Config(), [word]), ["train.speed=fast"])
    assert choices(earlier.train) == expected


def test_fast_can_be_taken_back() -> None:
    """What it stands for counts as unset, as long as it is not saved with a run."""
    fast = override_config(Config(), ["train.speed=fast"])
    assert fast.train.model_fields_set == {"speed"}
    assert choices(override_config(fast, ["train.speed=normal"]).train) == ("fp32", True, False)
    assert override_config(fast, []) == fast


def test_the_config_of_a_run_says_what_fast_was() -> None:
    words = ["train.speed=fast", "train.precision=bf16", "train.compile_loss=true"]
    saved = dump_config(override_config(Config(), words))
    assert saved["train"]["speed"] == "fast"
    assert choices(Config.model_validate(saved).train) == ("bf16", False, True)


# What is said


@pytest.mark.usefixtures("h100")
def test_what_fast_gives_up_on_a_gpu() -> None:
    train = train_config("train.speed=fast", "train.compile_loss=true")
    assert describe_speed(train, "bf16", CUDA, is_new=True) == [
        f"  train.speed fast: computes in bf16, which rounds more than fp32; {DIGITS}; compiles "
        "the class loss"
    ]
    same = train_config("train.speed=fast", "train.deterministic=true", "train.compile_loss=false")
    assert describe_speed(same, "fp32", CUDA, is_new=True) == [
        "  train.speed fast: this device offers nothing faster"
    ]


def test_what_fast_gives_up_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, if it has neither bf16 nor a compiler: operations give the same bits."""
    monkeypatch.setattr(speed, "missing_compiler", lambda device: "a C++ compiler (g++)")
    train = train_config("train.speed=fast", "train.compile_loss=false")
    assert describe_speed(train, "fp32", CPU, is_new=True) == [
        "  train.speed fast: this device offers nothing faster",
        "  the class loss is not compiled: that needs a C++ compiler (g++)",
    ]
    assert describe_speed(train, "bf16", CPU, is_new=True)[0] == (
        "  train.speed fast: computes in bf16, which rounds more than fp32"
    )
    assert describe_speed(train_config(), "fp32", CPU, is_new=True) == []


def test_what_fast_would_bring(h100: pytest.MonkeyPatch) -> None:
    rest = (
        ", unless the config sets these options; it rounds more, and two runs differ in their last "
        "digits"
    )
    assert describe_speed(train_config(), "fp32", CUDA, is_new=True) == [
        "  --fast (train.speed=fast) would compute in bf16, choose operations by trial, compile "
        f"the class loss{rest}"
    ]
    assert describe_speed(train_config(), "fp32", CUDA, is_new=False) == []
    h100.setattr(speed, "has_compiler", lambda device: False)
    assert describe_speed(train_config(), "bf16", CUDA, is_new=True) == [
        f"  --fast (train.speed=fast) would choose operations by trial{rest}"
    ]
    assert (
        describe_speed(train_config("train.deterministic=false"), "bf16", CUDA, is_new=True) == []
    )
