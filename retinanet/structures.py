"""The types that all folders share: what they hand each other.

B images of a batch, H x W canvas, A anchors of a canvas, K classes, G ground truths of an image,
P positive anchors of a batch, D detections of an image. Boxes are continuous (no +1) float32 xyxy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
    """Place of the first centre, in cells."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Ground truth of one image, in pixels of the resized image."""

    boxes: Tensor
    """(G, 4) float32 xyxy."""
    labels: Tensor
    """(G,) int64, 0..K-1."""
    crowd: Tensor
    """(G,) bool: a region to ignore, never a positive."""


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
    boxes, labels, _ = _join_targets(targets)
    ignored = matches == IGNORED
    return Assigned(
        places=images * matches.shape[1] + anchors,
        labels=labels[rows],
        boxes=boxes[rows],
        counts=torch.bincount(images, minlength=len(matches)).tolist(),
        ignored=torch.nonzero(ignored.flatten()).flatten(),
        ignored_counts=ignored.sum(dim=1).tolist(),
    )


def _join_targets(targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, labels and crowd of targets, one after another; there may be no target."""
    if not targets:  # there is no cat of nothing
        labels = torch.zeros(0, dtype=torch.int64)
        return torch.zeros(0, 4), labels, labels.bool()
    return (
        torch.cat([target.boxes for target in targets]),
        torch.cat([target.labels for target in targets]),
        torch.cat([target.crowd for target in targets]),
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
    """Targets of each image; always on the host, for messages and pictures."""
    matches: Tensor
    """(B, A) int32: index into the image's targets, or BACKGROUND, or IGNORED; on the host, too."""
    assigned: Assigned
    """The same as lists, from which the losses are computed."""

    def __getstate__(self) -> dict[str, Any]:
        """Join all small tensors for the way from a loader process.

        There each tensor takes a file descriptor, of which a process has a thousand or so.
        """
        found = self.assigned
        boxes, labels, crowd = _join_targets(self.targets)
        small = [self.sizes, self.original_sizes, self.image_ids, found.places, found.labels]
        small += [found.ignored, labels, found.boxes, boxes, crowd]
        return {
            "images": self.images,
            "matches": self.matches,
            "small": _pack(small),
            "counts": (
                [len(target.labels) for target in self.targets],
                found.counts,
                found.ignored_counts,
            ),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        sizes, original_sizes, image_ids, *rest = _unpack(*state["small"])
        places, positive_labels, ignored, labels, positive_boxes, boxes, crowd = rest
        of_targets, of_positives, of_ignored = state["counts"]
        parts = zip(*(values.split(of_targets) for values in (boxes, labels, crowd)), strict=True)
        targets = [Target(boxes=b, labels=k, crowd=c) for b, k, c in parts] if of_targets else []
        vars(self).update(
            images=state["images"],
            sizes=sizes,
            original_sizes=original_sizes,
            image_ids=image_ids,
            targets=targets,
            matches=state["matches"],
            assigned=Assigned(
                places=places,
                labels=positive_labels,
                boxes=positive_boxes,
                counts=of_positives,
                ignored=ignored,
                ignored_counts=of_ignored,
            ),
        )

    def to(self, device: torch.device) -> Batch:
        """Copy what computes to a device, without waiting for it where the memory is pinned."""
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
        """Return the batch of image i alone, as a view, wherever it lies."""
        one = slice(i, i + 1)
        return Batch(
            images=self.images[one],
            sizes=self.sizes[one],
            original_sizes=self.original_sizes[one],
            image_ids=self.image_ids[one],
            targets=self.targets[one],
            matches=self.matches[one],
            assigned=self.assigned.image(i, self.matches.shape[1]),
        )


def _pack(tensors: list[Tensor]) -> tuple[Tensor, list[tuple[torch.dtype, torch.Size]]]:
    """Lay tensors one after another, as bytes; wide types come first, so that each is aligned.

    Returns:
        The bytes, and the type and the shape of each tensor.
    """
    data = torch.cat([values.flatten().view(torch.uint8) for values in tensors])
    return data, [(values.dtype, values.shape) for values in tensors]


def _unpack(data: Tensor, kinds: list[tuple[torch.dtype, torch.Size]]) -> list[Tensor]:
    """Return the tensors that `_pack` laid out, as views."""
    parts = data.split([shape.numel() * dtype.itemsize for dtype, shape in kinds])
    return [part.view(kind).view(shape) for part, (kind, shape) in zip(parts, kinds, strict=True)]


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

    def numpy(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Return boxes, scores and labels as arrays; they lie on the host."""
        return self.boxes.numpy(), self.scores.numpy(), self.labels.numpy()
