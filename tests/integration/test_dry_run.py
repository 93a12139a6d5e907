"""`train --dry-run`: one whole step and one evaluation batch, and nothing of them stays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.canvas import Size
from retinanet.data.dataset import DetectionDataset
from retinanet.data.images.reading import UnreadableImageError
from retinanet.data.sampler import Sample
from retinanet.engine.preflight import dry_run as dry_run_module
from retinanet.engine.run import Run

Cli = Callable[..., Any]


def test_a_dry_run_tells_what_the_run_would_be(experiment: Path, cli: Cli) -> None:
    before = sorted(experiment.parent.rglob("*"))
    ran = cli("train", experiment, "--dry-run", "train.ema_decay=0.9", "train.micro_batch=3")
    assert ran.code == 0, ran.err
    assert (
        "dry run: one step of 4 images and the evaluation of 2 went well; nothing was written\n"
        "schedule\n"
        "                   step   epoch   learning rate\n"
        "  first step          0    0.00           1e-06\n"
        "  end of warm-up      2    0.67           0.001\n"
        "  times 0.1           4    1.33          0.0001\n"
        "  last step           5    1.67          0.0001\n"
        "  6 steps of 4 images, 2.00 epochs of 3 steps\n"
        "  2 evaluations of 6 images: every 5 steps and at the end, of the weights and of their "
        "average\n"
        "  checkpoints: last.pt every 3 steps and at evaluations, best.pt: 2 files of "
    ) in ran.out
    assert re.search(r"\n  weights \S+ MB, gradients \S+ MB, optimiser \S+ MB, average of", ran.out)
    assert re.search(
        r"\n  step \d\.\d+ s for 4 images: \S+ TFLOP/s, \d+% of the speed of a", ran.out
    )
    assert re.search(r"; with data\.workers 0, training waits \d+% of its time for data: ", ran.out)
    assert re.search(r"\n  whole run about 0:\d\d:\d\d: 6 steps 0:\d\d:\d\d, 2 eval", ran.out)
    assert sorted(experiment.parent.rglob("*")) == before


def test_the_step_is_the_first_of_the_run(
    experiment: Path, finished_run: Path, losses_of: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images, its divisor and its losses are those of the run that follows."""
    seen = []
    original = Run.latest

    def latest(run: Run) -> Any:
        losses, norm = original(run)
        seen.append(sum(losses.values()))
        assert any(p.grad is not None for p in run.model.parameters())
        return losses, norm

    monkeypatch.setattr(Run, "latest", latest)
    assert cli("train", experiment, "--dry-run").code == 0
    assert seen == losses_of(finished_run)[:1]


def test_a_gradient_that_is_not_finite_fails_here(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images may go well and the batch not."""
    original = dry_run_module.take_step

    def take_step(run: Any, part: Any, **sums: float) -> None:
        losses = run.criterion
        run.criterion = lambda *batch: {k: v * math.nan for k, v in losses(*batch).items()}
        original(run, part, **sums)

    monkeypatch.setattr(dry_run_module, "take_step", take_step)
    ran = cli("train", experiment, "--dry-run", "train.max_bad_steps=5")
    assert ran.code == 1
    assert ran.err == (
        "error: the first step is not finite: class nan, box nan, gradient norm nan. Try a lower "
        "train.lr or train.precision=fp32. Are model.pixel_mean and model.pixel_std those of the "
        "backbone?\n"
    )


def test_unreadable_images_of_the_first_step(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two that are rehearsed are fine, the others are not."""
    original = DetectionDataset.load
    first: list[str] = []

    def load(self: Any, sample: Sample, canvas: Size) -> Any:
        name = self.annotations.file_names[sample.row]
        if sample.seed is not None:  # of training
            first.append(name)
            if name not in first[:2]:
                raise UnreadableImageError(f"{name}: is no image")
        return original(self, sample, canvas)

    monkeypatch.setattr(DetectionDataset, "load", load)
    ran = cli("train", experiment, "--dry-run", "data.max_bad_images=1")
    assert ran.code == 1
    bad = [f"{name}: is no image" for name in first[4:6]]
    assert ran.err == (
        "error: 2 images of the first step could not be read, and data.max_bad_images is 1; the "
        f"first is {bad[0]}\n"
    )
    del first[:]
    ran = cli("train", experiment, "--dry-run", "data.max_bad_images=2")
    assert ran.code == 0
    said = f" went well; nothing was written\n  left out: {bad[0]}\n  left out: {bad[1]}\n"
    assert said in ran.out


def test_what_a_launch_would_refuse(
    interrupted_run: Path, shared_experiment: Path, experiment: Path, cli: Callable[..., Any]
) -> None:
    """A run of that name, which may be looked at, and a folder that cannot be created."""
    ran = cli("train", shared_experiment, "--name", "interrupted", "--dry-run")
    assert ran.code == 0, ran.err
    assert ran.out.endswith(
        f"there is already a run in {interrupted_run}: use another --name to start a new one, or "
        "--resume to continue it\n"
    )
    ran = cli("train", experiment, f"output.dir={experiment}", "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert "is not a folder; choose another output.dir" in ran.err
