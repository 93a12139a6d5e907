"""Outputs + assigned targets -> the two losses of a batch.

B images, A anchors, K classes, P positives.

The losses of a step are sums over its images divided by a normaliser of the *global* batch. So
they are returned as sums, which add up over micro-batches and devices; the engine divides.

Nothing here asks the device for a value or for a number of rows: the host goes on at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from retinanet.losses.box import box_loss
from retinanet.losses.focal import focal_loss
from retinanet.schema import LossConfig
from retinanet.structures import IGNORED, Batch, Outputs

Criterion = Callable[[Outputs, Batch], dict[str, Tensor]]


def build_criterion(options: LossConfig) -> Criterion:
    """Build the losses of an experiment."""
    return partial(
        criterion,
        class_loss=partial(focal_loss, alpha=options.alpha, gamma=options.gamma),
        box_loss=partial(box_loss, kind=options.box_loss, beta=options.beta),
        box_weight=options.box_weight,
        per_image=options.normalizer == "per_image",
    )


def criterion(
    outputs: Outputs,
    batch: Batch,
    *,
    class_loss: Callable[[Tensor, Tensor], Tensor],
    box_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    box_weight: float,
    per_image: bool,
) -> dict[str, Tensor]:
    """Return `{"class": ..., "box": ...}`, each a sum over the batch, at least float32.

    Args:
        outputs: of the network.
        batch: with the matches of its anchors.
        class_loss: of logits (N, K) and labels (N,), negative for background.
        box_loss: of deltas, anchors and ground truth, (P, 4) each.
        box_weight: of the box loss.
        per_image: divide each image's sum by its own positives (at least 1); the engine then
            divides by the number of images alone.
    """
    matches, positives = batch.matches, batch.positives
    places = positives.places  # (P,)
    images = places // matches.shape[1]  # (P,)
    background = torch.full_like(matches, -1, dtype=torch.int64).flatten()  # (B * A,)
    classes = background.scatter(0, places, positives.labels)

    counted = matches != IGNORED
    per_anchor = class_loss(outputs.logits.flatten(0, 1), classes).view_as(matches)
    class_sum = torch.where(counted, per_anchor, 0).sum(dim=1)  # (B,)
    per_positive = box_loss(
        outputs.deltas.flatten(0, 1)[places],
        outputs.anchors[places % matches.shape[1]],
        positives.boxes,
    )
    box_sum = class_sum.new_zeros(len(matches)).index_add(0, images, per_positive)
    weights = _weights(matches, class_sum.dtype, per_image=per_image)  # (B,)
    return {
        "class": (class_sum * weights).sum(),
        # The zero keeps every box parameter in the graph of a batch without positives (a sum in
        # float16 could overflow, and infinity times 0 is NaN).
        "box": (box_sum * weights).sum() * box_weight
        + outputs.deltas.sum(dtype=class_sum.dtype) * 0,
    }


def _weights(matches: Tensor, dtype: torch.dtype, *, per_image: bool) -> Tensor:
    """Return each image's weight (B,): 1, or one over its positives."""
    if not per_image:
        return torch.ones(len(matches), dtype=dtype, device=matches.device)
    positives = (matches >= 0).sum(dim=1)
    return 1 / positives.clamp(min=1).to(dtype)
