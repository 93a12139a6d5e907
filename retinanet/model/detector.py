"""The network: images -> Outputs, the same type in every mode.

B images, 3 channels, H x W canvas, A anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from retinanet.model.anchors import AnchorGenerator, build_anchors
from retinanet.model.backbone import ResNet, TimmBackbone, build_backbone
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.grids import check_levels
from retinanet.model.heads import Subnet, class_subnet
from retinanet.schema import Config
from retinanet.structures import Outputs


class Detector(nn.Module):
    """Backbone, pyramid, subnets and anchors; images are normalised inside."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: ResNet | TimmBackbone,
        fpn: FeaturePyramid,
        class_subnet: Subnet,
        box_subnet: Subnet,
        anchors: AnchorGenerator,
        channel_order: Literal["rgb", "bgr"],
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.class_subnet = class_subnet
        self.box_subnet = box_subnet
        self.anchors = anchors
        self.channel_order = channel_order
        self.layout = torch.channels_last
        """Memory format of the images; the engine sets it, together with that of the weights."""
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> Outputs:
        """Score and refine every anchor.

        Args:
            images: (B, 3, H, W) uint8 RGB on one canvas.
            sizes: (B, 2) height and width of each image on the canvas; the rest is padding.

        Raises:
            UserError: The backbone does not support the canvas size, or its grids do not match the
                anchors.
        """
        x = self.normalise(images, sizes)
        features = self.fpn(self.backbone(x))
        canvas = (images.shape[-2], images.shape[-1])
        check_levels(features, canvas, self.backbone.name)
        return Outputs(
            logits=self.class_subnet(features),
            deltas=self.box_subnet(features),
            anchors=self.anchors(canvas, images.device),
            anchors_per_level=self.anchors.per_level(canvas),
        )

    def normalise(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Return (images - mean) / std as float, with padding of 0 *after* that, as in peers."""
        if self.channel_order == "bgr":
            images = images.flip(1)
        x = images.to(self.pixel_mean.dtype, memory_format=self.layout, copy=True)
        x.sub_(self.pixel_mean).div_(self.pixel_std)
        in_rows = torch.arange(x.shape[2], device=x.device) < sizes[:, :1]  # (B, H)
        in_columns = torch.arange(x.shape[3], device=x.device) < sizes[:, 1:]  # (B, W)
        return x.mul_(in_rows[:, None, :, None] & in_columns[:, None, None, :])


def build_detector(config: Config, *, classes: int, pretrained: bool = True) -> Detector:
    """Build the network of an experiment.

    Args:
        config: Experiment.
        classes: Number of classes K in the annotation file.
        pretrained: Whether to load the backbone's weights. False if a checkpoint is loaded
            afterwards: then nothing is downloaded.
    """
    model = config.model
    backbone = build_backbone(
        name=model.backbone,
        weights=model.weights if pretrained else "none",
        norm=model.norm,
        norm_eps=model.norm_eps,
        frozen_stages=model.frozen_stages,
        stride_in_1x1=model.stride_in_1x1,
        inputs={key: getattr(model, key) for key in ("channel_order", "pixel_mean", "pixel_std")},
    )
    fpn = FeaturePyramid(
        in_channels=backbone.channels,
        channels=model.fpn_channels,
        p6_from=model.p6_from,
        p7_relu=model.p7_relu,
    )
    fpn.requires_grad_(model.freeze != "all_but_head")
    anchors = build_anchors(config.anchors)
    return Detector(
        backbone=backbone,
        fpn=fpn,
        class_subnet=class_subnet(
            in_channels=model.fpn_channels,
            channels=model.head_channels,
            convs=model.head_convs,
            norm=model.head_norm,
            anchors_per_cell=anchors.per_cell,
            classes=classes,
            prior=model.prior,
        ),
        box_subnet=Subnet(
            in_channels=model.fpn_channels,
            channels=model.head_channels,
            convs=model.head_convs,
            norm=model.head_norm,
            anchors_per_cell=anchors.per_cell,
            outputs=4,
        ),
        anchors=anchors,
        channel_order=model.channel_order,
        pixel_mean=model.pixel_mean,
        pixel_std=model.pixel_std,
    )


def _frozen_parts(model: Detector) -> Iterator[str]:
    backbone = model.backbone
    if isinstance(backbone, ResNet):
        yield from ResNet.STAGES[: backbone.frozen_stages]
    elif backbone.frozen:
        yield "backbone"
    if not any(p.requires_grad for p in model.fpn.parameters()):
        yield "fpn"


def describe_frozen(model: Detector) -> str:
    """Describe the parameters that training will not change."""
    total = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    frozen_norms = (
        "FoldedBatchNorm2d",
        "FrozenBatchNorm2d",
        "FrozenBatchNormAct2d",
    )  # timm has two
    norms = sum(type(m).__name__ in frozen_norms for m in model.modules())
    text = f"{total:,} parameters, {frozen:,} of them frozen"
    parts = list(_frozen_parts(model))
    text += f" ({', '.join(parts)})" if parts else ""
    return text + (f"; {norms} frozen batch norms" if norms else "")
