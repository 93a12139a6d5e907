"""The same on a CUDA device: precisions, pinned memory, resume, two devices over nccl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from same_run import run_differences, state_differences
from torchvision.models import resnet18

from retinanet.checkpoints.format import load_checkpoint
from retinanet.distributed.compiler import missing_compiler
from retinanet.distributed.precision import autocast
from retinanet.engine import train as loop
from retinanet.losses.criterion import build_class_loss
from retinanet.model.detector import Detector, build_detector
from retinanet.model.suppression import suppress
from retinanet.positives import find_assigned
from retinanet.schema import Config, LossConfig
from retinanet.structures import BACKGROUND, IGNORED, Outputs, Target

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run here"),
]
ROOT = Path(__file__).parents[2]
CUDA = torch.device("cuda", 0)
Losses = Callable[[Path], list[float]]


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.05), ("fp16", 0.05)]
)
def test_losses_are_those_of_the_cpu(
    experiment: Path,
    finished_run: Path,
    cli: Callable[..., Any],
    losses_of: Losses,
    precision: str,
    tolerance: float,
) -> None:
    """The config is the experiment: the first steps agree, in every precision."""
    words = ["train.device=cuda", f"train.precision={precision}", "data.workers=2"]
    assert cli("train", experiment, *words).code == 0
    ours = losses_of(experiment.parent / "runs" / "small")
    assert ours[:3] == pytest.approx(losses_of(finished_run)[:3], rel=tolerance)


def test_a_run_goes_on_between_devices(experiment: Path, cli: Callable[..., Any]) -> None:
    """A checkpoint does not belong to a device."""
    folder = experiment.parent / "runs" / "small"
    assert cli("train", experiment, "train.device=cuda", "train.steps=3").code == 0
    assert cli("train", "--resume", folder, "train.device=cpu", "train.steps=4").code == 0
    assert cli("train", "--resume", folder, "train.device=cuda", "train.steps=5").code == 0


@pytest.mark.parametrize(
    ("precision", "norm"),
    [("fp32", "gn"), ("bf16", "gn"), ("fp16", "gn"), ("bf16", "frozen_bn"), ("fp16", "frozen_bn")],
)
def test_a_step_does_not_wait_for_the_device(
    experiment: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    precision: str,
    norm: str,
) -> None:
    """Torch itself reports where it would, from the second step on (caches are filled).

    tests/engine/test_device_rehearsal.py stands in for it elsewhere, on fake tensors.
    """
    take_step, watched = loop.take_step, []

    def watch(run: Any, part: Any, **options: Any) -> None:
        if part.step:
            torch.cuda.set_sync_debug_mode("error")
            watched.append(part.step)
        try:
            take_step(run, part, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "take_step", watch)
    words = ["train.device=cuda", f"train.precision={precision}", "train.ema_decay=0.9"]
    if norm == "frozen_bn":
        torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pt")
        words += [f"model.weights={tmp_path / 'resnet18.pt'}", "model.norm=frozen_bn"]
        words += ["model.freeze=stages:1"]
    ran = cli(
        "train",
        experiment,
        *words,
        "train.micro_batch=2",
        "data.short_side=[64]",
        "train.imbalance_every=2",
    )
    assert ran.code == 0, ran.err
    assert watched == [1, 2, 3, 4, 5]


def test_an_interrupted_run_has_the_same_bits(experiment: Path, cli: Callable[..., Any]) -> None:
    """With train.deterministic, the default."""
    runs = experiment.parent / "runs"
    words = ["train.device=cuda", "train.ema_decay=0.9", "train.precision=fp16"]
    assert cli("train", experiment, *words, "--name", "whole").code == 0
    cut = [*words, "train.max_minutes=1e-9", "--name", "cut"]
    assert cli("train", experiment, *cut).code == 0  # before the first step
    assert cli("train", experiment, *words, "train.steps=3", "--name", "short").code == 0
    assert cli("train", "--resume", runs / "cut", "train.max_minutes=null").code == 0
    assert cli("train", "--resume", runs / "short", "train.steps=6").code == 0
    assert run_differences(runs / "cut", runs / "whole") == []
    states = [
        load_checkpoint(runs / name / "checkpoints" / "last.pt") for name in ("short", "whole")
    ]
    differing = [text for text in state_differences(*states) if not text.startswith("progress")]
    assert differing == []


def test_evaluation_is_that_of_the_cpu(
    learned_run: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    figures = []
    for device in ("cpu", "cuda"):
        words = [f"train.device={device}", "--output", tmp_path / device]
        assert cli("evaluate", learned_run / "checkpoints" / "last.pt", *words).code == 0
        figures.append(json.loads((tmp_path / device / "metrics.json").read_text())["AP"])
    assert figures[1] == pytest.approx(figures[0], abs=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_devices_give_the_losses_of_one(
    experiment: Path, finished_run: Path, losses_of: Losses
) -> None:
    """Over nccl."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "tools" / "train.py"), str(experiment), "train.device=cuda"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = losses_of(experiment.parent / "runs" / "small")
    assert ours[:3] == pytest.approx(losses_of(finished_run)[:3], rel=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "kind", ["focal", "cross_entropy", "balanced_cross_entropy", "ohem", "focal_star"]
)
def test_class_losses_are_those_of_the_cpu(kind: str, compiled: bool) -> None:
    """Values and gradients of every class loss, with positives and ignored anchors."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3000, 5, generator=generator) * 3 - 4
    matches = torch.full((2, 3000), BACKGROUND, dtype=torch.int32)
    matches[:, ::50], matches[:, 7::90] = 0, IGNORED
    box = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    label, crowd = torch.tensor([3]), torch.tensor([False])
    assigned = find_assigned([Target(boxes=box, labels=label, crowd=crowd)] * 2, matches)
    corner = torch.rand(3000, 2, generator=generator) * 500
    found = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        there = logits.to(device).requires_grad_()
        outputs = Outputs(
            logits=there,
            deltas=torch.zeros(2, 3000, 4, device=device),
            anchors=torch.cat([corner, corner + 20], dim=1).to(device),
            anchors_per_level=[3000, 0, 0, 0, 0],
        )
        loss = build_class_loss(LossConfig(class_loss=kind), compiled=compiled)
        sums = loss(outputs, assigned.to(device))
        (sums * torch.tensor([1.0, 2.0], device=device)).sum().backward()
        found.append((sums.detach().cpu(), there.grad.cpu()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def need_compiler() -> None:
    """Skip a test that compiles for the GPU where that cannot be done."""
    missing = missing_compiler(CUDA)
    if missing:
        pytest.skip(f"torch.compile needs {missing}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train.precision=fp32"],
        ["train.precision=bf16"],
        ["train.precision=fp16", "train.ema_decay=0.9"],
        ["train.precision=bf16", "train.micro_batch=1"],
        ["train.precision=bf16", "train.compile_loss=true"],
        ["train.precision=bf16", "train.compile=true"],
    ],
    ids=["tf32", "bf16", "fp16 and ema", "accumulation", "compiled loss", "compiled network"],
)
def test_the_same_bits_twice(experiment: Path, cli: Callable[..., Any], words: list[str]) -> None:
    if any("compile" in word for word in words):
        need_compiler()
    for name in ("one", "other"):
        ran = cli("train", experiment, "train.device=cuda", *words, "--name", name)
        assert ran.code == 0, ran.err
    runs = experiment.parent / "runs"
    assert run_differences(runs / "one", runs / "other") == []


def test_a_compiled_loss_learns_what_the_other_learns(
    experiment: Path, cli: Callable[..., Any], losses_of: Losses
) -> None:
    need_compiler()
    runs, found = experiment.parent / "runs", []
    for name in ("true", "false"):
        words = ["train.device=cuda", f"train.compile_loss={name}", "train.steps=3"]
        assert cli("train", experiment, *words, "--name", name).code == 0
        found.append(losses_of(runs / name))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_fast_run_says_what_it_gives_up(experiment: Path, cli: Callable[..., Any]) -> None:
    ran = cli("train", experiment, "train.device=cuda", "--fast", "train.steps=1", "eval.every=0")
    assert ran.code == 0, ran.err
    assert "  train.speed fast: computes in " in ran.out
    assert "chooses operations by trial, so that two runs differ in their last digits" in ran.out


@pytest.mark.parametrize("tf32", [True, False])
def test_evaluation_has_the_numerics_of_training(
    learned_run: Path,
    cli: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tf32: bool,
) -> None:
    """`train.tf32` also holds in evaluation, and afterwards the caller's switches are back."""
    seen, forward = set(), Detector.forward

    def watch(self: Detector, *inputs: Any) -> Outputs:
        seen.add(torch.backends.cuda.matmul.allow_tf32)
        return forward(self, *inputs)

    monkeypatch.setattr(Detector, "forward", watch)
    before = torch.backends.cuda.matmul.allow_tf32
    words = ["train.device=cuda", f"train.tf32={str(tf32).lower()}", "--output", tmp_path / "found"]
    assert cli("evaluate", learned_run / "checkpoints" / "last.pt", *words).code == 0
    assert seen == {tf32}
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.parametrize("classes", [80, 264, 1203])
def test_suppression_decides_as_on_a_cpu(classes: int) -> None:
    """Also with so many classes that float32 would lose digits of the coordinates."""
    generator = torch.Generator().manual_seed(classes)
    corner = torch.rand(5000, 2, generator=generator) * 1200
    sides = 8 + torch.rand(5000, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + sides], dim=1)
    boxes[2500:] = boxes[:2500] + torch.rand(2500, 4, generator=generator) * 8
    scores = torch.rand(5000, generator=generator)
    labels = torch.randint(0, classes, (2500,), generator=generator).repeat(2)
    here = suppress(boxes, scores, labels, 0.5)
    there = suppress(boxes.to(CUDA), scores.to(CUDA), labels.to(CUDA), 0.5)
    assert 2500 < len(here) < 5000
    assert torch.equal(there.cpu(), here)


