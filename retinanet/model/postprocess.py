"""Outputs -> Detections: per-level top-k, decoding, suppression, mapping to the original image.

B images, A anchors, K classes, N candidates of an image, M candidates of a batch above the score
threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.model.suppression import suppress
from retinanet.schema import PostprocessConfig
from retinanet.structures import Detections, Outputs

Postprocess = Callable[[Outputs, Tensor, Tensor], list[Detections]]


def build_postprocess(options: PostprocessConfig) -> Postprocess:
    """Build the postprocessing of an experiment, which turns outputs into detections."""
    return partial(postprocess, **dict(options))


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
) -> list[Detections]:
    """Turn the outputs of a batch into detections, highest score first.

    Args:
        outputs: Outputs of the network for the batch.
        sizes: (B, 2) height and width of each image on the canvas.
        original_sizes: (B, 2) height and width in the file; boxes are mapped back to them.
        score_threshold: Score that detections must exceed.
        topk_per_level: Largest number of candidates per level before suppression.
        nms_threshold: IoU above which the box with the lower score is suppressed.
        max_detections: Largest number of detections per image.
        clip: When to clip boxes to the image; after_nms also drops boxes that become empty.
        class_agnostic_nms: Whether to suppress across classes.
    """
    scores, anchors, labels = _candidates(outputs, topk_per_level)  # (B, N)
    # A GPU is waited for where a shape follows from values: here, and a few times below. That does
    # not depend on the number of images, as long as all boxes are suppressed together.
    image, place = torch.nonzero(scores > score_threshold, as_tuple=True)  # (M,), image by image
    scores, anchors, labels = (values[image, place] for values in (scores, anchors, labels))
    deltas = outputs.deltas.detach()[image, anchors].float()
    boxes = box_ops.decode(deltas, outputs.anchors[anchors])
    limits = sizes.flip(1).repeat(1, 2)[image]  # (M, 4)
    if clip == "before_nms":
        boxes = _clip(boxes, limits)
    classes = outputs.logits.shape[2]
    groups = image if class_agnostic_nms else image * classes + labels
    keep = suppress(boxes, scores, groups, nms_threshold)
    keep = _best_of_each_image(keep, scores, image, max_detections)
    if clip == "after_nms":
        boxes = _clip(boxes, limits)
        keep = keep[box_ops.area(boxes[keep]) > 0]
    image = image[keep]
    scale = (original_sizes.float() / sizes.float()).flip(1).repeat(1, 2)  # (B, 4)
    boxes = _clip(boxes[keep] * scale[image], original_sizes.flip(1).repeat(1, 2)[image])
    counts = _ends(image, len(sizes)).diff(prepend=image.new_zeros(1)).tolist()
    parts = (values.split(counts) for values in (boxes, scores[keep], labels[keep]))
    return [
        Detections(boxes=boxes, scores=scores, labels=labels)
        for boxes, scores, labels in zip(*parts, strict=True)
    ]


def _candidates(outputs: Outputs, topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, anchors and labels (B, N) of the top k of each level, level by level."""
    classes = outputs.logits.shape[2]
    first, scores, places = 0, [], []
    # Top-k on the logits: then the sigmoid and the threshold only see N values, not A * K.
    for level in outputs.logits.detach().split(outputs.anchors_per_level, dim=1):
        flat = level.flatten(1)  # (B, anchors * K)
        top, order = flat.topk(min(topk, flat.shape[1]), sorted=True)
        scores.append(_sigmoid(top.float()))
        places.append(order + first * classes)
        first += level.shape[1]
    place = torch.cat(places, dim=1)
    return torch.cat(scores, dim=1), place // classes, place % classes


def _sigmoid(logits: Tensor) -> Tensor:
    """Return the sigmoid of logits (B, k), the same bits for an image in any batch."""
    if logits.device.type != "cpu":
        return logits.sigmoid()
    # A CPU computes the end of a tensor by other instructions, which round otherwise.
    return torch.stack([row.sigmoid() for row in logits])


def _best_of_each_image(keep: Tensor, scores: Tensor, image: Tensor, limit: int) -> Tensor:
    """Sort ascending candidates by image and score; return the best `limit` of each image."""
    keep = keep[torch.argsort(scores[keep], descending=True, stable=True)]
    keep = keep[torch.argsort(image[keep], stable=True)]
    own = image[keep].contiguous()
    rank = torch.arange(len(keep), device=keep.device) - torch.searchsorted(own, own)
    return keep[rank < limit]


def _ends(image: Tensor, images: int) -> Tensor:
    """Return the position (B,) after the last entry of each image in `image` (M,), ascending."""
    return torch.searchsorted(image, torch.arange(images, device=image.device), right=True)


def _clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Return boxes (M, 4), each cut to its own image; limits (M, 4) repeat its width and height."""
    return torch.minimum(boxes.clamp(min=0), limits.to(boxes.dtype))
