"""Postprocessing image by image and level by level: the simple form of `model.postprocess`.

B images, A anchors, K classes, D detections of an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

from retinanet import boxes as box_ops
from retinanet.structures import Detections, Outputs

Suppress = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Boxes, scores, groups and the IoU threshold -> indices of the remaining boxes, best first."""


def suppress_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Suppress the boxes of each group by themselves, in float64."""
    kept = []
    for group in groups.unique():
        own = torch.nonzero(groups == group).flatten()
        kept.append(own[nms(boxes[own].double(), scores[own].double(), threshold)])
    indices = torch.cat([*kept, groups[:0]]).sort().values
    return indices[scores[indices].argsort(descending=True, stable=True)]


def postprocess(
    outputs: Outputs,
    sizes: Tensor,
    original_sizes: Tensor,
    *,
    score_threshold: float,
    topk_per_level: int,
    nms_threshold: float,
    max_detections: int,
    clip: Literal["before_nms", "after_nms"],
    class_agnostic_nms: bool,
    suppress: Suppress = suppress_by_group,
) -> list[Detections]:
    """Turn the outputs of a batch into detections; the options are those of the package's."""
    logits = outputs.logits.detach().float().split(outputs.anchors_per_level, dim=1)
    deltas = outputs.deltas.detach().float().split(outputs.anchors_per_level, dim=1)
    anchors = outputs.anchors.split(outputs.anchors_per_level)
    detections = []
    for i, (size, original) in enumerate(zip(sizes.tolist(), original_sizes.tolist(), strict=True)):
        levels = [
            _candidates(logits[j][i], deltas[j][i], anchors[j], score_threshold, topk_per_level)
            for j in range(len(anchors))
        ]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
        if clip == "before_nms":
            boxes = box_ops.clip(boxes, *size)
        groups = torch.zeros_like(labels) if class_agnostic_nms else labels
        keep = suppress(boxes, scores, groups, nms_threshold)[:max_detections]
        if clip == "after_nms":
            boxes = box_ops.clip(boxes, *size)
            keep = keep[box_ops.area(boxes[keep]) > 0]
        boxes = _to_original(boxes[keep], size, original)
        detections.append(Detections(boxes=boxes, scores=scores[keep], labels=labels[keep]))
    return detections


def _candidates(
    logits: Tensor, deltas: Tensor, anchors: Tensor, score_threshold: float, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N, 4), scores (N,), labels (N,) of one level: its top k above the threshold."""
    # Top-k on the logits first: then the sigmoid and the threshold only see k values, not A * K.
    flat = logits.flatten()
    top, order = flat.topk(min(topk, len(flat)), sorted=True)
    scores = top.sigmoid()
    keep = scores > score_threshold
    scores, order = scores[keep], order[keep]
    classes = logits.shape[1]
    anchor = order // classes
    return box_ops.decode(deltas[anchor], anchors[anchor]), scores, order % classes


def _to_original(boxes: Tensor, size: list[int], original: list[int]) -> Tensor:
    """Map boxes (D, 4) from the resized image to the file's pixels."""
    scale = boxes.new_tensor([original[1] / size[1], original[0] / size[0]])
    return box_ops.clip(boxes * scale.repeat(2), original[0], original[1])
