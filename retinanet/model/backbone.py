"""Backbones: an image -> C3, C4, C5.

ResNets come from torchvision, other networks from timm. Weights are downloaded only if the config
names them; with a path or `none` nothing goes online.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torchvision
from torch import Tensor, nn

from retinanet.errors import UserError, nearest
from retinanet.model.frozen_norm import FoldedBatchNorm2d, fold_norms
from retinanet.model.pretrained import (
    State,
    download_timm,
    download_torchvision,
    load_state,
    read_state,
)
from retinanet.model.timm_backbone import TimmBackbone, check_name

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
Norm = Literal["frozen_bn", "bn", "sync_bn", "gn"]


def _norm_layer(norm: Norm, eps: float) -> Callable[[int], nn.Module]:
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen_bn": partial(FoldedBatchNorm2d, eps=eps),
        "bn": partial(nn.BatchNorm2d, eps=eps),
        "sync_bn": partial(nn.BatchNorm2d, eps=eps),  # converted to SyncBatchNorm on several GPUs
        "gn": partial(nn.GroupNorm, 32),
    }
    return layers[norm]


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier, with frozen stages.

    Parameters have torchvision's names, so its state dicts load unchanged.
    """

    STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
    channels: tuple[int, int, int]

    def __init__(
        self, *, name: str, norm: Norm, norm_eps: float, frozen_stages: int, stride_in_1x1: bool
    ) -> None:
        super().__init__()
        # Residual branches that start at zero train faster from random weights (Goyal et al.,
        # arXiv 1706.02677, section 5.1); pretrained weights replace them.
        net = getattr(torchvision.models, name)(
            weights=None, norm_layer=_norm_layer(norm, norm_eps), zero_init_residual=True
        )
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            net.layer1,
            net.layer2,
            net.layer3,
            net.layer4,
        )
        if stride_in_1x1:
            _move_stride(self)
        if norm == "frozen_bn":
            fold_norms(self)
        expansion = net.layer1[0].expansion
        self.channels = (128 * expansion, 256 * expansion, 512 * expansion)
        self.name = name
        self.frozen_stages = frozen_stages
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def stages(self) -> list[tuple[nn.Module, ...]]:
        """Return the parts that can be frozen: the stem, then layer1 to layer4."""
        return [
            (self.conv1, self.bn1),
            (self.layer1,),
            (self.layer2,),
            (self.layer3,),
            (self.layer4,),
        ]

    def _frozen_modules(self) -> list[nn.Module]:
        # Looked up each time: a conversion to SyncBatchNorm replaces the modules.
        return [module for stage in self.stages()[: self.frozen_stages] for module in stage]

    def train(self, mode: bool = True) -> ResNet:
        """Switch the mode; frozen stages stay in evaluation mode, or batch norm would change."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return [C3, C4, C5], strides 8, 16, 32, of normalised images (B, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c3, c4, self.layer4(c4)]


def _move_stride(net: ResNet) -> None:
    """Move each bottleneck's stride from its 3x3 convolution to the 1x1 before it (MSRA's nets)."""
    for layer in (net.layer2, net.layer3, net.layer4):
        block = layer[0]
        if hasattr(block, "conv3"):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)


def build_backbone(
    *,
    name: str,
    weights: str,
    norm: Norm,
    norm_eps: float,
    frozen_stages: int,
    stride_in_1x1: bool,
    inputs: Mapping[str, object] = MappingProxyType({}),
) -> ResNet | TimmBackbone:
    """Build a backbone and load its weights.

    Args:
        name: One of `RESNETS`, or `timm:<name>`.
        weights: `IMAGENET1K_V1`, `IMAGENET1K_V2` (downloaded by torchvision, or from its cache),
            the path of a state dict or of our checkpoint, or `none`.
        norm: Normalisation; a timm network has batch norm, frozen or not.
        norm_eps: Epsilon of a ResNet's batch norm; timm networks keep their own.
        frozen_stages: Number of frozen stages from 0 to 5, counted from the stem; 0 or 5 for a
            timm network.
        stride_in_1x1: See `ModelConfig`.
        inputs: Options for preparing images (`channel_order` and so on); our checkpoint must have
            been trained with the same.

    Raises:
        UserError: The name is unknown, or the weights are missing or do not fit.
    """
    wanted = {"backbone": name, "stride_in_1x1": stride_in_1x1, **inputs}
    if name.startswith("timm:"):
        return _build_timm(name, weights, norm, frozen_stages, wanted)
    if name not in RESNETS:
        choices = ", ".join(RESNETS)
        raise UserError(
            f"model.backbone: unknown backbone {name!r}{nearest(name, list(RESNETS)) or '.'} "
            f"Choose from: {choices}, timm:<name>"
        )
    wanted["norm_eps"] = norm_eps
    net = ResNet(
        name=name,
        norm=norm,
        norm_eps=norm_eps,
        frozen_stages=frozen_stages,
        stride_in_1x1=stride_in_1x1,
    )
    if weights.startswith("IMAGENET"):
        load_state(net, download_torchvision(name, weights), weights)
    elif weights != "none":
        load_state(net, read_state(Path(weights).expanduser(), wanted), weights)
    return net


def _build_timm(
    name: str, weights: str, norm: Norm, frozen_stages: int, wanted: Mapping[str, object]
) -> TimmBackbone:
    if norm == "gn":
        raise UserError(
            f"model.backbone: {name} keeps its own norms; set model.norm=frozen_bn or model.norm=bn"
        )
    if 0 < frozen_stages < 5:
        raise UserError(
            f"model.backbone: the stages of {name} cannot be frozen one by one; set "
            "model.freeze=none or model.freeze=backbone"
        )
    timm_name = name.removeprefix("timm:")
    state: State | None = None
    if weights.startswith("IMAGENET"):
        check_name(timm_name)
        state = download_timm(timm_name)
    elif weights != "none":
        state = read_state(Path(weights).expanduser(), wanted)
    return TimmBackbone(
        name=timm_name,
        state=state,
        source=weights,
        frozen_norm=norm == "frozen_bn",
        frozen=frozen_stages == 5,
    )
