"""Turn the plan of a sample into pixels and boxes.

Images are (H, W, 3) uint8 RGB until they are collated, boxes (G, 4) float32 xyxy px. B images,
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

from retinanet.batch import Batch
from retinanet.data.augment import Augment
from retinanet.data.boxes_used import cut_boxes
from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.collate import LoadedImage, Match, blank_image, collate
from retinanet.data.image_views import Boxes, ImageView, crop_to_view, resize_image, whole_view
from retinanet.data.images.reading import UnreadableImageError
from retinanet.data.presets import mosaic_view, quadrants
from retinanet.data.sampler import Plan, Sample
from retinanet.structures import Target

Read = Callable[..., NDArray[np.uint8]]
"""(path, size, reduction) -> pixels (H, W, 3) of a file; see `read_image`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _CroppedImage:
    """An image, a part of one, or a mosaic of four, with its boxes."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, before resizing."""
    size: Size
    """Height and width after resizing, px."""
    boxes: Boxes
    """(G, 4) xyxy px of the resized image."""
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
            annotations: Index of the split.
            images: Folder that file_name starts from.
            min_box_side: Boxes with a shorter side (original px) are left out.
            long_side: Limit of the longer side, px.
            augment: Augmentation; None for evaluation.
            match: Assigns anchors; None if no losses are computed.
            read: Reads an image: (path, size, reduction) -> pixels; see `read_image`.
        """
        self.annotations = annotations
        self._images = images
        self._min_box_side = min_box_side
        self._long_side = long_side
        self._augment = augment
        self._match = match
        self._read = read

    def __getitem__(self, plan: Plan) -> tuple[Batch, list[str]]:
        """Return the batch of a plan and a message for each unreadable image.

        An unreadable image or an empty plan becomes a blank image that is not part of the losses.
        """
        loaded, unreadable = [], []
        for sample in plan.samples:
            try:
                loaded.append(self.load(sample, plan.canvas))
            except UnreadableImageError as error:
                unreadable.append(str(error))
                loaded.append(blank_image())
        return collate(loaded or [blank_image()], plan.canvas, self._match), unreadable

    def load(self, sample: Sample, canvas: Size) -> LoadedImage:
        """Decode, augment and resize one image so that it fits on the canvas.

        Raises:
            UnreadableImageError: See `read_image`.
        """
        if self._augment is None or sample.seed is None:
            cropped = self._load_cropped(
                sample.row, lambda size, boxes: self._whole_view(size, sample, canvas)
            )
        else:
            cropped = self._load_augmented(self._augment, sample, canvas)
        height, width = (int(side) for side in self.annotations.sizes[sample.row])
        target = Target(
            boxes=torch.from_numpy(cropped.boxes),
            labels=torch.from_numpy(self.annotations.labels[cropped.places].astype(np.int64)),
            crowd=torch.from_numpy(self.annotations.crowd[cropped.places]),
        )
        return LoadedImage(
            pixels=cropped.pixels,
            size=cropped.size,
            original_size=(height, width),
            image_id=int(self.annotations.image_ids[sample.row]),
            target=target,
        )

    def _whole_view(self, size: Size, sample: Sample, canvas: Size) -> ImageView:
        return whole_view(
            size, short_side=sample.short_side, long_side=self._long_side, canvas=canvas
        )

    def _load_augmented(self, augment: Augment, sample: Sample, canvas: Size) -> _CroppedImage:
        """Load a sample and augment it: the user's list, the view, colours, the flip."""
        assert sample.seed is not None
        random = np.random.default_rng(sample.seed)
        flip = random.random() < augment.hflip

        def draw_view(size: Size, boxes: Boxes) -> ImageView:
            all_of_it = self._whole_view(size, sample, canvas)
            return augment.preset.view(random, size, boxes, all_of_it, canvas)

        if sample.partners:
            cropped = self._load_mosaic(random, sample, canvas)
        else:
            cropped = self._load_cropped(sample.row, draw_view, random)
        cropped = replace(cropped, pixels=augment.recolour(cropped.pixels, random))
        return _flipped(cropped) if flip else cropped

    def _load_mosaic(
        self, random: np.random.Generator, sample: Sample, canvas: Size
    ) -> _CroppedImage:
        """Join an image and its three partners on one canvas."""
        pixels = np.zeros((*canvas, 3), np.uint8)
        boxes, places = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
        rows = (sample.row, *sample.partners)
        for row, (x1, y1, x2, y2) in zip(rows, quadrants(random, canvas), strict=True):
            draw_view = partial(_mosaic_view, random, (y2 - y1, x2 - x1), canvas)
            cropped = self._load_cropped(row, draw_view, random)
            pixels[y1:y2, x1:x2] = resize_image(cropped.pixels, cropped.size)
            boxes.append(cropped.boxes + np.array([x1, y1, x1, y1], np.float32))
            places.append(cropped.places)
        return _CroppedImage(
            pixels=pixels,
            size=canvas,
            boxes=np.concatenate(boxes),
            places=np.concatenate(places),
        )

    def _load_cropped(
        self,
        row: int,
        choose_view: Callable[[Size, Boxes], ImageView],
        random: np.random.Generator | None = None,
    ) -> _CroppedImage:
        """Read one image and cut a view out of it.

        Args:
            row: Row of the image in the index.
            choose_view: Chooses the view: (size, boxes) of the image -> view.
            random: Random generator; None does not augment.
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
            view = choose_view((pixels.shape[0], pixels.shape[1]), boxes)
        else:
            view = choose_view((height, width), boxes)
            pixels = self._read(path, (height, width), reduction=view.reduction)
            if pixels.shape[:2] != (height, width):
                view, boxes = view.reduced(), boxes / np.float32(view.reduction)
        pixels, boxes, kept = crop_to_view(pixels, boxes, self.annotations.crowd[places], view)
        return _CroppedImage(pixels=pixels, size=view.size, boxes=boxes, places=places[kept])


def _flipped(cropped: _CroppedImage) -> _CroppedImage:
    """Mirror an image and its boxes from left to right."""
    boxes = cropped.boxes.copy()
    boxes[:, 0] = cropped.size[1] - cropped.boxes[:, 2]
    boxes[:, 2] = cropped.size[1] - cropped.boxes[:, 0]
    pixels = cv2.flip(cropped.pixels, 1).astype(np.uint8, copy=False)
    return replace(cropped, pixels=pixels, boxes=boxes)


def _mosaic_view(
    random: np.random.Generator, part: Size, canvas: Size, size: Size, boxes: Boxes
) -> ImageView:
    """Call `mosaic_view` with the arguments in another order, for `partial`."""
    del boxes
    return mosaic_view(random, size, part, canvas)
