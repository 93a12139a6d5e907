"""Outputs + assigned targets -> the two losses of a batch.

B images, A anchors, K classes, P positives.

The losses of a step are sums over its images, divided by a normaliser of the *global* batch. So
they are returned as sums, which add up over micro-batches and devices; the engine divides them.

Except for `ohem`, nothing here reads a value or a number of rows from the device, so the host does
not wait.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from retinanet.batch import Batch
from retinanet.losses.box import box_loss
from retinanet.losses.focal import build_term, class_weights
from retinanet.losses.ohem import build_selection
from retinanet.losses.sparse import SparseLoss
from retinanet.positives import Assigned
from retinanet.schema import LossConfig
from retinanet.structures import Outputs

Criterion = Callable[[Outputs, Batch], dict[str, Tensor]]
"""Outputs and their batch -> the sum of each loss, by name."""
ClassLoss = Callable[[Outputs, Assigned], Tensor]
"""Outputs and the assignment of their anchors -> the sum (B,) over each image's anchors."""


def build_criterion(options: LossConfig, *, compiled: bool = False) -> Criterion:
    """Build the losses of an experiment; `compiled` fuses them into fewer, larger kernels."""
    return partial(
        criterion,
        class_loss=build_class_loss(options, compiled=compiled),
        box_loss=partial(box_loss, kind=options.box_loss, beta=options.beta),
        box_weight=options.box_weight,
        per_image=options.normalizer == "per_image",
    )


def build_class_loss(options: LossConfig, *, compiled: bool) -> ClassLoss:
    """Build the class loss of an experiment."""
    loss = SparseLoss(build_term(options), class_weights(options), compiled=compiled)
    select = build_selection(options, loss)
    return lambda outputs, assigned: loss(outputs.logits, select(outputs, assigned))


def criterion(
    outputs: Outputs,
    batch: Batch,
    *,
    class_loss: ClassLoss,
    box_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    box_weight: float,
    per_image: bool,
) -> dict[str, Tensor]:
    """Return `{"class": ..., "box": ...}`, each a sum over the batch, at least float32.

    Args:
        outputs: Outputs of the network for the batch.
        batch: Batch, with the assignment of its anchors.
        class_loss: Function for the class loss of each image.
        box_loss: Function for the loss of each positive, from deltas, anchors and ground truth,
            (P, 4) each.
        box_weight: Weight of the box loss.
        per_image: Whether to divide each image's sum by its own positives (at least 1); the engine
            then divides only by the number of images.
    """
    images, anchors = outputs.logits.shape[:2]
    places = batch.assigned.places  # (P,)
    image = places // anchors  # (P,)
    class_sum = class_loss(outputs, batch.assigned)  # (B,)
    per_positive = box_loss(
        outputs.deltas.flatten(0, 1)[places],
        outputs.anchors[places % anchors],
        batch.assigned.boxes,
    )
    zeros = class_sum.new_zeros(images)
    # Without positives the sum is empty, but still depends on the deltas: their gradient is 0.
    box_sum = zeros.index_add(0, image, per_positive)
    if per_image:
        positives = zeros.index_add(0, image, torch.ones_like(per_positive))
        weights = 1 / positives.clamp(min=1)
        class_sum, box_sum = class_sum * weights, box_sum * weights
    return {"class": class_sum.sum(), "box": box_sum.sum() * box_weight}
