"""A batch: images on one canvas, and the targets of their anchors.

B images of a batch, H x W canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retinanet.positives import Assigned
from retinanet.structures import Target


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images on one canvas, each in its top left corner, and their targets."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB, padded with 0; channels_last in memory."""
    sizes: Tensor
    """(B, 2) int64: height and width of each resized image inside the canvas."""
    original_sizes: Tensor
    """(B, 2) int64: height and width of each image in its file."""
    image_ids: Tensor
    """(B,) int64: ids in the annotation file, or BLANK."""
    targets: list[Target]
    """Targets of each image; always on the host, for messages and pictures."""
    assigned: Assigned
    """Positive and ignored anchors, from which the losses are computed."""

    def to(self, device: torch.device) -> Batch:
        """Copy the tensors of the computation to a device, without waiting if memory is pinned."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            original_sizes=self.original_sizes.to(device, non_blocking=True),
            assigned=self.assigned.to(device),
        )

    def pin_memory(self) -> Batch:
        """Copy what goes to a device into page-locked memory (called by torch's loader)."""
        return replace(
            self,
            images=self.images.pin_memory(),
            sizes=self.sizes.pin_memory(),
            original_sizes=self.original_sizes.pin_memory(),
            assigned=self.assigned.pin_memory(),
        )

    def image(self, i: int) -> Batch:
        """Return a batch of only image i, as a view."""
        one = slice(i, i + 1)
        return Batch(
            images=self.images[one],
            sizes=self.sizes[one],
            original_sizes=self.original_sizes[one],
            image_ids=self.image_ids[one],
            targets=self.targets[one],
            assigned=self.assigned.image(i),
        )
