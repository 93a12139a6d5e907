"""Backbones: an image -> C3, C4, C5.

ResNets come from torchvision, others from timm. Weights are downloaded only where the config names
them; with a path or none nothing goes online.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from retinanet.errors import UserError, nearest

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
_CLASSIFIER = ("fc.", "classifier.", "head.")
"""What a pretrained file's classifier is called, by torchvision and by timm's families."""


def _norm_layer(norm: Norm, eps: float) -> Callable[[int], nn.Module]:
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen_bn": partial(FrozenBatchNorm2d, eps=eps),
        "bn": partial(nn.BatchNorm2d, eps=eps),
        "sync_bn": partial(nn.BatchNorm2d, eps=eps),  # SyncBatchNorm where there are more devices
        "gn": partial(nn.GroupNorm, 32),
    }
    return layers[norm]


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier, with frozen stages.

    The names of its parameters are torchvision's, so that its state dicts load as they are.
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
        expansion = net.layer1[0].expansion
        self.channels = (128 * expansion, 256 * expansion, 512 * expansion)
        self.frozen_stages = frozen_stages
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def stages(self) -> list[tuple[nn.Module, ...]]:
        """Return the parts that can be frozen: the stem, then layer1..layer4."""
        return [
            (self.conv1, self.bn1),
            (self.layer1,),
            (self.layer2,),
            (self.layer3,),
            (self.layer4,),
        ]

    def _frozen_modules(self) -> list[nn.Module]:
        # Looked up each time: a conversion to SyncBatchNorm puts other modules in their places.
        return [module for stage in self.stages()[: self.frozen_stages] for module in stage]

    def train(self, mode: bool = True) -> ResNet:
        """Switch the mode; frozen stages stay in evaluation mode, or batch norm would move."""
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


class TimmBackbone(nn.Module):
    """A backbone of timm with the strides 8, 16, 32 (extra `timm`)."""

    def __init__(self, *, name: str, pretrained: bool, frozen_norm: bool, frozen: bool) -> None:
        super().__init__()
        try:
            import timm
        except ImportError:
            raise UserError(
                f"model.backbone: timm:{name} needs timm: pip install 'retinanet[timm]'"
            ) from None
        try:
            net = timm.create_model(
                name, pretrained=pretrained, features_only=True, out_indices=(-3, -2, -1)
            )
        except Exception as error:  # timm raises RuntimeError, ValueError and others of its own
            raise UserError(f"model.backbone: timm has no usable {name!r}: {error}") from None
        info: Any = net.feature_info
        strides = tuple(info.reduction())
        if strides != (8, 16, 32):
            raise UserError(f"model.backbone: timm:{name} has strides {strides}, not (8, 16, 32)")
        self.net: nn.Module = timm.layers.freeze_batch_norm_2d(net) if frozen_norm else net
        self.channels = tuple(info.channels())
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Switch the mode; a frozen net stays in evaluation mode, or batch norm would move."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return [C3, C4, C5] of normalised images (B, 3, H, W)."""
        return self.net(images)


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
        weights: `IMAGENET1K_V1`, `IMAGENET1K_V2` (downloaded by torchvision, or found in its
            cache), a path to a state dict or to a checkpoint of ours, or `none`.
        norm: Normalisation; a network of timm has batch norm, frozen or not.
        norm_eps: Epsilon of a ResNet's batch norm; timm's networks keep their own.
        frozen_stages: 0..5, counted from the stem; of timm's networks none or all.
        stride_in_1x1: See `ModelConfig`.
        inputs: How images are prepared (`channel_order` and so on); a checkpoint of ours must have
            been trained with the same.

    Raises:
        UserError: an unknown name, or weights that are missing or do not fit.
    """
    wanted = {"backbone": name, "stride_in_1x1": stride_in_1x1, **inputs}
    if name.startswith("timm:"):
        return _build_timm(name, weights, norm, frozen_stages, wanted)
    if name not in RESNETS:
        choices = ", ".join(RESNETS)
        raise UserError(
            f"model.backbone: {name!r} is not known{nearest(name, list(RESNETS)) or '.'} "
            f"There are: {choices}, timm:<name>"
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
        _load_state(net, _download(name, weights), weights)
    elif weights != "none":
        _load_state(net, _read_state(Path(weights).expanduser(), wanted), weights)
    return net


def _build_timm(
    name: str, weights: str, norm: Norm, frozen_stages: int, wanted: Mapping[str, object]
) -> TimmBackbone:
    if norm == "gn":
        raise UserError(
            f"model.backbone: {name} keeps its own norms: set model.norm=frozen_bn or bn"
        )
    if 0 < frozen_stages < 5:
        raise UserError(
            f"model.backbone: the stages of {name} cannot be frozen one by one: set "
            "model.freeze=none or model.freeze=backbone"
        )
    pretrained = weights.startswith("IMAGENET")
    backbone = TimmBackbone(
        name=name.removeprefix("timm:"),
        pretrained=pretrained,
        frozen_norm=norm == "frozen_bn",
        frozen=frozen_stages == 5,
    )
    if not pretrained and weights != "none":
        _load_state(backbone.net, _read_state(Path(weights).expanduser(), wanted), weights)
    return backbone


def _download(name: str, weights: str) -> dict[str, Any]:
    """Return torchvision's ImageNet weights, from its cache or its site."""
    choices = torchvision.models.get_model_weights(name)
    if weights not in choices.__members__:
        raise UserError(
            f"model.weights: {name} has no {weights}; there are: {', '.join(choices.__members__)}"
        )
    try:
        return choices[weights].get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # a wrong hash is a RuntimeError
        raise UserError(
            f"model.weights: {weights} of {name} could not be downloaded from "
            f"{choices[weights].url} ({error}). Fetch that file elsewhere and set "
            "model.weights=<its path>, or train from random weights: model.weights=none "
            "model.norm=gn model.freeze=none"
        ) from None


