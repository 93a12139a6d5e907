"""What the checks of prove_gpu.py have in common: the machine, and a small training."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
import torchvision
from gpu_parts import NOT_RUN
from step_networks import calm

from retinanet.data.synthetic import write_synthetic
from retinanet.yaml_reader import write_yaml

LIMIT_OF_A_RUN = 100.0
"""Seconds of one training of a check."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The machine and the files of a check."""

    device: torch.device
    work: Path
    data: Path | None
    small: bool

    @property
    def training(self) -> Path:
        """Run folder of the check `training`."""
        return self.work.parent / "training" / "runs" / "bccd"


def not_run(reason: str) -> NoReturn:
    """End, because this machine cannot run the check."""
    print(reason)
    sys.exit(NOT_RUN)


def experiment(setting: Setting) -> Path:
    """Write an experiment on drawn images; return its file.

    The network is ResNet-50 with frozen batch norm, as usual, but with random weights: nothing is
    downloaded. The small one has a few thousand weights.
    """
    data = setting.work / "data"
    images = 8 if setting.small else 24
    write_synthetic(data, train_images=images, val_images=4, seed=3)
    if setting.small:
        model = {
            **{"backbone": "resnet18", "weights": "none", "norm": "gn", "freeze": "none"},
            **{"fpn_channels": 32, "head_convs": 1, "head_channels": 32},
        }
    else:
        weights = setting.work / "resnet50.pt"
        torch.manual_seed(0)
        network = torchvision.models.resnet50(weights=None)
        calm(network)
        torch.save(network.state_dict(), weights)
        model = {"backbone": "resnet50", "weights": str(weights)}
    splits = {
        split: {"annotations": f"annotations/{split}.json", "images": f"images/{split}"}
        for split in ("train", "val")
    }
    sides = {"short_side": [48, 64], "long_side": 128}
    if not setting.small:
        sides = {"short_side": [224, 256], "long_side": 416}
    values = {
        "model": model,
        "data": {"root": str(data), **splits, **sides, "workers": 0 if setting.small else 1},
        "train": {
            **{"batch_size": 4, "steps": 2 if setting.small else 12, "warmup_steps": 1},
            **{"device": setting.device.type, "log_every": 1, "lr": 0.001},
        },
        "eval": {"every": 1 if setting.small else 6, "batch_size": 2, "pictures": 0},
        "output": {"dir": str(setting.work / "runs")},
    }
    path = setting.work / "check.yaml"
    write_yaml(values, path)
    return path


def train(setting: Setting, config: Path, name: str, *options: str) -> Path:
    """Run a training in a process of its own; return its folder.

    Raises:
        RuntimeError: It failed; its output is printed.
    """
    command = [sys.executable, "-m", "retinanet", "train", str(config), "--name", name, *options]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_OF_A_RUN, check=False
    )
    if ran.returncode:
        print(ran.stdout + ran.stderr)
        raise RuntimeError(f"{name}: exit code {ran.returncode}")
    return setting.work / "runs" / name
