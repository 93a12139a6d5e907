"""Several ranks evaluate in rounds: one outcome, and an error of one rank ends all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import restore_detector
from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.distributed.raise_together import raise_together
from retinanet.distributed.signals import Signals
from retinanet.distributed.world import World
from retinanet.engine.evaluate import Evaluation, evaluate
from retinanet.engine.splits import Split, check_split
from retinanet.errors import InterruptedRunError, TrainingError, UserError
from retinanet.model.detector import Detector
from retinanet.schema import Config

CPU = torch.device("cpu")
SIZES = [(90, 120), (120, 90), (64, 64), (90, 120), (60, 110), (80, 110), (90, 120)]


class Meeting:
    """Where threads that stand for ranks exchange values; a rank that does not come is an error."""

    def __init__(self, ranks: int) -> None:
        self.barrier = threading.Barrier(ranks, timeout=30)
        self.values: list[Any] = [None] * ranks

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values


@dataclass(frozen=True, kw_only=True)
class Together(World):
    """One of several ranks, each a thread."""

    meeting: Meeting

    def sum(self, values: Sequence[float]) -> list[float]:
        columns = zip(*self.meeting.exchange(self.rank, values), strict=True)
        return [float(sum(column)) for column in columns]

    def gather(self, value: Any) -> list[Any]:
        values = self.meeting.exchange(self.rank, value)
        return values if self.is_main else []

    def broadcast(self, value: Any) -> Any:
        return self.meeting.exchange(self.rank, value)[0]

    def share_buffers(self, model: nn.Module) -> None:
        """All hold the same model here."""


def on_ranks(ranks: int, work: Callable[[World], Any]) -> list[Any]:
    """Do something on every rank at once; return what each returned or raised."""
    meeting = Meeting(ranks)

    def attempt(rank: int) -> Any:
        try:
            return work(Together(rank=rank, size=ranks, device=CPU, meeting=meeting))
        except (UserError, TrainingError, InterruptedRunError, ZeroDivisionError) as error:
            return error

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(attempt, range(ranks)))


@pytest.fixture
def val(tiny_coco: Callable[..., Path]) -> Path:
    return tiny_coco(SIZES, [[[10, 12, 30, 32]] for _ in SIZES])


@pytest.fixture
def model(small_checkpoint: Path) -> Detector:
    return restore_detector(load_checkpoint(small_checkpoint), CPU, "fp32")


@pytest.fixture
def config(small_config: Config) -> Config:
    return override_config(small_config, ["eval.batch_size=2"])


def open_val(val: Path, config: Config) -> Split:
    return check_split(read_annotations(val), val.parent / "train", config.data, name="val")


def evaluated(model: Detector, config: Config, split: Split, **options: Any) -> Any:
    return evaluate(model, config, split, precision="fp32", losses=True, pictures=3, **options)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_the_outcome_does_not_depend_on_the_ranks(
    model: Detector, config: Config, val: Path, ranks: int
) -> None:
    """Each image once, no padding; 5 batches, so that of 7 ranks two have none."""
    split = open_val(val, config)
    alone = evaluated(model, config, split, world=World(rank=0, size=1, device=CPU))
    together, *others = on_ranks(ranks, lambda w: evaluated(model, config, split, world=w))
    assert isinstance(together, Evaluation) and others == [None] * (ranks - 1)
    assert together.results == alone.results and len(alone.results) == 700
    assert together.metrics == alone.metrics
    assert together.losses == alone.losses  # to the bit: they are added up exactly
    assert len(alone.pictures) == 3
    for one, other in zip(together.pictures, alone.pictures, strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("broken", [0, 3, 6])
def test_an_unreadable_image_ends_all_ranks(
    model: Detector, config: Config, val: Path, broken: int
) -> None:
    """With the message once, from the main process, whoever met it."""
    split = open_val(val, config)
    path = val.parent / "train" / f"{broken:03}.jpg"
    path.write_bytes(b"broken")
    first, *others = on_ranks(3, lambda w: evaluated(model, config, split, world=w))
    assert isinstance(first, UserError)
    assert str(path) in str(first)
    assert str(first).endswith("(evaluation does not skip images)")
    assert [(type(error), str(error)) for error in others] == [(UserError, "")] * 2


def test_outputs_that_are_not_finite_end_all_ranks(
    model: Detector, config: Config, val: Path
) -> None:
    split = open_val(val, config)
    calls = []

    def spoil(module: nn.Module, inputs: Any, outputs: Any) -> None:
        calls.append(0)
        if len(calls) == 4:  # in the second round of two ranks
            outputs.logits.fill_(torch.nan)

    model.register_forward_hook(spoil)
    first, second = on_ranks(2, lambda w: evaluated(model, config, split, world=w))
    assert isinstance(first, TrainingError) and isinstance(second, TrainingError)
    assert "the network's outputs are not finite: training has diverged. Try a lower" in str(first)
    assert str(second) == ""
    assert len(calls) == 4  # nobody went on to the third round


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_rank_ends_all(
    model: Detector, config: Config, val: Path, number: int
) -> None:
    split = open_val(val, config)

    def work(world: World) -> Any:
        signals = Signals()
        signals.number = number if world.rank == 1 else 0
        return evaluated(model, config, split, world=world, signals=signals)

    raised = on_ranks(2, work)
    assert [type(error) for error in raised] == [InterruptedRunError] * 2
    assert [error.number for error in raised] == [number] * 2


def test_what_ranks_agree_on() -> None:
    """The first rank's error counts, errors count before signals, SIGTERM before SIGINT."""

    def outcome(*each: tuple[Exception | None, int]) -> list[Any]:
        return on_ranks(
            len(each),
            lambda w: raise_together(w, error=each[w.rank][0], number=each[w.rank][1]),
        )

    assert outcome((None, 0), (None, 0)) == [None, None]
    for first, second, agreed in (
        (signal.SIGINT, signal.SIGTERM, signal.SIGTERM),
        (0, signal.SIGHUP, signal.SIGHUP),
        (signal.SIGUSR1, 0, signal.SIGUSR1),
    ):
        both = outcome((None, first), (None, second))
        assert [error.number for error in both] == [agreed] * 2
    errors = outcome((None, signal.SIGINT), (UserError("a.jpg"), 0), (TrainingError("nan"), 0))
    assert [(type(e), str(e)) for e in errors] == [(UserError, x) for x in ("a.jpg", "", "")]


def test_an_error_of_another_kind_is_told_by_its_own_rank() -> None:
    """A bug keeps its traceback; the others end with an error that says nothing."""
    bug = ZeroDivisionError("division by zero")
    first, second = on_ranks(2, lambda w: raise_together(w, error=bug if w.rank == 1 else None))
    assert second is bug
    assert isinstance(first, TrainingError) and str(first) == ""
