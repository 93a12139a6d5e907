"""Options of the engine, through the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from same_run import run_differences
from torch import Tensor

from retinanet.checkpoints.format import load_checkpoint
from retinanet.distributed import compiler
from retinanet.engine import launch, parts
from retinanet.engine import train as loop

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
Losses = Callable[[Path], list[float]]
NO_EVALUATION = ["eval.every=0", "train.checkpoint_every=99"]


@pytest.fixture
def folder(experiment: Path) -> Path:
    """Return the folder of a run that a test starts."""
    return experiment.parent / "runs" / "small"


def test_a_limit_in_minutes(
    experiment: Path, folder: Path, finished_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute passes whenever somebody asks: two steps are taken in two and a half."""
    minutes = count()
    clock = SimpleNamespace(monotonic=lambda: 60.0 * next(minutes), perf_counter=lambda: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "time", clock)
        patch.setattr(launch, "time", clock)
        ran = cli("train", experiment, "train.max_minutes=2.5")
    assert ran.code == 0, ran.err
    assert (
        "\nstopped after 2.5 minutes (train.max_minutes), at step 2 of 6; the state is in "
        f"{folder}/checkpoints/last.pt; continue with: retinanet train --resume {folder}\n"
    ) in ran.out
    assert load_checkpoint(folder / "checkpoints" / "last.pt").progress.step == 2
    ran = cli("train", "--resume", folder, "train.max_minutes=null")
    assert ran.code == 0, ran.err
    assert "\n  train.max_minutes: 2.5 -> null\n" in ran.out
    assert run_differences(folder, finished_run) == []


def spoil(patch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the losses of some steps (from 0) be NaN."""
    take, taken = loop.take_step, count()

    def take_or_fail(run: Any, *arguments: Any, **sums: float) -> None:
        criterion = run.criterion

        def bad(*given: Any) -> dict[str, Tensor]:
            return {name: loss * math.nan for name, loss in criterion(*given).items()}

        run.criterion = bad if next(taken) in steps else criterion
        take(run, *arguments, **sums)
        run.criterion = criterion

    patch.setattr(loop, "take_step", take_or_fail)


def test_bad_steps_that_are_allowed(
    experiment: Path, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 1, 3)
    ran = cli("train", experiment, "train.max_bad_steps=2", *NO_EVALUATION)
    assert ran.code == 0, ran.err
    for step, skipped in ((2, 1), (4, 2)):
        assert (
            f"  by step {step}: 1 more step skipped because the loss or the gradient was not "
            f"finite ({skipped} so far, train.max_bad_steps 2)\n"
        ) in ran.out
    assert load_checkpoint(folder / "checkpoints" / "last.pt").progress.skipped_steps == 2
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_class/train"] for line in lines if "train/lr" in line]
    assert [loss is None for loss in losses] == [False, True, False, True, False, False]


def test_one_bad_step_too_many(
    experiment: Path, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across a resume they are counted on, and the last good state stays."""
    with monkeypatch.context() as patch:
        spoil(patch, 1, 2)
        few = ["train.max_bad_steps=1", "train.checkpoint_every=1"]
        ran = cli("train", experiment, *few)
    assert ran.code == 1
    assert ran.err.startswith("error: step 3: the loss is not finite: class nan, box nan; ")
    progress = load_checkpoint(folder / "checkpoints" / "last.pt").progress
    assert (progress.step, progress.skipped_steps) == (2, 1)
    with monkeypatch.context() as patch:
        spoil(patch, 1)
        ran = cli("train", "--resume", folder)
    assert ran.code == 1
    assert ran.err.startswith("error: step 4: the loss is not finite")


def test_an_average_is_evaluated_saved_and_used(
    experiment: Path, folder: Path, cli: Cli, tmp_path: Path
) -> None:
    ran = cli("train", experiment, "train.ema_decay=0.5")
    assert ran.code == 0, ran.err
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    both = [line for line in lines if "val/AP" in line]
    assert [line["step"] for line in both] == [5, 6]
    assert all({"val_average/AP", "loss_class/val_average"} <= line.keys() for line in both)
    assert all(line["loss_class/val"] != line["loss_class/val_average"] for line in both)
    assert ran.out.count("\nval with averaged weights at step ") == 2
    last = folder / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(last)
    assert checkpoint.averaged is not None
    assert checkpoint.averaged.keys() == checkpoint.model.keys()
    assert not torch.equal(checkpoint.averaged["fpn.p7.weight"], checkpoint.model["fpn.p7.weight"])
    assert checkpoint.progress.best_ap == max(line["val_average/AP"] for line in both)
    ran = cli("evaluate", last, "--output", tmp_path / "out")
    assert ran.code == 0, ran.err
    results = [place / "results.json" for place in (tmp_path / "out", folder / "evaluation")]
    assert results[0].read_bytes() == results[1].read_bytes()


def test_snapshots(experiment: Path, folder: Path, cli: Cli) -> None:
    ran = cli("train", experiment, "train.snapshot_every=2", "train.keep_snapshots=2")
    assert ran.code == 0, ran.err
    files = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert files == ["best.pt", "last.pt", "step_0000004.pt", "step_0000006.pt"]
    for step in (4, 6):
        path = folder / "checkpoints" / f"step_{step:07d}.pt"
        assert load_checkpoint(path).progress.step == step


def test_how_it_computes_changes_last_bits_alone(
    experiment: Path,
    folder: Path,
    finished_run: Path,
    cli: Cli,
    losses_of: Losses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another layout in memory, and the graph that torch.compile makes.

    Its kernels are left to torch's own: compiling them takes minutes.
    """
    monkeypatch.setattr(compiler, "missing_compiler", lambda device: "")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    options = ["train.channels_last=false", "train.compile=true"]
    ran = cli("train", experiment, "train.steps=3", *NO_EVALUATION, *options)
    assert ran.code == 0, ran.err
    assert losses_of(folder) == pytest.approx(losses_of(finished_run)[:3], rel=1e-4)


def test_the_backbones_own_rate(experiment: Path, folder: Path, cli: Cli) -> None:
    """A rate of nearly nothing leaves it as it was, and the rest learns."""
    still = ["train.backbone_lr_factor=1e-60", "train.weight_decay=0", "train.snapshot_every=1"]
    ran = cli("train", experiment, "train.keep_snapshots=0", *still, *NO_EVALUATION)
    assert ran.code == 0, ran.err
    first, last = (
        load_checkpoint(folder / "checkpoints" / name).model
        for name in ("step_0000001.pt", "last.pt")
    )
    for name, value in first.items():
        assert torch.equal(value, last[name]) == name.startswith("backbone."), name


def test_fewer_bad_steps_than_were_skipped_already(
    experiment: Path, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would leave out every step from there on."""
    with monkeypatch.context() as patch:
        spoil(patch, 0, 1)
        words = ["train.max_bad_steps=2", "train.steps=4", "train.milestones=[4]"]
        assert cli("train", experiment, *words, *NO_EVALUATION).code == 0
    longer = ["train.steps=5", "train.milestones=[4]"]
    ran = cli("train", "--resume", folder, *longer, "train.max_bad_steps=1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: train.max_bad_steps is 1, but the run has already skipped 2 steps; give at least "
        "that many\n"
    )
    assert cli("train", "--resume", folder, *longer).code == 0
