"""Exit codes of commands whose stdout cannot be written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import pytest

from retinanet.cli import COMMANDS, main


@dataclass(frozen=True)
class Stdout:
    """A stdout that cannot be written."""

    how: str
    stream: TextIO | None

    def run(self, *words: object) -> int:
        """Run a command with it; return the exit code."""
        with redirect_stdout(cast(TextIO, self.stream)):
            try:
                return main([str(word) for word in words])
            except SystemExit as error:
                assert isinstance(error.code, int)
                return error.code


@pytest.fixture(params=["full", "reader gone", "closed"])
def stdout(request: pytest.FixtureRequest) -> Iterator[Stdout]:
    """Open a stdout that cannot be written."""
    if request.param == "closed":
        yield Stdout("closed", None)
        return
    if request.param == "full":
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    with os.fdopen(writing, "w") as broken:
        yield Stdout(request.param, broken)


IMAGES = ["--train-images", 1, "--val-images", 1]
REASONS = {"full": "No space left on device", "closed": "it is closed"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["config"],
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_where_the_text_is_the_result(
    stdout: Stdout, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stdout.run(*words) == (0 if stdout.how == "reader gone" else 1)
    reason = REASONS.get(stdout.how)
    said = f"error: stdout cannot be written: {reason}\n" if reason else ""
    assert capsys.readouterr().err == said


def test_a_mistake_stays_one(stdout: Stdout) -> None:
    assert stdout.run("config", "nothing") == 2
    assert stdout.run() == 2
    assert stdout.run("no_command") == 2
    assert stdout.run("train", "--steps") == 2


@pytest.mark.parametrize(
    ("word", "meant"), [("val", "evaluate"), ("detect", "predict"), ("fit", "train"), ("help", "-")]
)
def test_commands_of_other_projects(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    said = f"error: there is no command '{word}'; did you mean {meant.replace('-', '--help')}? "
    assert capsys.readouterr().err.startswith(said)


def test_only_what_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "predict"):
        with pytest.raises(SystemExit):
            main([command])
        assert capsys.readouterr().err.endswith("arguments are required: checkpoint\n")


def test_where_files_are_the_result(
    stdout: Stdout,
    tmp_path: Path,
    tiny_coco: Callable[..., Path],
    small_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    annotations = tiny_coco([(40, 60)] * 2, [[[5, 5, 20, 20]], [[10, 10, 20, 20]]])
    results = tmp_path / "results.json"
    result = {"image_id": 11, "category_id": 1, "bbox": [5, 5, 20, 20], "score": 0.9}
    results.write_text(json.dumps([result]))
    images = annotations.with_suffix("")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("path,x1,y1,x2,y2,class\n000.jpg,5,5,25,25,cell\n001.jpg,5,5,25,25,cell\n")
    output = tmp_path / "out"
    commands: list[tuple[list[Any], str]] = [
        (["evaluate", results, "--annotations", annotations, "--output", output], "metrics.txt"),
        (["convert", "csv", boxes, output / "boxes.json", "--images", images], "boxes.json"),
        (
            ["lab", "draw", "hard", output / "drawn", "--train-images", 1, "--val-images", 1],
            "drawn",
        ),
    ]
    reason = REASONS.get(stdout.how)
    warning = f"warning: stdout cannot be written: {reason}; the command continues without it\n"
    for words, written in commands:
        assert stdout.run(*words) == 0
        assert (output / written).exists()
        assert capsys.readouterr().err == (warning if reason else "")


def test_a_report_is_written_before_it_is_printed(
    stdout: Stdout, tmp_path: Path, tiny_coco: Callable[..., Path]
) -> None:
    """The code says what was found, as far as it can be read, and 2 where there are errors."""
    sound = tiny_coco([(40, 60)] * 2, [[[5, 5, 20, 20]], [[10, 10, 20, 20]]])
    words = ["check", sound, "--images", sound.with_suffix(""), "--json"]
    assert stdout.run(*words, tmp_path / "a.json") == (0 if stdout.how == "reader gone" else 1)
    assert (tmp_path / "a.json").exists()
    wrong = tiny_coco([(40, 60)], [[[5, 5, -20, 20]]], name="wrong")
    words = ["check", wrong, "--images", wrong.with_suffix(""), "--json"]
    assert stdout.run(*words, tmp_path / "b.json") == 2
    assert (tmp_path / "b.json").exists()
