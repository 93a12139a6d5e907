"""A resumed run equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from same_run import run_differences

from retinanet.checkpoints.format import Checkpoint, load_checkpoint
from retinanet.distributed.world import World
from retinanet.engine import detect
from retinanet.engine.schedule import Schedule

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
Metrics = Callable[[Path], list[dict[str, Any]]]


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "checkpoints" / "last.pt")


def signal_in_evaluation(patch: pytest.MonkeyPatch, number: int) -> None:
    """Send this process a signal in the first round of each evaluation."""
    original = detect.raise_together

    def agree(world: World, **met: Any) -> None:
        handler = signal.getsignal(number)
        if getattr(handler, "__qualname__", "").startswith("collect_signals"):  # no rehearsal
            os.kill(os.getpid(), number)
            met["number"] = number
        original(world, **met)

    patch.setattr(detect, "raise_together", agree)


def test_after_a_signal(
    interrupted_copy: Path, finished_run: Path, cli: Cli, metrics_of: Metrics
) -> None:
    assert last(interrupted_copy).progress.step == 3
    assert metrics_of(interrupted_copy) == metrics_of(finished_run)[:3]
    ran = cli("train", "--resume", interrupted_copy)
    assert ran.code == 0
    assert "resuming after step 3" in ran.out
    assert run_differences(interrupted_copy, finished_run) == []


def test_in_the_middle_of_evaluations(
    experiment: Path,
    finished_run: Path,
    cli: Cli,
    metrics_of: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An evaluation that was cut off is made up for, the one after the last step included."""
    folder = experiment.parent / "runs" / "small"
    with monkeypatch.context() as patch:
        signal_in_evaluation(patch, signal.SIGTERM)
        first = cli("train", experiment)
        assert first.code == 143
        assert "stopped: SIGTERM after step 5 of 6: the state is in " in first.err
        assert [line["step"] for line in metrics_of(folder)] == [1, 2, 3, 4, 5]
        again = cli("train", "--resume", folder)
        assert again.code == 143
        assert [line["step"] for line in metrics_of(folder)] == [1, 2, 3, 4, 5]
    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "is_evaluated", final_evaluation_alone(patch))
        assert cli("train", "--resume", folder).code == 143
    progress = last(folder).progress
    assert (progress.step, progress.evaluated) == (6, 5)
    assert cli("train", "--resume", folder).code == 0
    assert run_differences(folder, finished_run) == []


def final_evaluation_alone(patch: pytest.MonkeyPatch) -> Callable[[Schedule, int], bool]:
    """Let the evaluation at step 5 pass, and send SIGTERM in that after the last step."""
    original = Schedule.is_evaluated

    def is_evaluated(schedule: Schedule, step: int) -> bool:
        if step == schedule.steps:
            signal_in_evaluation(patch, signal.SIGTERM)
        return original(schedule, step)

    return is_evaluated


def test_a_terminal_interrupts_the_whole_group(experiment: Path) -> None:
    """Ctrl-C reaches loader processes, too: the step ends, the state is saved, 130."""
    overrides = ["train.steps=500", "eval.every=0", "data.workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "retinanet", "train", str(experiment), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith("step 1/500") for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    folder = experiment.parent / "runs" / "small"
    step = last(folder).progress.step
    assert err == (
        f"stopped: SIGINT after step {step} of 500: the state is in {folder}/checkpoints/last.pt; "
        f"continue with: retinanet train --resume {folder}\n"
    )
    recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in recorded] == list(range(1, step + 1))


def test_a_run_in_the_background_says_that_ctrl_c_will_not_reach_it(experiment: Path) -> None:
    """As a shell's `&` and nohup start it: SIGINT is ignored, SIGTERM saves and stops."""
    command = [sys.executable, "-m", "retinanet", "train", str(experiment), "train.steps=500"]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command, "eval.every=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = list(takewhile(lambda line: not line.startswith("step 1/500"), process.stdout))
        assert [line for line in said if "Ctrl-C" in line] == [
            "Ctrl-C will not reach this run, which was started in the background; to stop it with "
            f"its state saved: kill {process.pid}\n"
        ]
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().startswith("step 2/500")
        assert process.stdout.readline().startswith("step 3/500")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert err.startswith("stopped: SIGTERM after step ")
