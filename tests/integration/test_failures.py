"""What goes wrong while running, and what a run starts from or stops at on its own."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
from retinanet.data import checks
from retinanet.engine import launch
from retinanet.engine import step as engine

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
DYING = Path(__file__).with_name("dying.py")
NO_MOTION = ["train.lr=1e-12", "train.warmup_steps=0", "train.optimizer=sgd"]
"""Steps too small to change a float32."""


@pytest.fixture
def data(synthetic: Path, tmp_path: Path) -> Path:
    """Return a copy of the data set to spoil."""
    return Path(shutil.copytree(synthetic, tmp_path / "data"))


def recorded_steps(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "train/lr" in line]


def test_a_loss_that_is_not_finite(experiment: Path, cli: Cli) -> None:
    """It stops, and reports images, losses, learning rate and norm."""
    wild = ["train.lr=1e30", "train.clip_norm=0", "train.warmup_steps=1", "train.optimizer=sgd"]
    ran = cli("train", experiment, *wild, "train.checkpoint_every=1", "train.warmup_factor=1e-36")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    lines = ran.err.splitlines()
    assert re.fullmatch(
        r"error: step 3: the loss is not finite: class \S+, box \S+; learning rate 1e\+30, "
        r"gradient norm \S+",
        lines[0],
    )
    images = [re.match(r"  image (\d+): \d+ box(?:es)?, \[", line) for line in lines[1:5]]
    assert len({int(match.group(1)) for match in images if match}) == 4
    run = experiment.parent / "runs" / "small"
    last = run / "checkpoints" / "last.pt"
    assert (
        f"the weights were not updated. Last checkpoint: {last}, best: none yet. Inspect the step"
        in lines[-1]
    )
    assert lines[-1].endswith(  # clipping was off, precision fp32
        f"retinanet replay {run} --step 3. Set train.max_bad_steps to skip a few such steps; or "
        "try, in a new run or with --allow-changes, a lower train.lr, a longer "
        "train.warmup_steps or train.clip_norm=10."
    )
    log = (experiment.parent / "runs" / "small" / "train.log").read_text()
    assert ran.err in log
    checkpoint = load_checkpoint(last)
    assert checkpoint.progress.step == 2


def test_a_bad_loss_of_one_process_is_one_of_all(
    experiment: Path, start: Callable[..., Any]
) -> None:
    """All leave out the same step, and stop at the next one, with the words of one process."""
    words = ["train", experiment, "train.max_bad_steps=1", "train.log_every=2", "eval.every=0"]
    said = []
    for name, ranks in (("one", 1), ("two", 2)):
        deaths = json.dumps({str(ranks - 1): ["bad_losses", 1, 3]})
        ran, *others = start(DYING, deaths, *words, "--name", name, processes=ranks).wait()
        assert [ran.code, *(other.code for other in others)] == [1] * ranks
        assert all((other.out, other.err) == ("", "") for other in others)
        assert "\n  by step 2: 1 more step skipped because the loss or the gradient" in ran.out
        assert ran.err.startswith("error: step 4: the loss is not finite: class nan, box nan; ")
        said.append(ran.err.replace(f"runs/{name}", "runs"))
    assert said[0] == said[1]


def test_the_initial_weights_are_tried_before_step_0(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not finite from the start is found before the run folder is made."""
    build = launch._build_model

    def spoil(*arguments: Any, **named: Any) -> Any:
        model, remarks = build(*arguments, **named)
        for parameter in model.parameters():
            parameter.data.fill_(math.nan)
        return model, remarks

    monkeypatch.setattr(launch, "_build_model", spoil)
    ran = cli("train", experiment)
    assert ran.code == 1
    assert ran.err == (
        "error: the loss of the first two images is not finite: class nan, box nan; are "
        "model.weights, model.pixel_mean and model.pixel_std those of the backbone?\n"
    )
    assert not (experiment.parent / "runs").exists()


def test_a_state_that_had_diverged_says_so_on_resume(
    interrupted_run: Path, cli: Cli, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(interrupted_run, tmp_path / "run"))
    last = folder / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(last)
    checkpoint.model["fpn.p7.bias"].fill_(math.nan)
    save_checkpoint(checkpoint, last)
    ran = cli("train", "--resume", folder)
    assert ran.code == 1
    assert "the run had diverged before this state was saved: start a new run from its" in ran.err
    ran = cli("evaluate", last, "--output", tmp_path / "out")
    assert ran.code == 1
    assert "the network's outputs are not finite: training has diverged" in ran.err
    assert not (tmp_path / "out").exists()


