"""What the anchors learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.schema.base import Fraction, Positive, Section, option


class AssignConfig(Section):
    """Which anchors are positives, negatives, ignored."""

    kind: Literal["max_iou", "atss"] = option(
        "max_iou",
        "by fixed thresholds of the IoU (max_iou), or by one of each box's own: mean + standard "
        "deviation over its nearest anchors (atss)",
    )
    positive_iou: Fraction = option(0.5, "of max_iou: best IoU from which an anchor is a positive")
    negative_iou: Fraction = option(0.4, "of max_iou: best IoU under which an anchor is a negative")
    low_quality: bool = option(
        True,
        "of max_iou: anchors that are the best of some box become positives of their own best box",
    )
    atss_candidates: Positive = option(
        9, "of atss: cells of each level, those with the centres nearest to a box's, that it takes"
    )
    crowd_overlap: Annotated[float, Field(gt=0, le=1)] | None = option(
        0.5,
        "share of a negative inside a crowd region from which it is ignored; null learns crowds as "
        "background (as the peers do)",
    )

    @model_validator(mode="after")
    def _check_thresholds(self) -> AssignConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"negative_iou: {self.negative_iou} is above positive_iou: {self.positive_iou}"
            )
        return self


class LossConfig(Section):
    """What is learned: a loss of the classes and one of the boxes, and what divides both."""

    class_loss: Literal[
        "focal", "cross_entropy", "balanced_cross_entropy", "ohem", "focal_star"
    ] = option(
        "focal",
        "loss of the classes: focal (alpha, gamma), cross_entropy, balanced_cross_entropy (alpha), "
        "ohem (cross entropy of the hardest anchors alone), focal_star (alpha, gamma, star_beta)",
    )
    alpha: Fraction | None = option(
        0.25,
        "weight α of positives, negatives weigh 1 - α; null weighs both 1 (of focal, focal_star "
        "and balanced_cross_entropy, which wants about 0.75)",
    )
    gamma: float = option(2.0, "focusing parameter γ (of focal and focal_star)", ge=0, le=100)
    star_beta: float = option(
        1.0, "shift β of focal_star, -log(sigmoid(γx + β)) / γ", ge=-1000, le=1000
    )
    ohem_examples: Positive = option(128, "anchors of an image that ohem learns from")
    ohem_nms: Fraction = option(
        0.5, "IoU with a harder anchor from which ohem leaves one out; 1 leaves none out"
    )
    ohem_negatives: Positive | None = option(
        None, "negatives that ohem takes for each positive; null takes the hardest, whatever it is"
    )
    box_loss: Literal["smooth_l1", "l1", "giou", "diou", "ciou"] = option(
        "smooth_l1", "loss of the boxes"
    )
    beta: float = option(0.1, "where smooth_l1 turns from square to linear", ge=1e-6, le=1e6)
    box_weight: float = option(1.0, "weight of the box loss", ge=0, le=1e6)
    normalizer: Literal["positives", "per_image", "moving_average"] = option(
        "positives",
        "divide by the positives of the global batch, by each image's (torchvision), or by their "
        "moving average (detectron2)",
    )
    normalizer_start: float = option(
        100.0, "positives a step that the moving average starts from", gt=0, le=1e9
    )
    normalizer_momentum: Fraction = option(0.9, "of the moving average")

    @model_validator(mode="after")
    def _check_combinations(self) -> LossConfig:
        if self.class_loss == "focal_star" and self.gamma == 0:
            raise ValueError(
                "class_loss: focal_star divides by gamma: 0; the paper's are 2 (star_beta 1) and 4 "
                "(star_beta 0)"
            )
        if self.ohem_negatives is not None and self.ohem_examples <= self.ohem_negatives:
            raise ValueError(
                f"ohem_examples: {self.ohem_examples} have no place for a positive and its "
                f"ohem_negatives: {self.ohem_negatives}"
            )
        if self.class_loss == "balanced_cross_entropy" and self.alpha is None:
            raise ValueError(
                "class_loss: balanced_cross_entropy with alpha: null is cross_entropy: give an "
                "alpha, such as 0.75, or set loss.class_loss=cross_entropy"
            )
        return self
