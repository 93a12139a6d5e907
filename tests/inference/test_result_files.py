"""results.json and images.json while they grow, by one process and by several."""

import json
from pathlib import Path
from typing import Any

import pytest

from retinanet.categories import Categories
from retinanet.inference import result_files
from retinanet.inference.result_files import (
    ImageResult,
    PredictionSummary,
    ResultFiles,
    remove_parts,
)

CATEGORIES = Categories(ids=(3,), names=("cat",))


def result(place: int, count: int = 1) -> ImageResult:
    detections = json.dumps([{"image_id": place + 1, "score": 0.5}] * count)[1:-1]
    record = json.dumps({"id": place + 1, "file_name": f"{place}.png"})
    return ImageResult(place=place, record=record, detections=detections, count=count)


def open_files(folder: Path, part: int | None = None) -> ResultFiles:
    return ResultFiles(folder, CATEGORIES, inputs=4, part=part)


def written(folder: Path) -> tuple[list[int], list[int], Any]:
    """Return the ids of images with results, of images listed, and what is said of all."""
    results = json.loads((folder / "results.json").read_text())
    listed = json.loads((folder / "images.json").read_text())
    ids = [r["image_id"] for r in results]
    return ids, [image["id"] for image in listed["images"]], listed["info"]


def test_a_file_that_grows(tmp_path: Path) -> None:
    """Images without detections are listed, too."""
    files = open_files(tmp_path)
    summary = PredictionSummary(inputs=4, done=[result(0, 2), result(1, 0)])
    files.write(summary)
    assert written(tmp_path)[:2] == ([1, 1], [1, 2])
    assert written(tmp_path)[2]["complete"] is False
    summary.done.append(result(3))
    summary.left_out.append(("2.png", "an empty file"))
    files.write(summary)
    ids, listed, info = written(tmp_path)
    assert (ids, listed) == ([1, 1, 4], [1, 2, 4])
    assert info["complete"] and info["done"] == 3
    assert info["left_out"] == [{"file_name": "2.png", "reason": "an empty file"}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.json", "results.json"]


def test_writing_takes_a_twentieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing takes 3 s of this clock: again after 60 s."""
    now = 0.0
    monkeypatch.setattr(result_files.time, "monotonic", lambda: now)
    files = open_files(tmp_path)
    write = files.write_whole
    times: list[float] = []

    def slow(summary: PredictionSummary) -> None:
        nonlocal now
        times.append(now)
        now += 3
        write(summary)

    monkeypatch.setattr(files, "write_whole", slow)
    for _ in range(150):
        files.write_if_due(PredictionSummary(inputs=4, done=[result(0)]))
        now += 1
    assert times == [0, 63, 126]


def test_several_processes(tmp_path: Path) -> None:
    """The main one joins what there is; whoever ends early does; nothing of another is lost."""
    parts = [open_files(tmp_path, part) for part in (0, 1)]
    mine, other = (PredictionSummary(inputs=2) for _ in parts)
    other.done.append(result(1))
    parts[1].write(other)
    assert not (tmp_path / "results.json").exists()
    mine.done.append(result(0))
    parts[0].write(mine)
    assert written(tmp_path)[:2] == ([1, 2], [1, 2])
    other.done.append(result(3))
    parts[1].end_part(other)
    ids, listed, info = written(tmp_path)
    assert (ids, listed) == ([1, 2, 4], [1, 2, 4])
    assert (info["complete"], info["done"], info["inputs"]) == (False, 3, 4)
    assert (tmp_path / "parts").is_dir()
    parts[0].end_part(mine)
    assert written(tmp_path)[0] == [1, 2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.json", "results.json"]


def test_a_process_that_is_late_writes_nothing_over(tmp_path: Path) -> None:
    """The main process has joined all parts and removed them: the whole stays."""
    late = open_files(tmp_path, 1)
    summary = PredictionSummary(inputs=2, done=[result(1)])
    late.write(summary)
    open_files(tmp_path, 0).write_whole(
        PredictionSummary(inputs=4, done=[result(i) for i in range(4)])
    )
    remove_parts(tmp_path)
    late.end_part(summary)
    assert not (tmp_path / "parts").exists()
    assert written(tmp_path)[:2] == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_processes_that_end_before_they_have_written(tmp_path: Path) -> None:
    """Even one without results ends its part, so that the last one removes all."""
    parts = [open_files(tmp_path, part) for part in (0, 1)]
    parts[0].end_part(PredictionSummary(inputs=2))
    assert not (tmp_path / "results.json").exists()
    parts[1].end_part(PredictionSummary(inputs=2, done=[result(1)]))
    assert written(tmp_path)[:2] == ([2], [2])
    assert not (tmp_path / "parts").exists()


def test_many_notes_are_cut() -> None:
    summary = PredictionSummary(inputs=30, left_out=[(f"{i}.png", "empty") for i in range(30)])
    notes = list(summary.notes())
    assert len(notes) == 21 and notes[0] == "left out: 0.png: empty"
    assert notes[-1] == "... and 10 more (all are in images.json)"
