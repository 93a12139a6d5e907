"""A run from the command line: what it prints and writes, and that it learns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retinanet.checkpoints.format import load_checkpoint
from retinanet.cli import COMMANDS
from retinanet.config import dump_config, load_config
from retinanet.engine import parts
from retinanet.engine import train as loop

Cli = Callable[..., Any]

TRAIN_KEYS = {
    "step",
    "epoch",
    "loss_class/train",
    "loss_box/train",
    "train/lr",
    "train/gradient_norm",
    "train/images_per_second",
    "train/step_seconds",
    "train/data_seconds",
    "train/data_share",
    "train/checkpoint_seconds",
    "train/tflops",
    "train/utilisation",
    "train/memory_gb",
}
FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
RECALLS = ("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_the_design_names(finished_run: Path) -> None:
    assert sorted(path.name for path in finished_run.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "env.json",
        "evaluation",
        "metrics.jsonl",
        "tensorboard",
        "train.log",
    ]
    assert sorted(p.name for p in (finished_run / "checkpoints").iterdir()) == [
        "best.pt",
        "last.pt",
    ]
    assert sorted(p.name for p in (finished_run / "evaluation").iterdir()) == [
        "metrics.json",
        "metrics.txt",
        "pictures.jpg",
        "results.json",
    ]


def test_the_saved_config_is_the_experiment(finished_run: Path, shared_experiment: Path) -> None:
    """The resolved config is saved, `auto` as what it became."""
    asked = load_config(shared_experiment, ["output.name=finished", "train.micro_batch=4"])
    assert load_config(finished_run / "config.yaml") == asked
    assert load_checkpoint(finished_run / "checkpoints" / "last.pt").config == asked
    assert dump_config(asked)["train"]["steps"] == 6


def test_the_environment_is_saved(finished_run: Path) -> None:
    environment = json.loads((finished_run / "env.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["processes"] == 1
    assert environment["device"] == "cpu"


def test_every_step_is_recorded(finished_run: Path) -> None:
    train = [line for line in lines(finished_run) if "train/lr" in line]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert all(set(line) == TRAIN_KEYS for line in train)
    # Warm-up over 2 steps from a thousandth, then 0.001, a tenth of it from step 4 on.
    assert [line["train/lr"] for line in train] == pytest.approx(
        [1e-6, 5.005e-4, 1e-3, 1e-3, 1e-4, 1e-4], rel=1e-12
    )
    assert [line["epoch"] for line in train] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert all(0 <= line["train/data_share"] <= 1 for line in train)
    for key in ("loss_class/train", "loss_box/train", "train/gradient_norm"):
        assert all(line[key] > 0 for line in train), key
    for key in ("train/images_per_second", "train/memory_gb", "train/tflops", "train/utilisation"):
        assert all(line[key] > 0 for line in train), key


def test_evaluations_are_recorded_beside_the_losses_on_val(
    finished_run: Path, synthetic: Path
) -> None:
    """A figure without ground truth is null."""
    truth = json.loads((synthetic / "annotations" / "val.json").read_text())["annotations"]
    largest = max(record["area"] for record in truth)
    val = [line for line in lines(finished_run) if "val/AP" in line]
    assert [line["step"] for line in val] == [5, 6]
    keys = {f"val/{name}" for name in (*FIGURES, *RECALLS)}
    for line in val:
        assert set(line) == keys | {"step", "val/seconds", "loss_class/val", "loss_box/val"}
        assert 0 <= line["val/AP"] <= 1
        assert (line["val/AP_large"] is None) == (largest < 96**2)
        assert line["loss_class/val"] > 0
        assert line["loss_box/val"] > 0


def test_tensorboard_has_the_scalars_and_pictures(finished_run: Path) -> None:
    board = EventAccumulator(str(finished_run / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    tags = board.Tags()
    expected = (TRAIN_KEYS - {"step"}) | {"val/AP", "val/AP50", "loss_class/val", "loss_box/val"}
    assert expected <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("loss_class/train")] == [1, 2, 3, 4, 5, 6]
    recorded = [line["loss_class/train"] for line in lines(finished_run) if "train/lr" in line]
    shown = [event.value for event in board.Scalars("loss_class/train")]
    assert shown == pytest.approx(recorded, rel=1e-6)
    assert tags["images"] == ["val/0", "val/1"]
    assert [event.step for event in board.Images("val/0")] == [5, 6]


def test_the_log_says_what_ran_on_what(finished_run: Path, synthetic: Path) -> None:
    """Class counts, what is frozen, sizes after resizing."""
    log = (finished_run / "train.log").read_text()
    truth = json.loads((synthetic / "annotations" / "train.json").read_text())
    names = {record["id"]: record["name"] for record in truth["categories"]}
    counts = Counter(names[record["category_id"]] for record in truth["annotations"])
    assert f"train.json: 12 images, {counts.total()} boxes of 6 classes" in log
    assert (
        "  " + ", ".join(f"{name} {counts[name]}" for name in names.values() if counts[name]) + "\n"
        in log
    )
    assert "resizing: short side 48, 64, long side at most 128; median scale 0.5" in log
    assert re.search(r"parameters, 0 of them frozen", log)
    assert len(re.findall(r"^step \d/6  loss ", log, re.MULTILINE)) == 6
    assert len(re.findall(r"^val at step [56]: AP ", log, re.MULTILINE)) == 2


def test_checkpoints_remember_how_far_they_are(finished_run: Path) -> None:
    """Last and best; classes travel in the checkpoint."""
    last = load_checkpoint(finished_run / "checkpoints" / "last.pt")
    best = load_checkpoint(finished_run / "checkpoints" / "best.pt")
    figures = {line["step"]: line["val/AP"] for line in lines(finished_run) if "val/AP" in line}
    winner = max(figures, key=lambda step: (figures[step], -step))
    assert (last.progress.step, last.progress.evaluated) == (6, 6)
    assert (best.progress.step, best.progress.best_ap) == (winner, figures[winner])
    assert last.categories.names == ("ellipse", "rectangle", "triangle", "star", "cross", "ring")
    assert last.categories.ids == (1, 2, 3, 4, 5, 6)


def test_the_figures_of_evaluate_are_those_of_training(
    finished_run: Path, cli: Cli, tmp_path: Path
) -> None:
    """One evaluator everywhere."""
    ran = cli("evaluate", finished_run / "checkpoints" / "last.pt", "--output", tmp_path / "out")
    assert ran.code == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    recorded = [line for line in lines(finished_run) if "val/AP" in line][-1]
    for name in (*FIGURES, *RECALLS):
        assert found[name] == recorded[f"val/{name}"], name
    ours, theirs = (
        (folder / "results.json").read_text()
        for folder in (tmp_path / "out", finished_run / "evaluation")
    )
    assert ours == theirs


def test_a_results_file_scores_as_its_checkpoint(
    finished_run: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    """`evaluate RESULTS.json` prints the table of the run's evaluation."""
    truth = synthetic / "annotations" / "val.json"
    results = finished_run / "evaluation" / "results.json"
    ran = cli("evaluate", results, "--annotations", truth, "--output", tmp_path)
    assert ran.code == 0
    assert ran.out.startswith((finished_run / "evaluation" / "metrics.txt").read_text())


