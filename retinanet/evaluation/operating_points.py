"""Precision and recall of detections at the best score threshold.

A threshold keeps or drops all detections of one score together. Only the ends of groups of equal
scores are operating points; values inside a group are reached by no threshold.

N detections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import numpy as np
from numpy.typing import NDArray

_DECIMALS = range(3, 9)
"""Numbers of decimals to try for a threshold; the fewest that keep the same detections win."""
_LARGE = 1e6
"""Scores of results files from which decimals do not matter."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Precision and recall of the detections with at least a given score."""

    precision: float
    recall: float
    f1: float
    threshold: float
    """Lowest score that is kept."""
    below: float
    """Highest score that is dropped; -inf if there is none."""


def best_point(
    scores: NDArray[np.float64], is_right: NDArray[np.bool_], boxes: int
) -> OperatingPoint | None:
    """Return the operating point with the highest F1, and among equal ones the highest threshold.

    Args:
        scores: (N,) scores of the detections of a class that count, in any order.
        is_right: (N,) whether each detection matches a box.
        boxes: Number of boxes to find, at least 1.

    Returns:
        The operating point; None if no detection is correct, because every F1 is then 0.
    """
    if not is_right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    right, kept = np.cumsum(is_right[order])[ends], ends + 1
    f1 = 2 * right / (kept + boxes)  # = 2 P R / (P + R), from whole numbers, so that ties are exact
    best = int(f1.argmax())
    return OperatingPoint(
        precision=float(right[best] / kept[best]),
        recall=float(right[best] / boxes),
        f1=float(f1[best]),
        threshold=float(ordered[ends[best]]),
        below=float(ordered[ends[best] + 1]) if best + 1 < len(ends) else -math.inf,
    )


def format_threshold(threshold: float, below: float) -> str:
    """Return a threshold with few decimals that keeps and drops the same detections.

    It is rounded, down if necessary, so that the score `threshold` is kept and `below` is not. It
    is also checked in float32, in which scores of a network may be compared with it.
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
