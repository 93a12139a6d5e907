"""Collate loaded images into one batch on one canvas.

B images, A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.batch import Batch
from retinanet.data.canvas import Size
from retinanet.data.image_views import resize_onto_canvas
from retinanet.positives import find_assigned
from retinanet.structures import BLANK, IGNORED, Target

Match = Callable[[Size, Target], Tensor]
"""(canvas, target) -> the match (A,) int32 of each anchor; see `assign.max_iou`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedImage:
    """One decoded, augmented image; it is resized when it is placed on the canvas."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    size: Size
    """Height and width on the canvas, px."""
    original_size: Size
    image_id: int
    target: Target


def empty_target() -> Target:
    """Return the target of an image without boxes: shapes (0, 4), (0,), (0,)."""
    return Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=torch.zeros(0, dtype=torch.bool),
    )


def blank_image() -> LoadedImage:
    """Return the replacement for an image that cannot be read; collate ignores its anchors."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    return LoadedImage(
        pixels=pixels, size=(1, 1), original_size=(1, 1), image_id=BLANK, target=empty_target()
    )


def collate(images: Sequence[LoadedImage], canvas: Size, match: Match | None) -> Batch:
    """Place images in the top left corners of a canvas (height, width) and assign anchors."""
    # Height, width, channels: the layout of decoded images, and the fastest for convolutions.
    pixels = torch.empty(len(images), *canvas, 3, dtype=torch.uint8)
    for canvas_pixels, image in zip(pixels.numpy(), images, strict=True):
        resize_onto_canvas(image.pixels, image.size, canvas_pixels)
    matches = torch.zeros(len(images), 0, dtype=torch.int32)
    if match is not None:
        matches = torch.stack([match(canvas, image.target) for image in images])  # (B, A)
        blank = torch.tensor([image.image_id == BLANK for image in images])
        matches[blank] = IGNORED
    targets = [image.target for image in images]
    return Batch(
        images=pixels.permute(0, 3, 1, 2),
        sizes=torch.tensor([image.size for image in images]),
        original_sizes=torch.tensor([image.original_size for image in images]),
        image_ids=torch.tensor([image.image_id for image in images]),
        targets=targets,
        assigned=find_assigned(targets, matches),
    )
