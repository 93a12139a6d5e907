"""Outputs -> Detections: per-level top-k, decoding, suppression, mapping to the original image.

B images, A anchors, K classes, D detections of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet import boxes as box_ops
from retinanet.config import PostprocessConfig
from retinanet.structures import Detections, Outputs


def postprocess(
    outputs: Outputs, sizes: Tensor, original_sizes: Tensor, *, options: PostprocessConfig
) -> list[Detections]:
    """Turn the outputs of a batch into detections, highest score first.

    Args:
        outputs: of the network.
        sizes: (B, 2) height and width of each image on the canvas.
        original_sizes: (B, 2) height and width in the file; boxes are mapped back to them.
        options: thresholds and limits.
    """
    logits = outputs.logits.detach().float().split(outputs.anchors_per_level, dim=1)
    deltas = outputs.deltas.detach().float().split(outputs.anchors_per_level, dim=1)
    anchors = outputs.anchors.split(outputs.anchors_per_level)
    detections = []
    for i, (size, original) in enumerate(zip(sizes.tolist(), original_sizes.tolist(), strict=True)):
        levels = [
            _candidates(level_logits[i], level_deltas[i], level_anchors, options)
            for level_logits, level_deltas, level_anchors in zip(
                logits, deltas, anchors, strict=True
            )
        ]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
        detections.append(_suppress(boxes, scores, labels, size, original, options))
    return detections


def _candidates(
    logits: Tensor, deltas: Tensor, anchors: Tensor, options: PostprocessConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N, 4), scores (N,), labels (N,) of one level: its top k above the threshold."""
    # Top-k on the logits first: the sigmoid and the threshold then look at k values, not at A * K.
    flat = logits.flatten()
    top, order = flat.topk(min(options.topk_per_level, len(flat)), sorted=True)
    scores = top.sigmoid()
    keep = scores > options.score_threshold
    scores, order = scores[keep], order[keep]
    classes = logits.shape[1]
    anchor = order // classes
    return box_ops.decode(deltas[anchor], anchors[anchor]), scores, order % classes


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    size: list[int],
    original: list[int],
    options: PostprocessConfig,
) -> Detections:
    """Clip, suppress, limit and map one image's candidates to its original pixels."""
    height, width = size
    if options.clip == "before_nms":
        boxes = box_ops.clip(boxes, height, width)
    groups = torch.zeros_like(labels) if options.class_agnostic_nms else labels
    keep = batched_nms(boxes, scores, groups, options.nms_threshold)[: options.max_detections]
    if options.clip == "after_nms":
        boxes = box_ops.clip(boxes, height, width)
        keep = keep[box_ops.area(boxes[keep]) > 0]
    boxes = boxes[keep]
    scale = boxes.new_tensor([original[1] / width, original[0] / height])
    boxes = box_ops.clip(boxes * scale.repeat(2), original[0], original[1])
    return Detections(boxes=boxes, scores=scores[keep], labels=labels[keep])
