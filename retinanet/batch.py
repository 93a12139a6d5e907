"""A batch: images on one canvas, and what their anchors learn.

B images of a batch, H x W canvas, A anchors of a canvas, G ground truths of an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from retinanet.positives import Assigned, join_targets
from retinanet.structures import Target


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
        boxes, labels, crowd = join_targets(self.targets)
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
