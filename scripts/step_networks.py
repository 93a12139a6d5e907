"""The networks that benchmark_step.py times: ours and torchvision's, on the same drawn images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import load_config, override_config
from retinanet.distributed.compiler import missing_compiler, resolve_compile_loss
from retinanet.distributed.precision import autocast, resolve_precision, set_numerics
from retinanet.distributed.world import World
from retinanet.engine.logs.log import Log
from retinanet.engine.run import Run, load_steps, start_run
from retinanet.engine.splits import open_training_splits
from retinanet.engine.step import take_step
from retinanet.errors import UserError
from retinanet.model.detector import build_detector
from retinanet.schema import Config
from retinanet.yaml_reader import write_yaml

BOXES = 7
"""Boxes of an image, as on COCO."""


class LeftOutError(Exception):
    """A mode that this machine does not have."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What both networks are trained on."""

    device: torch.device
    backbone: str
    classes: int
    canvas: tuple[int, int]
    """Height and width, px; multiples of 32."""
    batch: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network in training."""

    step: Callable[[], object]
    """Takes a step."""
    switch: Callable[[], object]
    """Sets the numeric switches of the process as the training needs them."""


def draw_data(folder: Path, setting: Setting) -> Path:
    """Write images of the canvas's size with boxes, and an experiment on them; return its file."""
    height, width = setting.canvas
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in range(1, setting.batch + 1):
        noise = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / "images" / f"{image}.jpg"), pixels)
        images.append({"id": image, "file_name": f"{image}.jpg", "width": width, "height": height})
        for _ in range(BOXES):
            sides = 16 * (0.9 * min(height, width) / 16) ** random.random(2)
            corner = random.random(2) * ([width, height] - sides)
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": image, "iscrowd": 0},
                    **{"category_id": int(random.integers(1, setting.classes + 1))},
                    **{"bbox": [*corner.tolist(), *sides.tolist()], "area": float(sides.prod())},
                }
            )
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, setting.classes + 1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(truth))
    split = {"annotations": "boxes.json", "images": "images"}
    experiment = {
        # Nothing is loaded: `build_detector` is called without weights.
        "model": {"backbone": setting.backbone, "weights": "imagenet", "norm": "frozen_bn"},
        "data": {
            **{"root": str(folder), "train": split, "val": split, "workers": 0, "hflip": 0},
            **{"short_side": [min(height, width)], "long_side": max(height, width)},
            "canvas": "batch_max",
        },
        "train": {
            **{"batch_size": setting.batch, "micro_batch": setting.batch, "steps": 100_000},
            **{"device": setting.device.type, "lr": 1e-5, "imbalance_every": 0},
        },
        "output": {"dir": str(folder / "runs")},
    }
    write_yaml(experiment, folder / "step.yaml")
    return folder / "step.yaml"


def ours(setting: Setting, experiment: Path, options: list[str]) -> Training:
    """Return our training in a mode.

    Raises:
        LeftOutError: This machine does not have it.
    """
    config = load_config(experiment, options)
    device = setting.device
    if (config.train.compile or config.train.compile_loss is True) and (
        missing := missing_compiler(device)
    ):
        raise LeftOutError(f"torch.compile needs {missing}")
    try:
        precision = resolve_precision(config.train.precision, device)
    except UserError as error:
        raise LeftOutError(str(error)) from None
    compiled = json.dumps(resolve_compile_loss(config.train, device))
    config = override_config(
        config, [f"train.precision={precision}", f"train.compile_loss={compiled}"]
    )
    run = our_run(setting, config)
    part = next(iter(load_steps(run, stop=1, workers=0)))
    part = replace(part, micro_batches=[batch.to(device) for batch in part.micro_batches])
    assert part.micro_batches[0].images.shape[-2:] == setting.canvas
    return Training(
        step=lambda: take_step(run, part, positives=part.positives, images=part.images),
        switch=lambda: set_numerics(config.train, device),
    )


def our_run(setting: Setting, config: Config) -> Run:
    """Return a run before its first step, as `engine.launch` starts it."""
    train, val = open_training_splits(config)
    torch.manual_seed(0)
    model = build_detector(config, classes=setting.classes, pretrained=False)
    calm(model.backbone)
    precision = config.train.precision
    assert precision != "auto"
    run = start_run(
        config,
        folder=RunFolder(Path(config.output.dir) / "step"),
        train=train,
        val=val,
        model=model,
        world=World(rank=0, size=1, device=setting.device),
        precision=precision,
        log=Log(active=False),
        environment={},
        checkpoint=None,
    )
    run.wrapped.train()
    return run


def calm(backbone: nn.Module) -> None:
    """Make residual branches small: with random weights and frozen norms, fp16 would overflow."""
    for block in backbone.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
            last.weight.data.fill_(0.25)


def torchvisions(setting: Setting, experiment: Path, options: list[str]) -> Training:
    """Return torchvision's training in the precision of a mode."""
    device = setting.device
    config = load_config(experiment, options)
    precision = resolve_precision(config.train.precision, device)
    torch.manual_seed(0)
    last = 512 if setting.backbone in ("resnet18", "resnet34") else 2048
    backbone = resnet_fpn_backbone(
        backbone_name=setting.backbone,
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(last, 256),  # P6 from C5, as ours
    )
    calm(backbone)
    sides: dict[str, Any] = {"min_size": min(setting.canvas), "max_size": max(setting.canvas)}
    model = RetinaNet(backbone, setting.classes + 1, **sides).to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-5, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    images, targets = torchvisions_inputs(experiment.parent, device)

    def step() -> None:
        with autocast(device, precision):
            losses = model(images, targets)
            loss = sum(losses.values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    best = override_config(config, ["train.deterministic=false"])
    return Training(step=step, switch=lambda: set_numerics(best.train, device))


def torchvisions_inputs(
    folder: Path, device: torch.device
) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Return the images as float in [0, 1], and their targets, on the device."""
    truth = json.loads((folder / "boxes.json").read_text())
    images, targets = [], []
    for image in truth["images"]:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]))
        assert pixels is not None
        images.append(torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1) / 255)
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in own])
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([a["category_id"] for a in own])
        targets.append({"boxes": boxes.to(device), "labels": labels.to(device)})
    return [image.to(device) for image in images], targets
