"""What a run says and records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.engine.logging import Log, duration


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
    """users.md RS1: one line for each step, whatever was lost in between."""
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
