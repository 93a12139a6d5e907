"""Backbones from timm: any network with features at strides 8, 16 and 32 (extra `timm`).

timm reports the stride of each feature, but neither the canvas sizes that a network supports nor
how it rounds their sides: `model.grids` checks that.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from retinanet.errors import UserError, first_line, nearest
from retinanet.model.pretrained import State, load_state, not_fitting

STRIDES = (8, 16, 32)
"""Pixels between the cells of C3, C4 and C5."""
_ANY_SIZE: tuple[dict[str, bool], ...] = (
    {"strict_img_size": False},
    {"dynamic_img_size": True},
)
"""Options for images of any size: the first one that a network accepts is used."""
_TRIED_SIDES = (128, 224, 256, 384, 512)
"""Pixels; networks with few supported sizes take squares with one of these sides."""
WORKING = "resnet50, timm:convnext_tiny or timm:efficientnet_b0"
"""Backbones to suggest when another one does not work; docs/backbones.md lists all."""


class TimmBackbone(nn.Module):
    """A timm network without its classifier."""

    channels: tuple[int, int, int]

    def __init__(
        self, *, name: str, state: State | None, source: str, frozen_norm: bool, frozen: bool
    ) -> None:
        """Build a network.

        Args:
            name: Name in timm, with or without a tag of its weights.
            state: Weights with the names of timm, of the authors, or of `net` here; None leaves
                the weights random.
            source: Origin of the weights, for messages.
            frozen_norm: Whether to freeze the statistics and factors of batch norms.
            frozen: Whether to freeze everything.

        Raises:
            UserError: timm has no such network, it has no features at strides 8, 16 and 32, or the
                weights do not fit.
        """
        super().__init__()
        options = _feature_options(name)
        net = _create(name, **options)
        if state is not None:
            net = _with_weights(net, name, options, state, source)
        info: Any = net.feature_info
        self.channels = tuple(info.channels())
        self.channels_last = str(getattr(net, "output_fmt", "")).endswith("NHWC")
        """Whether the network returns features as (B, rows, columns, C)."""
        for parameter in _without_gradient(name, net, options):
            parameter.requires_grad_(False)
        if frozen_norm:
            from timm.layers import freeze_batch_norm_2d

            net = freeze_batch_norm_2d(net)
        self.net: nn.Module = net
        self.name = f"timm:{name}"
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Switch the mode; a frozen net stays in evaluation mode, or batch norm would change."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return [C3, C4, C5] of normalised images (B, 3, H, W).

        Raises:
            UserError: The network does not support this canvas size.
        """
        canvas = (images.shape[-2], images.shape[-1])
        try:
            features = self.net(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if images.device.type != "meta" and _takes(self.name, canvas):
                raise  # another failure: memory, a device
            raise _not_taken(self.name, canvas, error) from None
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]  # to (B, C, H, W)
        return list(features)


def import_timm(name: str) -> Any:
    """Return the package timm.

    Raises:
        UserError: It is not installed.
    """
    try:
        import timm
    except ImportError:
        raise UserError(
            f"model.backbone: timm:{name} needs the package timm: pip install 'retinanet[timm]'"
        ) from None
    return timm


def _feature_options(name: str) -> dict[str, Any]:
    """Return the options with which a timm network returns C3, C4, C5 for images of any size.

    Raises:
        UserError: There is no such network, or it has no such features.
    """
    check_name(name)
    reductions = [entry["reduction"] for entry in _create_empty(name).feature_info.info]
    if not set(STRIDES) <= set(reductions):
        strides = ", ".join(map(str, sorted(set(reductions))))
        raise UserError(
            f"model.backbone: timm:{name} has features at stride {strides}, but the pyramid "
            f"needs 8, 16 and 32. Choose another backbone, such as {WORKING} (docs/backbones.md "
            "has the list)"
        )
    # The deepest of several features at a stride. There may also be features beyond 32.
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(one) for one in STRIDES)
    for extra in _ANY_SIZE:
        try:
            _create_empty(name, out_indices=indices, **extra)
        except UserError:  # most networks do not have the option
            continue
        return {"out_indices": indices, **extra}
    return {"out_indices": indices}


def check_name(name: str) -> None:
    """Refuse a name that timm does not have; addresses on the hub are not accepted.

    Raises:
        UserError: There is no such name; the message suggests the nearest one.
    """
    timm = import_timm(name)
    network, _, tag = name.partition(".")
    if not timm.is_model(network) or ":" in name or "/" in name:
        raise UserError(
            f"model.backbone: timm has no network {name!r}"
            f"{nearest(network, timm.list_models()) or '.'} "
            f"All names: python -c 'import timm; print(*timm.list_models())'"
        )
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        there = f"it has: {', '.join(tags)}" if tags else "it has none"
        raise UserError(
            f"model.backbone: timm:{network} has no weights {tag!r}{nearest(tag, tags)} ({there})"
        )