def test_predict_writes_results_in_original_pixels_and_pictures(
    learned_run: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    """One path and no config; boxes are in original pixels."""
    folder = synthetic / "images" / "train"
    out = tmp_path / "out"
    checkpoint = learned_run / "checkpoints" / "best.pt"
    ran = cli("predict", checkpoint, folder / "00000[12].jpg", "--output", out, "--threshold", 0.2)
    assert ran.code == 0
    listed = json.loads((out / "images.json").read_text())["images"]
    assert [(i["id"], Path(i["file_name"]).name) for i in listed] == [
        (1, "000001.jpg"),
        (2, "000002.jpg"),
    ]
    results = json.loads((out / "results.json").read_text())
    assert results
    sizes = {image["id"]: (image["width"], image["height"]) for image in listed}
    for result in results:
        x, y, width, height = result["bbox"]
        assert result["score"] >= 0.2
        assert min(x, y) >= 0
        assert x + width <= sizes[result["image_id"]][0] + 1e-3
        assert y + height <= sizes[result["image_id"]][1] + 1e-3
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "000001_000001.jpg",
        "000002_000002.jpg",
    ]


def test_predict_keeps_the_ids_of_an_image_list(
    learned_run: Path, few_images: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    """Ids come from the JSON, and its results score as `evaluate` does."""
    content = json.loads(few_images.read_text())
    del content["annotations"]
    listing = tmp_path / "list.json"
    listing.write_text(json.dumps(content))
    checkpoint, images = learned_run / "checkpoints" / "last.pt", synthetic / "images" / "train"
    out = tmp_path / "out"
    ran = cli("predict", checkpoint, "--annotations", listing, "--images", images, "--output", out)
    assert ran.code == 0
    results = json.loads((out / "results.json").read_text())
    assert {r["image_id"] for r in results} == {image["id"] for image in content["images"]}
    words = ["--annotations", few_images, "--output", tmp_path / "scored"]
    scored = cli("evaluate", out / "results.json", *words)
    assert scored.out.startswith((learned_run / "evaluation" / "metrics.txt").read_text())


@pytest.mark.slow
def test_overfitting_four_images_brings_the_loss_down(
    learned_run: Path, losses_of: Callable[[Path], list[float]]
) -> None:
    """The whole pipeline learns: images, boxes, assignment, losses, optimiser, metrics agree."""
    losses = losses_of(learned_run)
    assert len(losses) == 24
    assert losses[-1] < 0.25 * losses[0]
    assert [line["val/AP50"] for line in lines(learned_run) if "val/AP" in line][-1] > 0.3


def test_images_of_val_in_train_are_a_warning(experiment: Path, cli: Cli) -> None:
    val = ["data.val.annotations=annotations/train.json", "data.val.images=images/train"]
    ran = cli("train", experiment, *val, "--dry-run")
    assert ran.code == 0
    assert "warning: 12 of 12 images of data.val are also in data.train ('" in ran.out


def test_name_and_overrides_win_over_the_file(experiment: Path, cli: Cli) -> None:
    """Command line > YAML > default."""
    overrides = ["train.steps=1", "train.lr=0.5", "eval.pictures=0"]
    ran = cli("train", experiment, *overrides, "--name", "other")
    assert ran.code == 0
    folder = experiment.parent / "runs" / "other"
    assert f"run {folder}\n" in ran.out
    assert f"{folder}/checkpoints/best.pt" in ran.out.splitlines()[-1]
    saved = load_config(folder / "config.yaml")
    assert (saved.train.steps, saved.train.lr, saved.train.batch_size) == (1, 0.5, 4)
    assert saved.output.name == "other"
    assert lines(folder)[0]["train/lr"] == pytest.approx(0.5 * 0.001)
    assert not (folder / "evaluation" / "pictures.jpg").exists()
    assert "train.milestones: the run ends before step 4: lr does not drop there" in ran.out


def test_an_alpha_that_is_for_focal_loss_is_pointed_out(experiment: Path, cli: Cli) -> None:
    """Balanced cross entropy with focal loss's α finds next to nothing (the paper's table 1a)."""
    words = ["train", experiment, "--dry-run", "loss.class_loss=balanced_cross_entropy"]
    assert "0.25 gives the few positives even less weight than the negatives; loss.alpha=0.75" in (
        cli(*words).out
    )
    assert "gives the few" not in cli(*words, "loss.alpha=0.75").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli: Cli, command: str) -> None:
    ran = cli(command, "--help")
    assert ran.code == 0
    assert f"example:\n  retinanet {command}" in ran.out


