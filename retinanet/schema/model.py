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
"""P3..P7: the pyramid's levels are the architecture, not an option."""


class ModelConfig(Section):
    """The network: ResNet, FPN P3-P7, class and box subnets."""

    backbone: str = option(
        "resnet50",
        "resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, resnext101_32x8d, "
        "resnext101_64x4d, wide_resnet50_2, wide_resnet101_2, or timm:<name> (extra `timm`)",
    )
    weights: str = option(
        "IMAGENET1K_V1",
        "of the backbone: IMAGENET1K_V1, IMAGENET1K_V2, none, or a path to a state dict or to a "
        "checkpoint of this project",
    )
    init_from: str | None = option(
        None,
        "a detector to start from (train --init-from): a checkpoint, or a file of torchvision, "
        "detectron2 or mmdetection. What this section and `anchors` do not say is as it was there",
    )
    norm: Literal["frozen_bn", "bn", "sync_bn", "gn"] = option(
        "frozen_bn", "normalisation in the backbone; gn goes with weights none"
    )
    norm_eps: float = option(
        1e-5, "added to the variances of batch norm (torchvision's COCO_V1: 0)", ge=0, le=1
    )
    freeze: str = option(
        "stages:1",
        "what training leaves as it is: none, stem, stages:N (the stem and layer1 to layerN of a "
        "ResNet), backbone, or all_but_head",
    )
    stride_in_1x1: bool = option(
        False, "bottlenecks stride in the 1x1 convolution (MSRA weights) instead of the 3x3"
    )
    channel_order: Literal["rgb", "bgr"] = option("rgb", "order that the backbone's weights expect")
    pixel_mean: tuple[Pixel, Pixel, Pixel] = option(
        (123.675, 116.28, 103.53), "subtracted, 0-255, in channel_order", strict=False
    )
    pixel_std: tuple[Deviation, Deviation, Deviation] = option(
        (58.395, 57.12, 57.375), "divided by, 0-255, in channel_order", strict=False
    )
    fpn_channels: int = option(256, "channels of P3-P7", ge=8, le=4096)
    p6_from: Literal["c5", "p5"] = option("c5", "what P6 is convolved from")
    p7_relu: bool = option(True, "ReLU between P6 and P7 (mmdetection: none)")
    head_convs: int = option(4, "convolutions in each subnet before its output", ge=0, le=16)
    head_channels: int = option(256, "channels in the subnets", ge=8, le=4096)
    head_norm: Literal["none", "gn"] = option("none", "normalisation in the subnets")
    prior: float = option(
        0.01, "probability π of an object that every anchor starts with", gt=0, lt=1
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_frozen_stages(cls, values: Any) -> Any:
        """Read `frozen_stages`, as `freeze` was before it had names."""
        if isinstance(values, dict) and values.get("frozen_stages") in range(6):
            count = values["frozen_stages"]
            named = {0: "none", 1: "stem", 5: "backbone"}.get(count, f"stages:{count - 1}")
            if values.get("freeze", named) != named:
                raise ValueError(
                    f"frozen_stages: {count} is freeze: {named} today, but freeze is "
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
        """Parts of the backbone that training leaves: 1 is the stem, 2 adds layer1, .. 5 is all."""
        if self.freeze.startswith("stages:"):
            return 1 + int(self.freeze.removeprefix("stages:"))
        return {"none": 0, "stem": 1, "backbone": 5, "all_but_head": 5}[self.freeze]

    @model_validator(mode="after")
    def _check_combinations(self) -> ModelConfig:
        if self.init_from is None:
            self._check_weights()
            if self.freeze == "all_but_head":
                raise ValueError(
                    "freeze: all_but_head would freeze a random pyramid: name a detector to start "
                    "from (--init-from, beside --resume too)"
                )
        if self.head_norm == "gn" and (self.head_channels % 32 or self.head_channels < 64):
            raise ValueError(
                f"head_channels: {self.head_channels} is not 64, 96, 128, .., which head_norm: gn "
                "needs (32 groups of at least two channels)"
            )
        return self

    def _check_weights(self) -> None:
        norm = "bn" if self.backbone.startswith("timm:") else "gn"
        if self.weights == "none" and self.norm == "frozen_bn":
            raise ValueError(
                "weights: none with norm: frozen_bn diverges: frozen batch norm needs the "
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
    """Anchors of each level; torchvision's and detectron2's are both exactly expressible."""

    sizes: tuple[LevelSizes, ...] = option(
        tuple(
            tuple(round(4 * stride * 2 ** (i / 3), 6) for i in range(3))
            for stride in (8, 16, 32, 64, 128)
        ),
        "px, square roots of the areas, for each of P3-P7",
        strict=False,
    )
    ratios: tuple[Ratio, ...] = option(
        (0.5, 1.0, 2.0), "height / width", strict=False, min_length=1
    )
    offset: float = option(0.0, "of the first centre, in strides", ge=0, lt=1)
    rounding: Literal["none", "corners"] = option(
        "none", "corners: round the base anchors' corners to whole px (torchvision)"
    )
    cell_order: Literal["size_major", "ratio_major"] = option(
        "size_major", "order of a cell's anchors (torchvision: ratio_major)"
    )
    stride_from: Literal["nominal", "canvas"] = option(
        "nominal", "8, 16, .. 128 px, or canvas // grid (torchvision)"
    )

    @model_validator(mode="after")
    def _check_levels(self) -> AnchorConfig:
        if len(self.sizes) != LEVELS:
            raise ValueError(f"sizes: {len(self.sizes)} lists, but P3-P7 are {LEVELS} levels")
        if len({len(level) for level in self.sizes}) != 1 or not self.sizes[0]:
            raise ValueError("sizes: every level needs the same number of sizes, at least one")
        return self
