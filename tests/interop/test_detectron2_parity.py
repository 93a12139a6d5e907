"""Equality with detectron2, with golden files that detectron2 wrote.

They are looked for in `../parity/detectron2`, seen from the folder that RETINANET_TEST_DATA names.
The comparison is that of scripts/prove_detectron2.py: canvas and labels of anchors equal; anchors
to 1e-3 px; features, logits and deltas to 1e-4 of the largest value; at most two detections without
a counterpart; losses of three steps to 1e-4 and norms of the weights to 1e-5 of themselves. The
last seven of ten steps are the script's alone (docs/parity.md).
"""

import os
from pathlib import Path

import prove_detectron2 as proof
import pytest
import torch

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder() -> Path:
    root = os.environ.get("RETINANET_TEST_DATA")
    if not root:
        pytest.skip("RETINANET_TEST_DATA is not set: no golden files from detectron2")
    path = Path(root).parent / "parity" / "detectron2"
    if not path.is_dir():
        pytest.skip(f"no golden files in {path}")
    return path


@pytest.mark.parametrize("name", ["r18_torchvision_a", "r50_msra_a"])
def test_everything_is_within_tolerance(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canvas, anchors, labels, features, outputs, detections, losses and weights over 3 steps."""
    monkeypatch.setattr(proof, "STEPS", 3)
    compared = list(proof.figures(proof.open_case(folder, name)))
    assert len(compared) == 15
    assert not [row for row in compared if row[1] > row[2]]


def test_the_same_parameters_are_trainable(folder: Path) -> None:
    for name in proof.STYLES:
        case = proof.open_case(folder, name)
        trainable = {n for n, p in case.model.named_parameters() if p.requires_grad}
        assert trainable == {case.names[key] for key in case.facts["trainable"]}


def test_the_comparison_can_fail(folder: Path) -> None:
    """A weight that is off by a thousandth is detected."""
    case = proof.open_case(folder, "r18_torchvision_a")
    with torch.no_grad():
        case.model.fpn.p7.weight.mul_(1.001)
    outputs, features = proof.run_forward(case)
    assert proof.relative_difference(features[4], case.golden["feature_p7"]) > 1e-4
    assert proof.relative_difference(outputs.logits, case.golden["logits"]) > 1e-6
