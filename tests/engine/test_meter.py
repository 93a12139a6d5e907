"""What a run says of its speed."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.engine.logging import Log
from retinanet.engine.meter import Meter
from retinanet.schema import Config


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def measure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, waiting: float, computing: float, steps: int
) -> None:
    """Log `steps` steps that wait for data and compute for some seconds each."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    log = Log(active=True)
    log.open(folder, step=0, evaluated=0)
    config = Config.model_validate({"train": {"log_every": 20, "batch_size": 8}})
    run: Any = SimpleNamespace(
        config=config,
        log=log,
        steps=100,
        plan=SimpleNamespace(steps_per_epoch=50),
        world=SimpleNamespace(device=torch.device("cpu")),
        progress=SimpleNamespace(step=0),
    )
    meter = Meter(run)
    for step in range(1, steps + 1):
        clock.now += waiting
        meter.loaded()
        clock.now += computing
        run.progress.step = step
        meter.stepped({"class": 0.75, "box": 0.5}, 3.0, 0.01)
    log.close()


def test_a_run_that_waits_for_data_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """users.md SP2: data and step time are logged; a warning with the remedy past 20 %."""
    measure(tmp_path, monkeypatch, waiting=0.25, computing=0.75, steps=40)
    out = capsys.readouterr().out
    warning = "training waits 25% of its time for data: more data.workers (now 2), smaller images"
    assert out.count(warning) == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    for line in lines:
        assert line["train/data_share"] == pytest.approx(0.25)
        assert line["train/data_seconds"] == pytest.approx(0.25)
        assert line["train/step_seconds"] == pytest.approx(1.0)
        assert line["train/images_per_second"] == pytest.approx(8.0)
    assert "step 40/100  loss 1.2500 (class 0.7500 box 0.5000)  lr 0.01  norm 3.00" in out
    assert "ETA 0:01:00" in out


def test_a_run_that_computes_is_not_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(tmp_path, monkeypatch, waiting=0.15, computing=0.85, steps=40)
    out = capsys.readouterr().out
    assert "data 15%" in out and "training waits" not in out
