"""Two runs are one training if nothing but times differs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from same_run import recorded_metrics, run_differences, state_differences

from retinanet.checkpoints.format import Progress, load_checkpoint, save_checkpoint


def write_run(folder: Path, source: Path, *, line: dict[str, float]) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "evaluation" / "results.json").write_text("[]")
    for name in ("last.pt", "best.pt"):
        save_checkpoint(load_checkpoint(source), folder / "checkpoints" / name)
    return folder


def test_times_alone_may_differ(tmp_path: Path, small_checkpoint: Path) -> None:
    line = {"step": 1, "loss_class/train": 0.5, "train/step_seconds": 1.0, "val/seconds": 2.0}
    one = write_run(tmp_path / "one", small_checkpoint, line=line)
    slower = {**line, "train/step_seconds": 9.0, "val/seconds": 9.0}
    other = write_run(tmp_path / "other", small_checkpoint, line=slower)
    assert recorded_metrics(one) == [{"step": 1, "loss_class/train": 0.5}]
    assert run_differences(one, other) == []


def test_every_difference_is_named(tmp_path: Path, small_checkpoint: Path) -> None:
    one = write_run(tmp_path / "one", small_checkpoint, line={"step": 1})
    other = write_run(tmp_path / "other", small_checkpoint, line={"step": 2})
    (other / "evaluation" / "results.json").write_text("[1]")
    best = other / "checkpoints" / "best.pt"
    save_checkpoint(dataclasses.replace(load_checkpoint(best), progress=Progress(step=3)), best)
    assert run_differences(one, other) == [
        "best.pt: progress.step",
        "metrics.jsonl: line 1",
        "evaluation/results.json",
    ]
    (other / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert "metrics.jsonl: 1 and 2 lines" in run_differences(one, other)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.tensor([1.0]), torch.tensor([1.0, 1.0])),
        (torch.tensor([1.0]), None),
        (1, 1.0),
    ],
)
def test_bits_count(small_checkpoint: Path, value: object, other: object) -> None:
    state = load_checkpoint(small_checkpoint)
    one, two = (dataclasses.replace(state, optimizer={"state": [x]}) for x in (value, other))
    assert state_differences(one, one) == []
    assert state_differences(one, two) == ["optimizer.state.0"]


def test_a_nan_is_the_same_as_itself(small_checkpoint: Path) -> None:
    state = dataclasses.replace(
        load_checkpoint(small_checkpoint), averaged={"w": torch.tensor([float("nan")])}
    )
    assert state_differences(state, state) == []


def test_many_differences_are_counted(small_checkpoint: Path) -> None:
    state = load_checkpoint(small_checkpoint)
    other = dataclasses.replace(state, scaler={str(i): i for i in range(8)})
    assert state_differences(state, other) == [
        *(f"scaler.{i}" for i in range(5)),
        "and 3 more places",
    ]