def test_group_norm_gives_the_outputs_of_the_cpu() -> None:
    """In channels_last, which is contiguous in the norm itself on a GPU."""
    torch.manual_seed(0)
    model = {"backbone": "resnet18", "weights": "none", "norm": "gn", "freeze": "none"}
    detector = build_detector(Config.model_validate({"model": model}), classes=3).eval()
    images = torch.randint(0, 256, (2, 3, 128, 160), dtype=torch.uint8)
    sizes = torch.tensor([[128, 160], [100, 128]])
    found = []
    for device in (torch.device("cpu"), CUDA):
        detector.to(device).to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            outputs = detector(images.to(device), sizes.to(device))
        found.append((outputs.logits.cpu(), outputs.deltas.cpu()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_less_for_the_backward_pass() -> None:
    """Also with frozen batch norm, which as a module of its own would compute in float32."""
    model = {"backbone": "resnet50", "weights": "imagenet", "norm": "frozen_bn"}
    config = Config.model_validate({"model": model})
    detector = build_detector(config, classes=3, pretrained=False).to(CUDA).train()
    images = torch.zeros(4, 3, 512, 640, dtype=torch.uint8, device=CUDA)
    sizes = torch.tensor([[512, 640]] * 4, device=CUDA)
    kept = {}
    for precision in ("fp32", "bf16", "fp16"):
        before = torch.cuda.memory_allocated(CUDA)
        with autocast(CUDA, precision):
            outputs = detector(images, sizes)
        kept[precision] = torch.cuda.memory_allocated(CUDA) - before
        assert outputs.logits.requires_grad
        del outputs
    assert kept["bf16"] < 0.75 * kept["fp32"]
    assert kept["fp16"] < 0.75 * kept["fp32"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_an_error_of_one_rank_ends_an_nccl_job(
    experiment: Path, start: Callable[..., Any], tmp_path: Path
) -> None:
    """Nobody waits for a kernel that never finishes, and the reason is said last."""
    deaths = json.dumps({1: ("in_backward", 2, "bug")})
    words = ["train.device=cuda", f"output.dir={tmp_path}", "--name", "one", "data.workers=1"]
    dying = Path(__file__).with_name("dying.py")
    other, failed = start(dying, deaths, "train", experiment, *words, processes=2).wait()
    assert -9 not in (other.code, failed.code)  # not killed by the test
    assert failed.code == 1
    assert failed.err.endswith("ZeroDivisionError: bug in the backward pass\n")
