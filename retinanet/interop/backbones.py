"""ImageNet networks of torchvision, detectron2 and timm -> checkpoints of a backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress
from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.interop.inputs import STYLES
from retinanet.interop.matching import match_weights
from retinanet.interop.networks import Key, State, name_resnet
from retinanet.interop.projects import PROJECTS, detectron2_of_caffe2
from retinanet.model.detector import build_detector
from retinanet.schema import Config

_NEEDLESS = re.compile(
    r"^((stem\.)?fc|classifier|linear|pred|fc1000|_fc|_conv_head|_bn1)\.|num_batches_tracked$"
    r"|^stem\.conv1\.bias$"  # Caffe2's stem: its norm already contains this bias
)
"""Names of classifiers, and of other weights that a backbone here does not have."""
_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of EfficientNet-Lite0."""
_LITE0 = [
    "model.backbone=timm:tf_efficientnet_lite0",
    "model.channel_order=rgb",
    "model.pixel_mean=[127.0, 127.0, 127.0]",
    "model.pixel_std=[128.0, 128.0, 128.0]",
    "model.freeze=none",
]
"""Options of EfficientNet-Lite0; these values, its padding and its eps of 1e-3 are TensorFlow's."""


class _Network(NamedTuple):
    state: State
    key: Key
    options: list[str]
    what: str
    """Name to show to the user."""


def is_backbone(state: State) -> bool:
    """Whether weights have the names of an ImageNet network that converts."""
    marks = {"conv1.weight", "conv1_w", "stem.conv1.weight", "_conv_stem.weight"}
    return bool(marks & set(state))


def convert_backbone(
    state: State, path: Path, *, style: str | None, overrides: Sequence[str]
) -> tuple[Checkpoint, list[str]]:
    """Return an ImageNet network as a checkpoint with only a backbone, and lines that describe it.

    Args:
        state: Weights, as in the file.
        path: Path of the file, for messages.
        style: `caffe` or `pytorch`; None: Caffe's where the names are, else torchvision's.
        overrides: Options `section.key=value`, applied on top of those that were recognised.

    Raises:
        UserError: Weights are missing, unexpected or have the wrong shape.
    """
    if "_conv_stem.weight" in state and style is not None:
        raise UserError("--style: EfficientNet-Lite0 has only one style; leave it out")
    network = (
        _recognise_lite0(state)
        if "_conv_stem.weight" in state
        else _recognise_resnet(state, path, style)
    )
    config = override_config(Config(), ["model.norm=frozen_bn", *network.options, *overrides])
    whole = build_detector(config, classes=1, pretrained=False).state_dict()
    wanted = {name: value for name, value in whole.items() if name.startswith("backbone.")}
    wanted = {name: v for name, v in wanted.items() if not name.endswith("num_batches_tracked")}
    checkpoint = Checkpoint(
        config=config,
        categories=Categories(ids=(), names=()),
        model=match_weights(
            network.state,
            wanted,
            network.key,
            path,
            is_needless=lambda name: bool(_NEEDLESS.search(name)),
        ),
        progress=Progress(),
        environment={"converted_from": network.what},
    )
    return checkpoint, [f"{network.what}: a backbone without a detector"]


def _recognise_resnet(state: State, path: Path, style: str | None) -> _Network:
    caffe = "conv1_w" in state
    if caffe:
        blobs = {name: v for name, v in state.items() if not name.endswith("_momentum")}
        state = _with_statistics({detectron2_of_caffe2(name): v for name, v in blobs.items()})
    if "stem.conv1.weight" in state:

        def key(name: str) -> str:
            theirs = PROJECTS["detectron2"].key(name, False)
            return theirs.removeprefix("backbone.bottom_up.")

    else:

        def key(name: str) -> str:
            return name.removeprefix("backbone.")

    name = name_resnet(state, key, path)
    chosen = style or ("caffe" if caffe else "pytorch")
    return _Network(
        state, key, [f"model.backbone={name}", *STYLES[chosen]], f"{name} in {chosen} style"
    )


def _with_statistics(state: State) -> State:
    """Add mean 0 and variance 1 (with eps): Caffe2's norms are already folded into their scales."""
    added = {}
    for name, value in state.items():
        if name.endswith("norm.weight"):
            part = name.removesuffix("weight")
            added[f"{part}running_mean"] = torch.zeros_like(value)
            added[f"{part}running_var"] = torch.ones_like(value) - Config().model.norm_eps
    return {**added, **state}


def _recognise_lite0(state: State) -> _Network:
    """Map EfficientNet-Lite0 as `efficientnet_pytorch` writes it to the names of timm."""
    blocks = [
        f"blocks.{stage}.{number}"
        for stage, count in enumerate(_LITE0_STAGES)
        for number in range(count)
    ]
    first = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    others = {
        "expand_conv": "conv_pw",
        "bn0": "bn1",
        "depthwise_conv": "conv_dw",
        "bn1": "bn2",
        "project_conv": "conv_pwl",
        "bn2": "bn3",
    }
    theirs = {"backbone.net.conv_stem": "_conv_stem", "backbone.net.bn1": "_bn0"}
    for number, block in enumerate(blocks):
        for part, name in (others if number else first).items():
            theirs[f"backbone.net.{block}.{name}"] = f"_blocks.{number}._{part}"

    def key(name: str) -> str:
        module, _, part = name.rpartition(".")
        return f"{theirs.get(module, module)}.{part}"

    return _Network(state, key, _LITE0, "timm:tf_efficientnet_lite0")
