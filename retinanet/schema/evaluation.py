"""Evaluation, and what turns the network's outputs into detections."""

from __future__ import annotations

from typing import Literal

from retinanet.schema.base import Count, Fraction, Images, Positive, Section, option


class EvalConfig(Section):
    """Evaluation on data.val during training, and of checkpoints."""

    every: Count | None = option(
        None,
        "steps or epochs (the unit of the length) between evaluations; 0 is only at the end; null: "
        "5000 steps, or 1 epoch",
    )
    batch_size: Images = option(8, "images at a time")
    pictures: Count = option(8, "pictures drawn into tensorboard at each evaluation")


class PostprocessConfig(Section):
    """From the network's outputs to detections."""

    score_threshold: Fraction = option(0.05, "lowest score of a detection")
    topk_per_level: Positive = option(1000, "candidates of each level before suppression")
    nms_threshold: Fraction = option(0.5, "IoU above which the lower score is suppressed")
    max_detections: Positive = option(100, "detections an image, in evaluation and its AP too")
    clip: Literal["before_nms", "after_nms"] = option(
        "before_nms",
        "when boxes are cut to the image (torchvision: before; detectron2: after, and boxes that "
        "are then empty are dropped)",
    )
    class_agnostic_nms: bool = option(False, "suppress across classes: one object, one class")
