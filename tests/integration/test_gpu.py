"""The same on a CUDA device: precisions, pinned memory, resume, two devices over nccl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run here"),
]
ROOT = Path(__file__).parents[2]
Losses = Callable[[Path], list[float]]


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.05), ("fp16", 0.05)]
)
def test_losses_are_those_of_the_cpu(
    experiment: Path,
    finished_run: Path,
    cli: Callable[..., Any],
    losses_of: Losses,
    precision: str,
    tolerance: float,
) -> None:
    """The config is the experiment: the first steps agree, in every precision (users.md ST5)."""
    words = ["train.device=cuda", f"train.precision={precision}", "data.workers=2"]
    assert cli("train", experiment, *words).code == 0
    ours = losses_of(experiment.parent / "runs" / "small")
    assert ours[:3] == pytest.approx(losses_of(finished_run)[:3], rel=tolerance)


def test_a_run_goes_on_between_devices(experiment: Path, cli: Callable[..., Any]) -> None:
    """users.md RS2: a checkpoint does not belong to a device."""
    folder = experiment.parent / "runs" / "small"
    assert cli("train", experiment, "train.device=cuda", "train.steps=3").code == 0
    assert cli("train", "--resume", folder, "train.device=cpu", "train.steps=4").code == 0
    assert cli("train", "--resume", folder, "train.device=cuda", "train.steps=5").code == 0


def test_evaluation_is_that_of_the_cpu(
    learned_run: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    figures = []
    for device in ("cpu", "cuda"):
        words = [f"train.device={device}", "--output", tmp_path / device]
        assert cli("evaluate", learned_run / "checkpoints" / "last.pt", *words).code == 0
        figures.append(json.loads((tmp_path / device / "metrics.json").read_text())["AP"])
    assert figures[1] == pytest.approx(figures[0], abs=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_devices_give_the_losses_of_one(
    experiment: Path, finished_run: Path, losses_of: Losses
) -> None:
    """users.md MG1, over nccl."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "tools" / "train.py"), str(experiment), "train.device=cuda"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = losses_of(experiment.parent / "runs" / "small")
    assert ours[:3] == pytest.approx(losses_of(finished_run)[:3], rel=1e-3)
