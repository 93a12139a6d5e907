"""Training in lockstep with torchvision's own modules (scripts/prove_torchvision.py).

A small backbone, a narrow pyramid and small real images here; the script takes the same steps with
R50 at full size (docs/parity.md).
"""

import os
from pathlib import Path
from typing import Any

import prove_torchvision as proof
import pytest
import torch

SMALL: dict[str, Any] = {"backbone": "resnet18", "short_side": 64, "channels": 64}
pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def root() -> str:
    folder = os.environ.get("RETINANET_TEST_DATA")
    if not folder:
        pytest.skip("RETINANET_TEST_DATA is not set: no real images")
    return str(Path(folder) / "tiny_coco")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_twenty_steps_in_float64(version: str, root: str) -> None:
    """Each step's losses to 1e-8, the final weights to 1e-7."""
    run = proof.Proof(root=root, version=version, **SMALL)
    steps = list(run.take(20))
    assert len(steps) == 20 and sum(step.positives for step in steps) > 500
    assert max(step.difference for step in steps) <= 1e-8
    assert run.largest_difference() <= 1e-7
    assert run.largest_move() > 1e-3  # the weights did change


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_five_steps_in_float32(version: str, root: str) -> None:
    run = proof.Proof(root=root, version=version, **SMALL, dtype=torch.float32)
    assert max(step.difference for step in run.take(5)) <= 1e-4
