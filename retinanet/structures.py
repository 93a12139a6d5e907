"""Types that all packages share.

B images of a batch, H x W canvas, A anchors of a canvas, K classes, G ground truths of an image,
P positive anchors of a batch, D detections of an image. Boxes are continuous (no +1) float32 xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BACKGROUND = -1
"""Match of an anchor that is a negative."""
IGNORED = -2
"""Match of an anchor that the losses ignore."""
BLANK = -1
"""Image id of a blank image that only fills up a batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GridLevel:
    """Anchors of one level: the same n at each cell of a regular grid, row by row.

    The centre of a cell is ((row + offset) * step_y, (column + offset) * step_x).
    """

    cell: Tensor
    """(n, 4) float32 px: anchors of a cell centred on the origin."""
    rows: int
    columns: int
    step_y: int
    """Vertical stride, px."""
    step_x: int
    """Horizontal stride, px."""
    offset: float
    """Position of the first centre, in cells."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Ground truth of one image, in pixels of the resized image."""

    boxes: Tensor
    """(G, 4) float32 xyxy."""
    labels: Tensor
    """(G,) int64, 0..K-1."""
    crowd: Tensor
    """(G,) bool: whether a box is a region to ignore, never a positive."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Outputs of the network for a batch, by level (P3 to P7), row, column, anchor of the cell."""

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

    def numpy(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Return boxes, scores and labels as arrays; they must be on the host."""
        return self.boxes.numpy(), self.scores.numpy(), self.labels.numpy()


def on_host(batch: Sequence[Detections]) -> list[Detections]:
    """Copy the detections of a batch to the host: all at once, because each copy waits."""
    counts = [len(found.scores) for found in batch]
    boxes, scores, labels = (
        torch.cat([getattr(found, name) for found in batch]).cpu().split(counts)
        for name in ("boxes", "scores", "labels")
    )
    return [
        Detections(boxes=own, scores=score, labels=label)
        for own, score, label in zip(boxes, scores, labels, strict=True)
    ]
