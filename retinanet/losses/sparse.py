"""The class loss of a batch, and its gradient, from the few anchors that are no negatives.

Nearly all terms are of negatives, whose loss is a function of the logit alone. They are computed
chunk by chunk, in one pass that writes the gradient into the one large buffer there is; then the
terms of positives are put in, and those of ignored anchors set to 0. `scripts/plain_losses.py` says
the same plainly.

B images, A anchors, K classes, P positives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from retinanet.losses.focal import Term, at_least_float32
from retinanet.positives import Assigned

_CHUNK = {"cpu": 2**16}
"""Logits at a time: so many stay in a core's cache."""
_LARGE_CHUNK = 2**24
"""On other devices: few kernels, and 64 MB of memory for each intermediate."""
_HEADROOM = {torch.float16: 2.0**13}
"""Factor of the gradient in the buffer: float16 has no place for what easy negatives give."""

Negatives = Callable[[Tensor, Tensor, Tensor | None], None]
"""Logits (n, K) of negatives, where to write losses (n,) and, unless None, the gradient (n, K)."""


class SparseLoss:
    """Logits and what is assigned to their anchors -> the class loss of each image."""

    def __init__(self, term: Term, weights: tuple[float, float], *, compiled: bool) -> None:
        """Choose the loss.

        Args:
            term: Loss of one logit.
            weights: Weights of positives and of negatives.
            compiled: Make one kernel of the pass over the negatives (needs a compiler).
        """
        self.term = term
        self.weights = weights
        self._negatives: Negatives = self._write_negatives
        if compiled:
            self._negatives = torch.compile(self._write_negatives, dynamic=True)

    def __call__(self, logits: Tensor, assigned: Assigned) -> Tensor:
        """Return the sums (B,) over the anchors of each image, float32 at least.

        Args:
            logits: (B, A, K).
            assigned: Positives, with their labels, and ignored anchors, which count nothing.
        """
        if not torch.is_grad_enabled():  # a Function is not told so, and would make a gradient
            logits = logits.detach()
        return _ImageSums.apply(logits, assigned, self)

    def of_anchors(self, logits: Tensor, assigned: Assigned) -> Tensor:
        """Return the loss (B, A) of each anchor, without a gradient."""
        with torch.no_grad():
            return self.compute(logits, assigned, None)

    def compute(self, logits: Tensor, assigned: Assigned, gradient: Tensor | None) -> Tensor:
        """Return the loss (B, A) of each anchor; write the gradient (B, A, K), times its headroom.

        The gradient may be of a half type; it is rounded once here.
        """
        # `data`, for logits are put back as they were, and autograd would take them for changed.
        rows = logits.data.flatten(0, 1).contiguous()  # (B * A, K)
        slopes = None if gradient is None else gradient.flatten(0, 1)
        losses = torch.empty(
            len(rows), dtype=at_least_float32(logits[:0]).dtype, device=rows.device
        )
        own = assigned.places * rows.shape[1] + assigned.labels  # (P,) among all logits
        positives = rows.flatten()[own]
        try:
            # Out of sight: the loss of a negative is exactly 0 there, and so is its slope.
            rows.flatten().index_fill_(0, own, -math.inf)
            for chunk in chunks(rows):
                chunk_slopes = None if slopes is None else slopes[chunk]
                self._negatives(rows[chunk], losses[chunk], chunk_slopes)
        finally:
            rows.flatten().index_copy_(0, own, positives)
        loss, slope = self.term(-at_least_float32(positives))
        losses.index_add_(0, assigned.places, loss * self.weights[0])
        losses.index_fill_(0, assigned.ignored, 0)
        if slopes is not None:
            slope *= -self.weights[0] * headroom(slopes.dtype)
            slopes.flatten().index_copy_(0, own, slope.to(slopes.dtype))
            slopes.index_fill_(0, assigned.ignored, 0)
        return losses.view(logits.shape[:2])

    def _write_negatives(self, logits: Tensor, losses: Tensor, gradient: Tensor | None) -> None:
        loss, slope = self.term(at_least_float32(logits))
        losses.copy_(loss.sum(dim=1) * self.weights[1])
        if gradient is not None:
            gradient.copy_(slope * (self.weights[1] * headroom(gradient.dtype)))


class _ImageSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, assigned: Assigned, loss: SparseLoss) -> Tensor:
        # Now, while each chunk is at hand; later it would be computed a second time.
        ctx.gradient = _buffer_like(logits) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(logits)
        ctx.assigned, ctx.loss = assigned, loss
        return loss.compute(logits, assigned, ctx.gradient).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        """Scale the gradient where it lies; another backward pass finds it gone, and makes it."""
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            (logits,) = ctx.saved_tensors
            gradient = _buffer_like(logits)
            ctx.loss.compute(logits, ctx.assigned, gradient)
        rows = gradient.flatten(0, 1)
        # Not a single number, which would be rounded to a half type before it is multiplied with.
        factors = (outer / headroom(rows.dtype))[:, None].expand(gradient.shape[:2]).reshape(-1, 1)
        for chunk in chunks(rows):
            rows[chunk].mul_(factors[chunk])
        return gradient, None, None


def _buffer_like(logits: Tensor) -> Tensor:
    """Return what a gradient is written to: contiguous, so that its rows are views."""
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def chunks(rows: Tensor, count: int | None = None) -> Iterator[slice]:
    """Yield slices of rows (N, K), few enough at a time for the device's cache.

    Args:
        rows: (N, K).
        count: How many rows of this kind to cut into slices; None is N.
    """
    count = len(rows) if count is None else count
    size = max(1, _CHUNK.get(rows.device.type, _LARGE_CHUNK) // max(1, rows.shape[1]))
    yield from (slice(start, start + size) for start in range(0, count, size))


def headroom(dtype: torch.dtype) -> float:
    """Return the factor by which a gradient that is kept in a type is larger than it is."""
    return _HEADROOM.get(dtype, 1.0)
