"""Recognise the network in a foreign file by the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from retinanet.errors import UserError
from retinanet.interop.projects import Project

State = Mapping[str, Tensor]
Key = Callable[[str], str]
"""Our name of a weight -> its name in the file."""

_RESNETS: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
    # blocks of layer1..layer4, channels in and out of the 3x3 convolutions of layer1
    ((2, 2, 2, 2), (64, 64)): "resnet18",
    ((3, 4, 6, 3), (64, 64)): "resnet34",
    ((3, 4, 6, 3), (64, 64, 256)): "resnet50",
    ((3, 4, 23, 3), (64, 64, 256)): "resnet101",
    ((3, 8, 36, 3), (64, 64, 256)): "resnet152",
    ((3, 4, 6, 3), (4, 128, 256)): "resnext50_32x4d",
    ((3, 4, 23, 3), (8, 256, 256)): "resnext101_32x8d",
    ((3, 4, 23, 3), (4, 256, 256)): "resnext101_64x4d",
    ((3, 4, 6, 3), (128, 128, 256)): "wide_resnet50_2",
    ((3, 4, 23, 3), (128, 128, 256)): "wide_resnet101_2",
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A foreign detector."""

    key: Key
    backbone: str
    normed: bool
    """Whether its subnets have normalisation."""
    options: list[str]
    """Options of our config that build it, `section.key=value`."""
    logits_per_cell: int
    """Anchors of a cell times classes, unused classes included."""
    deltas_per_cell: int


def name_resnet(state: State, key: Key, path: Path) -> str:
    """Return the name of a ResNet, recognised by its blocks.

    Raises:
        UserError: It is not one of the supported ResNets.
    """

    def count_blocks(stage: int) -> int:
        return _count_numbered(state, lambda i: key(f"backbone.layer{stage}.{i}.conv1.weight"))

    blocks = tuple(count_blocks(stage) for stage in (1, 2, 3, 4))
    second = state.get(key("backbone.layer1.0.conv2.weight"))
    third = state.get(key("backbone.layer1.0.conv3.weight"))
    if second is not None and second.dim() == 4:
        channels = [second.shape[1], second.shape[0]]
        channels += [] if third is None else [third.shape[0]]
        name = _RESNETS.get((blocks, tuple(channels)))
        if name is not None:
            return name
    raise UserError(
        f"{path}: its backbone is not one of {', '.join(_RESNETS.values())} (it has "
        f"{', '.join(map(str, blocks))} blocks in its stages)"
    )


def describe_detector(state: State, peer: Project, path: Path) -> Network:
    """Recognise the backbone, pyramid and subnets of a foreign detector.

    Raises:
        UserError: It is not a RetinaNet, or a part is missing.
    """
    normed = peer.key("class_subnet.tower.1.weight", True) in state

    def key(name: str) -> str:
        return peer.key(name, normed)

    def shape(name: str) -> tuple[int, ...]:
        value = state.get(key(name))
        if value is None or value.dim() != 4:
            raise UserError(
                f"{path}: is not a complete RetinaNet from {peer.name}: {key(name)} is missing"
            )
        return tuple(value.shape)

    pyramid, c5, p6 = (shape(f"fpn.{part}.weight") for part in ("output.0", "lateral.2", "p6"))
    logits, deltas = (shape(f"{part}_subnet.output.weight") for part in ("class", "box"))
    step = 3 if normed else 2
    convolutions = _count_numbered(state, lambda i: key(f"class_subnet.tower.{step * i}.weight"))
    backbone = name_resnet(state, key, path)
    return Network(
        key=key,
        backbone=backbone,
        normed=normed,
        options=[
            f"model.backbone={backbone}",
            f"model.fpn_channels={pyramid[0]}",
            f"model.p6_from={'c5' if p6[1] == c5[1] else 'p5'}",
            f"model.head_convs={convolutions}",
            f"model.head_channels={logits[1]}",
            f"model.head_norm={'gn' if normed else 'none'}",
        ],
        logits_per_cell=logits[0],
        deltas_per_cell=deltas[0],
    )


def _count_numbered(state: State, name: Callable[[int], str]) -> int:
    """Return how many of the numbered names exist, counted from 0."""
    number = 0
    while name(number) in state:
        number += 1
    return number
