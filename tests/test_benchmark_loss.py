"""The benchmark of the losses: both ways do the same work, on a small canvas."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import benchmark_loss
import pytest
import torch


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = benchmark_loss
    monkeypatch.setitem(module.CASES, "80 classes, 8 boxes", ((64, 96), 5, 3))

    def start_loaders(inputs: Any) -> Any:
        module.Assigner.inputs = inputs
        return SimpleNamespace(map=lambda call, images, chunksize: [call(i) for i in images])

    monkeypatch.setattr(module, "start_loaders", start_loaders)
    return module


def test_both_ways_push_every_logit_the_same_way(benchmark: Any) -> None:
    """They divide by other numbers; positives, negatives and ignored anchors are the same."""
    signs = []
    for step in (benchmark.torchvisions_step, lambda i: benchmark.our_step(i, compiled=False)):
        inputs = benchmark.draw_inputs("80 classes, 8 boxes", torch.float32)
        step(inputs)()
        signs.append((inputs.logits.grad.sign(), inputs.deltas.grad.abs().sum(dim=2) > 0))
    for one, other in zip(*signs, strict=True):
        assert torch.equal(one, other)
    assert set(signs[0][0].unique().tolist()) == {-1, 0, 1}


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured by Linux' /proc"
)
@pytest.mark.parametrize("way", ["torchvision", "ours", "ours bf16", "copy", "imbalance"])
def test_every_way_runs(benchmark: Any, way: str) -> None:
    """Time and memory say something in a process of its own only, on a large canvas."""
    found = benchmark.measure("80 classes, 8 boxes", way, repeats=1)
    assert found["seconds"] > 0 and set(found) == {"seconds", "megabytes"}
