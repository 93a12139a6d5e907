"""Count the FLOPs of a step, and measure the FLOP/s that the device can reach.

A multiplication and an addition are two operations (FLOPs): a convolution that the literature
counts as 1 GMAC is 2 GFLOPs here. Only products are counted (convolutions, matrix products); the
rest is less than one percent of them. Gradients that a frozen stage skips are not counted.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from retinanet.distributed.device import wait_for
from retinanet.distributed.precision import Precision

_SMALLEST_MATRIX, _LARGEST_MATRIX = 512, 8192
"""Smallest and largest side of the matrices that measure the device."""
_LONGEST_PRODUCT, _TIMED_PRODUCTS = 0.02, 5
"""Most seconds that one product should take, and how many products are timed."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The arithmetic of training."""

    flops_per_pixel: float
    """FLOPs of forward and backward pass for each pixel of the canvas."""
    attainable: float
    """FLOP/s of a large matrix product on this device in this precision."""


class FlopCounter(FlopCounterMode):
    """Counts the FLOPs of the code in its context; `get_total_flops()` returns them."""

    def __init__(self) -> None:
        # torch counts the weight gradient of a grouped convolution as if it had one group.
        backward = {torch.ops.aten.convolution_backward: _convolution_backward}
        super().__init__(display=False, custom_mapping=backward)


def _convolution_backward(
    gradient: torch.Size, images: torch.Size, weight: torch.Size, *others: Any, **options: Any
) -> int:
    """Return the FLOPs of the requested gradients: each costs as much as the forward pass."""
    del options
    _, _, _, _, transposed, _, _, (of_images, of_weight, _) = others
    forward = 2 * math.prod(images if transposed else gradient) * math.prod(weight[1:])
    return forward * (int(of_images) + int(of_weight))


def attainable_flops(device: torch.device, precision: Precision) -> float:
    """Measure the FLOP/s of a large matrix product on a device; this takes less than 0.2 s.

    The matrices grow until one product takes a while: on a fast device small ones would measure
    how fast the host launches kernels. fp32 follows `train.tf32`.
    """
    types = {
        "fp32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp64": torch.float64,
    }
    size = _SMALLEST_MATRIX
    while True:
        matrix = torch.full((size, size), 0.5, dtype=types[precision], device=device)
        _time_product(matrix)  # the first one chooses a kernel
        once = _time_product(matrix)
        if size == _LARGEST_MATRIX or 8 * once > _LONGEST_PRODUCT:
            break
        size *= 2
    seconds = [once]
    while len(seconds) < _TIMED_PRODUCTS and sum(seconds) < _LONGEST_PRODUCT * _TIMED_PRODUCTS:
        seconds.append(_time_product(matrix))
    return 2 * size**3 / median(seconds)


def _time_product(matrix: torch.Tensor) -> float:
    """Time the product of a matrix with itself, and wait for its end."""
    wait_for(matrix.device)
    started = time.perf_counter()
    torch.mm(matrix, matrix)
    wait_for(matrix.device)
    return time.perf_counter() - started
