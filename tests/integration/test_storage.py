"""What a run has written survives a kill, a full disk and a damaged file."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from same_run import CLOCK
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retinanet.checkpoints import format as checkpoint
from retinanet.checkpoints.format import load_checkpoint

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
SmallDisk = Callable[..., subprocess.CompletedProcess[str]]

DYING = Path(__file__).with_name("dying.py")
FULL_AT_STEP_5 = """
import os, sys, time
from retinanet.cli import main
from retinanet.engine import schedule

original = schedule.learning_rate

def learning_rate(step, **options):
    if step == 4:
        while os.listdir(os.environ["DISK"] + "/small/checkpoints") != ["last.pt"]:
            time.sleep(0.01)  # it is written beside the training
        ballast = os.open(os.environ["DISK"] + "/ballast", os.O_WRONLY | os.O_CREAT)
        free = os.statvfs(os.environ["DISK"])
        os.posix_fallocate(ballast, 0, free.f_bavail * free.f_bsize - 300_000)
    return original(step, **options)

schedule.learning_rate = learning_rate
sys.exit(main(sys.argv[1:]))
"""
"""The disk becomes full in the fifth step of six; the newest checkpoint is that of step 3."""


def board(run: Path) -> dict[str, list[Any]]:
    """Return (step, value) by tag of a run's TensorBoard, pictures by their bytes."""
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    tags = [tag for tag in found.Tags()["scalars"] if not tag.endswith(CLOCK)]
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}
    pictures = {
        tag: [(e.step, e.encoded_image_string) for e in found.Images(tag)]
        for tag in found.Tags()["images"]
    }
    return scalars | pictures


def test_tensorboard_after_a_kill_is_that_of_an_uninterrupted_run(
    experiment: Path, finished_run: Path, cli: Cli, start: Callable[..., Any]
) -> None:
    """Scalars and pictures; step 4 was recorded twice, and appears once."""
    (killed,) = start(DYING, json.dumps({0: ("in_step", 4)}), "train", experiment).wait()
    assert killed.code == -signal.SIGKILL, killed.err
    run = experiment.parent / "runs" / "small"
    assert [step for step, _ in board(run)["loss_class/train"]] == [1, 2, 3, 4]
    assert load_checkpoint(run / "checkpoints" / "last.pt").progress.step == 3
    assert cli("train", "--resume", run).code == 0
    expected = board(finished_run)
    assert [step for step, _ in expected["loss_class/train"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in expected["val/AP"]] == [5, 6]
    assert [step for step, _ in expected["val/0"]] == [5, 6]
    assert board(run) == expected


def test_a_disk_that_becomes_full(
    experiment: Path, tmp_path: Path, on_small_disk: SmallDisk
) -> None:
    """The run ends with exit code 1 and one line; what it had saved is whole."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    ran = on_small_disk(
        disk,
        "300m",
        "sh",
        "-c",
        'DISK="$1" "$2" -c "$3" train "$4" output.dir="$1" train.optimizer=sgd; code=$?; '
        'cp -r "$1"/small "$5"; exit $code',
        *("sh", disk, sys.executable, FULL_AT_STEP_5, experiment, kept),
    )
    assert ran.returncode == 1, ran.stderr
    message = (
        rf"error: {disk}/small/checkpoints/(last|best)\.pt: could not be written: No space left on "
        r"device: it needs \d+\.\d MB, 2\d\d\.\d kB are free; make room; the previous checkpoint "
        r"is kept\n"
    )
    assert re.fullmatch(message, ran.stderr), ran.stderr
    assert ran.stderr.strip() in (kept / "train.log").read_text()
    assert load_checkpoint(kept / "checkpoints" / "last.pt").progress.step == 3
    assert [path.name for path in (kept / "checkpoints").iterdir()] == ["last.pt"]


def test_a_disk_that_says_that_it_is_full(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, without a separate disk: the second checkpoint does not fit."""
    write, calls = checkpoint._CheckpointFile.write, count()

    def full(sink: Any, data: Any) -> int:
        if not sink.tell():
            next(calls)
        if next(copy(calls)) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(sink, data)

    monkeypatch.setattr(checkpoint._CheckpointFile, "write", full)
    ran = cli("train", experiment)
    folder = experiment.parent / "runs" / "small"
    assert ran.code == 1
    assert re.fullmatch(
        rf"error: {folder}/checkpoints/last\.pt: could not be written: No space left on device: it "
        r"needs \d+\.\d MB, \d+\.\d GB are free; make room; the previous checkpoint is kept\n",
        ran.err,
    )
    assert load_checkpoint(folder / "checkpoints" / "last.pt").progress.step == 0
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.pt"]
    monkeypatch.undo()
    assert cli("train", "--resume", folder).code == 0


def test_a_stripped_checkpoint(interrupted_run: Path, tmp_path: Path, cli: Cli) -> None:
    """It is evaluated as the original is, and starts a run, but resumes none."""
    last = interrupted_run / "checkpoints" / "last.pt"
    small = tmp_path / "small.pt"
    ran = cli("strip", last, small)
    assert ran.code == 0, ran.err
    assert small.stat().st_size < 0.4 * last.stat().st_size  # adamw has two moments
    figures = []
    for path in (last, small):
        evaluated = cli("evaluate", path, "--output", tmp_path / path.stem)
        assert evaluated.code == 0, evaluated.err
        figures.append((tmp_path / path.stem / "results.json").read_bytes())
    assert figures[0] == figures[1]


def test_a_damaged_checkpoint_is_refused_by_every_command(
    interrupted_run: Path, experiment: Path, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "last.pt"
    shutil.copy(interrupted_run / "checkpoints" / "last.pt", path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    for command in (
        ("evaluate", path),
        ("predict", path, tmp_path),
        ("strip", path),
        ("train", experiment, "--init-from", path),
    ):
        ran = cli(*command)
        assert ran.code == 2
        if command[0] != "predict":  # it looks for images first
            assert f"error: {path}: is damaged or cut off" in ran.err
