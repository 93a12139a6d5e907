"""A damaged last.pt does not end a run; what is taken instead is said."""

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from retinanet.checkpoints.format import Progress, load_checkpoint, save_checkpoint
from retinanet.checkpoints.recovery import load_resumable, newest_whole
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, small_checkpoint: Path) -> RunFolder:
    """Return a run with best.pt of step 5, snapshots of 4, 6 and 8, and last.pt of 9."""
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    state = replace(load_checkpoint(small_checkpoint), model={}, optimizer={"state": {}})
    steps = {folder.best: 5, folder.last: 9, **{folder.snapshot(n): n for n in (4, 6, 8)}}
    for path, step in steps.items():
        save_checkpoint(replace(state, progress=Progress(step=step)), path)
    return folder


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"retinanet checkpoint")] ^= 1
    path.write_bytes(content)


def test_last_is_taken_where_it_is_whole(folder: RunFolder) -> None:
    path, checkpoint, lines = newest_whole(folder)
    assert (path, checkpoint.progress.step, lines) == (folder.last, 9, [])


@pytest.mark.parametrize("damage", [cut, flip])
def test_else_the_furthest_whole_one(folder: RunFolder, damage: object) -> None:
    damage(folder.last)  # type: ignore[operator]
    damage(folder.snapshot(8))  # type: ignore[operator]
    path, checkpoint, lines = newest_whole(folder)
    assert (path, checkpoint.progress.step) == (folder.snapshot(6), 6)
    assert [line.split(":")[0] for line in lines[:2]] == [
        str(folder.last),
        str(folder.snapshot(8)),
    ]
    assert "is damaged or cut off" in lines[0] and "is damaged or cut off" in lines[1]
    assert lines[2:] == [f"using {folder.snapshot(6)} instead, the state after step 6"]


def test_best_is_among_them(folder: RunFolder) -> None:
    folder.last.unlink()
    for step in (4, 6, 8):
        cut(folder.snapshot(step))
    path, checkpoint, lines = newest_whole(folder)
    assert (path, checkpoint.progress.step) == (folder.best, 5)
    assert lines[0] == f"{folder.last}: there is no such checkpoint"


def test_none_is_whole(folder: RunFolder) -> None:
    for path in (folder.path / "checkpoints").iterdir():
        cut(path)
    with pytest.raises(UserError, match="no checkpoint of the run can be resumed:\n  ") as error:
        newest_whole(folder)
    assert str(error.value).count("is damaged or cut off") == 5


def test_a_run_without_any(tmp_path: Path) -> None:
    message = (
        "there is no checkpoint to resume from; if the run ended before its first one, "
        "start it again without --resume$"
    )
    with pytest.raises(UserError, match=message):
        newest_whole(RunFolder(tmp_path))


def test_weights_alone_are_not_resumed(folder: RunFolder, small_checkpoint: Path) -> None:
    message = (
        r"small\.pt: contains no optimiser state \(`retinanet strip` removes it\), so it cannot be "
        "resumed; to start a new run from its weights: retinanet train CONFIG --init-from "
        rf"{re.escape(shlex.quote(str(small_checkpoint)))}$"
    )
    with pytest.raises(UserError, match=message):
        load_resumable(small_checkpoint)
    save_checkpoint(replace(load_checkpoint(folder.last), optimizer=None), folder.last)
    assert newest_whole(folder)[0] == folder.snapshot(8)
