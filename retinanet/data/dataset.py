"""A sample's name -> its pixels and boxes.

Images are (H, W, 3) uint8 RGB until they are collated; boxes (G, 4) float32 xyxy px. B images,
A anchors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.data.augment import Augment
from retinanet.data.boxes_used import cut_boxes
from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.collate import LoadedImage, Match, blank_image, collate
from retinanet.data.images.reading import UnreadableImageError
from retinanet.data.presets import fill, quadrants
from retinanet.data.sampler import Plan, Sample
from retinanet.data.views import Boxes, View, cut_out, resize_image, whole
from retinanet.structures import Batch, Target

Read = Callable[..., NDArray[np.uint8]]
"""(path, size, reduction) -> the pixels (H, W, 3) of a file; see `read_image`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A picture, or a part of one, and its boxes."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, not resized yet."""
    size: Size
    """Height and width of the picture, px."""
    boxes: Boxes
    """(G, 4) xyxy px of the picture."""
    places: NDArray[np.int64]
    """(G,) rows of the annotation index."""


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
        read: Read,
    ) -> None:
        """Describe a split.

        Args:
            annotations: its index.
            images: folder that file_name starts from.
            min_box_side: original px; boxes with a shorter side are left out.
            long_side: px, limit of the longer side.
            augment: None for evaluation.
            match: assigns anchors; None where no losses are wanted.
            read: (path, size, reduction) -> pixels; see `read_image`.
        """
        self.annotations = annotations
        self._images = images
        self._min_box_side = min_box_side
        self._long_side = long_side
        self._augment = augment
        self._match = match
        self._read = read

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
                loaded.append(blank_image())
        return collate(loaded or [blank_image()], plan.canvas, self._match), bad

    def load(self, sample: Sample, canvas: Size) -> LoadedImage:
        """Decode, augment and resize one image so that it fits on the canvas.

        Raises:
            UnreadableImageError: see `read_image`.
        """
        if self._augment is None or sample.seed is None:
            part = self._part(sample.row, lambda size, boxes: self._whole(size, sample, canvas))
        else:
            part = self._augmented(self._augment, sample, canvas)
        height, width = (int(side) for side in self.annotations.sizes[sample.row])
        target = Target(
            boxes=torch.from_numpy(part.boxes),
            labels=torch.from_numpy(self.annotations.labels[part.places].astype(np.int64)),
            crowd=torch.from_numpy(self.annotations.crowd[part.places]),
        )
        return LoadedImage(
            pixels=part.pixels,
            size=part.size,
            original_size=(height, width),
            image_id=int(self.annotations.image_ids[sample.row]),
            target=target,
        )

    def _whole(self, size: Size, sample: Sample, canvas: Size) -> View:
        return whole(size, short_side=sample.short_side, long_side=self._long_side, canvas=canvas)

    def _augmented(self, augment: Augment, sample: Sample, canvas: Size) -> _Part:
        """Draw a sample as its preset says: the user's list, the view, colours, the flip."""
        assert sample.seed is not None
        random = np.random.default_rng(sample.seed)
        flip = random.random() < augment.hflip

        def view(size: Size, boxes: Boxes) -> View:
            seen = self._whole(size, sample, canvas)
            return augment.preset.view(random, size, boxes, seen, canvas)

        if sample.partners:
            part = self._mosaic(random, sample, canvas)
        else:
            part = self._part(sample.row, view, random)
        part = replace(part, pixels=augment.recolour(part.pixels, random))
        return _flipped(part) if flip else part

    def _mosaic(self, random: np.random.Generator, sample: Sample, canvas: Size) -> _Part:
        """Join an image and its three partners on one canvas."""
        picture = np.zeros((*canvas, 3), np.uint8)
        boxes, places = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
        rows = (sample.row, *sample.partners)
        for row, (x1, y1, x2, y2) in zip(rows, quadrants(random, canvas), strict=True):
            view = partial(_fill, random, (y2 - y1, x2 - x1), canvas)
            part = self._part(row, view, random)
            picture[y1:y2, x1:x2] = resize_image(part.pixels, part.size)
            boxes.append(part.boxes + np.array([x1, y1, x1, y1], np.float32))
            places.append(part.places)
        return _Part(
            pixels=picture,
            size=canvas,
            boxes=np.concatenate(boxes),
            places=np.concatenate(places),
        )

    def _part(
        self,
        row: int,
        choose: Callable[[Size, Boxes], View],
        random: np.random.Generator | None = None,
    ) -> _Part:
        """Read one image and cut a view out of it.

        Args:
            row: of the image.
            choose: the view, from size and boxes.
            random: None does not augment.
        """
        height, width = (int(side) for side in self.annotations.sizes[row])
        path = self._images / self.annotations.file_names[row]
        cut = cut_boxes(self.annotations, row, row + 1, min_box_side=self._min_box_side)
        places = self.annotations.offsets[row] + np.flatnonzero(cut.keep)
        boxes = cut.xyxy[cut.keep]
        if random is None or self._augment is None or self._augment.needs_full_size:
            pixels = self._read(path, (height, width))
            if random is not None and self._augment is not None:
                pixels, boxes, kept = self._augment.transform(pixels, boxes, random)
                places = places[kept]
            view = choose((pixels.shape[0], pixels.shape[1]), boxes)
        else:
            view = choose((height, width), boxes)
            pixels = self._read(path, (height, width), reduction=view.reduction)
            if pixels.shape[:2] != (height, width):
                view, boxes = view.reduced(), boxes / np.float32(view.reduction)
        pixels, boxes, kept = cut_out(pixels, boxes, self.annotations.crowd[places], view)
        return _Part(pixels=pixels, size=view.size, boxes=boxes, places=places[kept])


def _flipped(part: _Part) -> _Part:
    """Mirror a picture and its boxes."""
    boxes = part.boxes.copy()
    boxes[:, 0] = part.size[1] - part.boxes[:, 2]
    boxes[:, 2] = part.size[1] - part.boxes[:, 0]
    pixels = cv2.flip(part.pixels, 1).astype(np.uint8, copy=False)
    return replace(part, pixels=pixels, boxes=boxes)


def _fill(random: np.random.Generator, part: Size, canvas: Size, size: Size, boxes: Boxes) -> View:
    del boxes
    return fill(random, size, part, canvas)
