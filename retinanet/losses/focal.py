"""The class losses as functions of one logit: cross entropy, focal loss and focal loss*.

p is the sigmoid of a logit x. p_t is p for the class of a positive anchor, and 1 - p for all other
classes of an anchor. Sections and equations are those of Lin et al., arXiv 1708.02002.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.schema import LossConfig

Term = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Logits of negatives, of any shape -> the loss of each, and its derivative.

A positive has the loss of a negative with the opposite logit: its p_t is the same.
"""

_LINEAR = 40.0
"""Logit from which log(1 + exp(x)) equals x, to the last bit even in float64."""


def focal(logits: Tensor, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Return -(1 - p_t)^γ log(p_t) of negatives (equation 4), and its derivative.

    1 - p_t is p, and -log(p_t) is log(1 + exp(x)). γ = 0 is cross entropy.
    """
    probability = torch.sigmoid(logits)
    cross_entropy = F.softplus(logits, threshold=_LINEAR)
    weight = probability**gamma
    slope = torch.addcmul(probability, 1 - probability, cross_entropy, value=gamma)
    return weight * cross_entropy, slope.mul_(weight)


def focal_star(logits: Tensor, *, gamma: float, beta: float) -> tuple[Tensor, Tensor]:
    """Return -log(sigmoid(γ x_t + β)) / γ of negatives (appendix A), and its derivative.

    x_t is -x for negatives: the logit of p_t.
    """
    steeper = gamma * logits - beta
    return F.softplus(steeper, threshold=_LINEAR).div_(gamma), torch.sigmoid(steeper)


def build_term(options: LossConfig) -> Term:
    """Build the class loss of an experiment, before α."""
    if options.class_loss == "focal":
        return partial(focal, gamma=options.gamma)
    if options.class_loss == "focal_star":
        return partial(focal_star, gamma=options.gamma, beta=options.star_beta)
    return partial(focal, gamma=0.0)


def class_weights(options: LossConfig) -> tuple[float, float]:
    """Return the weights of positives and of negatives: α and 1 - α (section 3.1), or 1."""
    if options.alpha is None or options.class_loss in ("cross_entropy", "ohem"):
        return 1.0, 1.0
    return options.alpha, 1 - options.alpha


def at_least_float32(values: Tensor) -> Tensor:
    """Return half types as float32; float64 stays float64 (exact tests use it)."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
