"""The words that every room shares.

B images of a batch, H x W canvas, A anchors of a canvas, K classes, G ground truths of an image,
D detections of an image. Boxes are continuous (no +1) float32 xyxy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

BACKGROUND = -1
"""Match of an anchor that is a negative."""
IGNORED = -2
"""Match of an anchor that takes no part in the losses."""
BLANK = -1
"""Image id of a blank image that only fills a place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GridLevel:
    """How the anchors of one level repeat: the same n at each cell of a regular grid, row by row.

    The centre of a cell is ((row + offset) * step_y, (column + offset) * step_x).
    """

    cell: Tensor
    """(n, 4) float32 px: the anchors of a cell centred on the origin."""
    rows: int
    columns: int
    step_y: int
    """px"""
    step_x: int
    """px"""
    offset: float
    """In cells."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Ground truth of one image, in pixels of the resized image."""

    boxes: Tensor
    """(G, 4) float32 xyxy."""
    labels: Tensor
    """(G,) int64, 0..K-1."""
    crowd: Tensor
    """(G,) bool: a region to ignore, never a positive."""

    def to(self, device: torch.device) -> Target:
        """Copy to a device."""
        return Target(
            boxes=self.boxes.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            crowd=self.crowd.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Target:
        """Copy into page-locked memory (called by torch's loader)."""
        return Target(
            boxes=self.boxes.pin_memory(),
            labels=self.labels.pin_memory(),
            crowd=self.crowd.pin_memory(),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images on one canvas, each in its top left corner, and their targets."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB, padded with 0; in memory the channels of a pixel lie together."""
    sizes: Tensor
    """(B, 2) int64: height and width of each resized image inside the canvas."""
    original_sizes: Tensor
    """(B, 2) int64: height and width in the file."""
    image_ids: Tensor
    """(B,) int64: the ids of the annotation file, or BLANK."""
    targets: list[Target]
    matches: Tensor
    """(B, A) int32: index into the image's targets, or BACKGROUND, or IGNORED."""

    def __getstate__(self) -> dict[str, Any]:
        """Join the targets for the way from a loader process.

        There each tensor takes a file descriptor, of which a process has a thousand or so.
        """
        counts = [len(target.labels) for target in self.targets]
        joined = [
            torch.cat([getattr(target, name) for target in self.targets])
            for name in ("boxes", "labels", "crowd")
            if counts  # there is no cat of nothing
        ]
        return {**vars(self), "targets": (joined, counts)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        joined, counts = state["targets"]
        parts = zip(*(values.split(counts) for values in joined), strict=True)
        targets = [Target(boxes=b, labels=labels, crowd=crowd) for b, labels, crowd in parts]
        vars(self).update({**state, "targets": targets})

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting for it where the memory is pinned."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            original_sizes=self.original_sizes.to(device, non_blocking=True),
            targets=[target.to(device) for target in self.targets],
            matches=self.matches.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Copy into page-locked memory (called by torch's loader)."""
        return replace(
            self,
            images=self.images.pin_memory(),
            sizes=self.sizes.pin_memory(),
            original_sizes=self.original_sizes.pin_memory(),
            targets=[target.pin_memory() for target in self.targets],
            matches=self.matches.pin_memory(),
        )


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the network says of a batch, levels P3..P7, then rows, columns, anchors of a cell."""

    logits: Tensor
    """(B, A, K)."""
    deltas: Tensor
    """(B, A, 4): dx, dy, dw, dh relative to the anchors."""
    anchors: Tensor
    """(A, 4) xyxy, canvas pixels."""
    anchors_per_level: list[int]
    """Five numbers that sum to A."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections of one image, highest score first."""

    boxes: Tensor
    """(D, 4) float32 xyxy, pixels of the original image."""
    scores: Tensor
    """(D,) float32, 0..1."""
    labels: Tensor
    """(D,) int64, 0..K-1."""

    def above(self, threshold: float) -> Detections:
        """Return the detections with a score of at least `threshold`."""
        keep = self.scores >= threshold
        return Detections(
            boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep]
        )

    def cpu(self) -> Detections:
        """Copy to the host."""
        return Detections(
            boxes=self.boxes.cpu(), scores=self.scores.cpu(), labels=self.labels.cpu()
        )
