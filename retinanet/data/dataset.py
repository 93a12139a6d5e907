"""A sample's name -> its pixels and boxes.

Images are (H, W, 3) uint8 RGB until they are collated; boxes (G, 4) float32 xyxy px. B images,
A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.data.annotations import Annotations
from retinanet.data.augment import Augment
from retinanet.data.boxes_used import cut_boxes
from retinanet.data.canvas import Size, resized
from retinanet.data.images import UnreadableImageError, read_image
from retinanet.data.sampler import Plan, Sample
from retinanet.structures import BLANK, IGNORED, Batch, Target

Match = Callable[[Size, Target], Tensor]
"""(canvas, target) -> the match (A,) int32 of each anchor; see `losses.assign`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedImage:
    """One decoded, augmented, resized image."""

    pixels: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    original_size: Size
    image_id: int
    target: Target


def resize_image(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize to (height, width), bilinear; from half the size down by area, against aliasing."""
    if image.shape[:2] == size:
        return image
    shrink = size[0] * 2 < image.shape[0]
    mode = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    resized_image = cv2.resize(image, (size[1], size[0]), interpolation=mode)
    return resized_image.astype(np.uint8, copy=False)


class DetectionDataset(torch.utils.data.Dataset):
    """Turns plans into batches: decode, augment, resize, pad, assign."""

    def __init__(
        self,
        annotations: Annotations,
        *,
        images: Path,
        min_box_side: float,
        long_side: int,
        augment: Augment | None,
        match: Match | None,
    ) -> None:
        """Describe a split.

        Args:
            annotations: its index.
            images: folder that file_name starts from.
            min_box_side: original px; boxes with a shorter side are left out.
            long_side: px, limit of the longer side.
            augment: None for evaluation.
            match: assigns anchors; None where no losses are wanted.
        """
        self.annotations = annotations
        self._images = images
        self._min_box_side = min_box_side
        self._long_side = long_side
        self._augment = augment
        self._match = match

    def __getitem__(self, plan: Plan) -> tuple[Batch, list[str]]:
        """Return the batch of a plan, and a message for each unreadable image.

        Such an image, and an empty plan, become a blank that takes no part in the losses.
        """
        loaded, bad = [], []
        for sample in plan.samples:
            try:
                loaded.append(self.load(sample, plan.canvas))
            except UnreadableImageError as error:
                bad.append(str(error))
                loaded.append(_blank())
        return collate(loaded or [_blank()], plan.canvas, self._match), bad

    def load(self, sample: Sample, canvas: Size) -> LoadedImage:
        """Decode, augment and resize one image so that it fits on the canvas.

        Raises:
            UnreadableImageError: see `read_image`.
        """
        row = sample.row
        height, width = (int(side) for side in self.annotations.sizes[row])
        pixels = read_image(self._images / self.annotations.file_names[row], (height, width))
        cut = cut_boxes(self.annotations, row, row + 1, min_box_side=self._min_box_side)
        places = self.annotations.offsets[row] + np.flatnonzero(cut.keep)
        boxes = cut.xyxy[cut.keep]
        if self._augment is not None and sample.seed is not None:
            pixels, boxes, kept = self._augment(pixels, boxes, sample.seed)
            places = places[kept]
        pixels, boxes = self._fit(pixels, boxes, sample.short_side, canvas)
        target = Target(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(self.annotations.labels[places].astype(np.int64)),
            crowd=torch.from_numpy(self.annotations.crowd[places]),
        )
        return LoadedImage(
            pixels=pixels,
            original_size=(height, width),
            image_id=int(self.annotations.image_ids[row]),
            target=target,
        )

    def _fit(
        self, pixels: NDArray[np.uint8], boxes: NDArray[np.float32], short_side: int, canvas: Size
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Resize image and boxes; a crop of another shape than its image stays on the canvas."""
        before = (pixels.shape[0], pixels.shape[1])
        after = resized(before, short_side=short_side, long_side=self._long_side)
        if after[0] > canvas[0] or after[1] > canvas[1]:
            scale = min(canvas[0] / after[0], canvas[1] / after[1])
            after = (max(1, int(after[0] * scale)), max(1, int(after[1] * scale)))
        factor = np.array([after[1] / before[1], after[0] / before[0]] * 2, np.float32)
        return resize_image(pixels, after), (boxes * factor).astype(np.float32).reshape(-1, 4)


def empty_target() -> Target:
    """Return the target of an image without boxes: shapes (0, 4), (0,), (0,)."""
    return Target(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=torch.zeros(0, dtype=torch.bool),
    )


def _blank() -> LoadedImage:
    """Return what stands in for an image that cannot be had; collate ignores its anchors."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    return LoadedImage(pixels=pixels, original_size=(1, 1), image_id=BLANK, target=empty_target())


def collate(images: Sequence[LoadedImage], canvas: Size, match: Match | None) -> Batch:
    """Lay images in the top left corners of one canvas (height, width) and assign anchors."""
    pixels = torch.zeros(len(images), 3, *canvas, dtype=torch.uint8)
    for place, image in zip(pixels, images, strict=True):
        height, width = image.pixels.shape[:2]
        place[:, :height, :width] = torch.from_numpy(image.pixels).permute(2, 0, 1)
    matches = torch.zeros(len(images), 0, dtype=torch.int32)
    if match is not None:
        matches = torch.stack([match(canvas, image.target) for image in images])  # (B, A)
        blank = torch.tensor([image.image_id == BLANK for image in images])
        matches[blank] = IGNORED
    return Batch(
        images=pixels,
        sizes=torch.tensor([image.pixels.shape[:2] for image in images]),
        original_sizes=torch.tensor([image.original_size for image in images]),
        image_ids=torch.tensor([image.image_id for image in images]),
        targets=[image.target for image in images],
        matches=matches,
    )
