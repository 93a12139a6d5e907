"""The augmentation presets: what each does in addition to the horizontal flip, and its geometry.

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
"""Share of each side that a crop of `strong` keeps."""
_CENTRE, _ZOOM = (0.3, 0.7), (0.5, 1.5)
"""Where the four images of a mosaic meet, and their scales (at 1 the whole image fits)."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The settings of one `data.preset`."""

    percents: tuple[int, ...] = ()
    """Short sides to draw from, in % of the configured one (if there is only one)."""
    jitters: bool = False
    """Whether an image is shown at a random scale, and cropped if it is too large."""
    crops: bool = False
    """Whether a random part of an image is shown that does not cut any box."""
    colours: Sequence[dict[str, dict[str, Any]]] = ()
    """Transforms of albumentations that do not move boxes."""
    partners: int = 0
    """Number of images that are added to the canvas of another one."""
    makes_canvas: bool = False
    """Whether every image is shown on a canvas of the same size."""

    def view(
        self, random: np.random.Generator, size: Size, boxes: Boxes, whole: ImageView, canvas: Size
    ) -> ImageView:
        """Return the view of an image; `whole` is the view of the complete image."""
        if self.jitters:
            return jitter(random, size, canvas)
        return safe_crop(random, size, boxes, whole) if self.crops else whole

    def short_sides(self, given: tuple[int, ...]) -> tuple[int, ...]:
        """Return the short sides (px) that training draws from."""
        if self.percents and len(given) == 1:
            return tuple(round(given[0] * percent / 100) for percent in self.percents)
        return given

    def canvas(self, short_sides: tuple[int, ...], given: Size | None) -> Size | None:
        """Return the canvas that the preset uses for every image, or None."""
        if not self.makes_canvas:
            return None
        side = max(short_sides)
        return given or round_up((side, side))


def jitter(random: np.random.Generator, size: Size, canvas: Size) -> ImageView:
    """Return a view at 0.1 to 2 times the scale that fits; it is cropped if too large."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1]) * random.uniform(*_JITTER)
    return _random_view(random, size, scale, canvas)


def safe_crop(random: np.random.Generator, size: Size, boxes: Boxes, view: ImageView) -> ImageView:
    """Return a view of a part of the image, with its aspect ratio, that cuts no box (G, 4)."""
    share = random.uniform(*_CROP)
    least = np.array([size[1], size[0]], np.float64)  # top left corner of all boxes, x and y
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
    """Return a view at a scale and a random place; its resized size is at most `limit`."""
    after = [max(1, min(most, round(side * scale))) for side, most in zip(size, limit, strict=True)]
    # A side that fits is seen completely, although its resized size is rounded to whole px.
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