def _read_state(path: Path, wanted: Mapping[str, object]) -> dict[str, Any]:
    """Read a state dict; nothing in the file is executed.

    Args:
        path: Path of the state dict, or of a checkpoint of ours.
        wanted: Options of the model that such a checkpoint must have been trained with.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights: {path} is neither IMAGENET1K_V1, IMAGENET1K_V2, none, nor a file"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises half a dozen types for files that are not its own
        raise UserError(
            f"model.weights: {path} is not a file of tensors alone: damaged, of another kind, "
            "or one that could run code, which is never done here. Other projects' "
            "files: --init-from FILE, or retinanet convert checkpoint FILE OUT.pt"
        ) from None
    state = _backbone_state(state, wanted, path) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise UserError(f"model.weights: {path} holds {type(state).__name__}, not a state dict")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"model.weights: {path} holds {type(value).__name__} under {key!r}, not a tensor"
            )
    return state


def _backbone_state(content: dict[str, Any], wanted: Mapping[str, object], path: Path) -> Any:
    """Return the state dict in a file: of a checkpoint of ours, what belongs to the backbone."""
    if "categories" not in content or not isinstance(content.get("model"), dict):
        return content.get("state_dict", content)
    model = content.get("config", {}).get("model", {})
    trained = {key: tuple(v) if isinstance(v, list) else v for key, v in model.items()}
    others = [key for key in wanted if key in trained and trained[key] != wanted[key]]
    if others:
        words = " ".join(f"'model.{key}={json.dumps(model[key])}'" for key in others)
        raise UserError(
            f"model.weights: {path} was trained otherwise, and its weights need it: {words} (or "
            f"--init-from {path}, which takes them along)"
        )
    weights = content.get("averaged") or content["model"]
    parts = ("backbone.net.", "backbone.")
    return {
        key.removeprefix(next(part for part in parts if key.startswith(part))): value
        for key, value in weights.items()
        if key.startswith("backbone.")
    }


def _load_state(net: nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a classification network's weights; only its classifier may be left over."""
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    wanted = net.state_dict()
    given = {key: value for key, value in state.items() if key in wanted or key not in counters}
    given = {key: value for key, value in given.items() if not key.startswith(_CLASSIFIER)}
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in wanted]
    shapes = [k for k in given if k in wanted and given[k].shape != wanted[k].shape]
    problems = [("lacks", missing), ("has no place for", unknown), ("another shape of", shapes)]
    for verb, keys in problems:
        if keys:
            raise UserError(
                f"model.weights: {source} does not fit the backbone: {verb} {keys[0]}"
                f" (and {len(keys) - 1} more); other projects' files: --init-from FILE, or "
                "retinanet convert checkpoint FILE OUT.pt"
            )
    net.load_state_dict(given, strict=False)
