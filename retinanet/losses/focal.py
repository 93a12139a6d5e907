"""α-balanced focal loss on sigmoid logits (Lin et al., arXiv 1708.02002, equation 5).

N anchors, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, labels: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Return the loss (N,) of each anchor, summed over the classes.

    FL(p_t) = -α_t (1 - p_t)^γ log(p_t), where p_t is p for the anchor's class and 1 - p for every
    other class, and α_t is α and 1 - α (equations 2-5).

    Args:
        logits: (N, K); the arithmetic is float32 at least.
        labels: (N,) int64: 0..K-1, or negative for background (all classes are negatives).
        alpha: weight of positives, 0..1.
        gamma: focusing parameter, >= 0; 0 is α-balanced cross entropy.
    """
    logits = at_least_float32(logits)
    # Compared, not scattered: a deterministic scatter of a matrix waits for a GPU.
    classes = torch.arange(logits.shape[1], device=logits.device)
    targets = (classes == labels[:, None]).to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t as a sigmoid of its own: the subtraction would round to 0 at |logit| > 17, where the
    # gradient of 0 ** gamma is infinite for gamma < 1.
    wrong = torch.sigmoid(logits * (1 - 2 * targets)).clamp(min=torch.finfo(logits.dtype).tiny)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    return (alpha_t * wrong**gamma * cross_entropy).sum(dim=1)


def at_least_float32(values: Tensor) -> Tensor:
    """Return float32 for half types; float64 stays float64 (exact tests use it)."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
