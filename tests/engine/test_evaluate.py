"""Evaluating a detector on a split: losses, a limit, signals, and the files that are written."""

import errno
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import restore_detector
from retinanet.config import override_config
from retinanet.data.coco.index import read_annotations
from retinanet.distributed.signals import Signals, collect_signals
from retinanet.distributed.world import World
from retinanet.engine import evaluate as evaluate_module
from retinanet.engine.evaluate import Evaluation, evaluate, write_evaluation
from retinanet.engine.splits import Split, check_split
from retinanet.errors import InterruptedRunError, TrainingError, UserError
from retinanet.evaluation.coco import metrics_json
from retinanet.model.detector import Detector
from retinanet.schema import Config

SIZES = [(90, 120), (120, 90), (64, 64), (90, 120), (60, 110), (80, 110), (90, 120)]
CPU = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def model(small_checkpoint: Path) -> Detector:
    return restore_detector(load_checkpoint(small_checkpoint), CPU.device, "fp32")


@pytest.fixture
def val(tiny_coco: Any) -> Path:
    """Write seven images with two boxes each; the network gives 100 detections of each."""
    return tiny_coco(SIZES, [[[2, 3, 30, 40], [20, 10, 40, 45]]] * 7, name="val")


@pytest.fixture
def split(val: Path, small_config: Config) -> Split:
    return open_val(val, small_config)


@pytest.fixture
def evaluation(model: Detector, small_config: Config, split: Split) -> Evaluation:
    found = evaluate(model, small_config, split, world=CPU, precision="fp32")
    assert found is not None
    return found


def open_val(val: Path, config: Config) -> Split:
    return check_split(read_annotations(val), val.parent / "val", config.data, name="val")


def test_losses_do_not_depend_on_the_batch_size(
    model: Detector, small_config: Config, val: Path
) -> None:
    """Sums divided by the positives of the whole split, not means of means."""
    found = []
    for size in (1, 4):
        config = override_config(small_config, [f"eval.batch_size={size}"])
        split = open_val(val, config)
        one = evaluate(model, config, split, world=CPU, precision="fp32", losses=True)
        assert one is not None and set(one.losses) == {"class", "box"}
        found.append(one.losses)
    assert min(found[0].values()) > 0
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_limit_and_mode(model: Detector, small_config: Config, split: Split) -> None:
    """Only the first two images, scored against their own boxes; the model stays in train mode."""
    model.train()
    one = evaluate(model, small_config, split, world=CPU, precision="fp32", limit=2)
    assert one is not None and model.training
    assert {r["image_id"] for r in one.results} == {11, 12}
    assert sum(row.boxes for row in one.metrics.classes) == 4


def test_an_interruption_passes_through(
    model: Detector, small_config: Config, split: Split
) -> None:
    model.train()
    signals = Signals()
    batches: list[int] = []
    signals.number = signal.SIGINT
    model.register_forward_hook(lambda *_: batches.append(len(batches)))
    with pytest.raises(InterruptedRunError) as caught:
        evaluate(model, small_config, split, world=CPU, precision="fp32", signals=signals)
    assert caught.value.number == signal.SIGINT
    assert batches == [] and model.training


def test_a_signal_during_the_last_batch_leaves_the_evaluation_complete(
    model: Detector, small_config: Config, split: Split
) -> None:
    signals = Signals()
    batches: list[int] = []

    def signal_at_the_last(*_: object) -> None:
        batches.append(len(batches))
        if len(batches) == 4:
            signals.note(signal.SIGTERM)

    model.register_forward_hook(signal_at_the_last)
    one = evaluate(model, small_config, split, world=CPU, precision="fp32", signals=signals)
    assert one is not None and len(one.results) == 700
    assert signals.number == signal.SIGTERM and len(batches) == 4


@pytest.mark.parametrize("waits_for", [1, 3])
def test_a_signal_while_it_waits_for_a_batch(
    model: Detector,
    small_config: Config,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
    waits_for: int,
) -> None:
    """A slow disk or a stuck loader: the last batch, too, is not waited for."""
    build = evaluate_module.build_evaluation_loader

    class SlowLoader(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            for i, batch in enumerate(list.__iter__(self)):
                if i == waits_for:
                    os.kill(os.getpid(), signal.SIGHUP)
                    time.sleep(20)
                yield batch

    def build_slow(*arguments: Any, **options: Any) -> SlowLoader:
        return SlowLoader(build(*arguments, **options))

    monkeypatch.setattr(evaluate_module, "build_evaluation_loader", build_slow)
    batches = []
    model.register_forward_hook(lambda *_: batches.append(0))
    started = time.monotonic()
    with pytest.raises(InterruptedRunError) as caught, collect_signals() as signals:
        evaluate(model, small_config, split, world=CPU, precision="fp32", signals=signals)
    assert caught.value.number == signal.SIGHUP
    assert len(batches) == waits_for
    assert time.monotonic() - started < 10


def test_no_pictures(evaluation: Evaluation, val: Path, tmp_path: Path) -> None:
    """Pictures of an earlier evaluation do not stay next to the new metrics."""
    folder = tmp_path / "new" / "folder"
    folder.mkdir(parents=True)
    (folder / "pictures.jpg").touch()
    written = write_evaluation(evaluation, folder)
    assert not (folder / "pictures.jpg").exists()
    assert [path.name for path in written] == ["results.json", "metrics.json", "metrics.txt"]
    assert json.loads(written[0].read_text()) == evaluation.results
    figures = metrics_json(evaluation.metrics)
    assert json.loads(written[1].read_text()) == {"annotations": str(val), **figures}


def test_a_picture_that_cannot_be_encoded(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics do not need it; metrics.txt reports why it is missing, or that it is an old one."""
    (tmp_path / "pictures.jpg").mkdir()  # what cannot be removed
    pictures = [np.zeros((4, 8, 3), np.uint8)]
    remarks = replace(evaluation.metrics, remarks=[])
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    written = write_evaluation(replace(evaluation, metrics=remarks, pictures=pictures), tmp_path)
    assert [path.name for path in written] == ["results.json", "metrics.json", "metrics.txt"]
    said = written[2].read_text()
    assert "no picture: " in said
    assert "pictures.jpg is from an earlier evaluation, and could not be removed: " in said


def test_a_picture_that_cannot_be_drawn(
    model: Detector, split: Split, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("broken")

    monkeypatch.setattr("retinanet.engine.detect.draw_boxes", fail)
    outcome = evaluate(model, small_config, split, world=CPU, precision="fp32", pictures=2)
    assert outcome is not None and len(outcome.results) == 700 and outcome.pictures == []
    assert any(text.startswith("no picture of image ") for text in outcome.metrics.remarks)


def test_an_output_that_is_a_file(evaluation: Evaluation, val: Path) -> None:
    with pytest.raises(UserError, match=r"val\.json: cannot be written: File exists"):
        write_evaluation(evaluation, val)


def test_a_disk_that_is_full(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mistake of the user's: exit code 1, with what it needs."""

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    message = r"out: could not be written: No space left on device: it needs \d+\.\d kB, "
    with pytest.raises(TrainingError, match=message):
        write_evaluation(evaluation, tmp_path / "out")
