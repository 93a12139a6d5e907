"""Names of our weights in torchvision, detectron2 and mmdetection.

Each project has one table, from our name to theirs, for conversions in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project whose detectors can be converted."""

    name: str
    recipe: str
    """Our config with the settings of this project."""
    mark: str
    """Prefix of some names in its detectors that no other project has."""
    key: Callable[[str, bool], str]
    """Our name of a weight, and whether the subnets have normalisation -> its name there."""


def _rename(name: str, *rules: tuple[str, str]) -> str:
    """Replace each pattern in turn."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _numbered(name: str, normed: bool) -> str:
    """Return `tower.2.conv` for `tower.4`, or for `tower.6` if each convolution has a norm."""

    def number(match: re.Match[str]) -> str:
        convolution, part = divmod(int(match[1]), 3 if normed else 2)
        return f"tower.{convolution}.{('conv', 'norm')[part]}"

    return re.sub(r"tower\.(\d+)", number, name)


def _torchvision_key(name: str, normed: bool) -> str:
    return _rename(
        _numbered(name, normed),
        (r"^backbone\.", "backbone.body."),
        (r"^fpn\.lateral\.(\d)", r"backbone.fpn.inner_blocks.\1.0"),
        (r"^fpn\.output\.(\d)", r"backbone.fpn.layer_blocks.\1.0"),
        (r"^fpn\.", "backbone.fpn.extra_blocks."),
        (r"tower\.(\d+)\.conv", r"conv.\1.0"),
        (r"tower\.(\d+)\.norm", r"conv.\1.1"),
        (r"^class_subnet\.output", "class_subnet.cls_logits"),
        (r"^box_subnet\.output", "box_subnet.bbox_reg"),
        (r"^class_subnet", "head.classification_head"),
        (r"^box_subnet", "head.regression_head"),
    )


def _detectron2_key(name: str, normed: bool) -> str:
    del normed  # its towers are numbered like ours
    return _rename(
        name,
        (r"^backbone\.", "backbone.bottom_up."),
        (r"up\.(conv1|bn1)", r"up.stem.\1"),
        (r"layer1", "res2"),
        (r"layer2", "res3"),
        (r"layer3", "res4"),
        (r"layer4", "res5"),
        (r"downsample\.0", "shortcut"),
        (r"downsample\.1", "shortcut.norm"),
        (r"\.bn(\d)", r".conv\1.norm"),
        (r"^fpn\.(lateral|output)\.0", r"backbone.fpn_\g<1>3"),
        (r"^fpn\.(lateral|output)\.1", r"backbone.fpn_\g<1>4"),
        (r"^fpn\.(lateral|output)\.2", r"backbone.fpn_\g<1>5"),
        (r"^fpn\.", "backbone.top_block."),
        (r"^class_subnet\.output", "head.cls_score"),
        (r"^box_subnet\.output", "head.bbox_pred"),
        (r"^class_subnet\.tower", "head.cls_subnet"),
        (r"^box_subnet\.tower", "head.bbox_subnet"),
    )


def _mmdetection_key(name: str, normed: bool) -> str:
    return _rename(
        _numbered(name, normed),
        (r"^fpn\.lateral\.(\d)", r"neck.lateral_convs.\1.conv"),
        (r"^fpn\.output\.(\d)", r"neck.fpn_convs.\1.conv"),
        (r"^fpn\.p6", "neck.fpn_convs.3.conv"),
        (r"^fpn\.p7", "neck.fpn_convs.4.conv"),
        (r"^class_subnet\.output", "bbox_head.retina_cls"),
        (r"^box_subnet\.output", "bbox_head.retina_reg"),
        (r"^class_subnet\.tower", "bbox_head.cls_convs"),
        (r"^box_subnet\.tower", "bbox_head.reg_convs"),
        (r"(convs\.\d+)\.norm", r"\1.gn"),
    )


PROJECTS = {
    peer.name: peer
    for peer in (
        Project(
            name="torchvision",
            recipe="torchvision_v1_coco",
            mark="head.classification_head.",
            key=_torchvision_key,
        ),
        Project(
            name="detectron2",
            recipe="detectron2_r50_1x_coco",
            mark="head.cls_s",
            key=_detectron2_key,
        ),
        Project(
            name="mmdetection",
            recipe="mmdetection_r50_1x_coco",
            mark="bbox_head.retina_",
            key=_mmdetection_key,
        ),
    )
}


def torchvision_today(name: str) -> str:
    """Return today's torchvision name of a weight that was saved before torchvision 0.12."""
    name = re.sub(
        r"(head\.\w+\.conv)\.(\d+)\.(weight|bias)$",
        lambda match: f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}",
        name,
    )
    return re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.(weight|bias)$", r"\1.\2.0.\3", name)


def detectron2_of_caffe2(name: str) -> str:
    """Return detectron2's name for a blob of Caffe2's ResNets (`R-50.pkl`)."""
    return _rename(
        name.replace("_", "."),
        (r"\.b$", ".bias"),
        (r"\.w$", ".weight"),
        (r"bn\.(s|gamma)$", "norm.weight"),
        (r"bn\.(bias|beta)$", "norm.bias"),
        (r"bn\.(rm|running\.mean)$", "norm.running_mean"),
        (r"bn\.(riv|running\.var)$", "norm.running_var"),
        (r"^res\.conv1\.norm\.", "conv1.norm."),
        (r"^conv1\.", "stem.conv1."),
        (r"\.branch1\.", ".shortcut."),
        (r"\.branch2a\.", ".conv1."),
        (r"\.branch2b\.", ".conv2."),
        (r"\.branch2c\.", ".conv3."),
    )
