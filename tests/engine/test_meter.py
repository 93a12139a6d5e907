"""The speed that a run reports."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.distributed.world import World
from retinanet.engine.flops import Work
from retinanet.engine.logs.log import Log
from retinanet.engine.loss_watch import LossWatch
from retinanet.engine.meter import Meter
from retinanet.schema import Config

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pretend_run(log: Log, device: torch.device, work: Work | None) -> Any:
    """Return what the meter looks at: batches of 8 from 102 images, so the 13th has 6."""
    return SimpleNamespace(
        config=Config.model_validate({"train": {"log_every": 20, "batch_size": 8}}),
        log=log,
        schedule=SimpleNamespace(steps=100),
        plan=SimpleNamespace(steps_per_epoch=13, entries=102),
        world=World(rank=0, size=1, device=device),
        progress=SimpleNamespace(step=0),
        saver=SimpleNamespace(pauses=SimpleNamespace(seconds=5.0)),
        result=SimpleNamespace(rate=0.01, losses=torch.tensor([0.75, 0.5]), positives=8.0),
        watch=LossWatch(),
        latest=lambda: ({"class": 0.75, "box": 0.5}, 3.0),
        work=work,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def measure(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, list[dict[str, Any]]]]:
    """Return a function that logs steps which wait and compute for some seconds each."""

    def work_through(
        *,
        waiting: float,
        computing: float,
        steps: int,
        saving: dict[int, float] | None = None,
        evaluating: tuple[int, ...] = (),
        work: Work | None = None,
    ) -> tuple[str, list[dict[str, Any]]]:
        log = Log(active=True)
        log.open(tmp_path, step=0, evaluated=0)
        run = pretend_run(log, CPU, work)
        meter = Meter(run)
        # Two micro-batches of 1 and 3 images of 32 x 64 px: half of the batch, as of two ranks.
        parts = [SimpleNamespace(images=torch.zeros(n, 3, 32, 64)) for n in (1, 3)]
        for step in range(steps):
            clock.now += waiting
            meter.loaded()
            clock.now += computing
            run.progress.step = step + 1
            part: Any = SimpleNamespace(step=step, micro_batches=parts)
            meter.stepped(part)
            pause = (saving or {}).get(step + 1, 0.0)
            clock.now += pause
            run.saver.pauses.seconds += pause
            if step + 1 in evaluating:
                clock.now += 1000
                meter.restart()
        log.close()
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        return capsys.readouterr().out, [json.loads(line) for line in lines]

    return work_through


def test_a_run_that_waits_for_data_says_so_once(measure: Callable[..., Any]) -> None:
    """Data and step time are logged; a warning with the remedy past 20 %."""
    out, lines = measure(waiting=0.25, computing=0.75, steps=40)
    warning = (
        "  training waits 25% of its time for data. Try more data.workers (now 2), smaller images "
        "on disk, or a lighter data.augment\n"
    )
    assert out.count(warning) == out.count("training waits") == 1
    assert [line["step"] for line in lines] == [20, 40]
    for line in lines:
        assert line["train/data_share"] == pytest.approx(0.25)
        assert line["train/data_seconds"] == pytest.approx(0.25)
        assert line["train/step_seconds"] == pytest.approx(1.0)
        assert line["train/checkpoint_seconds"] == 0
        assert "train/tflops" not in line
    assert out.startswith(
        "step 20/100  loss 1.2500 (class 0.7500 box 0.5000)  lr 0.01  norm 3.00  7.9 images/s  "
        "data 25%  "
    )
    assert "ETA 0:01:00\n" in out


def test_a_run_that_computes_is_not_warned(measure: Callable[..., Any]) -> None:
    out, _ = measure(waiting=0.15, computing=0.85, steps=40)
    assert "data 15%" in out and "training waits" not in out


def test_images_are_those_of_the_global_batch(measure: Callable[..., Any]) -> None:
    """This rank has 4 of the 8; the 13th and the 26th batch are an epoch's last, of 6."""
    _, lines = measure(waiting=0.0, computing=0.5, steps=40)
    assert [line["train/images_per_second"] for line in lines] == pytest.approx([15.8, 15.6])


def test_arithmetic_is_this_processs_own(measure: Callable[..., Any]) -> None:
    """4 x 32 x 64 px of 1e6 FLOPs each in 0.5 s are 16.384 GFLOP/s: a quarter of 65.536."""
    work = Work(flops_per_pixel=1e6, attainable=65.536e9)
    out, lines = measure(waiting=0.0, computing=0.5, steps=20, work=work)
    assert lines[0]["train/tflops"] == pytest.approx(0.016384, rel=1e-12)
    assert lines[0]["train/utilisation"] == pytest.approx(0.25, rel=1e-12)
    assert "images/s  use 25%  data 0%" in out


def test_saving_is_not_waiting_for_data(measure: Callable[..., Any]) -> None:
    """After step 20 a pause of 8 s falls into the second window; the first one was before it."""
    out, lines = measure(waiting=0.1, computing=0.9, steps=60, saving={20: 8.0, 40: 1.0})
    assert [line["train/checkpoint_seconds"] for line in lines] == pytest.approx([0, 8, 1])
    assert [line["train/data_seconds"] for line in lines] == pytest.approx([0.1, 0.1, 0.1])
    assert [line["train/step_seconds"] for line in lines] == pytest.approx([1, 1.4, 1.05])
    assert "training waits" not in out


def test_an_evaluation_is_in_no_window_but_its_saving_is_told(
    measure: Callable[..., Any],
) -> None:
    _, lines = measure(waiting=0.1, computing=0.9, steps=40, saving={20: 8.0}, evaluating=(20,))
    assert lines[1]["train/step_seconds"] == pytest.approx(1)
    assert lines[1]["train/data_seconds"] == pytest.approx(0.1)
    assert lines[1]["train/checkpoint_seconds"] == pytest.approx(8)


def test_a_gpu_tells_itself_how_long_it_waited(
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The host waits 0.5 of each 0.6 s for data, but the GPU lags: it idles 0.15 s a step."""
    timeline = iter(range(1000))
    host_waits_for_device: list[int] = []

    class Event:
        """Ends of steps and arrivals of data in turn: 0.45 s of computing, 0.15 s of nothing."""

        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            turn = next(timeline)
            self.at = 0.6 * (turn // 2) + (0.15 if turn % 2 else 0.0)

        def elapsed_time(self, other: "Event") -> float:
            assert host_waits_for_device, "read before the device had come there"
            return 1000 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    log = Log(active=True)
    log.open(tmp_path, step=0, evaluated=0)
    run = pretend_run(log, CUDA, None)
    before = run.latest
    run.latest = lambda: host_waits_for_device.append(run.progress.step) or before()
    meter = Meter(run)
    for step in range(20):
        clock.now += 0.5
        meter.loaded()
        clock.now += 0.1
        run.progress.step = step + 1
        part: Any = SimpleNamespace(step=step, micro_batches=[])
        meter.stepped(part)
    log.close()
    assert host_waits_for_device == [20], "the device is waited for where the log speaks, only"
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["train/data_seconds"] == pytest.approx(0.15)
    assert line["train/data_share"] == pytest.approx(0.25)
    assert "training waits 25%" in capsys.readouterr().out
