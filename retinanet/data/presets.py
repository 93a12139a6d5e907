"""The presets of augmentation: what each does beside the horizontal flip, and its geometry.

Pure functions of (random generator, size, boxes). Sizes are (height, width) px, windows and boxes
xyxy px of the image, G boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinanet.data.canvas import Size, round_up
from retinanet.data.image_views import Boxes, ImageView

_JITTER = (0.1, 2.0)
"""Scales of large-scale jitter (Ghiasi et al., *Simple Copy-Paste*, section 3)."""
_CROP = (0.5, 1.0)
"""Share of the sides that a crop of `strong` leaves."""
_CENTRE, _ZOOM = (0.3, 0.7), (0.5, 1.5)
"""Where the four images of a mosaic meet, and their scales: 1 fits the whole image."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What one `data.preset` does."""

    percents: tuple[int, ...] = ()
    """Short sides to draw from, in % of the only one that is given."""
    jitters: bool = False
    """Whether an image is shown at a random scale, cropped where it is too large."""
    crops: bool = False
    """Whether a random part of an image is shown, which cuts no box."""
    colours: Sequence[dict[str, dict[str, Any]]] = ()
    """Transforms of albumentations that leave boxes where they are."""
    partners: int = 0
    """Images that join another one on its canvas."""
    makes_canvas: bool = False
    """Whether every image is shown on a canvas of one size."""

    def view(
        self, random: np.random.Generator, size: Size, boxes: Boxes, whole: ImageView, canvas: Size
    ) -> ImageView:
        """Return what is seen of an image; `whole` is the view of all of it."""
        if self.jitters:
            return jitter(random, size, canvas)
        return safe_crop(random, size, boxes, whole) if self.crops else whole

    def short_sides(self, given: tuple[int, ...]) -> tuple[int, ...]:
        """Return the short sides (px) that training draws from."""
        if self.percents and len(given) == 1:
            return tuple(round(given[0] * percent / 100) for percent in self.percents)
        return given

    def canvas(self, short_sides: tuple[int, ...], given: Size | None) -> Size | None:
        """Return the canvas that the preset makes of every image, if it makes one."""
        if not self.makes_canvas:
            return None
        side = max(short_sides)
        return given or round_up((side, side))


def jitter(random: np.random.Generator, size: Size, canvas: Size) -> ImageView:
    """Return a view at a scale between 0.1 and 2 of what fits; what is too large is cropped."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1]) * random.uniform(*_JITTER)
    return _random_view(random, size, scale, canvas)


def safe_crop(random: np.random.Generator, size: Size, boxes: Boxes, view: ImageView) -> ImageView:
    """Return a view of a part of the image, of its own shape, that cuts no box (G, 4)."""
    share = random.uniform(*_CROP)
    least = np.array([size[1], size[0]], np.float64)  # of the boxes' common corners, x and y
    most = np.zeros(2)
    if len(boxes):
        least, most = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    limit = np.array([size[1], size[0]], np.float64)
    share = min(1.0, max(share, *((most - least) / limit)))
    side = limit * share
    low = np.maximum(0, most - side)
    high = np.minimum(limit - side, least)
    corner = low + random.random(2) * np.maximum(0, high - low)
    window = (*corner.tolist(), *(corner + side).tolist())
    return ImageView(window=window, size=view.size)


def quadrants(random: np.random.Generator, canvas: Size) -> list[tuple[int, int, int, int]]:
    """Return the four parts (xyxy px) of a mosaic's canvas."""
    height, width = canvas
    y, x = (int(side * random.uniform(*_CENTRE)) for side in canvas)
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]


def mosaic_view(random: np.random.Generator, size: Size, part: Size, canvas: Size) -> ImageView:
    """Return a view that fills a part of a mosaic."""
    fits = min(canvas[0] / size[0], canvas[1] / size[1])
    covers = max(part[0] / size[0], part[1] / size[1])
    return _random_view(random, size, max(covers, fits * random.uniform(*_ZOOM)), part)


def _random_view(random: np.random.Generator, size: Size, scale: float, limit: Size) -> ImageView:
    """Return a view at a scale, at a random place; once resized it is no larger than `limit`."""
    after = [max(1, min(most, round(side * scale))) for side, most in zip(size, limit, strict=True)]
    # A side that fits is seen to its end, though its size after is rounded to whole px.
    height, width = (min(side, most / scale) for side, most in zip(size, limit, strict=True))
    y, x = random.random(2) * (size[0] - height, size[1] - width)
    return ImageView(window=(x, y, x + width, y + height), size=(after[0], after[1]))


PRESETS = {
    "flip": Preset(),
    "multiscale": Preset(percents=(80, 84, 88, 92, 96, 100)),
    "large_scale_jitter": Preset(jitters=True, makes_canvas=True),
    "strong": Preset(
        crops=True,
        colours=(
            {
                "RandomBrightnessContrast": {
                    "brightness_limit": 0.3,
                    "contrast_limit": 0.3,
                    "p": 0.8,
                }
            },
            {"HueSaturationValue": {"p": 0.5}},
            {"ToGray": {"p": 0.05}},
            {"GaussianBlur": {"blur_limit": [3, 7], "p": 0.1}},
        ),
    ),
    "mosaic": Preset(partners=3, makes_canvas=True),
}
"""The presets by their names in `data.preset`."""
