"""Online hard example mining: only the hardest anchors of an image count.

Lin et al., arXiv 1708.02002, table 1d, after Shrivastava et al., arXiv 1604.03540. Each anchor is
scored by its class loss; non-maximum suppression leaves one of those that overlap; the highest
losses make up the image's examples.

B images, A anchors, K classes, N examples of an image.
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
"""Outputs and what is assigned to their anchors -> the same, all that do not count ignored.

How many those are is known to the device alone: `ignored_counts` stays that of the assignment.
"""


def build_selection(options: LossConfig, loss: SparseLoss) -> Selection:
    """Build what chooses the anchors of an experiment that its class loss counts."""
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

    To suppress, the host waits for the device: the number that stays is known to it alone.

    Args:
        outputs: What the network says of the batch.
        assigned: Positives and ignored anchors; the latter are never chosen.
        loss: Loss that scores an anchor.
        examples: Anchors N that stay of an image.
        nms_iou: IoU with a harder anchor from which one is left out.
        negatives: Number for each positive, as in the paper's OHEM 1:3: then of both kinds the
            hardest are taken (after suppression within the kind), N / (1 + negatives) positives at
            most. None takes the hardest N, whatever they are.
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
            # Of those that stay: most positives of an object overlap.
            count = negatives * max(1, len(chosen))
            chosen = torch.cat([chosen, pick(of_negatives, count, first)])
        is_left[own] = False
        is_left[chosen] = True
    return replace(assigned, ignored=torch.nonzero(~is_left).flatten())


def hardest(losses: Tensor, boxes: Tensor, count: int, nms_iou: float) -> Tensor:
    """Return which of some anchors stay: the `count` highest losses (N,) after suppression.

    Suppression goes from high losses to low ones, so a first part of them tells its own survivors;
    it is doubled until there are enough.
    """
    first = 8 * count
    while True:
        top = losses.topk(min(first, len(losses))).indices
        stays = top[nms(boxes[top].to(losses.dtype), losses[top], nms_iou)]
        if len(stays) >= count or len(top) == len(losses):
            return stays[:count]
        first *= 2