def test_the_overview_names_the_commands(cli: Cli) -> None:
    assert cli().code == 2
    ran = cli("--help")
    assert ran.code == 0
    assert re.findall(r"^  (\w+)  ", ran.out, re.MULTILINE) == [
        "train",
        "evaluate",
        "predict",
        "check",
        "convert",
        "benchmark",
        "replay",
        "strip",
        "lab",
        "demo",
        "config",
    ]


def test_a_reader_that_has_enough(cli: Cli) -> None:
    """`retinanet config | head`: no traceback."""
    command = f"{sys.executable} -m retinanet config | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_an_unknown_command_names_the_nearest(cli: Cli) -> None:
    ran = cli("trian")
    assert ran.code == 2
    assert ran.err == (
        "error: there is no command 'trian'; did you mean train? "
        "Commands: train, evaluate, predict, check, convert, benchmark, replay, strip, lab, "
        "demo, config\n"
    )


def test_config_lists_every_option(cli: Cli) -> None:
    ran = cli("config")
    assert ran.code == 0
    sections = ["model", "anchors", "assign", "loss", "data", "train", "eval", "postprocess"]
    assert re.findall(r"^(\w+): ", ran.out, re.MULTILINE) == [*sections, "output"]
    assert (
        "  train.batch_size: integer from 1 to 65536 (default 16)\n      Images of one op"
        in ran.out
    )


def test_config_of_a_section(cli: Cli) -> None:
    ran = cli("config", "train")
    assert ran.code == 0
    assert ran.out.startswith("train: ")
    assert "  train.lr: number > 0 (default 0.01)\n" in ran.out
    assert "model." not in ran.out
    wrong = cli("config", "trian")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean train?" in wrong.err


def test_config_of_a_file_prints_the_resolved_experiment(
    experiment: Path, cli: Cli, tmp_path: Path
) -> None:
    ran = cli("config", experiment, "train.lr=0.25")
    assert ran.code == 0
    again = tmp_path / "again.yaml"
    again.write_text(ran.out)
    assert load_config(again) == load_config(experiment, ["train.lr=0.25"])
    assert load_config(again).train.lr == 0.25


