"""What the class loss of a batch is made of: easy negatives, hard negatives, positives.

Lin et al., arXiv 1708.02002, section 3: cross entropy is swamped by negatives that are easy. An
example is a pair of an anchor and a class: a positive anchor's own class is a positive, every other
pair of an anchor that is not ignored a negative. It is easy where p_t > 0.9.

B images, A anchors, K classes, L levels, P positives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet.losses.focal import Term, at_least_float32
from retinanet.losses.sparse import chunks
from retinanet.positives import Assigned

GROUPS = ("easy_negatives", "hard_negatives", "positives")
MEASURES = ("examples", "loss", "gradient")
EASY = 0.9
"""p_t above which an example is easy."""
EDGES = (*(i / 10 for i in range(10)), 0.95, 0.99, 0.999, 0.9999, 1.0)
"""p_t between the bins of a histogram, narrow where most negatives are."""


def contributions(
    logits: Tensor,
    assigned: Assigned,
    levels: Sequence[int],
    *,
    term: Term,
    weights: tuple[float, float],
) -> Tensor:
    """Return what each group of examples gives on each level: (L, 3, 3) by GROUPS and MEASURES.

    That is their number, the sum of their losses, and that of their absolute derivatives.

    Args:
        logits: (B, A, K).
        assigned: The positives; ignored anchors are no examples.
        levels: Anchors on each level; they sum to A.
        term: Loss of one logit.
        weights: Weights of positives and of negatives.
    """
    rows, counted = logits.detach().flatten(0, 1), _are_examples(logits, assigned)  # (B * A, ..)
    own, anchors = _own_logits(logits, assigned), assigned.places % logits.shape[1]  # (P,)
    own_counted = counted[assigned.places]
    sums, first = [], 0
    for level in levels:
        negatives = torch.zeros(2, 3, dtype=_sum_type(logits), device=logits.device)
        for image in range(len(logits)):
            start = image * logits.shape[1] + first
            for chunk in chunks(rows, level):
                there = slice(start + chunk.start, start + min(chunk.stop, level))
                negatives += _measure_negatives(rows[there], counted[there], term)
        here = own_counted & (first <= anchors) & (anchors < first + level)
        # The positives' own logits were taken for negatives, too.
        negatives -= _measure_negatives(own[:, None], here, term)
        positives = _measure(*term(-own), here, negatives.dtype)
        for part, weight in zip((positives[None], negatives), weights, strict=True):
            part[:, 1:] *= weight
        sums.append(torch.cat([negatives, positives[None]]))
        first += level
    return torch.stack(sums)


def histograms(logits: Tensor, assigned: Assigned) -> Tensor:
    """Return the numbers of examples in bins of p_t between EDGES: (2, bins).

    Row 0 is of negatives, row 1 of positives.

    Args:
        logits: (B, A, K).
        assigned: The positives; ignored anchors are no examples.
    """
    rows, counted = logits.detach().flatten(0, 1), _are_examples(logits, assigned)
    own, own_counted = _own_logits(logits, assigned), counted[assigned.places]
    negatives = -_count_above_edges(own[:, None], own_counted)
    for chunk in chunks(rows):
        negatives += _count_above_edges(rows[chunk], counted[chunk])
    above = torch.stack([negatives, _count_above_edges(-own[:, None], own_counted)])  # (2, bins)
    return above - torch.nn.functional.pad(above[:, 1:], (0, 1))


def _own_logits(logits: Tensor, assigned: Assigned) -> Tensor:
    """Return the logit (P,) of each positive's class."""
    return at_least_float32(
        logits.detach().flatten()[assigned.places * logits.shape[2] + assigned.labels]
    )


def _are_examples(logits: Tensor, assigned: Assigned) -> Tensor:
    """Return whether each anchor is an example: (B * A,)."""
    counted = torch.ones(logits.shape[0] * logits.shape[1], dtype=torch.bool, device=logits.device)
    return counted.index_fill_(0, assigned.ignored, False)


def _sum_type(logits: Tensor) -> torch.dtype:
    """Return the type of sums and counts: float64 where the device has it."""
    return torch.float32 if logits.device.type == "mps" else torch.float64


def _measure_negatives(logits: Tensor, counted: Tensor, term: Term) -> Tensor:
    """Return the measures of easy and of hard negatives: (2, 3).

    Args:
        logits: (N, K).
        counted: (N,) bool.
        term: Loss of one logit.
    """
    values, wide = at_least_float32(logits), _sum_type(logits)
    # No example has an infinite loss, and p = 0 gives none at all.
    values = values.masked_fill(~counted[:, None], -math.inf)
    loss, slope = term(values)
    hard = values >= math.log(1 / EASY - 1)
    of_all = _measure(loss, slope, counted[:, None].expand_as(loss), wide)
    of_hard = _measure(loss, slope, hard, wide)
    return torch.stack([of_all - of_hard, of_hard])


def _measure(loss: Tensor, slope: Tensor, which: Tensor, wide: torch.dtype) -> Tensor:
    """Return number, loss and gradient of some examples: (3,)."""
    return torch.stack(
        [
            which.sum(dtype=wide),
            (loss * which).sum(dtype=wide),
            (slope * which).sum(dtype=wide),
        ]
    )


def _count_above_edges(logits: Tensor, counted: Tensor) -> Tensor:
    """Return how many negatives have a p_t above each edge but the last: (bins,).

    Args:
        logits: (N, K).
        counted: (N,) bool.
    """
    values, wide = at_least_float32(logits), _sum_type(logits)
    values = values.masked_fill(~counted[:, None], math.inf)  # p_t = 0
    limits = [math.log(1 / edge - 1) for edge in EDGES[1:-1]]
    every = counted.sum(dtype=wide) * logits.shape[1]
    return torch.stack([every, *((values < limit).sum(dtype=wide) for limit in limits)])
