"""What happens before step 0: a rehearsal that leaves no trace, and a trial of the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinanet.config import load_config
from retinanet.engine import launch
from retinanet.model.detector import Detector

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]


def test_a_rehearsal_leaves_no_trace(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, statistics of batch norm and moments stay, and no gradient is left."""
    original = launch.rehearse
    told: dict[str, Any] = {}

    def rehearse(run: Any) -> None:
        model, optimizer = run.model, run.optimizer
        before = {name: value.clone() for name, value in model.state_dict().items()}
        original(run)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
        assert not optimizer.state
        told["work"] = run.work
        told["by hand"] = by_hand(run)

    monkeypatch.setattr(launch, "rehearse", rehearse)
    ran = cli("train", experiment, "model.norm=bn", "train.steps=1", "--dry-run")
    assert ran.code == 0, ran.err
    assert told["work"].flops_per_pixel == pytest.approx(told["by hand"], rel=1e-12)
    assert told["work"].attainable > 0


def by_hand(run: Any) -> float:
    """Return the FLOPs of a pixel: each convolution forward, and twice as much back.

    Nobody needs the gradient of the images, which the first convolution would give.
    """
    products: list[int] = []

    def count(layer: nn.Conv2d, _: Any, output: Tensor) -> None:
        products.append(output.numel() * layer.weight[0].numel())

    layers = [layer for layer in run.model.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    height, width = run.plan.step(0)[0].canvas
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    with torch.no_grad():
        run.model(images, torch.tensor([[height, width]] * 2))
    for hook in hooks:
        hook.remove()
    return 2 * (3 * sum(products) - products[0]) / (2 * height * width)


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the device hold two images; return how many it was given each time."""
    monkeypatch.setattr(launch, "has_own_memory", lambda device: True)
    given: list[int] = []
    original = Detector.forward

    def forward(self: Detector, images: Tensor, sizes: Tensor) -> Any:
        given.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return original(self, images, sizes)

    monkeypatch.setattr(Detector, "forward", forward)
    return given


def test_auto_survives_too_little_memory(
    experiment: Path,
    finished_run: Path,
    losses_of: Callable[[Path], list[float]],
    room_for_two: list[int],
    cli: Cli,
) -> None:
    """A batch of 4 where 2 fit: the run reports it, saves it, and learns the same."""
    ran = cli("train", experiment, "train.steps=3", "eval.every=0", "train.milestones=[]")
    assert ran.code == 0, ran.err
    assert "\ntrain.micro_batch auto: 4 images did not fit into memory, but 2 do\n" in ran.out
    assert ", at most 2 images at a time, " in ran.out
    assert room_for_two[:2] == [4, 2]
    folder = experiment.parent / "runs" / "small"
    assert load_config(folder / "config.yaml").train.micro_batch == 2
    assert losses_of(folder) == pytest.approx(losses_of(finished_run)[:3], rel=1e-4)


def test_a_number_that_does_not_fit_ends_before_step_0(
    experiment: Path, room_for_two: list[int], cli: Cli
) -> None:
    ran = cli("train", experiment, "train.micro_batch=3")
    assert ran.code == 1
    assert ran.err.startswith("error: train.micro_batch=3: 3 images of ")
    assert ran.err.endswith(
        " px do not fit into the device's memory, but 2 do: set train.micro_batch=2 (the batch and "
        "the results stay the same)\n"
    )
    assert not (experiment.parent / "runs").exists()
    assert room_for_two == [3, 2]