def test_one_validation_image(cli: Cli, experiment: Path, synthetic: Path, tmp_path: Path) -> None:
    content = json.loads((synthetic / "annotations" / "val.json").read_text())
    content["images"], content["annotations"] = content["images"][:1], []
    path = tmp_path / "one.json"
    path.write_text(json.dumps(content))
    ran = cli("train", experiment, f"data.val.annotations={path}", "train.steps=1")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "runs/small/evaluation/metrics.json").read_text())["AP"] is None


def test_a_run_has_a_state_from_the_start(
    cli: Cli, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the first steps, `--resume` has a checkpoint to start from."""
    with monkeypatch.context() as patch:
        patch.setattr("retinanet.engine.launch.train", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli("train", experiment)
    assert load_checkpoint(tmp_path / "runs/small/checkpoints/last.pt").progress.step == 0
    assert cli("train", "--resume", tmp_path / "runs" / "small", "train.steps=1").code == 0


def test_a_run_of_epochs(experiment: Path, cli: Cli) -> None:
    """12 images in batches of 4 are 3 steps an epoch, in which everything counts."""
    words = ["train.epochs=3", "train.milestones=[1, 2]", "train.warmup_steps=0", "eval.every=2"]
    assert cli("train", experiment, *words).code == 0
    folder = experiment.parent / "runs" / "small"
    rates = [line["train/lr"] for line in lines(folder) if "train/lr" in line]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3)
    assert [line["step"] for line in lines(folder) if "val/AP" in line] == [6, 9]
    assert [line["epoch"] for line in lines(folder) if "train/lr" in line][2::3] == [1, 2, 3]


def test_without_ground_truth_there_is_no_best_ap(
    experiment: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    """N/a, not 0."""
    content = json.loads((synthetic / "annotations" / "val.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps({**content, "annotations": []}))
    ran = cli("train", experiment, f"data.val.annotations={tmp_path}/none.json", "train.steps=2")
    assert ran.code == 0
    assert "best AP on val n/a: " in ran.out
    warning = (
        "warning: data.val has no boxes: there will be no AP, best.pt will hold the newest weights"
    )
    assert 0 < ran.out.index(warning) < ran.out.index("step 1/2")
    assert "; there is no AP, so best.pt holds the newest weights\n" in ran.out
    best = load_checkpoint(experiment.parent / "runs" / "small" / "checkpoints" / "best.pt")
    assert (best.progress.best_ap, best.progress.best_step) == (None, 2)


def test_the_anchors_are_held_against_the_boxes_before_step_0(cli: Cli, experiment: Path) -> None:
    """At 64 px, 45 of 100 drawn shapes are too small; at 256 px none."""
    small = cli("train", experiment, "--dry-run").out
    assert (
        "anchors at short side 64: 55.0 % of the boxes have an anchor with IoU >= 0.5 (small "
        in small
    )
    assert "  warning: many boxes have no anchor with IoU >= 0.5: " in small
    assert "a larger data.short_side (now 64), or other anchors: `retinanet check" in small
    large = ("data.short_side=[256]", "data.long_side=512")
    enough = cli("train", experiment, *large, "--dry-run").out
    assert (
        "anchors at short side 256: 100.0 % of the boxes have an anchor with IoU >= 0.5" in enough
    )
    assert "many boxes have no anchor" not in enough


@pytest.mark.slow
def test_a_loader_that_is_too_slow_is_named_with_the_remedy(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data take 0.25 s and a step 0.75 s of a clock that only they move."""
    now = [100.0]
    load, take = parts.load_steps, loop.take_step

    def load_steps(*arguments: Any, **options: Any) -> Any:
        for part in load(*arguments, **options):
            now[0] += 0.25
            yield part

    def take_step(*arguments: Any, **options: Any) -> None:
        now[0] += 0.75
        take(*arguments, **options)

    monkeypatch.setattr(parts, "load_steps", load_steps)
    monkeypatch.setattr(loop, "take_step", take_step)
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("retinanet.engine.meter.time", clock)
    overrides = ["train.steps=12", "train.log_every=4", "eval.every=0", "train.checkpoint_every=99"]
    ran = cli("train", experiment, *overrides)
    assert ran.code == 0, ran.err
    warning = (
        "  training waits 25% of its time for data. Try more data.workers (now 0), smaller images "
        "on disk, or a lighter data.augment\n"
    )
    assert ran.out.count(warning) == ran.out.count("training waits") == 1
    train = [x for x in lines(experiment.parent / "runs" / "small") if "train/lr" in x]
    assert [line["train/data_share"] for line in train] == pytest.approx([0.25] * 3)
    assert [line["train/images_per_second"] for line in train] == pytest.approx([4.0] * 3)
