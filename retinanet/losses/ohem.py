"""Online hard example mining: only the hardest anchors of an image count.

Lin et al., arXiv 1708.02002, table 1d, after Shrivastava et al., arXiv 1604.03540. Each anchor is
scored by its class loss. Non-maximum suppression keeps one of several overlapping anchors. The
anchors with the highest losses are the image's examples.

B images, A anchors, K classes, N examples per image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torchvision.ops import nms

from retinanet.losses.sparse import SparseLoss
from retinanet.positives import Assigned
from retinanet.schema import LossConfig
from retinanet.structures import Outputs

Selection = Callable[[Outputs, Assigned], Assigned]
"""Outputs and the assignment of their anchors -> the assignment with all other anchors ignored.

The number of ignored anchors stays on the device: `ignored_counts` is not updated.
"""


def build_selection(options: LossConfig, loss: SparseLoss) -> Selection:
    """Build the selection of anchors that count in the class loss of an experiment."""
    if options.class_loss != "ohem":
        return lambda outputs, assigned: assigned
    return partial(
        keep_hardest,
        loss=loss,
        examples=options.ohem_examples,
        nms_iou=options.ohem_nms,
        negatives=options.ohem_negatives,
    )


def keep_hardest(
    outputs: Outputs,
    assigned: Assigned,
    *,
    loss: SparseLoss,
    examples: int,
    nms_iou: float,
    negatives: int | None,
) -> Assigned:
    """Ignore all but the hardest anchors of each image.

    Suppression makes the host wait for the device, which has the number of remaining anchors.

    Args:
        outputs: Outputs of the network for the batch.
        assigned: Positives and ignored anchors; the latter are never chosen.
        loss: Loss that scores an anchor.
        examples: Number of anchors N to keep per image.
        nms_iou: IoU with a harder anchor above which an anchor is left out.
        negatives: Number of negatives for each positive, as in the paper's OHEM 1:3. The hardest
            of each kind are kept, after suppression within the kind, with at most
            N / (1 + negatives) positives. None keeps the hardest N of both kinds together.
    """
    losses = loss.of_anchors(outputs.logits, assigned).flatten()  # (B * A,)
    is_positive = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    is_positive[assigned.places] = True
    is_left = torch.ones_like(is_positive)
    is_left[assigned.ignored] = False
    anchors = len(outputs.anchors)

    def pick(places: Tensor, count: int, first: int) -> Tensor:
        return places[hardest(losses[places], outputs.anchors[places - first], count, nms_iou)]

    for first in range(0, len(losses), anchors):
        own = slice(first, first + anchors)
        places = first + torch.nonzero(is_left[own]).flatten()
        if negatives is None:
            chosen = pick(places, examples, first)
        else:
            of_positives, of_negatives = places[is_positive[places]], places[~is_positive[places]]
            chosen = pick(of_positives, examples // (1 + negatives), first)
            # Counted after suppression: most positives of an object overlap.
            count = negatives * max(1, len(chosen))
            chosen = torch.cat([chosen, pick(of_negatives, count, first)])
        is_left[own] = False
        is_left[chosen] = True
    return replace(assigned, ignored=torch.nonzero(~is_left).flatten())


def hardest(losses: Tensor, boxes: Tensor, count: int, nms_iou: float) -> Tensor:
    """Return the indices of the `count` highest losses (N,) after suppression.

    Suppression goes from high to low losses, so the survivors among the highest losses do not
    depend on the rest. Their number is doubled until there are enough survivors.
    """
    first = 8 * count
    while True:
        top = losses.topk(min(first, len(losses))).indices
        stays = top[nms(boxes[top].to(losses.dtype), losses[top], nms_iou)]
        if len(stays) >= count or len(top) == len(losses):
            return stays[:count]
        first *= 2
