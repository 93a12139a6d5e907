"""`retinanet train --fast`, and the class loss compiled by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.config import load_config
from retinanet.distributed import compiler
from retinanet.engine.preflight import speed

Cli = Callable[..., Any]
Losses = Callable[[Path], list[float]]
SHORT = ["train.steps=1", "eval.every=0"]


@pytest.fixture
def folder(experiment: Path) -> Path:
    """Return the folder of a run that a test starts."""
    return experiment.parent / "runs" / "small"


def lack(patch: pytest.MonkeyPatch, missing: str) -> None:
    """Pretend that torch.compile lacks something."""
    for module in (compiler, speed):
        patch.setattr(module, "missing_compiler", lambda device: missing)


@pytest.fixture
def slow_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend that this CPU has no bf16, and no compiler."""
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    lack(monkeypatch, "a C++ compiler (g++)")
    return monkeypatch


@pytest.mark.slow
def test_a_fast_run_is_resumed_as_it_is(
    experiment: Path, folder: Path, cli: Cli, slow_cpu: pytest.MonkeyPatch
) -> None:
    """Its config says what it does, and a resume on a better machine keeps that."""
    ran = cli("train", experiment, "--fast", *SHORT)
    assert ran.code == 0, ran.err
    assert (
        "\n  train.speed fast: this device offers nothing faster\n"
        "  the class loss is not compiled: that needs a C++ compiler (g++)\n"
    ) in ran.out
    first = load_config(folder / "config.yaml").train
    assert (first.speed, first.precision, first.deterministic) == ("fast", "fp32", False)
    assert first.compile_loss is False
    lack(slow_cpu, "")
    ran = cli("train", experiment, "--fast", "--resume", "train.steps=2", "eval.every=0")
    assert ran.code == 0, ran.err
    then = load_config(folder / "config.yaml").train
    assert then == first.model_copy(update={"steps": 2})


@pytest.mark.slow
def test_a_run_does_not_become_fast(experiment: Path, folder: Path, cli: Cli) -> None:
    """That would be another experiment."""
    assert cli("train", experiment, *SHORT).code == 0
    ran = cli("train", "--resume", folder, "--fast", "train.steps=2")
    assert ran.code == 2
    assert "\n  train.speed: fast here, normal in the run\n" in ran.err


@pytest.mark.slow
def test_compiling_without_a_compiler(
    experiment: Path, folder: Path, cli: Cli, slow_cpu: pytest.MonkeyPatch
) -> None:
    del slow_cpu
    ran = cli("train", experiment, *SHORT, "train.compile_loss=true")
    assert (ran.code, folder.exists()) == (2, False)
    assert ran.err == (
        "error: train.compile_loss: torch.compile needs a C++ compiler (g++), which is not on this "
        "machine; set train.compile_loss=false, or install it\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to compile with")
def test_a_compiled_loss_changes_last_bits_alone(
    experiment: Path, folder: Path, finished_run: Path, cli: Cli, losses_of: Losses
) -> None:
    ran = cli("train", experiment, "train.compile_loss=true", "train.steps=3", "eval.every=0")
    assert ran.code == 0, ran.err
    assert load_config(folder / "config.yaml").train.compile_loss is True
    assert losses_of(folder) == pytest.approx(losses_of(finished_run)[:3], rel=1e-4)
