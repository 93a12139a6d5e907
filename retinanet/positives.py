"""The anchors of a batch that are no negatives: how many they are, and what they learn.

B images of a batch, A anchors of a canvas, P positive anchors of a batch, I ignored ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retinanet.structures import IGNORED, Target


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """The anchors of a batch that are no negatives, image by image, and what they learn.

    They are few, and looked up on the host. A device that searched for them would keep the host
    waiting, because their number is the shape of what follows.
    """

    places: Tensor
    """(P,) int64, ascending: of each positive among the B * A anchors of the batch."""
    labels: Tensor
    """(P,) int64, 0..K-1."""
    boxes: Tensor
    """(P, 4) float32 xyxy."""
    counts: list[int]
    """(B,) positives of each image; their sum is P."""
    ignored: Tensor
    """(I,) int64, ascending: of each ignored anchor among the B * A anchors."""
    ignored_counts: list[int]
    """(B,) ignored anchors of each image; their sum is I."""

    def to(self, device: torch.device) -> Assigned:
        """Copy to a device."""
        return self._map_tensors(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Assigned:
        """Copy into page-locked memory (called by torch's loader)."""
        return self._map_tensors(lambda values: values.pin_memory())

    def image(self, i: int, anchors: int) -> Assigned:
        """Return what concerns image i alone, as a view; each image has `anchors` anchors."""
        of, without = _nth_slice(self.counts, i), _nth_slice(self.ignored_counts, i)
        return Assigned(
            places=self.places[of] - i * anchors,
            labels=self.labels[of],
            boxes=self.boxes[of],
            counts=[self.counts[i]],
            ignored=self.ignored[without] - i * anchors,
            ignored_counts=[self.ignored_counts[i]],
        )

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> Assigned:
        return replace(
            self,
            places=change(self.places),
            labels=change(self.labels),
            boxes=change(self.boxes),
            ignored=change(self.ignored),
        )


def _nth_slice(counts: Sequence[int], i: int) -> slice:
    """Return where the i-th part lies among parts of so many, one after another."""
    first = sum(counts[:i])
    return slice(first, first + counts[i])


def find_assigned(targets: Sequence[Target], matches: Tensor) -> Assigned:
    """Look up what the anchors of `matches` (B, A) learn, on the host."""
    images, anchors = torch.nonzero(matches >= 0, as_tuple=True)  # (P,) each
    first = torch.tensor([0, *(len(target.labels) for target in targets)]).cumsum(0)
    rows = first[images] + matches[images, anchors]  # of all targets, one after another
    boxes, labels, _ = join_targets(targets)
    ignored = matches == IGNORED
    return Assigned(
        places=images * matches.shape[1] + anchors,
        labels=labels[rows],
        boxes=boxes[rows],
        counts=torch.bincount(images, minlength=len(matches)).tolist(),
        ignored=torch.nonzero(ignored.flatten()).flatten(),
        ignored_counts=ignored.sum(dim=1).tolist(),
    )


def join_targets(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, labels and crowd of targets, one after another; there may be no target."""
    if not targets:  # there is no cat of nothing
        labels = torch.zeros(0, dtype=torch.int64)
        return torch.zeros(0, 4), labels, labels.bool()
    return (
        torch.cat([target.boxes for target in targets]),
        torch.cat([target.labels for target in targets]),
        torch.cat([target.crowd for target in targets]),
    )
