"""Outputs + assigned targets -> the two losses of a batch.

B images, A anchors, K classes, P positives.

The losses of a step are sums over its images divided by a normaliser of the *global* batch. So
they are returned as sums, which add up over micro-batches and devices; the engine divides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet.config import LossConfig
from retinanet.losses.box import box_loss
from retinanet.losses.focal import focal_loss
from retinanet.structures import IGNORED, Batch, Outputs, Target


def criterion(outputs: Outputs, batch: Batch, *, options: LossConfig) -> dict[str, Tensor]:
    """Return `{"class": ..., "box": ...}`, each a sum over the batch, at least float32.

    With the normaliser `per_image` each image's sum is already divided by its own positives (at
    least 1), so that the engine divides by the number of images alone.
    """
    matches = batch.matches.long()
    images, rows = torch.nonzero(matches >= 0, as_tuple=True)  # (P,) each
    labels, boxes = _matched(batch.targets, images, matches[images, rows])
    classes = torch.full_like(matches, -1)
    classes[images, rows] = labels
    weights = _weights(matches, options)  # (B,)

    counted = matches != IGNORED
    per_anchor = focal_loss(
        outputs.logits.flatten(0, 1), classes.flatten(), alpha=options.alpha, gamma=options.gamma
    ).view_as(matches)
    class_sum = torch.where(counted, per_anchor, 0).sum(dim=1)  # (B,)
    per_positive = box_loss(
        outputs.deltas[images, rows],
        outputs.anchors[rows],
        boxes,
        kind=options.box_loss,
        beta=options.beta,
    )
    box_sum = class_sum.new_zeros(len(matches)).index_add(0, images, per_positive)
    return {
        "class": (class_sum * weights).sum(),
        # The zero keeps every box parameter in the graph of a batch without positives (a sum in
        # float16 could overflow, and infinity times 0 is NaN).
        "box": (box_sum * weights).sum() * options.box_weight
        + outputs.deltas.sum(dtype=class_sum.dtype) * 0,
    }


def _weights(matches: Tensor, options: LossConfig) -> Tensor:
    """Return each image's weight (B,): 1, or one over its positives."""
    positives = (matches >= 0).sum(dim=1)
    if options.normalizer == "per_image":
        return 1 / positives.clamp(min=1)
    return torch.ones_like(positives, dtype=torch.float32)


def _matched(targets: list[Target], images: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels (P,) and boxes (P, 4) of the ground truth that positives are matched to."""
    counts = torch.tensor([len(target.labels) for target in targets], device=images.device)
    first = torch.cumsum(counts, 0) - counts
    flat = first[images] + indices
    labels = torch.cat([target.labels for target in targets])
    boxes = torch.cat([target.boxes for target in targets])
    return labels[flat], boxes[flat]
