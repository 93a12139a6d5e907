"""Augmentation of pixels: an adapter for any list of albumentations transforms.

Images are (H, W, 3) uint8 RGB, boxes (G, 4) float32 xyxy px. Every transform gets boxes and rows.
The rows show which boxes are left, so that labels cannot get out of step.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from random import Random
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from retinanet.data.image_views import Boxes
from retinanet.data.presets import Preset
from retinanet.errors import UserError, nearest

Image = NDArray[np.uint8]


class Augment:
    """Augments the pixels and boxes of one image; randomness comes only from the generator."""

    def __init__(
        self, *, preset: Preset, hflip: float, transforms: Sequence[dict[str, dict[str, Any]]]
    ) -> None:
        """Build the pipelines.

        Args:
            preset: Augmentations in addition to the flip and the list.
            hflip: Probability of a horizontal flip.
            transforms: Transforms of albumentations as `{name: arguments}`, in order.

        Raises:
            UserError: A transform or an argument is unknown.
        """
        self.preset = preset
        self.hflip = hflip
        self._pipeline = build_pipeline(transforms) if transforms else None
        self._colours = build_pipeline(preset.colours) if preset.colours else None

    @property
    def needs_full_size(self) -> bool:
        """Whether there is a user's list, whose transforms need the image at full size."""
        return self._pipeline is not None

    def transform(
        self, image: Image, boxes: Boxes, random: np.random.Generator
    ) -> tuple[Image, Boxes, NDArray[np.int64]]:
        """Apply the user's list; return the image, the boxes left and their rows in `boxes`."""
        if self._pipeline is None:
            return image, boxes, np.arange(len(boxes))
        return _apply(self._pipeline, image, boxes, random)

    def recolour(self, image: Image, random: np.random.Generator) -> Image:
        """Apply the colours and blur of a preset, which leave boxes where they are."""
        if self._colours is None:
            return image
        return _apply(self._colours, image, np.zeros((0, 4), np.float32), random)[0]


def _apply(
    pipeline: A.Compose, image: Image, boxes: Boxes, random: np.random.Generator
) -> tuple[Image, Boxes, NDArray[np.int64]]:
    # albumentations repeats itself in loader processes unless each sample is seeded, and its
    # own set_random_seed gives all transforms one seed: they would happen together or not.
    twister = Random(int(random.integers(2**31)))  # noqa: S311
    pipeline.set_random_state(random, twister)
    try:
        result = pipeline(image=image, bboxes=boxes, rows=np.arange(len(boxes)))
    except Exception as error:  # a crop larger than the image, say; every error has its own type
        raise UserError(f"data.augment: {error}") from error
    _check_image(result["image"])
    left = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
    return result["image"], left, np.asarray(result["rows"], dtype=np.int64).reshape(-1)


def _check_image(image: Any) -> None:
    """Refuse an image that later steps would misread."""
    shape, kind = tuple(image.shape), str(image.dtype)
    if kind != "uint8" or len(shape) != 3 or shape[2] != 3:
        raise UserError(
            f"data.augment: returns an image of type {kind} and shape {shape}; it must stay "
            "(H, W, 3) uint8, because the model normalises it"
        )


def build_pipeline(transforms: Sequence[dict[str, dict[str, Any]]]) -> A.Compose:
    """Build an albumentations pipeline from names and arguments.

    Raises:
        UserError: A transform or an argument is unknown; the message gives its place in the list.
    """
    parts = [_build_transform(entry, f"data.augment.{i}") for i, entry in enumerate(transforms)]
    boxes = A.BboxParams(
        format="pascal_voc",
        label_fields=["rows"],
        clip=True,
        filter_invalid_bboxes=True,
        min_area=1,
        min_visibility=0.1,
    )
    try:
        with warnings.catch_warnings():
            # albumentations warns if no transform changes the boxes.
            warnings.filterwarnings("ignore", "Got processor for bboxes")
            return A.Compose(parts, bbox_params=boxes, strict=True)
    except ValueError as error:
        raise UserError(f"data.augment: {error}") from None


def _build_transform(entry: Any, place: str) -> Any:
    """Build one transform, and the `transforms` in its arguments (of OneOf, say)."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError(f"{place}: {entry!r:.80} is not of the form {{Name: {{argument: value}}}}")
    ((name, arguments),) = entry.items()
    kinds = (A.BasicTransform, A.BaseCompose)
    kind = getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        names = [key for key, v in vars(A).items() if isinstance(v, type) and issubclass(v, kinds)]
        raise UserError(f"{place}: albumentations has no {name!r}{nearest(name, names)}")
    arguments = dict(arguments or {})
    try:
        if "transforms" in arguments:
            inner = enumerate(arguments["transforms"])
            arguments["transforms"] = [
                _build_transform(part, f"{place}.{name}.{i}") for i, part in inner
            ]
        built = kind(**arguments)
        A.Compose([built], strict=True)  # a misspelt argument only warns otherwise
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300] or "not a transform that can be built"
        raise UserError(f"{place}: {name}: {reason}") from None
    return built
