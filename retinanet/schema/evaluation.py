"""Evaluation and postprocessing."""

from __future__ import annotations

from typing import Literal

from retinanet.schema.base import Count, Fraction, Images, Positive, Section, option


class EvalConfig(Section):
    """Evaluation on data.val, during training and of a checkpoint."""

    every: Count | None = option(
        None,
        "Steps or epochs between evaluations, in the unit of the run's length; 0 evaluates only at "
        "the end; null is 5000 steps, or 1 epoch.",
    )
    batch_size: Images = option(8, "Images evaluated at a time.")
    pictures: Count = option(8, "Pictures drawn into TensorBoard at each evaluation.")


class PostprocessConfig(Section):
    """Postprocessing: from the network's outputs to detections."""

    score_threshold: Fraction = option(0.05, "Lowest score of a detection.")
    topk_per_level: Positive = option(1000, "Most candidates of each level before suppression.")
    nms_threshold: Fraction = option(0.5, "IoU above which the lower score is suppressed.")
    max_detections: Positive = option(100, "Most detections of an image, also for AP.")
    clip: Literal["before_nms", "after_nms"] = option(
        "before_nms",
        "Clip boxes to the image before suppression (as torchvision) or after it (as detectron2, "
        "which then drops empty boxes).",
    )
    class_agnostic_nms: bool = option(False, "Suppress across classes: one class per object.")
