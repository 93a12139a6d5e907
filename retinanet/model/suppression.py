"""Non-maximum suppression within groups, decided in float64 and so the same on every device.

M boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

_TOGETHER = {"cpu": 256}
"""Boxes that are compared at a time. A CPU compares each with every other one of them."""
_TOGETHER_ON_GPU = 2**14
"""The same on a GPU, whose kernel stores a bit for each pair: 32 MB."""


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the indices of the boxes without a better box of their group over them, ascending.

    torchvision's `batched_nms` moves the groups apart in float32, and only for some numbers of
    boxes, which differ between devices. With many classes the coordinates then lose digits, and
    some decisions become wrong.

    Args:
        boxes: (M, 4) xyxy, px.
        scores: (M,); of two equal scores the first one is better.
        groups: (M,) int64, at least 0; boxes of different groups do not suppress each other.
        threshold: IoU above which the box with the lower score is suppressed.
    """
    if boxes.device.type == "mps":  # has no float64
        return suppress(boxes.cpu(), scores.cpu(), groups.cpu(), threshold).to(boxes.device)
    scores = scores.double()  # the kernel takes boxes and scores of one type
    threshold = _round_up(threshold)
    limit = _TOGETHER.get(boxes.device.type, _TOGETHER_ON_GPU)
    if len(boxes) <= limit:
        return nms(_move_apart(boxes, groups), scores, threshold).sort().values
    order = torch.argsort(groups, stable=True)
    counts = torch.unique_consecutive(groups[order], return_counts=True)[1]
    kept = [
        part[nms(_move_apart(boxes[part], groups[part]), scores[part], threshold)]
        for part in order.split(_join(counts.tolist(), limit))
    ]
    return torch.cat(kept).sort().values


def _round_up(threshold: float) -> float:
    """Return the threshold, or the next number that float32 can hold.

    A GPU's kernel takes it in float32. There 0.7 becomes less than 0.7, and would suppress a box
    with an IoU of exactly 0.7, which a CPU keeps.
    """
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) >= threshold else np.nextafter(nearest, np.float32(2)))


def _move_apart(boxes: Tensor, groups: Tensor) -> Tensor:
    """Return the boxes in float64, each group moved to a place of its own.

    The distance is a power of two, so that the sums are exact: float32 has 24 binary digits,
    float64 53. With boxes of an image and 30,000 groups, at most digits below a ten-millionth of a
    pixel are lost.
    """
    if not len(boxes):
        return boxes.double()
    reach = boxes.abs().nan_to_num(posinf=0).max()
    distance = torch.ldexp(torch.ones_like(reach), torch.frexp(2 * reach + 1).exponent).double()
    return boxes.double() + ((groups - groups.min()) * distance)[:, None]


def _join(counts: Sequence[int], limit: int) -> list[int]:
    """Add up the sizes of successive groups up to a limit; a larger group stays by itself."""
    sums = [0]
    for count in counts:
        if sums[-1] and sums[-1] + count > limit:
            sums.append(0)
        sums[-1] += count
    return sums
