"""Continuous xyxy boxes: pure functions, no +1 anywhere.

N and M count boxes; every box is (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SIZE = math.log(1000 / 16)
"""Largest log size ratio that is decoded, as in other projects: exp() of more would overflow."""
_EPSILON = 1e-7
"""Added to denominators, because two empty boxes have an area of 0."""


def area(boxes: Tensor) -> Tensor:
    """Return the areas (N,) of boxes (N, 4), in square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlap areas (N, M) of boxes (N, 4) with boxes (M, 4)."""
    # Column by column, because contiguous rows (M,) vectorise.
    left, top, right, bottom = b.T.contiguous()
    width = torch.minimum(a[:, None, 2], right) - torch.maximum(a[:, None, 0], left)
    height = torch.minimum(a[:, None, 3], bottom) - torch.maximum(a[:, None, 1], top)
    return width.clamp_(min=0) * height.clamp_(min=0)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (N, M), in [0, 1]; 0 where both boxes are empty."""
    overlap = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - overlap
    return torch.where(union > 0, overlap / union, 0.0)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU (N,), in [-1, 1], of each pair of boxes of a and b, (N, 4) each.

    Rezatofighi et al., arXiv 1902.09630, algorithm 1. A small constant (1e-7) in the
    denominators allows two empty boxes.
    """
    overlap, union = _overlap_and_union(a, b)
    outer = _hull(a, b)
    hull = outer[:, 0] * outer[:, 1]
    return overlap / (union + _EPSILON) - (hull - union) / (hull + _EPSILON)


def distance_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the distance IoU (N,), in [-1, 1], of each pair of boxes of a and b, (N, 4) each.

    Zheng et al., arXiv 1911.08287, equation 7: the IoU minus the squared distance of the
    centres, in units of the squared diagonal of the hull.
    """
    overlap, union = _overlap_and_union(a, b)
    outer = _hull(a, b)
    shift = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2  # (N, 2)
    distance = shift[:, 0] ** 2 + shift[:, 1] ** 2
    diagonal = outer[:, 0] ** 2 + outer[:, 1] ** 2
    return overlap / (union + _EPSILON) - distance / (diagonal + _EPSILON)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the complete IoU (N,) of each pair of boxes of a and b, (N, 4) each; b is the truth.

    Zheng et al., arXiv 1911.08287, equations 8-11: the distance IoU minus α v, where v measures
    how much the aspect ratios differ. No gradient flows through α. Boxes of b need a positive
    height.
    """
    distance_term = distance_iou(a, b)
    v = (4 / math.pi**2) * (_aspect_angle(b) - _aspect_angle(a)) ** 2
    with torch.no_grad():
        overlap, union = _overlap_and_union(a, b)
        alpha = v / (1 - overlap / (union + _EPSILON) + v + _EPSILON)
    return distance_term - alpha * v


def _overlap_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    inner = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])  # (N, 2)
    # Products of columns: the gradient of prod() counts zeros on the host.
    overlap = inner[:, 0].clamp(min=0) * inner[:, 1].clamp(min=0)
    return overlap, area(a) + area(b) - overlap


def _hull(a: Tensor, b: Tensor) -> Tensor:
    """Return width and height (N, 2) of the smallest box around each pair."""
    return torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])


def _aspect_angle(boxes: Tensor) -> Tensor:
    """Return the angle (N,) whose tangent is width / height."""
    # An empty box has no angle, and the gradient of atan2 divides by the sum of squares.
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=_EPSILON)
    return torch.atan2(sizes[:, 0], sizes[:, 1])


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the deltas (N, 4) that take anchors (N, 4) to boxes (N, 4).

    Girshick et al., *Rich feature hierarchies*, appendix C, equations 6-9. Boxes must have a
    positive width and height.
    """
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    anchor_centres = anchors[:, :2] + 0.5 * anchor_sizes
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sizes
    shift = (centres - anchor_centres) / anchor_sizes
    return torch.cat([shift, torch.log(sizes / anchor_sizes)], dim=1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (N, 4) of deltas (N, 4) at anchors (N, 4): the inverse of `encode`.

    Log sizes are clamped at `MAX_LOG_SIZE`, so that no box is infinite.
    """
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    anchor_centres = anchors[:, :2] + 0.5 * anchor_sizes
    centres = deltas[:, :2] * anchor_sizes + anchor_centres
    half = 0.5 * torch.exp(deltas[:, 2:].clamp(max=MAX_LOG_SIZE)) * anchor_sizes
    return torch.cat([centres - half, centres + half], dim=1)


def clip(boxes: Tensor, height: float | Tensor, width: float | Tensor) -> Tensor:
    """Return boxes (N, 4) cut to an image of `height` x `width` pixels."""
    limit = torch.as_tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), limit)
