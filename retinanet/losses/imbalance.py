"""Composition of the class loss of a batch: easy negatives, hard negatives, positives.

Lin et al., arXiv 1708.02002, section 3: cross entropy is swamped by easy negatives. An example is a
pair of an anchor and a class. A positive anchor with its own class is a positive. All other pairs
are negatives, except those of ignored anchors. An example is easy if p_t > 0.9.

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
"""Edges in p_t of the bins of a histogram, narrow where most negatives are."""


def contributions(
    logits: Tensor,
    assigned: Assigned,
    levels: Sequence[int],
    *,
    term: Term,
    weights: tuple[float, float],
) -> Tensor:
    """Return the contribution of each group of examples per level: (L, 3, 3), GROUPS x MEASURES.

    The measures are their number, the sum of their losses, and the sum of their absolute
    derivatives.

    Args:
        logits: (B, A, K).
        assigned: Positives and ignored anchors; the latter are not examples.
        levels: Number of anchors on each level; they sum to A.
        term: Loss of one logit.
        weights: Weights of positives and of negatives.
    """
    rows, counted = logits.detach().flatten(0, 1), _are_examples(logits, assigned)  # (B * A, ...)
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
        # So far, the logits of positives were also counted as negatives.
        negatives -= _measure_negatives(own[:, None], here, term)
        positives = _measure(*term(-own), here, negatives.dtype)
        for part, weight in zip((positives[None], negatives), weights, strict=True):
            part[:, 1:] *= weight
        sums.append(torch.cat([negatives, positives[None]]))
        first += level
    return torch.stack(sums)


def histograms(logits: Tensor, assigned: Assigned) -> Tensor:
    """Return the number of examples in each bin of p_t between EDGES: (2, bins).

    Row 0 counts negatives, row 1 positives.

    Args:
        logits: (B, A, K).
        assigned: Positives and ignored anchors; the latter are not examples.
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
    """Return the type of sums and counts: float64 if the device supports it."""
    return torch.float32 if logits.device.type == "mps" else torch.float64


def _measure_negatives(logits: Tensor, counted: Tensor, term: Term) -> Tensor:
    """Return the measures of easy and of hard negatives: (2, 3).

    Args:
        logits: (N, K).
        counted: Whether each row is an example, (N,) bool.
        term: Loss of one logit.
    """
    values, wide = at_least_float32(logits), _sum_type(logits)
    # A logit of -inf has p = 0 and a loss of exactly 0.
    values = values.masked_fill(~counted[:, None], -math.inf)
    loss, slope = term(values)
    hard = values >= math.log(1 / EASY - 1)
    of_all = _measure(loss, slope, counted[:, None].expand_as(loss), wide)
    of_hard = _measure(loss, slope, hard, wide)
    return torch.stack([of_all - of_hard, of_hard])


def _measure(loss: Tensor, slope: Tensor, which: Tensor, wide: torch.dtype) -> Tensor:
    """Return the number, total loss and total gradient of some examples: (3,)."""
    return torch.stack(
        [
            which.sum(dtype=wide),
            (loss * which).sum(dtype=wide),
            (slope * which).sum(dtype=wide),
        ]
    )


def _count_above_edges(logits: Tensor, counted: Tensor) -> Tensor:
    """Return the number of negatives with a p_t above each edge except the last: (bins,).

    Args:
        logits: (N, K).
        counted: Whether each row is an example, (N,) bool.
    """
    values, wide = at_least_float32(logits), _sum_type(logits)
    values = values.masked_fill(~counted[:, None], math.inf)  # p_t = 0
    limits = [math.log(1 / edge - 1) for edge in EDGES[1:-1]]
    every = counted.sum(dtype=wide) * logits.shape[1]
    return torch.stack([every, *((values < limit).sum(dtype=wide) for limit in limits)])
