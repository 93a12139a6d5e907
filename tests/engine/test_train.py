"""The parts of steps that the training loop is given."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinanet.checkpoints.format import Progress
from retinanet.data.loader import RankStep
from retinanet.distributed.signals import Signals, collect_signals
from retinanet.engine import train
from retinanet.engine.evaluate import Evaluation
from retinanet.errors import TrainingError, UserError


def part(step: int) -> RankStep:
    return RankStep(step=step, micro_batches=[], positives=step, images=4, bad=[])


@pytest.fixture
def run() -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(workers=0)),
        schedule=SimpleNamespace(steps=9),
        progress=Progress(step=3),
    )


def test_a_signal_while_it_waits_for_data(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty part, the rank joins the agreement of all ranks; the loader stops at once."""
    left: list[int] = []

    def load_steps(*_: Any, **options: Any) -> Iterator[RankStep]:
        assert options == {"stop": 9, "workers": 0}
        try:
            yield part(3)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
            yield part(4)
        finally:
            left.append(0)

    monkeypatch.setattr(train, "load_steps", load_steps)
    started = time.monotonic()
    with collect_signals() as signals:
        parts = train._load_parts(run, signals)
        assert next(parts) == part(3)
        run.progress = Progress(step=4)
        assert next(parts) == RankStep(step=4, micro_batches=[], positives=0, images=0, bad=[])
        assert signals.number == signal.SIGTERM
    assert left == [0]
    assert time.monotonic() - started < 10


def test_a_signal_in_a_step_is_met_before_the_next_wait(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "load_steps", lambda *_, **__: (part(i) for i in range(3, 9)))
    signals = Signals()
    parts = train._load_parts(run, signals)
    assert next(parts) == part(3)
    signals.note(signal.SIGUSR1)
    assert next(parts).images == 0


def test_a_signal_in_the_last_step_leaves_the_run_complete(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "load_steps", lambda *_, **__: (part(i) for i in range(8, 9)))
    run.progress = Progress(step=8)
    signals = Signals()
    parts = train._load_parts(run, signals)
    assert next(parts) == part(8)
    run.progress = Progress(step=9)
    signals.note(signal.SIGTERM)
    assert list(parts) == []


def test_all_parts(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "load_steps", lambda *_, **__: (part(i) for i in range(3, 9)))
    assert list(train._load_parts(run, Signals())) == [part(i) for i in range(3, 9)]


def test_an_evaluation_folder_that_is_lost_meanwhile(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command was right when it began: exit code 1."""

    def refuse(_: Evaluation, folder: Path) -> None:
        raise UserError(f"{folder}: cannot be written: Permission denied")

    monkeypatch.setattr(train, "write_evaluation", refuse)
    run.folder = SimpleNamespace(evaluation=tmp_path)
    with pytest.raises(TrainingError, match=r": cannot be written: Permission denied$"):
        train._write_evaluation(run, None)  # type: ignore[arg-type]
