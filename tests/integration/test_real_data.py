"""Real images through the shipped configs, with only path, step and size overrides."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from retinanet.checkpoints.format import load_checkpoint

Cli = Callable[..., Any]
CONFIGS = Path(__file__).parents[2] / "configs"
DATA = os.environ.get("RETINANET_TEST_DATA", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA, reason="RETINANET_TEST_DATA names no folder of real data"),
]


def test_coco(cli: Cli, tmp_path: Path) -> None:
    """COCO's files as published: gapped ids, crowds, images without boxes."""
    weights = tmp_path / "resnet50.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), weights)
    root = Path(DATA) / "tiny_coco"
    overrides = [
        f"data.root={root}",
        "data.train.images=images/train2017",
        "data.val.images=images/val2017",
        f"output.dir={tmp_path}",
        f"model.weights={weights}",  # IMAGENET1K_V1 needs a network
        "train.steps=2",
        "train.batch_size=2",
        "train.device=cpu",
        "data.short_side=[128]",
        "data.long_side=256",
        "data.workers=0",
    ]
    name = "retinanet_r50_fpn_1x_coco"
    ran = cli("train", CONFIGS / f"{name}.yaml", *overrides)
    assert ran.code == 0, ran.err
    assert "instances_train2017.json: 32 images, 284 boxes of 80 classes, 4 crowd" in ran.out
    assert "instances_val2017.json: 6 images, 135 boxes of 80 classes, 1 crowd" in ran.out
    checkpoint = tmp_path / name / "checkpoints" / "last.pt"
    saved = load_checkpoint(checkpoint)
    assert len(saved.categories) == 80
    assert saved.categories.ids[11:13] == (13, 14)  # 12 is a gap
    assert saved.categories.names[0] == "person"
    # The stem and layer1 are frozen: bit for bit those of the file, after two steps.
    original = torch.load(weights, weights_only=True)
    for key in ("conv1.weight", "layer1.0.conv1.weight", "bn1.running_mean"):
        assert torch.equal(saved.model[f"backbone.{key}"], original[key]), key
    moved = "layer2.0.conv1.weight"
    assert not torch.equal(saved.model[f"backbone.{moved}"], original[moved])

    ran = cli("evaluate", checkpoint, "--output", tmp_path / "evaluated")
    assert ran.code == 0
    figures = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    assert len(figures["classes"]) == 80
    assert any(row["AP"] is None for row in figures["classes"].values())

    out = tmp_path / "predicted"
    images = root / "images" / "val2017"
    ran = cli("predict", checkpoint, images, "--output", out, "--device", "cpu")
    assert ran.code == 0
    assert len(list((out / "pictures").iterdir())) == 6
    assert len(json.loads((out / "images.json").read_text())["images"]) == 6


def test_blood_cells(cli: Cli, tmp_path: Path) -> None:
    """One annotation of 1x1 px in train is left out and counted; val keeps every box."""
    root = Path(DATA) / "bccd"
    overrides = [
        f"data.root={root}",
        f"output.dir={tmp_path}",
        "train.epochs=null",
        "train.steps=4",
        "eval.every=null",
        "train.device=cpu",
        "data.short_side=[96]",
        "data.long_side=160",
        "data.workers=0",
    ]
    ran = cli("train", CONFIGS / "bccd_r18.yaml", *overrides)
    assert ran.code == 0, ran.err
    assert "4 steps of 8 images, 26 per epoch" in ran.out
    log = (tmp_path / "bccd_r18" / "train.log").read_text()
    assert "train.json: 205 images, 2,805 boxes of 3 classes" in log
    assert "val.json: 87 images, 1,138 boxes of 3 classes" in log
    assert "1 box with a side under 2 px: left out (annotation 2288)" in log

    checkpoint = tmp_path / "bccd_r18" / "checkpoints" / "best.pt"
    words = ["--annotations", root / "annotations" / "test.json", "--images", root / "images"]
    ran = cli("evaluate", checkpoint, *words, "--output", tmp_path / "evaluated")
    assert ran.code == 0
    figures = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    counts = {name: row["boxes"] for name, row in figures["classes"].items()}
    assert sum(counts.values()) == 945
    assert set(counts) == {"RBC", "WBC", "Platelets"}

    image = root / "images" / "BloodImage_00007.jpg"
    ran = cli("predict", checkpoint, image, "--output", tmp_path / "predicted")
    assert ran.code == 0
    listed = json.loads((tmp_path / "predicted" / "images.json").read_text())
    assert (listed["images"][0]["width"], listed["images"][0]["height"]) == (640, 480)
    assert {category["name"] for category in listed["categories"]} == set(counts)
