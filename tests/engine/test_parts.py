"""The parts of steps that the training loop is given, and what ranks agree on before each."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retinanet.checkpoints.format import Progress
from retinanet.data.loader import RankStep
from retinanet.distributed.signals import Signals, collect_signals
from retinanet.distributed.world import World
from retinanet.engine import parts as parts_module
from retinanet.engine.parts import Parts, load_parts


def part(step: int) -> RankStep:
    return RankStep(step=step, micro_batches=[], positives=step, images=4, bad=[])


@pytest.fixture
def run() -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(workers=0)),
        world=World(rank=0, size=1, device=torch.device("cpu")),
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

    monkeypatch.setattr(parts_module, "load_steps", load_steps)
    started = time.monotonic()
    with collect_signals() as signals:
        loaded = load_parts(run, signals)
        assert next(loaded) == part(3)
        run.progress = Progress(step=4)
        assert next(loaded) == RankStep(step=4, micro_batches=[], positives=0, images=0, bad=[])
        assert signals.number == signal.SIGTERM
    assert left == [0]
    assert time.monotonic() - started < 10


def test_a_signal_in_a_step_is_met_before_the_next_wait(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "load_steps", lambda *_, **__: (part(i) for i in range(3, 9)))
    signals = Signals()
    loaded = load_parts(run, signals)
    assert next(loaded) == part(3)
    signals.note(signal.SIGUSR1)
    assert next(loaded).images == 0


def test_a_signal_in_the_last_step_leaves_the_run_complete(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "load_steps", lambda *_, **__: (part(i) for i in range(8, 9)))
    run.progress = Progress(step=8)
    signals = Signals()
    loaded = load_parts(run, signals)
    assert next(loaded) == part(8)
    run.progress = Progress(step=9)
    signals.note(signal.SIGTERM)
    assert list(loaded) == []


def test_all_parts(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "load_steps", lambda *_, **__: (part(i) for i in range(3, 9)))
    assert list(load_parts(run, Signals())) == [part(i) for i in range(3, 9)]


class Pair(World):
    """Rank 0 of two; the other one has the same counts."""

    def sum_later(self, values: Sequence[float]) -> Callable[[], list[float]]:
        self.events.append(("ask", values[0]))

        def wait() -> list[float]:
            self.events.append(("sums", values[0]))
            return [2 * value for value in values]

        return wait

    @property
    def events(self) -> list[Any]:
        return vars(self).setdefault("happened", [])


def test_several_ranks_ask_one_step_ahead(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of a step are asked for before the step ahead of it, and none is left under way."""
    monkeypatch.setattr(parts_module, "load_steps", lambda *_, **__: (part(i) for i in range(6, 9)))
    run.progress = Progress(step=6)
    run.world = Pair(rank=0, size=2, device=torch.device("cpu"))
    parts, happened = Parts(run, Signals(), deadline=math.inf), run.world.events
    for one, wait_for_sums in parts:
        positives = wait_for_sums().positives
        with parts.asked_ahead():
            happened.append(("step", one.step, positives))
        happened.append(("log", one.step))
    assert happened == [
        *(("ask", 6), ("sums", 6)),
        *(("ask", 7), ("step", 6, 12), ("sums", 7), ("log", 6), ("sums", 7)),
        *(("ask", 8), ("step", 7, 14), ("sums", 8), ("log", 7), ("sums", 8)),
        *(("step", 8, 16), ("log", 8)),
    ]


@pytest.mark.parametrize(("ranks", "stops_before"), [(1, 6), (2, 7)])
def test_a_signal_is_heeded_one_step_later_by_several_ranks(
    run: Any, monkeypatch: pytest.MonkeyPatch, ranks: int, stops_before: int
) -> None:
    """It comes while step 5 is queued; one process stops after that step, as ever."""
    signals = Signals()
    monkeypatch.setattr(parts_module, "load_steps", lambda *_, **__: (part(i) for i in range(3, 9)))
    if ranks == 2:
        run.world = Pair(rank=0, size=2, device=torch.device("cpu"))
    taken = []
    parts = Parts(run, signals, deadline=math.inf)
    for one, wait_for_sums in parts:
        if wait_for_sums().signalled:
            assert one.step == stops_before
            break
        with parts.asked_ahead():
            taken.append(one.step)
            if one.step == 5:
                signals.note(signal.SIGTERM)
    assert taken == list(range(3, stops_before))


def test_rank_0_looks_at_the_clock(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "load_steps", lambda *_, **__: (part(i) for i in range(3, 9)))
    for deadline, late in ((time.monotonic() + 1000, False), (time.monotonic() - 1, True)):
        one, wait_for_sums = next(iter(Parts(run, Signals(), deadline=deadline)))
        sums = wait_for_sums()
        assert (one.step, sums.positives, sums.images) == (3, 3, 4)
        assert (sums.bad, sums.signalled, sums.late) == (0, False, late)
