"""The log and the records of a run."""

import errno
import json
import os
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet import files
from retinanet.engine.logs.log import Log, duration
from retinanet.errors import TrainingError
from retinanet.terminal import guarded_streams


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_run(folder: Path, steps: list[int], *, start: int = 0, run: int = 1) -> None:
    log = Log(active=True)
    log.open(folder, step=start, evaluated=start)
    for step in steps:
        log.record(step, {"loss": step / 2, "run": run})
    log.close()


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    write_run(tmp_path, [1, 2])
    assert lines(tmp_path) == [
        {"step": 1, "loss": 0.5, "run": 1},
        {"step": 2, "loss": 1.0, "run": 1},
    ]


def test_a_resume_forgets_what_lies_past_its_step(tmp_path: Path) -> None:
    """One line for each step, whatever was lost in between."""
    write_run(tmp_path, [10, 20, 30, 40])
    write_run(tmp_path, [30, 40, 50], start=20, run=2)
    assert [(line["step"], line["run"]) for line in lines(tmp_path)] == [
        (10, 1),
        (20, 1),
        (30, 2),
        (40, 2),
        (50, 2),
    ]


def test_a_resume_forgets_an_evaluation_that_the_state_does_not_know_of(tmp_path: Path) -> None:
    """It is made up for, so its line would stand twice; the training's line of the step stays."""
    log = Log(active=True)
    log.open(tmp_path, step=0, evaluated=0)
    for step in (10, 20):
        log.record(step, {"loss": 1.0})
        log.record(step, {"val/AP": 0.5})
    log.close()
    log.open(tmp_path, step=20, evaluated=10)
    log.close()
    assert [(line["step"], "val/AP" in line) for line in lines(tmp_path)] == [
        (10, False),
        (10, True),
        (20, False),
    ]


def test_a_resume_forgets_a_line_that_a_crash_cut(tmp_path: Path) -> None:
    write_run(tmp_path, [10, 20])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    write_run(tmp_path, [30], start=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30]


@pytest.mark.parametrize(
    "rest",
    [
        b"\xff\xfe",
        b"\0" * 100,
        b'{"step": 15, "name": "\xc3',
        b"[1]",
        b"12",
        b"{}",
        b'{"step": "a"}',
    ],
)
def test_a_resume_forgets_what_is_no_line_of_ours(
    tmp_path: Path, rest: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + rest)
    capsys.readouterr()
    write_run(tmp_path, [30], start=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30]
    said = f"{path}: removed 1 damaged line, left by a crash\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_kill_at_any_byte_of_a_line(tmp_path: Path, cut: int) -> None:
    write_run(tmp_path, [10, 20, 30])
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole[:-cut])
    write_run(tmp_path, [30], start=20)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_kill_while_the_file_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer file is there until the shorter one is whole; the next attempt cuts it."""
    write_run(tmp_path, [10, 20, 30])

    def replace(self: Path, target: Path) -> Path:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "replace", replace)
        write_run(tmp_path, [], start=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30]
    (tmp_path / "metrics.jsonl.tmp").write_text("{half")
    write_run(tmp_path, [30], start=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30]
    assert not (tmp_path / "metrics.jsonl.tmp").exists()


def board(folder: Path) -> dict[str, list[int]]:
    """Return the steps of each tag in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    scalars = {tag: [e.step for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    return scalars | {tag: [e.step for e in found.Images(tag)] for tag in found.Tags()["images"]}


def test_tensorboard_is_cut_like_the_metrics(tmp_path: Path) -> None:
    """An evaluation that the state does not know of goes, the training of that step stays."""
    for _ in range(2):
        log = Log(active=True)
        log.open(tmp_path, step=0, evaluated=0)
        for step in (10, 20, 30):
            log.record(step, {"loss_class/train": 1.0})
            if step < 30:
                log.record(step, {"val/AP": 0.5, "loss_class/val": 1.0, "val_average/AP": 0.6})
                log.picture(step, "val/0", np.zeros((4, 4, 3), np.uint8))
        log.close()
    log.open(tmp_path, step=20, evaluated=10)
    log.close()
    assert board(tmp_path) == {
        "loss_class/train": [10, 20],
        **{tag: [10] for tag in ("val/AP", "loss_class/val", "val_average/AP", "val/0")},
    }


@pytest.mark.parametrize("full", ["train.log", "metrics.jsonl", "tensorboard"])
def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    log = Log(active=True)
    log.open(tmp_path, step=0, evaluated=0)
    log.record(1, {"loss": 1.0})

    def write_all(write: Any, data: bytes) -> None:
        if full in str(write.__self__.name):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(data)

    monkeypatch.setattr(files, "write_all", write_all)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = (
        rf"{full}.*: could not be written: No space left on device: 0 bytes are free; make room$"
    )
    with pytest.raises(TrainingError, match=message):
        log.say("a")
        log.record(2, {"loss": 1.0})
    log.keep("error: the disk is full")  # must not hide the error that it tells of
    log.close()
    if full != "train.log":
        assert (tmp_path / "train.log").read_text() == "a\nerror: the disk is full\n"


def test_a_run_from_the_start_forgets_everything(tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint starts again from step 0."""
    write_run(tmp_path, [10, 20])
    write_run(tmp_path, [10], run=2)
    assert lines(tmp_path) == [{"step": 10, "loss": 5.0, "run": 2}]


def test_words_go_to_the_terminal_and_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(active=True)
    log.say("before the folder")
    log.open(tmp_path, step=0, evaluated=0)
    log.say("größe")
    log.start_progress(step=0, steps=5)
    log.step_line("step 1")
    log.advance("loss 3")
    log.close()
    assert capsys.readouterr().out == "before the folder\ngröße\nstep 1\n"
    assert (tmp_path / "train.log").read_text(encoding="utf-8") == "größe\nstep 1\n"


def test_a_stdout_that_breaks_is_noted_once_in_the_file(tmp_path: Path) -> None:
    """The words all go there; a name may hold characters that have no UTF-8."""
    reading, writing = os.pipe()
    with (
        os.fdopen(writing, "w") as broken,
        redirect_stdout(broken),
        guarded_streams(patience=None, warning=""),
    ):
        log = Log(active=True)
        log.say("before the folder")
        log.open(tmp_path, step=0, evaluated=0)
        log.say("a")
        os.close(reading)
        for word in ("b", "\ud800", "c"):
            log.say(word)
        log.close()
    assert (tmp_path / "train.log").read_text() == (
        "a\nb\nstdout cannot be written to any more (its reader is gone); this file continues\n"
        "\\ud800\nc\n"
    )


def test_a_resume_adds_to_the_words(tmp_path: Path) -> None:
    for word in ("first", "second"):
        log = Log(active=True)
        log.open(tmp_path, step=0, evaluated=0)
        log.say(word)
        log.close()
    assert (tmp_path / "train.log").read_text() == "first\nsecond\n"


def test_other_processes_keep_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(active=False)
    log.open(tmp_path, step=0, evaluated=0)
    log.say("a")
    log.step_line("b")
    log.record(1, {"loss": 1.0})
    log.picture(1, "c", np.zeros((4, 4, 3), np.uint8))
    log.close()
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_numbers_and_pictures_go_to_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(active=True)
    log.open(tmp_path, step=0, evaluated=0)
    log.record(3, {"loss": 0.5, "name": "not a number", "flag": True, "none": None})
    log.picture(3, "picture", np.zeros((4, 4, 3), np.uint8))
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == ["loss"]
    assert board.Tags()["images"] == ["picture"]
    (point,) = board.Scalars("loss")
    assert (point.step, point.value) == (3, 0.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
