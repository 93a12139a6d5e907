"""Detections that are right or wrong -> the precision and recall that a score threshold gives.

A threshold keeps or drops all detections of one score together, so only the ends of groups of equal
scores are operating points: a curve read inside a group shows figures that no threshold reaches.

N detections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import numpy as np
from numpy.typing import NDArray

_DECIMALS = range(3, 9)
"""How a threshold is written: with as few decimals as keep the same detections."""
_LARGE = 1e6
"""Scores of other people's results from which on decimals say nothing."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What the detections with at least a score give."""

    precision: float
    recall: float
    f1: float
    threshold: float
    """The lowest score that is kept."""
    below: float
    """The highest score that is dropped; -inf where none is."""


def best_point(
    scores: NDArray[np.float64], is_right: NDArray[np.bool_], boxes: int
) -> OperatingPoint | None:
    """Return the operating point with the highest F1; of several, that with the highest threshold.

    Args:
        scores: (N,) of the detections of a class that count, in any order.
        is_right: (N,) whether each has found a box.
        boxes: boxes to find, at least 1.

    Returns:
        None where no detection is right: no threshold has an F1 above 0 then.
    """
    if not is_right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    right, kept = np.cumsum(is_right[order])[ends], ends + 1
    f1 = 2 * right / (kept + boxes)  # = 2 P R / (P + R), of whole numbers, so that ties are exact
    best = int(f1.argmax())
    return OperatingPoint(
        precision=float(right[best] / kept[best]),
        recall=float(right[best] / boxes),
        f1=float(f1[best]),
        threshold=float(ordered[ends[best]]),
        below=float(ordered[ends[best] + 1]) if best + 1 < len(ends) else -math.inf,
    )


def format_threshold(threshold: float, below: float) -> str:
    """Return a threshold in few decimals that, typed, keeps and drops the same detections.

    It is rounded, down if need be, so that the score `threshold` is kept and `below` is not; scores
    of a network are float32, and may be compared with it in that precision.
    """
    if abs(threshold) >= _LARGE:
        return repr(threshold)
    below = max(below, -_LARGE)
    for decimals in _DECIMALS:
        place = Decimal(1).scaleb(-decimals)
        for rounding in (ROUND_HALF_EVEN, ROUND_FLOOR):
            rounded = Decimal(threshold).quantize(place, rounding=rounding)
            typed = float(rounded)
            if 0 < typed <= threshold and np.float32(below) < np.float32(typed) and below < typed:
                return f"{rounded:f}"
    return repr(threshold)