def test_gradients_that_fp16_never_gets_finite(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may be skipped and the scale halved; not for ever."""
    scaler = torch.amp.GradScaler

    def enabled_scaler(device: str, *, enabled: bool) -> torch.amp.GradScaler:
        assert not enabled, "a CPU has no fp16: the scaler is off"
        return scaler(device, init_scale=4.0)

    monkeypatch.setattr(torch.amp, "GradScaler", enabled_scaler)
    accumulate = engine._accumulate

    def spoil(run: Any, *arguments: Any) -> Any:
        losses = accumulate(run, *arguments)
        run.model.fpn.p7.bias.grad.fill_(math.nan)
        return losses

    monkeypatch.setattr(engine, "_accumulate", spoil)
    ran = cli("train", experiment, "train.steps=50", "eval.every=0")
    assert ran.code == 1
    assert ran.err.startswith("error: step 4: the gradient is not finite: class ")  # 4, 2, 1, 0.5
    assert "gradient norm nan" in ran.err


def test_a_step_without_any_image(experiment: Path, data: Path, cli: Cli) -> None:
    """Within the limit, but nothing would be learned."""
    for path in (data / "images" / "train").iterdir():
        path.write_bytes(b"garbage")
    ran = cli("train", experiment, f"data.root={data}", "data.max_bad_images=100")
    assert ran.code == 1
    assert ran.err == "error: step 1: none of its images could be read\n"


def test_unreadable_images_are_named_and_counted(experiment: Path, data: Path, cli: Cli) -> None:
    """Training continues without them, up to a limit."""
    spoilt = data / "images" / "train" / "000005.jpg"
    spoilt.write_bytes(b"garbage")
    cut = data / "images" / "train" / "000009.jpg"
    cut.write_bytes(cut.read_bytes()[:1000])
    overrides = [f"data.root={data}", "train.steps=6", "eval.every=0"]  # two epochs: said once
    ran = cli("train", experiment, *overrides)
    assert ran.code == 0
    log = (experiment.parent / "runs" / "small" / "train.log").read_text()
    assert ran.err == ""
    left_out = re.findall(
        r"^step [123]: left out: (.*) \((\d) so far, limit 10\)$", log, re.MULTILINE
    )
    messages = sorted(message for message, _ in left_out)
    assert [message.split(";")[0] for message in messages] == [
        f"{spoilt}: not an image that can be decoded: a text file",
        f"{cut}: not an image that can be decoded: a truncated JPEG file, whose end is missing",
    ]
    assert [count for _, count in left_out] == ["1", "2"]
    last = load_checkpoint(experiment.parent / "runs" / "small" / "checkpoints" / "last.pt")
    assert len(last.progress.bad_images) == 2


def test_a_file_that_goes_after_the_check_is_left_out_the_same_by_workers(
    experiment: Path,
    data: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    losses_of: Callable[[Path], list[float]],
) -> None:
    """The same losses and the same line in the log for 0 and 2 workers."""
    gone = data / "images" / "train" / "000005.jpg"
    content, check = gone.read_bytes(), checks.check_whole

    def check_and_delete(*arguments: Any) -> None:
        check(*arguments)
        gone.unlink(missing_ok=True)

    monkeypatch.setattr(checks, "check_whole", check_and_delete)
    runs = experiment.parent / "runs"
    for workers in (0, 2):
        gone.write_bytes(content)
        overrides = [
            f"data.root={data}",
            f"data.workers={workers}",
            "eval.every=0",
            "train.steps=3",
        ]
        assert cli("train", experiment, *overrides, "--name", workers).code == 0
    logs = [(runs / name / "train.log").read_text() for name in ("0", "2")]
    lines = [[line for line in log.splitlines() if "left out: " in line] for log in logs]
    assert lines[0] == lines[1] and len(lines[0]) == 1
    assert lines[0][0].endswith(
        f": left out: {gone}: cannot be read: No such file or directory (1 so far, limit 10)"
    )
    losses = losses_of(runs / "0")
    assert losses == losses_of(runs / "2") and len(losses) == 3


def test_too_many_unreadable_images_stop_the_run(experiment: Path, data: Path, cli: Cli) -> None:
    """Past the limit the run ends; what was learned before stays."""
    folder = data / "images" / "train"
    for number in (1, 3, 5, 7, 9, 11):
        (folder / f"{number:06}.jpg").write_bytes(b"garbage")
    overrides = [f"data.root={data}", "data.max_bad_images=5", "train.checkpoint_every=1"]
    ran = cli("train", experiment, *overrides, "train.steps=3")
    assert ran.code == 1
    assert re.match(
        rf"error: 6 images could not be read, more than data\.max_bad_images \(5\) allows; the "
        rf"last was {folder}/0000\d\d\.jpg: not an image that can be decoded.*\n$",
        ran.err,
    )
    run = experiment.parent / "runs" / "small"
    log = (run / "train.log").read_text()
    assert len(re.findall(r"left out: .*decoded", log)) == 6
    assert load_checkpoint(run / "checkpoints" / "last.pt").progress.step == len(
        recorded_steps(run)
    )


def test_init_from_keeps_the_rows_of_classes_by_name(
    experiment: Path, learned_run: Path, data: Path, cli: Cli
) -> None:
    """Other classes, ids and order; everything else of the network loads."""
    names = {3: "hexagon", 10: "ring", 20: "ellipse"}
    for split in ("train", "val"):
        path = data / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        content["categories"] = [{"id": i, "name": name} for i, name in names.items()]
        for record in content["annotations"]:
            record["category_id"] = (3, 10, 20)[record["category_id"] % 3]
        path.write_text(json.dumps(content))
    source = learned_run / "checkpoints" / "last.pt"
    overrides = [f"data.root={data}", "train.steps=1", "train.weight_decay=0", *NO_MOTION]
    ran = cli("train", experiment, *overrides, "--init-from", source)
    assert ran.code == 0
    old = load_checkpoint(source)
    new = load_checkpoint(experiment.parent / "runs" / "small" / "checkpoints" / "last.pt")
    count = len(new.model)
    assert f"initialised {count} of {count} tensors from the checkpoint" in ran.out
    assert (
        "class logits kept for 2 classes of the same name (ring, ellipse), fresh for 1 (hexagon)"
    ) in ran.out
    assert new.categories.names == ("hexagon", "ring", "ellipse")
    bias, old_bias = (c.model["class_subnet.output.bias"] for c in (new, old))
    bias, old_bias = bias.view(9, 3), old_bias.view(9, 6)
    assert torch.allclose(bias[:, 1], old_bias[:, 5], rtol=0, atol=1e-9)
    assert torch.allclose(bias[:, 2], old_bias[:, 0], rtol=0, atol=1e-9)
    assert torch.allclose(bias[:, 0], torch.tensor(-math.log(99.0)), rtol=1e-6)
    weight, old_weight = (c.model["class_subnet.output.weight"] for c in (new, old))
    weight, old_weight = weight.view(9, 3, 32, 3, 3), old_weight.view(9, 6, 32, 3, 3)
    assert torch.allclose(weight[:, 1], old_weight[:, 5], rtol=0, atol=1e-9)
    assert torch.allclose(weight[:, 2], old_weight[:, 0], rtol=0, atol=1e-9)
    for name in new.model:
        if not name.startswith("class_subnet.output."):
            assert torch.allclose(new.model[name], old.model[name], rtol=0, atol=1e-9), name


@pytest.mark.parametrize(
    ("override", "listed"),
    [
        (
            "anchors.ratios=[1.0, 3.0]",
            "  3 of 6 anchors of a cell nearly match one of the 9 in the checkpoint and keep its "
            "rows; the other rows are fresh\n",
        ),
        (
            "model.fpn_channels=64",
            "  skipped fpn.lateral.0.weight: (32, 128, 1, 1) in the checkpoint, (64, 128, 1, 1) "
            "here\n",
        ),
        (
            "model.head_convs=2",
            "  skipped class_subnet: its convolutions differ from those in the checkpoint\n"
            "  skipped box_subnet: its convolutions differ from those in the checkpoint\n",
        ),
    ],
)
def test_init_from_lists_what_does_not_fit(
    experiment: Path, learned_run: Path, cli: Cli, override: str, listed: str
) -> None:
    """Channels, convolutions and anchors that are not as they were."""
    source = learned_run / "checkpoints" / "last.pt"
    ran = cli("train", experiment, override, "--init-from", source, "--dry-run")
    assert ran.code == 0
    assert listed in ran.out


def test_patience_stops_the_run(experiment: Path, cli: Cli) -> None:
    """Evaluations without a better AP end the run; a resume does not continue it."""
    overrides = [*NO_MOTION, "train.patience=2", "eval.every=1", "train.steps=20"]
    ran = cli("train", experiment, *overrides, "train.weight_decay=0")
    assert ran.code == 0
    assert "no better AP in 2 evaluations: stopping\n" in ran.out
    run = experiment.parent / "runs" / "small"
    assert recorded_steps(run) == [1, 2, 3]
    progress = load_checkpoint(run / "checkpoints" / "last.pt").progress
    assert (progress.step, progress.best_step, progress.stale) == (3, 1, 2)
    again = cli("train", "--resume", run)
    assert again.code == 2
    assert "has already finished: 3 of 20 steps, 2 evaluations without a better AP" in again.err
    longer = cli("train", "--resume", run, "train.patience=3")
    assert longer.code == 0
    assert recorded_steps(run) == [1, 2, 3, 4]


def test_init_from_another_backbone_is_refused(
    cli: Cli, experiment: Path, learned_run: Path
) -> None:
    """What does not fit would stay random, in silence."""
    source = learned_run / "checkpoints" / "last.pt"
    ran = cli("train", experiment, "--init-from", source, "model.backbone=resnet34")
    assert ran.code == 2
    assert "model.backbone is resnet18 in the checkpoint but resnet34 here" in ran.err
