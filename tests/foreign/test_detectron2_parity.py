"""Equality with detectron2, by the golden files that it wrote itself (shared/parity/detectron2).

The comparison is that of scripts/prove_detectron2.py, and the tolerances are those of the golden
files' README. The last seven of ten steps are the script's alone (docs/parity.md).
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "prove_detectron2.py"
pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prove_detectron2", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prove_detectron2"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder() -> Path:
    root = os.environ.get("RETINANET_TEST_DATA")
    if not root:
        pytest.skip("RETINANET_TEST_DATA is not set: no golden files of detectron2")
    path = Path(root).parent / "parity" / "detectron2"
    if not path.is_dir():
        pytest.skip(f"no golden files in {path}")
    return path


@pytest.mark.parametrize("name", ["r18_torchvision_a", "r50_msra_a"])
def test_everything_is_within_tolerance(
    name: str, proof: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canvas, anchors, labels, features, outputs, detections, losses and weights over 3 steps."""
    monkeypatch.setattr(proof, "STEPS", 3)
    compared = list(proof.figures(proof.open_case(folder, name)))
    assert len(compared) == 15
    assert not [row for row in compared if row[1] > row[2]]


def test_what_trains_is_what_trains_there(proof: Any, folder: Path) -> None:
    for name in proof.STYLES:
        case = proof.open_case(folder, name)
        trainable = {n for n, p in case.model.named_parameters() if p.requires_grad}
        assert trainable == {case.names[key] for key in case.facts["trainable"]}


def test_the_comparison_can_fail(proof: Any, folder: Path) -> None:
    """A weight that is a thousandth off is found."""
    case = proof.open_case(folder, "r18_torchvision_a")
    with torch.no_grad():
        case.model.fpn.p7.weight.mul_(1.001)
    outputs, features = proof.run_forward(case)
    assert proof.relative_difference(features[4], case.golden["feature_p7"]) > 1e-4
    assert proof.relative_difference(outputs.logits, case.golden["logits"]) > 1e-6
