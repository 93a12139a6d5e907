"""Augmentation: horizontal flips, and any list of albumentations behind one adapter.

Images are (H, W, 3) uint8 RGB, boxes (G, 4) float32 xyxy px. Every transform gets boxes and rows;
rows say which boxes are left, so labels cannot fall out of step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from retinanet.errors import UserError, nearest

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]


class Augment:
    """Augments one image; the result is a function of its arguments and the seed alone."""

    def __init__(self, *, hflip: float, transforms: Sequence[dict[str, dict[str, Any]]]) -> None:
        """Build the pipeline.

        Args:
            hflip: probability of a horizontal flip.
            transforms: `{name: arguments}` of albumentations, in order.

        Raises:
            UserError: an unknown transform or argument.
        """
        self._hflip = hflip
        self._pipeline = build_pipeline(transforms) if transforms else None

    def __call__(
        self, image: Image, boxes: Boxes, seed: tuple[int, ...]
    ) -> tuple[Image, Boxes, NDArray[np.int64]]:
        """Return the image, the boxes left and their rows in `boxes`."""
        random = np.random.default_rng(seed)
        flip = random.random() < self._hflip
        if flip:
            image, boxes = flip_horizontally(image, boxes)
        rows = np.arange(len(boxes))
        if self._pipeline is None:
            return image, boxes, rows
        # albumentations repeats itself in loader processes unless each sample is seeded.
        self._pipeline.set_random_seed(int(random.integers(2**31)))
        result = self._pipeline(image=image, bboxes=boxes, rows=rows)
        left = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        kept = np.asarray(result["rows"], dtype=np.int64).reshape(-1)
        return result["image"], left, kept


def flip_horizontally(image: Image, boxes: Boxes) -> tuple[Image, Boxes]:
    """Mirror an image and its boxes."""
    flipped = boxes.copy()
    flipped[:, 0] = image.shape[1] - boxes[:, 2]
    flipped[:, 2] = image.shape[1] - boxes[:, 0]
    return np.ascontiguousarray(image[:, ::-1]), flipped


def build_pipeline(transforms: Sequence[dict[str, dict[str, Any]]]) -> A.Compose:
    """Build an albumentations pipeline from names and arguments.

    Raises:
        UserError: an unknown transform or argument, with the place in `data.augment`.
    """
    parts = [_build(entry, f"data.augment.{i}") for i, entry in enumerate(transforms)]
    try:
        return A.Compose(
            parts,
            bbox_params=A.BboxParams(
                format="pascal_voc",
                label_fields=["rows"],
                clip=True,
                filter_invalid_bboxes=True,
                min_area=1,
                min_visibility=0.1,
            ),
            strict=True,
        )
    except ValueError as error:
        raise UserError(f"data.augment: {error}") from None


def _build(entry: Any, place: str) -> Any:
    """Build one transform; `transforms` inside its arguments (of OneOf, say) are built too."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError(f"{place}: {entry!r:.80} is not of the form {{Name: {{argument: value}}}}")
    ((name, arguments),) = entry.items()
    kinds = (A.BasicTransform, A.BaseCompose)
    kind = getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        names = [key for key, v in vars(A).items() if isinstance(v, type) and issubclass(v, kinds)]
        raise UserError(f"{place}: albumentations has no {name!r}{nearest(name, names)}")
    arguments = dict(arguments or {})
    if "transforms" in arguments:
        inner = enumerate(arguments["transforms"])
        arguments["transforms"] = [_build(part, f"{place}.{name}.{i}") for i, part in inner]
    try:
        built = kind(**arguments)
        A.Compose([built], strict=True)  # a misspelt argument only warns otherwise
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: {name}: {' '.join(str(error).split())[:300]}") from None
    return built
