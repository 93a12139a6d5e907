"""TensorBoard's event files: whole after a kill, and cut back without a trace."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retinanet.engine.logs.tensorboard import EventFile, cut_events


def content(folder: Path) -> dict[str, list[Any]]:
    """Return (step, value) by tag as TensorBoard reads them, pictures by their bytes."""
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    scalars = {
        tag: [(event.step, event.value) for event in board.Scalars(tag)]
        for tag in board.Tags()["scalars"]
    }
    pictures = {
        tag: [(event.step, event.encoded_image_string) for event in board.Images(tag)]
        for tag in board.Tags()["images"]
    }
    return scalars | pictures


def write(folder: Path, steps: list[int]) -> None:
    file = EventFile(folder)
    for step in steps:
        file.scalar("loss", step / 2, step)
        file.picture("val/0", np.full((4, 6, 3), step, np.uint8), step)
    file.close()


def test_what_was_written_is_there_without_closing(tmp_path: Path) -> None:
    """TensorBoard's own writer would hold it back for two minutes."""
    file = EventFile(tmp_path)
    file.scalar("loss", 0.5, 3)
    assert content(tmp_path) == {"loss": [(3, 0.5)]}
    file.close()


def test_a_histogram_is_read_back(tmp_path: Path) -> None:
    """Two values are between 0 and 0.5, six between 0.5 and 1."""
    file = EventFile(tmp_path)
    file.histogram("p_t", [0.0, 0.5, 1.0], [2.0, 6.0], 3)
    file.close()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    (event,) = board.Histograms("p_t")
    found = event.histogram_value
    assert (event.step, found.min, found.max, found.num) == (3, 0, 1, 8)
    assert (found.bucket_limit, found.bucket) == ([0.5, 1.0], [2.0, 6.0])
    assert found.sum == 2 * 0.25 + 6 * 0.75


def test_the_cut(tmp_path: Path) -> None:
    """The second of two files continues after the first was cut."""
    write(tmp_path, [1, 2, 3])
    whole = content(tmp_path)
    cut_events(tmp_path, lambda tag, step: step <= (2 if tag == "loss" else 1))
    after = content(tmp_path)
    assert after == {"loss": [(1, 0.5), (2, 1.0)], "val/0": whole["val/0"][:1]}
    write(tmp_path, [3])
    assert [step for step, _ in content(tmp_path)["loss"]] == [1, 2, 3]
    assert [step for step, _ in content(tmp_path)["val/0"]] == [1, 3]
    cut_events(tmp_path, lambda tag, step: False)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_cut_leaves_the_file_alone(tmp_path: Path) -> None:
    write(tmp_path, [1, 2])
    (path,) = tmp_path.iterdir()
    before = path.stat()
    cut_events(tmp_path, lambda tag, step: True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("missing", [1, 3, 10, 60])
def test_an_event_that_a_crash_cut_goes(tmp_path: Path, missing: int) -> None:
    write(tmp_path, [1, 2])
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - missing)
    cut_events(tmp_path, lambda tag, step: True)
    size = path.stat().st_size
    write(tmp_path, [3])
    found = content(tmp_path)
    assert [step for step, _ in found["loss"]] == [1, 2, 3]
    assert [step for step, _ in found["val/0"]] == [1, 3]
    cut_events(tmp_path, lambda tag, step: True)
    assert path.stat().st_size == size


@pytest.mark.parametrize("rest", [b"\0" * 5000, b"\xff" * 7, os.urandom(300)])
def test_other_bytes_at_the_end_go(tmp_path: Path, rest: bytes) -> None:
    """A power cut may leave zeros, or anything, where the last events should be."""
    write(tmp_path, [1, 2])
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    cut_events(tmp_path, lambda tag, step: True)
    assert path.read_bytes() == whole


def test_an_empty_file_and_half_a_cut_go(tmp_path: Path) -> None:
    write(tmp_path, [1])
    (path,) = tmp_path.iterdir()
    (tmp_path / "events.out.tfevents.1.host.2").touch()
    (tmp_path / f"{path.name}.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").touch()
    cut_events(tmp_path, lambda tag, step: True)
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "notes.txt"])
    cut_events(tmp_path / "gone", lambda tag, step: True)
