"""Rebuild the detector of a checkpoint, ready to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from retinanet.categories import shown_names
from retinanet.checkpoints.format import Checkpoint
from retinanet.config import override_config
from retinanet.distributed.precision import Precision, weights_type
from retinanet.errors import UserError, some_of
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

_TRAINED = (
    *("model.", "anchors.", "assign.", "loss.", "train.", "output.", "data.train."),
    *("data.hflip", "data.preset", "data.augment", "data.repeat_threshold", "data.drop_empty"),
    *("data.min_box_side", "data.max_bad_images", "data.resize", "eval.every"),
)
"""Prefixes of the names of training options."""
_BLOCK = 16
"""Largest channel block of oneDNN, which torch uses on a CPU."""


def place(
    model: Detector, device: torch.device, precision: Precision, *, channels_last: bool
) -> None:
    """Move a network to a device, and set its data type and memory layout."""
    model.layout = memory_layout(model, device, channels_last=channels_last)
    model.to(device, weights_type(precision), memory_format=model.layout)  # type: ignore[call-overload]


def memory_layout(
    model: nn.Module, device: torch.device, *, channels_last: bool
) -> torch.memory_format:
    """Return the memory format to compute in: channels_last if it is asked for and of use."""
    is_unsafe = device.type == "cpu" and _breaks_channels_last(model)
    # CUDA's group norm copies such a map to the other layout, and the next convolution copies it
    # back.
    is_slow = device.type == "cuda" and any(isinstance(m, nn.GroupNorm) for m in model.modules())
    is_possible = all(parameter.dim() <= 4 for parameter in model.parameters())
    if channels_last and is_possible and not is_unsafe and not is_slow:
        return torch.channels_last
    return torch.contiguous_format


def _breaks_channels_last(model: nn.Module) -> bool:
    """Whether channels_last is unsafe for training a network on a CPU.

    For a 1x1 convolution with a stride and few input channels, oneDNN then writes outside its
    memory (uxlfoundation/oneDNN issue 6035), with wrong gradients or a crash. Some networks of
    timm begin with one (RepVGG, MobileOne, FastViT).
    """
    return any(
        module.kernel_size == (1, 1) and max(module.stride) > 1 and module.in_channels < _BLOCK
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    )


def load_weights(model: Detector, weights: Mapping[str, Any]) -> None:
    """Load the weights of a checkpoint into its own network.

    Raises:
        UserError: They do not fit.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"the checkpoint's weights do not fit its own config: {reason}") from None


def inference_config(checkpoint: Checkpoint, overrides: Sequence[str]) -> Config:
    """Return the config to evaluate or predict with: on the device of this machine, with overrides.

    Raises:
        UserError: A wrong option, or a training option, which would have no effect.
    """
    free = ("train.device", "train.precision", "train.tf32", "train.deterministic")
    config = override_config(checkpoint.config, ["train.device=auto", *overrides])
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key.startswith(_TRAINED) and key not in free:
            raise UserError(f"{text}: {key} is an option of training; it has no effect here")
        if key == "data.classes" and set(config.data.classes or ()) != {
            *checkpoint.categories.names
        }:
            raise UserError(
                f"{text}: the classes are fixed by training: the checkpoint has "
                f"{some_of(shown_names(checkpoint.categories.names))}, and they cannot be changed "
                "here. The table by class shows the metrics of each"
            )
    return config


def restore_detector(
    checkpoint: Checkpoint, device: torch.device, precision: Precision
) -> Detector:
    """Rebuild the network of a checkpoint, from the file only.

    Raises:
        UserError: The weights do not fit the config in the file, or are only those of a backbone.
    """
    if not checkpoint.categories:
        raise UserError(
            "the checkpoint contains only a backbone; train a detector from it: retinanet train "
            "CONFIG --init-from CHECKPOINT"
        )
    model = build_detector(checkpoint.config, classes=len(checkpoint.categories), pretrained=False)
    place(model, device, precision, channels_last=checkpoint.config.train.channels_last)
    load_weights(model, checkpoint.weights)
    return model.eval()
