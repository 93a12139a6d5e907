"""Assignment of anchors, and the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.schema.base import Fraction, Positive, Section, option


class AssignConfig(Section):
    """Assignment of anchors: positive, negative or ignored."""

    kind: Literal["max_iou", "atss"] = option(
        "max_iou",
        "max_iou: two fixed IoU thresholds. atss: a threshold for each box, the mean plus the "
        "standard deviation of the IoUs with its nearest anchors.",
    )
    positive_iou: Fraction = option(0.5, "Best IoU from which max_iou makes an anchor a positive.")
    negative_iou: Fraction = option(0.4, "Best IoU below which max_iou makes an anchor a negative.")
    low_quality: bool = option(
        True,
        "With max_iou, an anchor that is the best one of some box is a positive of its own best "
        "box, even below positive_iou.",
    )
    atss_candidates: Positive = option(
        9, "Cells of each level, nearest to the centre of a box, that atss considers."
    )
    crowd_overlap: Annotated[float, Field(gt=0, le=1)] | None = option(
        0.5,
        "Share of a negative's area inside a crowd region from which it is ignored; null learns "
        "crowds as background.",
    )

    @model_validator(mode="after")
    def _check_thresholds(self) -> AssignConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"negative_iou: {self.negative_iou} is above positive_iou: {self.positive_iou}"
            )
        return self


class LossConfig(Section):
    """Loss of the classes, loss of the boxes, and the normalizer that divides both."""

    class_loss: Literal[
        "focal", "cross_entropy", "balanced_cross_entropy", "ohem", "focal_star"
    ] = option(
        "focal",
        "Loss of the classes: focal (alpha, gamma), cross_entropy, balanced_cross_entropy (alpha), "
        "ohem (cross entropy of the hardest anchors only), focal_star (alpha, gamma, star_beta).",
    )
    alpha: Fraction | None = option(
        0.25,
        "Weight α of positives; negatives have the weight 1 - α. null gives both the weight 1. "
        "Used by focal, focal_star and balanced_cross_entropy (which needs about 0.75).",
    )
    gamma: float = option(2.0, "Focusing parameter γ of focal and focal_star.", ge=0, le=100)
    star_beta: float = option(
        1.0, "Shift β of focal_star, -log(sigmoid(γx + β)) / γ.", ge=-1000, le=1000
    )
    ohem_examples: Positive = option(128, "Number of anchors of an image that ohem learns from.")
    ohem_nms: Fraction = option(
        0.5, "IoU with a harder anchor from which ohem leaves an anchor out; 1 leaves none out."
    )
    ohem_negatives: Positive | None = option(
        None, "Negatives for each positive in ohem; null takes the hardest anchors of either kind."
    )
    box_loss: Literal["smooth_l1", "l1", "giou", "diou", "ciou"] = option(
        "smooth_l1", "Loss of the boxes."
    )
    beta: float = option(0.1, "Error at which smooth_l1 becomes linear.", ge=1e-6, le=1e6)
    box_weight: float = option(1.0, "Weight of the box loss.", ge=0, le=1e6)
    normalizer: Literal["positives", "per_image", "moving_average"] = option(
        "positives",
        "Divide by the number of positives of the global batch, of each image (as torchvision), or "
        "by its moving average (as detectron2).",
    )
    normalizer_start: float = option(
        100.0, "Positives of a step that the moving average starts from.", gt=0, le=1e9
    )
    normalizer_momentum: Fraction = option(0.9, "Momentum of the moving average.")

    @model_validator(mode="after")
    def _check_combinations(self) -> LossConfig:
        if self.class_loss == "focal_star" and self.gamma == 0:
            raise ValueError(
                "class_loss: focal_star divides by gamma: 0; the paper uses 2 (star_beta 1) and 4 "
                "(star_beta 0)"
            )
        if self.ohem_negatives is not None and self.ohem_examples <= self.ohem_negatives:
            raise ValueError(
                f"ohem_examples: {self.ohem_examples} has no room for a positive and its "
                f"ohem_negatives: {self.ohem_negatives}; set ohem_examples to at least "
                f"{self.ohem_negatives + 1}"
            )
        if self.class_loss == "balanced_cross_entropy" and self.alpha is None:
            raise ValueError(
                "class_loss: balanced_cross_entropy with alpha: null is cross_entropy. Set an "
                "alpha, such as 0.75, or loss.class_loss=cross_entropy"
            )
        return self
