"""Our checkpoints -> state dicts of torchvision and detectron2."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from retinanet.categories import Categories, shown_names
from retinanet.checkpoints.format import Checkpoint, write_tensors
from retinanet.errors import UserError, some_of
from retinanet.interop.projects import PROJECTS
from retinanet.schema import AnchorConfig, Config, ModelConfig

_INVENTED_BIAS = -10.0
"""Bias of logits that belong to no class: a score of 0.00005, far under any threshold."""
_EPS = 1e-5
"""Epsilon of batch norm in both projects; neither has an option for it."""
_MOST_ROWS = 10_000
"""Largest number of logits per anchor; torchvision needs one for each id up to the highest."""
Order = Literal["size_major", "ratio_major"]
"""Order of the anchors of a cell: by size first, or by ratio first."""
Weights = dict[str, Tensor]


def export_checkpoint(checkpoint: Checkpoint, out: Path, *, to: str) -> list[str]:
    """Write a checkpoint's weights with the names of another project; return lines that explain it.

    Args:
        checkpoint: Our checkpoint; if it has averaged weights, those are written.
        out: Path of the file to write: a state dict, for detectron2 under `model`.
        to: `torchvision` or `detectron2`.

    Raises:
        UserError: The other project does not have this network.
        TrainingError: The file cannot be written.
    """
    config = checkpoint.config
    _check_network(config.model, checkpoint.categories, to)
    weights = _with_their_eps(checkpoint.weights, config.model.norm_eps)
    if to == "torchvision":
        weights = _reorder_anchors(weights, config.anchors, "ratio_major")
        weights, lines = _for_torchvision(weights, config, checkpoint.categories)
    else:
        weights = _reorder_anchors(weights, config.anchors, "size_major")
        weights, lines = _for_detectron2(weights, config, checkpoint.categories)
    normed = config.model.head_norm == "gn"
    state = {PROJECTS[to].key(name, normed): value.contiguous() for name, value in weights.items()}
    content: dict[str, Any] = {"model": state} if to == "detectron2" else state
    write_tensors(content, out)
    return [*lines, *_anchor_remarks(config.anchors, to)]


def _check_network(model: ModelConfig, categories: Categories, to: str) -> None:
    refused = {
        "model.backbone": model.backbone.startswith("timm:"),
        "model.norm": model.norm == "gn",
        "model.p7_relu": not model.p7_relu,
        "model.stride_in_1x1": model.stride_in_1x1 and to == "torchvision" and _is_deep(model),
        "model.p6_from": model.p6_from == "p5" and to == "detectron2",
        "model.head_convs": model.head_convs != 4 and to == "torchvision",
        "model.head_channels": model.head_channels != model.fpn_channels,
    }
    for key, wrong in refused.items():
        if wrong:
            value = getattr(model, key.removeprefix("model."))
            raise UserError(f"{to} has no such network: {key} is {json.dumps(value)}")
    if not categories:
        raise UserError("the checkpoint contains only a backbone; there is no detector to convert")
    if to == "torchvision" and not 0 <= min(categories.ids) <= max(categories.ids) < _MOST_ROWS:
        raise UserError(
            f"torchvision has a logit for every id from 0 to the highest: the category ids "
            f"{min(categories.ids)} to {max(categories.ids)} do not fit; number them from 1"
        )


def _is_deep(model: ModelConfig) -> bool:
    """Return whether a ResNet has bottlenecks: only they can stride in a 1x1 convolution."""
    return model.backbone not in ("resnet18", "resnet34")


def _reorder_anchors(weights: Weights, anchors: AnchorConfig, order: Order) -> Weights:
    """Return the weights with the anchors of a cell in another order."""
    if anchors.cell_order == order:
        return weights
    sizes, ratios = len(anchors.sizes[0]), len(anchors.ratios)
    outer, inner = (ratios, sizes) if order == "size_major" else (sizes, ratios)
    for name in [name for name in weights if "_subnet.output." in name]:
        value = weights[name]
        cells = value.view(outer, inner, -1, *value.shape[1:])
        weights[name] = cells.transpose(0, 1).reshape(value.shape)
    return weights


def _for_torchvision(
    weights: Weights, config: Config, categories: Categories
) -> tuple[Weights, list[str]]:
    """Add logits for every id up to the highest, and counters for the batch norms.

    Returns:
        The weights, and lines that explain how to build the network.
    """
    rows = max(categories.ids) + 1
    for part, rest in (("weight", 0.0), ("bias", _INVENTED_BIAS)):
        name = f"class_subnet.output.{part}"
        value = weights[name].view(-1, len(categories), *weights[name].shape[1:])
        whole = value.new_full((len(value), rows, *value.shape[2:]), rest)
        whole[:, list(categories.ids)] = value
        weights[name] = whole.flatten(0, 1)
    model = config.model
    mean, std = model.pixel_mean, model.pixel_std
    if model.channel_order == "bgr":  # torchvision takes RGB: flip the first convolution
        weights["backbone.conv1.weight"] = weights["backbone.conv1.weight"].flip(1)
        mean, std = mean[::-1], std[::-1]
    for name in [name for name in weights if name.endswith("running_var")]:
        counter = f"{name.removesuffix('running_var')}num_batches_tracked"
        weights.setdefault(counter, torch.zeros((), dtype=torch.int64))
    invented = [number for number in range(rows) if number not in categories.ids]
    width = "" if model.fpn_channels == 256 else f", {model.fpn_channels} channels"
    lines = [
        f"{model.backbone}, P6 from {model.p6_from}{width}, subnets with {model.head_norm} norm; "
        f"num_classes={rows} (labels are category ids)",
        f"image_mean={[float(f'{value / 255:.9g}') for value in mean]}, "
        f"image_std={[float(f'{value / 255:.9g}') for value in std]}",
    ]
    if invented:
        ids = ", ".join(map(str, invented))
        lines.append(f"unused ids, with placeholder logits that are never detected: {ids}")
    return weights, lines


def _with_their_eps(weights: Weights, eps: float) -> Weights:
    """Fold a different eps into the scales of batch norm."""
    weights = dict(weights)
    if eps != _EPS:
        for name in [name for name in weights if name.endswith("running_var")]:
            scale = name.replace("running_var", "weight")
            variance = weights[name].double()
            change = ((variance + _EPS) / (variance + eps)).sqrt()
            weights[scale] = (weights[scale].double() * change).to(weights[scale].dtype)
    return weights


def _for_detectron2(
    weights: Weights, config: Config, categories: Categories
) -> tuple[Weights, list[str]]:
    """Remove the counters of batch norms, and add the biases that detectron2 has before norms.

    Returns:
        The weights, and lines with the options that build the network.
    """
    model = config.model
    weights = {n: value for n, value in weights.items() if not n.endswith("num_batches_tracked")}
    if model.head_norm == "gn":  # detectron2's convolutions before a norm have biases
        for name in [n for n in weights if ".tower." in n and weights[n].dim() == 4]:
            bias = name.replace("weight", "bias")
            weights[bias] = torch.zeros(len(weights[name]))
    options: dict[str, Any] = {
        "MODEL.RETINANET.NUM_CLASSES": len(categories),
        "MODEL.RETINANET.NUM_CONVS": model.head_convs,
        "MODEL.RETINANET.NORM": "GN" if model.head_norm == "gn" else "",
        "MODEL.FPN.OUT_CHANNELS": model.fpn_channels,
        **detectron2_resnet(model),
        "INPUT.FORMAT": model.channel_order.upper(),
        "MODEL.PIXEL_MEAN": list(model.pixel_mean),
        "MODEL.PIXEL_STD": list(model.pixel_std),
        "MODEL.ANCHOR_GENERATOR.SIZES": [list(sizes) for sizes in config.anchors.sizes],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(config.anchors.ratios)],
        "MODEL.ANCHOR_GENERATOR.OFFSET": config.anchors.offset,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in options.items()]
    names = some_of(shown_names(categories.names), 5)
    return weights, [*lines, f"classes in the order of their ids: {names}"]


def detectron2_resnet(model: ModelConfig) -> dict[str, Any]:
    """Return the options of detectron2's ResNet that describe ours."""
    name = re.fullmatch(r"(wide_)?resnex?t(\d+)(_2|_(\d+)x(\d+)d)?", model.backbone)
    assert name is not None
    wide, depth, _, groups, width = name.groups()
    options: dict[str, Any] = {"DEPTH": int(depth)}
    if groups:
        options |= {"NUM_GROUPS": int(groups), "WIDTH_PER_GROUP": int(width)}
    elif wide:
        options["WIDTH_PER_GROUP"] = 128
    if not _is_deep(model):
        options["RES2_OUT_CHANNELS"] = 64
    options["STRIDE_IN_1X1"] = model.stride_in_1x1
    return {f"MODEL.RESNETS.{key}": value for key, value in options.items()}


def _anchor_remarks(anchors: AnchorConfig, to: str) -> list[str]:
    """Describe the anchors, and where the other project cannot make the same ones."""
    differences = []
    if to == "torchvision":
        if anchors.rounding != "corners":
            differences.append("rounds their corners to whole pixels")
        if anchors.stride_from != "canvas":
            differences.append("computes their strides as canvas / grid")
        if anchors.offset:
            differences.append("centres them on the corner of a cell")
        sizes = ", ".join(str(list(level)) for level in anchors.sizes)
        lines = [f"AnchorGenerator(sizes=({sizes}), aspect_ratios=({list(anchors.ratios)},) * 5)"]
    else:
        if anchors.rounding == "corners":
            differences.append("does not round their corners")
        if anchors.stride_from == "canvas":
            differences.append("uses strides of 8, 16, ... 128 px")
        lines = []
    if differences:
        lines.append(f"anchors differ slightly: {to} {' and '.join(differences)}")
    return lines
