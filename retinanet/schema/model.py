"""The network and its anchors."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from retinanet.schema.base import Section, option

Pixel = Annotated[float, Field(ge=-1e6, le=1e6)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]
AnchorSize = Annotated[float, Field(ge=0.01, le=100_000)]
Ratio = Annotated[float, Field(ge=0.001, le=1000)]
LevelSizes = Annotated[tuple[AnchorSize, ...], Field(strict=False)]
LEVELS = 5
"""P3 to P7: the levels of the pyramid are part of the architecture, not an option."""


class ModelConfig(Section):
    """The network: ResNet, FPN P3-P7, class and box subnets."""

    backbone: str = option(
        "resnet50",
        "One of resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, "
        "resnext101_32x8d, resnext101_64x4d, wide_resnet50_2, wide_resnet101_2, or timm:<name> "
        "(extra `timm`).",
    )
    weights: str = option(
        "IMAGENET1K_V1",
        "Weights of the backbone: IMAGENET1K_V1, IMAGENET1K_V2, none, or the path of a state dict "
        "or of a checkpoint of this project.",
    )
    init_from: str | None = option(
        None,
        "Detector to start from (train --init-from): a checkpoint, or a file from torchvision, "
        "detectron2 or mmdetection. Options of this section and of `anchors` that are not set are "
        "taken from it.",
    )
    norm: Literal["frozen_bn", "bn", "sync_bn", "gn"] = option(
        "frozen_bn", "Normalisation in the backbone; gn goes with weights: none."
    )
    norm_eps: float = option(
        1e-5, "Epsilon added to the variances of batch norm (torchvision's COCO_V1: 0).", ge=0, le=1
    )
    freeze: str = option(
        "stages:1",
        "Part of the network that training does not change: none, stem, stages:N (the stem and "
        "layer1 to layerN of a ResNet), backbone, or all_but_head.",
    )
    stride_in_1x1: bool = option(
        False, "Bottlenecks stride in the 1x1 convolution (MSRA weights) instead of the 3x3."
    )
    channel_order: Literal["rgb", "bgr"] = option(
        "rgb", "Channel order that the backbone's weights expect."
    )
    pixel_mean: tuple[Pixel, Pixel, Pixel] = option(
        (123.675, 116.28, 103.53),
        "Mean to subtract from pixels (0-255), in channel_order.",
        strict=False,
    )
    pixel_std: tuple[Deviation, Deviation, Deviation] = option(
        (58.395, 57.12, 57.375),
        "Deviation to divide pixels (0-255) by, in channel_order.",
        strict=False,
    )
    fpn_channels: int = option(256, "Channels of P3-P7.", ge=8, le=4096)
    p6_from: Literal["c5", "p5"] = option("c5", "Feature map that P6 is computed from.")
    p7_relu: bool = option(True, "Apply a ReLU between P6 and P7 (mmdetection does not).")
    head_convs: int = option(4, "Convolutions in each subnet before its output.", ge=0, le=16)
    head_channels: int = option(256, "Channels in the subnets.", ge=8, le=4096)
    head_norm: Literal["none", "gn"] = option("none", "Normalisation in the subnets.")
    prior: float = option(
        0.01, "Probability π of an object that every anchor starts with.", gt=0, lt=1
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_frozen_stages(cls, values: Any) -> Any:
        """Read `frozen_stages`, the earlier form of `freeze`."""
        if isinstance(values, dict) and values.get("frozen_stages") in range(6):
            count = values["frozen_stages"]
            named = {0: "none", 1: "stem", 5: "backbone"}.get(count, f"stages:{count - 1}")
            if values.get("freeze", named) != named:
                raise ValueError(
                    f"frozen_stages: {count} is an earlier form of freeze: {named}, but freeze is "
                    f"{values['freeze']}; leave frozen_stages out"
                )
            values = {**values, "freeze": named}
            del values["frozen_stages"]
        return values

    @field_validator("freeze")
    @classmethod
    def _check_freeze(cls, value: str) -> str:
        if not re.fullmatch(r"none|stem|stages:[1-4]|backbone|all_but_head", value):
            raise ValueError(
                f"{value} should be none, stem, stages:1 to stages:4, backbone or all_but_head"
            )
        return value

    @property
    def frozen_stages(self) -> int:
        """Frozen parts of the backbone: 1 is the stem, 2 adds layer1, ... 5 is all of it."""
        if self.freeze.startswith("stages:"):
            return 1 + int(self.freeze.removeprefix("stages:"))
        return {"none": 0, "stem": 1, "backbone": 5, "all_but_head": 5}[self.freeze]

    @model_validator(mode="after")
    def _check_combinations(self) -> ModelConfig:
        if self.init_from is None:
            self._check_weights()
            if self.freeze == "all_but_head":
                raise ValueError(
                    "freeze: all_but_head would freeze a random pyramid. Name a detector to start "
                    "from (--init-from, also with --resume)"
                )
        if self.head_norm == "gn" and (self.head_channels % 32 or self.head_channels < 64):
            raise ValueError(
                f"head_channels: {self.head_channels} should be 64, 96, 128, ... for head_norm: gn "
                "(32 groups of at least two channels)"
            )
        return self

    def _check_weights(self) -> None:
        norm = "bn" if self.backbone.startswith("timm:") else "gn"
        if self.weights == "none" and self.norm == "frozen_bn":
            raise ValueError(
                "weights: none with norm: frozen_bn diverges, because frozen batch norm needs the "
                f"statistics of pretrained weights. Set model.norm={norm} model.freeze=none"
            )
        if self.weights == "none" and self.freeze != "none":
            raise ValueError(
                f"weights: none with freeze: {self.freeze} would freeze random weights. "
                f"Set model.freeze=none (and model.norm={norm})"
            )
        if self.norm == "gn" and self.weights.startswith("IMAGENET"):
            raise ValueError(
                f"weights: {self.weights} were trained with batch norm and do not fit norm: gn. "
                "Set model.norm=frozen_bn, or model.weights=none"
            )


class AnchorConfig(Section):
    """Anchors of each level. Those of torchvision and detectron2 can be reproduced exactly."""

    sizes: tuple[LevelSizes, ...] = option(
        tuple(
            tuple(round(4 * stride * 2 ** (i / 3), 6) for i in range(3))
            for stride in (8, 16, 32, 64, 128)
        ),
        "Square roots of the anchors' areas, px, a list for each of P3-P7.",
        strict=False,
    )
    ratios: tuple[Ratio, ...] = option(
        (0.5, 1.0, 2.0), "Aspect ratios, height / width.", strict=False, min_length=1
    )
    offset: float = option(0.0, "Offset of the first centre, in strides.", ge=0, lt=1)
    rounding: Literal["none", "corners"] = option(
        "none", "corners: round the corners of the base anchors to whole px (as torchvision)."
    )
    cell_order: Literal["size_major", "ratio_major"] = option(
        "size_major", "Order of the anchors of a cell (torchvision: ratio_major)."
    )
    stride_from: Literal["nominal", "canvas"] = option(
        "nominal", "Strides of 8, 16, ... 128 px, or canvas // grid (as torchvision)."
    )

    @model_validator(mode="after")
    def _check_levels(self) -> AnchorConfig:
        if len(self.sizes) != LEVELS:
            raise ValueError(
                f"sizes: should be {LEVELS} lists, one for each of P3-P7, not {len(self.sizes)}"
            )
        if len({len(level) for level in self.sizes}) != 1 or not self.sizes[0]:
            raise ValueError("sizes: every level needs the same number of sizes, at least one")
        return self
