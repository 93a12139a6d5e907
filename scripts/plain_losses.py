"""The class loss in its simplest form, anchor by anchor: the reference for tests of `SparseLoss`.

N anchors, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinanet.losses.focal import Term, at_least_float32


def anchor_losses(
    logits: Tensor, labels: Tensor, *, term: Term, weights: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the loss (N,) of each anchor, summed over the classes, and its gradient (N, K).

    Args:
        logits: (N, K); computed in at least float32.
        labels: (N,) int64 from 0 to K-1, or negative for background (all classes are negatives).
        term: Loss of one logit.
        weights: Weights of positives and of negatives.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    is_positive = classes == labels[:, None]
    signed = torch.where(is_positive, -1, 1) * at_least_float32(logits)
    loss, slope = term(signed)
    positive, negative = weights
    # Multiply first: a tensor of weights would be float32, even for float64 losses.
    return (
        torch.where(is_positive, positive * loss, negative * loss).sum(dim=1),
        torch.where(is_positive, -positive * slope, negative * slope),
    )
