"""Losses that are finite, and yet say that a training has failed; sound ones say nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.distributed.world import World
from retinanet.engine.loss_watch import LossWatch
from retinanet.schema import TrainConfig

CONFIG = TrainConfig(steps=10)
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
CALMER = "start again with a lower train.lr, a longer train.warmup_steps"


def begun(start: float = 2.0) -> LossWatch:
    watch = LossWatch()
    watch.note_step(torch.tensor([start - 0.5, 0.5]), 3, ALONE)
    return watch


def judge(watch: LossWatch, total: float, ap50: float | None = 0.0, boxes: int = 50) -> str:
    losses = {"class": total - 1, "box": 1.0}
    return watch.judge_evaluation(losses, ap50, CONFIG, boxes=boxes, images=20)


def test_a_step_far_above_the_first() -> None:
    """Warned of once, and again after it has come down."""
    watch = begun(2.0)
    assert watch.judge_step((39.0, 1.0), 0.01, CONFIG) == ""
    warning = watch.judge_step((131_969.0, 1.0), 0.01, CONFIG)
    assert warning.startswith(
        "warning: the loss 131,970 is 65,985 times that of the first step (2). If it stays "
        "that high, " + CALMER
    )
    assert watch.judge_step((131_970.0, 1.0), 0.01, CONFIG) == ""
    assert watch.judge_step((1.0, 1.0), 0.01, CONFIG) == ""
    assert watch.judge_step((500.0, 1.0), 0.01, CONFIG) != ""


def test_an_evaluation_far_above_the_first_step() -> None:
    """Before any report; only where nothing is found, and there are boxes to divide by."""
    assert "131,970, is 65,985 times that of the first step of training (2), and" in judge(
        begun(), 131_970.0
    )
    assert judge(begun(), 8.0) == ""
    assert judge(begun(), 8.1) != ""
    assert judge(begun(), 131_970.0, ap50=0.3) == ""
    assert judge(begun(), 131_970.0, ap50=None) == ""
    assert judge(begun(), 30.0, boxes=2) == ""  # 20 images with two boxes: mostly negatives
    assert judge(begun(), math.inf).startswith("warning: this loss is not finite; " + CALMER)


@pytest.mark.parametrize("start", [1e-6, 0.05, 1.0])
def test_a_start_near_0_is_no_measure(start: float) -> None:
    """A fine-tuned network starts near 0: ten times almost nothing is not a failure."""
    watch = LossWatch()
    watch.note_step(torch.tensor([start, 0.0]), 1, ALONE)
    assert judge(watch, 4.0) == watch.judge_step((19.0, 1.0), 0.01, CONFIG) == ""


def test_without_a_start_there_is_no_measure() -> None:
    """Batches without a positive anchor have a loss of their own."""
    watch = LossWatch()
    watch.note_step(torch.tensor([0.01, 0.0]), 0, ALONE)
    assert watch.judge_step((900.0, 0.0), 0.01, CONFIG) == judge(watch, 900.0) == ""
    watch.note_step(torch.tensor([2.0, 1.0]), 5, ALONE)
    assert judge(watch, 900.0) != "" and watch.start == 3.0


def test_a_loss_that_never_moves() -> None:
    """Warned of at the fourth report; another value restarts the count."""
    watch = begun()
    said = [watch.judge_step((1.5, 0.5), 0.1, CONFIG) for _ in range(6)]
    assert [bool(text) for text in said] == [False, False, False, True, False, False]
    assert said[3].startswith(
        "warning: the loss has been exactly 2 in 4 reports: the network learns nothing at lr 0.1"
    )
    assert watch.judge_step((1.5, 0.25), 0.1, CONFIG) == ""


def test_a_resumed_run_takes_the_start_from_its_records(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 5, "val/AP": 0.1},
        {"step": 5, "loss_class/train": None, "loss_box/train": 0.5},
        {"step": 10, "loss_class/train": 1.5, "loss_box/train": 0.5},
        {"step": 20, "loss_class/train": 9.0, "loss_box/train": 9.0},
    ]
    path.write_text("no JSON\n" + "\n".join(map(json.dumps, lines)))
    watch = LossWatch()
    watch.resume(path, ALONE)
    watch.note_step(torch.tensor([500.0, 0.0]), 3, ALONE)
    assert watch.start == 2.0 and judge(watch, 900.0) != ""
    watch = LossWatch()
    watch.resume(tmp_path / "none.jsonl", ALONE)
    assert watch.start is None


class Second(World):
    """Rank 1 of two. Rank 0 has read 2.0 from its metrics; its losses are 1.0 each."""

    def broadcast(self, value: Any) -> Any:
        assert value is None
        return 2.0

    def add_up(self, tensor: torch.Tensor) -> None:
        tensor += 1


def test_all_ranks_know_what_rank_0_has_read(tmp_path: Path) -> None:
    """The file may be on its machine alone, or be seen later by the others."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"loss_class/train": 5.0, "loss_box/train": 5.0}))
    watch = LossWatch()
    watch.resume(path, Second(rank=1, size=2, device=ALONE.device))
    assert watch.start == 2.0


def test_the_first_loss_is_that_of_all_ranks() -> None:
    watch, own = LossWatch(), torch.tensor([1.5, 0.5])
    watch.note_step(own, 3, Second(rank=1, size=2, device=ALONE.device))
    assert watch.judge_step((1.5, 0.5), 0.01, CONFIG) == ""
    assert watch.start == 4.0
    assert own.tolist() == [1.5, 0.5], "still this rank's"
