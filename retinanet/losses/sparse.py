"""The class loss of a batch and its gradient, from the few anchors that are not negatives.

Nearly all terms belong to negatives, whose loss depends only on the logit. They are computed chunk
by chunk, in one pass that writes the gradient into a single large buffer. Then the terms of
positives are inserted, and those of ignored anchors set to 0. `scripts/plain_losses.py` is a simple
version of the same loss.

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

_CHUNK = 2**16
"""Logits per chunk on a CPU: this many stay in a core's cache."""
_LARGE_CHUNK = 2**24
"""Logits per chunk on other devices: few kernels, and 64 MB of memory per intermediate."""
_ALIGN = 64
"""On other devices, chunks start at a multiple of this many bytes, so that kernels load vectors.

Not on a CPU, which loads vectors from anywhere. There the end of a chunk is computed without them,
and may differ in the last bit: other chunks would give other bits.
"""
_HEADROOM = {torch.float16: 2.0**13}
"""Factor of the gradient in the buffer: gradients of easy negatives are too small for float16."""

Negatives = Callable[[Tensor, Tensor, Tensor | None], None]
"""Logits (n, K) of negatives, and outputs: losses (n,) before α; gradients (n, K) unless None."""


class SparseLoss:
    """Logits and the assignment of their anchors -> the class loss of each image."""

    def __init__(self, term: Term, weights: tuple[float, float], *, compiled: bool) -> None:
        """Set up the loss.

        Args:
            term: Loss of one logit.
            weights: Weights of positives and of negatives.
            compiled: Whether to compile the pass over the negatives (needs a compiler).
        """
        self.term = term
        self.weights = weights
        self._compiled = compiled
        self._negatives: Negatives = self._write_negatives
        if compiled:
            self._negatives = torch.compile(self._write_negatives, dynamic=True)

    def __call__(self, logits: Tensor, assigned: Assigned) -> Tensor:
        """Return the sums (B,) over the anchors of each image, float32 at least.

        Args:
            logits: (B, A, K).
            assigned: Positives with their labels, and ignored anchors, which have no loss.
        """
        if not torch.is_grad_enabled():  # a Function does not see this, and would make a gradient
            logits = logits.detach()
        return _ImageSums.apply(logits, assigned, self)

    def of_anchors(self, logits: Tensor, assigned: Assigned) -> Tensor:
        """Return the loss (B, A) of each anchor, without a gradient."""
        with torch.no_grad():
            return self.compute(logits, assigned, None)

    def compute(self, logits: Tensor, assigned: Assigned, gradient: Tensor | None) -> Tensor:
        """Return the loss (B, A) of each anchor; write the gradient (B, A, K) times its headroom.

        The gradient may have a half type; it is rounded once here.
        """
        # `data`: logits are changed and restored, but autograd would see them as modified.
        rows = logits.data.flatten(0, 1).contiguous()  # (B * A, K)
        slopes = None if gradient is None else gradient.flatten(0, 1)
        losses = torch.empty(
            len(rows), dtype=at_least_float32(logits[:0]).dtype, device=rows.device
        )
        own = assigned.places * rows.shape[1] + assigned.labels  # (P,) among all logits
        positives = rows.flatten()[own]
        try:
            # Mask the positives: at -inf the loss of a negative is exactly 0, and so is its slope.
            rows.flatten().index_fill_(0, own, -math.inf)
            # Compiled for a GPU it is one kernel, without intermediates. For a CPU it stores two,
            # which stay in the cache chunk by chunk.
            is_one_kernel = self._compiled and rows.device.type != "cpu"
            for chunk in [slice(None)] if is_one_kernel else chunks(rows):
                chunk_slopes = None if slopes is None else slopes[chunk]
                self._negatives(rows[chunk], losses[chunk], chunk_slopes)
        finally:
            rows.flatten().index_copy_(0, own, positives)
        losses *= self.weights[1]
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
        torch.sum(loss, dim=1, out=losses)
        if gradient is not None:
            torch.mul(slope, self.weights[1] * headroom(gradient.dtype), out=gradient)


class _ImageSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, assigned: Assigned, loss: SparseLoss) -> Tensor:
        # Compute it now, while each chunk is in the cache; later it would be computed again.
        ctx.gradient = _buffer_like(logits) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(logits)
        ctx.assigned, ctx.loss = assigned, loss
        return loss.compute(logits, assigned, ctx.gradient).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        """Scale the gradient in place; a second backward pass has to compute it again."""
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            (logits,) = ctx.saved_tensors
            gradient = _buffer_like(logits)
            ctx.loss.compute(logits, ctx.assigned, gradient)
        rows = gradient.flatten(0, 1)
        # A tensor, not a number: a number would be rounded to a half type before multiplying.
        factors = (outer / headroom(rows.dtype))[:, None].expand(gradient.shape[:2]).reshape(-1, 1)
        # A CPU multiplies half types in a float32 copy of the chunk; other devices make no copy.
        for chunk in chunks(rows) if rows.device.type == "cpu" else [slice(None)]:
            rows[chunk].mul_(factors[chunk])
        return gradient, None, None


def _buffer_like(logits: Tensor) -> Tensor:
    """Return a buffer for the gradient: contiguous, so that its rows are views."""
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def chunks(rows: Tensor, count: int | None = None) -> Iterator[slice]:
    """Yield slices of rows (N, K), each small enough for the device's cache or memory.

    Args:
        rows: (N, K).
        count: Number of rows to cut into slices; None is N.
    """
    count = len(rows) if count is None else count
    if rows.device.type == "cpu":
        size = max(1, _CHUNK // max(1, rows.shape[1]))
    else:
        step = _ALIGN // math.gcd(_ALIGN, rows.shape[1] * rows.element_size())
        size = max(1, _LARGE_CHUNK // max(1, rows.shape[1]) // step) * step
    yield from (slice(start, start + size) for start in range(0, count, size))


def headroom(dtype: torch.dtype) -> float:
    """Return the factor by which the stored gradient is larger than the true one."""
    return _HEADROOM.get(dtype, 1.0)
