"""The positive and ignored anchors of a batch: their places, labels and boxes.

B images of a batch, A anchors of a canvas, P positive and I ignored anchors of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retinanet.structures import BACKGROUND, IGNORED, Target


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """The positive and ignored anchors of a batch, image by image, and their targets.

    They are few, and are found on the host. If a device searched for them, the host would have to
    wait, because their number decides the shape of later tensors.
    """

    places: Tensor
    """(P,) int64, ascending: index of each positive among the B * A anchors of the batch."""
    labels: Tensor
    """(P,) int64, 0..K-1."""
    boxes: Tensor
    """(P, 4) float32 xyxy."""
    counts: list[int]
    """(B,) number of positives of each image; their sum is P."""
    rows: Tensor
    """(P,) int64: index of each positive's box in its image's targets; always on the host."""
    ignored: Tensor
    """(I,) int64, ascending: index of each ignored anchor among the B * A anchors."""
    ignored_counts: list[int]
    """(B,) number of ignored anchors of each image; their sum is I."""
    anchors: int
    """A: number of anchors of each image."""

    def to(self, device: torch.device) -> Assigned:
        """Copy the tensors of the computation to a device."""
        return self._map_tensors(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Assigned:
        """Copy into page-locked memory (called by torch's loader)."""
        return self._map_tensors(lambda values: values.pin_memory())

    def image(self, i: int) -> Assigned:
        """Return the part of image i, as a view."""
        of, without = _nth_slice(self.counts, i), _nth_slice(self.ignored_counts, i)
        return Assigned(
            places=self.places[of] - i * self.anchors,
            labels=self.labels[of],
            boxes=self.boxes[of],
            rows=self.rows[of],
            counts=[self.counts[i]],
            ignored=self.ignored[without] - i * self.anchors,
            ignored_counts=[self.ignored_counts[i]],
            anchors=self.anchors,
        )

    def matches(self) -> Tensor:
        """Return what each anchor was assigned to, on the host, as `find_assigned` received it.

        Returns:
            (B, A) int32: index into the image's targets, BACKGROUND or IGNORED.
        """
        images = len(self.counts)
        matches = torch.full((images * self.anchors,), BACKGROUND, dtype=torch.int32)
        matches[self.places.cpu()] = self.rows.to(torch.int32)
        matches[self.ignored.cpu()] = IGNORED
        return matches.view(images, self.anchors)

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> Assigned:
        return replace(
            self,
            places=change(self.places),
            labels=change(self.labels),
            boxes=change(self.boxes),
            ignored=change(self.ignored),
        )


def _nth_slice(counts: Sequence[int], i: int) -> slice:
    """Return the slice of the i-th part, where `counts` are the lengths of consecutive parts."""
    first = sum(counts[:i])
    return slice(first, first + counts[i])


def find_assigned(targets: Sequence[Target], matches: Tensor) -> Assigned:
    """Find the positive and ignored anchors in `matches` (B, A), on the host."""
    images, anchors = torch.nonzero(matches >= 0, as_tuple=True)  # (P,) each
    first = torch.tensor([0, *(len(target.labels) for target in targets)]).cumsum(0)
    rows = matches[images, anchors].long()
    joined = first[images] + rows  # in the concatenated targets
    boxes, labels, _ = join_targets(targets)
    ignored = matches == IGNORED
    return Assigned(
        places=images * matches.shape[1] + anchors,
        labels=labels[joined],
        boxes=boxes[joined],
        rows=rows,
        counts=torch.bincount(images, minlength=len(matches)).tolist(),
        ignored=torch.nonzero(ignored.flatten()).flatten(),
        ignored_counts=ignored.sum(dim=1).tolist(),
        anchors=matches.shape[1],
    )


def join_targets(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the concatenated boxes, labels and crowd of targets; there may be no target."""
    if not targets:  # torch.cat refuses an empty list
        labels = torch.zeros(0, dtype=torch.int64)
        return torch.zeros(0, 4), labels, labels.bool()
    return (
        torch.cat([target.boxes for target in targets]),
        torch.cat([target.labels for target in targets]),
        torch.cat([target.crowd for target in targets]),
    )