def _create(name: str, **options: Any) -> Any:
    """Build the feature network on the current device.

    Raises:
        UserError: timm cannot build it.
    """
    import timm

    try:
        return timm.create_model(name, features_only=True, **options)
    except Exception as error:  # timm and its networks raise any type
        raise UserError(
            f"model.backbone: timm:{name} cannot be a backbone: timm does not return its features "
            f"({_shortened(error)}). Choose another backbone, such as {WORKING} (docs/backbones.md "
            "has the list)"
        ) from None


def _create_empty(name: str, **options: Any) -> Any:
    """Build a network without allocating its weights; see `_create`."""
    with torch.device("meta"):
        return _create(name, **options)


def _without_gradient(name: str, net: nn.Module, options: Mapping[str, Any]) -> list[nn.Parameter]:
    """Return the parameters that no feature depends on, such as those for C2 in HRNet.

    Distributed training would wait for their gradients.
    """
    empty = _create_empty(name, **options).eval()
    named = {key: value for key, value in empty.named_parameters() if value.requires_grad}
    found = (_gradients(empty, list(named.values()), side) for side in _TRIED_SIDES)
    gradients = next((one for one in found if one is not None), ())
    own = dict(net.named_parameters())
    return [own[key] for key, one in zip(named, gradients, strict=False) if one is None]


def _gradients(
    empty: nn.Module, parameters: list[nn.Parameter], side: int
) -> tuple[Tensor | None, ...] | None:
    """Return the gradients of the features on a square canvas; None if it is not supported."""
    try:
        with torch.device("meta"):
            total = sum(feature.sum() for feature in empty(torch.zeros(1, 3, side, side)))
        return torch.autograd.grad(total, parameters, allow_unused=True)
    except Exception:  # timm networks raise any type
        return None


def _not_taken(backbone: str, canvas: tuple[int, int], error: Exception) -> UserError:
    import timm

    config = timm.get_pretrained_cfg(backbone.removeprefix("timm:"))
    made = (
        ""
        if config is None
        else f"; its weights are for {'x'.join(map(str, config.input_size[1:]))} px"
    )
    return UserError(
        f"model.backbone: {backbone} does not support a canvas of {canvas[1]}x{canvas[0]} px "
        f"({_shortened(error)}{made}). Train with another backbone, such as {WORKING} "
        "(docs/backbones.md has the list)"
    )


def _shortened(error: Exception) -> str:
    line = first_line(error)
    return line if len(line) <= 120 else f"{line[:117]}..."


def _takes(backbone: str, canvas: tuple[int, int]) -> bool:
    """Return whether a network supports a canvas (height, width), tried without computing."""
    name = backbone.removeprefix("timm:")
    net = _create_empty(name, **_feature_options(name)).eval()
    with torch.device("meta"), torch.no_grad():
        try:
            net(torch.zeros(1, 3, *canvas))
        except Exception:  # the caller reports its own error
            return False
    return True


def _with_weights(
    net: Any, name: str, options: Mapping[str, Any], state: State, source: str
) -> Any:
    """Return the network with its weights; it may be a new object.

    Raises:
        UserError: The weights do not fit.
    """

    def names(weights: Mapping[str, Tensor]) -> set[str]:
        return {key for key in weights if not key.endswith("num_batches_tracked")}

    if names(state) == names(net.state_dict()):  # from our checkpoint
        load_state(net, state, source)
        return net
    overlay = {"state_dict": dict(state), "num_classes": _check_whole(name, state, source)}
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would warn about the layers after C5, which are left out
    try:
        return _create(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    finally:
        logger.setLevel(level)


def _check_whole(name: str, state: State, source: str) -> int:
    """Return the number of classes of weights that fit the whole network exactly.

    timm itself ignores missing weights if the classifier is left out.

    Raises:
        UserError: Weights are missing, unexpected or of another shape.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    names = (config.classifier if config is not None else None) or "fc"
    rows = state.get(f"{names if isinstance(names, str) else names[0]}.weight")
    usual = config.num_classes if config is not None else 1000
    for classes in dict.fromkeys((usual if rows is None else len(rows), 0)):  # 0: no classifier
        overlay = {"state_dict": dict(state), "num_classes": classes}
        try:
            with warnings.catch_warnings(), torch.device("meta"):
                warnings.simplefilter("ignore")  # torch warns that copying to meta does nothing
                timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # from torch, or from timm's handling of the names
            reason = _shortened(error)
        else:
            return classes
    with torch.device("meta"):
        load_state(timm.create_model(name), state, source)  # its error names the weights
    raise not_fitting(source, f"timm: {reason}")
