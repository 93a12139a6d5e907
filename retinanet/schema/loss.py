"""What the anchors learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.schema.base import Fraction, Section, option


class AssignConfig(Section):
    """Which anchors are positives, negatives, ignored."""

    positive_iou: Fraction = option(0.5, "best IoU from which an anchor is a positive")
    negative_iou: Fraction = option(0.4, "best IoU under which an anchor is a negative")
    low_quality: bool = option(
        True, "anchors that are the best of some box become positives of their own best box"
    )
    crowd_overlap: Annotated[float, Field(gt=0, le=1)] | None = option(
        0.5,
        "share of a negative inside a crowd region from which it is ignored; null learns crowds as "
        "background (as the peers do)",
    )

    @model_validator(mode="after")
    def _order(self) -> AssignConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"negative_iou: {self.negative_iou} is above positive_iou: {self.positive_iou}"
            )
        return self


class LossConfig(Section):
    """α-balanced focal loss on the classes, a regression loss on the boxes."""

    alpha: Fraction = option(0.25, "weight α of positives; negatives weigh 1 - α")
    gamma: float = option(2.0, "focusing parameter γ", ge=0)
    box_loss: Literal["smooth_l1", "l1", "giou"] = option("smooth_l1", "loss of the boxes")
    beta: float = option(0.1, "where smooth_l1 turns from square to linear", gt=0)
    box_weight: float = option(1.0, "weight of the box loss", ge=0)
    normalizer: Literal["positives", "per_image", "moving_average"] = option(
        "positives",
        "divide by the positives of the global batch, by each image's (torchvision), or by their "
        "moving average (detectron2)",
    )
    normalizer_start: float = option(
        100.0, "positives a step that the moving average starts from", gt=0
    )
    normalizer_momentum: Fraction = option(0.9, "of the moving average")
