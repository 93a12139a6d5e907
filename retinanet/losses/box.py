"""Losses of the boxes of positive anchors.

P positives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from retinanet import boxes as box_ops
from retinanet.losses.focal import at_least_float32

BoxLoss = Literal["smooth_l1", "l1", "giou", "diou", "ciou"]

_OVERLAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "giou": box_ops.generalized_iou,
    "diou": box_ops.distance_iou,
    "ciou": box_ops.complete_iou,
}


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    *,
    kind: BoxLoss,
    beta: float,
) -> Tensor:
    """Return the loss (P,) of each positive anchor.

    Args:
        deltas: Outputs (P, 4) of the network.
        anchors: (P, 4) px.
        boxes: Matched ground truth (P, 4), px, positive width and height.
        kind: `smooth_l1` (Girshick, *Fast R-CNN*, equation 3, with 0.5 x² / β below β) or `l1` of
            the deltas, summed over the four. Or 1 - `giou` (Rezatofighi et al., arXiv 1902.09630),
            `diou` or `ciou` (Zheng et al., arXiv 1911.08287) of the decoded boxes.
        beta: Difference at which smooth_l1 changes from quadratic to linear.
    """
    deltas = at_least_float32(deltas)
    if kind in _OVERLAPS:
        return 1 - _OVERLAPS[kind](box_ops.decode(deltas, anchors), boxes)
    wanted = box_ops.encode(boxes, anchors)
    if kind == "l1":
        return F.l1_loss(deltas, wanted, reduction="none").sum(dim=1)
    return F.smooth_l1_loss(deltas, wanted, reduction="none", beta=beta).sum(dim=1)
