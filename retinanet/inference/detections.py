"""What a detector found in one image: with names, ready to print, draw, save and pass on."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat, overload

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import Categories, shown_name
from retinanet.drawing import (
    JPEG_SIDE,
    DrawingError,
    Image,
    draw_boxes,
    enlarge,
    fit,
    write_image,
)
from retinanet.errors import ArgumentError, UserError, missing_attribute, plural
from retinanet.evaluation.results import Result, to_results
from retinanet.files import replacing, write_error
from retinanet.inference.pixels import describe, expanded, is_url, path_of, read_pixels
from retinanet.structures import Detections

if TYPE_CHECKING:
    from retinanet.inference.pixels import ImageInput

_SAVED_AS = (".jpg", ".jpeg", ".png", ".json")
_PICTURE_SIDE = 400
"""px: smaller images are enlarged, or labels would cover their objects."""
_SHOWN = 5
"""Detections in the text of a result."""


class Detection(NamedTuple):
    """One detected object."""

    name: str
    """Name of the class."""
    score: float
    """0 to 1."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the image."""
    label: int
    """Index of the class, 0..K-1."""


if not TYPE_CHECKING:  # a type checker still refuses wrong names
    Detection.__getattr__ = missing_attribute


class ImageDetections:
    """The detections of one image, highest score first; D of them, K classes.

    Attributes:
        boxes: (D, 4) float32, x1, y1, x2, y2 in pixels of the image.
        scores: (D,) float32, 0 to 1.
        labels: (D,) int64, 0..K-1.
        categories: Ids and names of the K classes.
        image_size: Height and width of the image in pixels.
        path: Path of the image, if it was given as one.

    Example:
        for d in detector("photo.jpg"):
            print(d.name, d.score, d.box)
    """

    def __init__(
        self,
        *,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        labels: NDArray[np.int64],
        categories: Categories,
        image_size: tuple[int, int],
        path: Path | None,
    ) -> None:
        self.boxes = boxes
        self.scores = scores
        self.labels = labels
        self.categories = categories
        self.image_size = image_size
        self.path = path

    if not TYPE_CHECKING:  # a type checker still refuses wrong names
        __getattr__ = missing_attribute

    @classmethod
    def from_tensors(
        cls,
        found: Detections,
        *,
        categories: Categories,
        image_size: tuple[int, int],
        path: Path | None,
    ) -> ImageDetections:
        """Build the result from the plain tensors of the network's output, on the CPU."""
        boxes, scores, labels = found.numpy()
        return cls(
            boxes=boxes,
            scores=scores,
            labels=labels,
            categories=categories,
            image_size=image_size,
            path=path,
        )

    @property
    def names(self) -> list[str]:
        """Class names of the D detections."""
        return [self.categories.names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(
        self, index: slice | list[int] | list[bool] | NDArray[Any]
    ) -> ImageDetections: ...

    def __getitem__(self, index: Any) -> Detection | ImageDetections:
        """Return one detection, or those that a slice, a mask or a list of indices selects."""
        if isinstance(index, slice):
            return self._select(index)
        if isinstance(index, list) or (isinstance(index, np.ndarray) and index.ndim):
            chosen = np.asarray(index)
            if chosen.shape == (0,) and chosen.dtype != np.bool_:
                chosen = chosen.astype(np.int64)  # NumPy takes an empty list for floats
            if chosen.ndim != 1 or chosen.dtype.kind not in "biu":
                raise IndexError(
                    "detections are selected by a list of booleans or indices, not by "
                    f"{describe(chosen)}"
                )
            return self._select(chosen)
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"detection {place} of {len(self)}")
        x1, y1, x2, y2 = self.boxes[place].tolist()
        label = int(self.labels[place])
        name = self.categories.names[label]
        return Detection(name, float(self.scores[place]), (x1, y1, x2, y2), label)

    def __repr__(self) -> str:
        first = ", ".join(f"{shown_name(d.name)} {d.score:.2f}" for d in self[:_SHOWN])
        more = ", ..." if len(self) > _SHOWN else ""
        height, width = self.image_size
        place = f"{self.path}, " if self.path else ""
        found = f": {first}{more}" if first else ""
        return f"<{plural(len(self), 'detection')} in {place}{width}x{height} px{found}>"

    def above(self, threshold: SupportsFloat) -> ImageDetections:
        """Return the detections with a score of at least `threshold`.

        Raises:
            ArgumentError: The threshold is not from 0 to 1.
        """
        return self._select(self.scores >= check_threshold(threshold))

    def to_coco(self, image_id: int = 1) -> list[Result]:
        """Return the detections in COCO's results format.

        Args:
            image_id: Id of the image in the annotation file.

        Raises:
            TypeError: The id is not an integer.
        """
        return to_results(
            self.boxes,
            self.scores,
            self.labels,
            image_id=operator.index(image_id),
            category_ids=self.categories.ids,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values that JSON can hold: path, height, width, detections."""
        height, width = self.image_size
        found = [
            {
                "name": d.name,
                "category_id": self.categories.ids[d.label],
                "score": d.score,
                "box": list(d.box),
            }
            for d in self
        ]
        path = None if self.path is None else str(self.path)
        return {"path": path, "height": height, "width": width, "detections": found}

    def to_supervision(self) -> Any:
        """Return the detections as `supervision.Detections`.

        Raises:
            ImportError: The package `supervision` is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise ImportError(
                "to_supervision() needs the package supervision: pip install supervision"
            ) from None
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def draw(self, image: ImageInput | None = None) -> Image:
        """Return the image with boxes, class names and scores drawn on it, (H, W, 3) uint8 RGB.

        Args:
            image: The image, as the detector takes it. None reads the file again, if the image was
                given as a path.

        Raises:
            ArgumentError: No image is given and none is known, or it has another size.
            TypeError, UserError: See `read_pixels`.
        """
        return self._draw(self._pixels(image))

    def save(self, path: str | Path, image: ImageInput | None = None) -> None:
        """Save a picture (`.jpg`, `.png`), or the detections as JSON (`.json`, see `to_dict`).

        In a picture, small images are enlarged so that labels fit.

        Args:
            path: File to write. Its folder is made if it does not exist.
            image: The image, for a picture; see `draw`.

        Raises:
            ArgumentError: Another suffix, the image itself as `path`, or see `draw`.
            TypeError, UserError: See `read_pixels`; or the file cannot be written.
            TrainingError: The disk is full.
        """
        path = expanded(path)
        if is_url(str(path)):
            raise ArgumentError(f"{path}: nothing is written to the network. Pass a file")
        suffix = path.suffix.lower()
        if suffix not in _SAVED_AS:
            raise ArgumentError(f"{path}: the suffix must be one of {', '.join(_SAVED_AS)}")
        for source in (self.path, None if image is None else path_of(image)):
            if source is not None and _is_same_file(path, source):
                raise ArgumentError(f"{path}: is the image itself. Choose another path")
        if suffix == ".json":
            text = json.dumps(self.to_dict(), indent=1) + "\n"
            pixels = None
        else:
            pixels = self.picture(self._pixels(image))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if pixels is not None:
                write_image(path, pixels)
            else:
                with replacing(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        except DrawingError as error:
            raise UserError(str(error)) from None
        except OSError as error:
            raise write_error(path, error) from None
        except ValueError as error:  # a NUL in the name
            raise ArgumentError(f"{str(path)!r}: cannot be written: {error}") from None

    def picture(self, pixels: Image) -> Image:
        """Return a picture to look at: `draw` on an image enlarged or shrunk so that it is legible.

        Args:
            pixels: (H, W, 3) uint8 RGB of the image.
        """
        drawn, _ = enlarge(fit(pixels, JPEG_SIDE), _PICTURE_SIDE)
        return self._draw(drawn)

    def _pixels(self, image: ImageInput | None) -> Image:
        source = self.path if image is None else image
        if source is None:
            raise ArgumentError(
                "The detections came without a path. Pass the image, too: draw(image) or "
                "save(path, image)"
            )
        pixels = read_pixels(source)
        if pixels.shape[:2] != self.image_size:
            height, width = self.image_size
            raise ArgumentError(
                f"The image has {pixels.shape[1]}x{pixels.shape[0]} px, but the detections are of "
                f"an image of {width}x{height} px"
            )
        return pixels

    def _draw(self, pixels: Image) -> Image:
        """Draw on an image of any size, to which the boxes are scaled."""
        down, across = (pixels.shape[axis] / self.image_size[axis] for axis in (0, 1))
        boxes = self.boxes * np.array([across, down, across, down], np.float32)
        return draw_boxes(pixels, boxes, self.labels, self.categories.names, self.scores)

    def _select(self, chosen: Any) -> ImageDetections:
        return ImageDetections(
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            categories=self.categories,
            image_size=self.image_size,
            path=self.path,
        )


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, also by links."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them does not exist
        return False


def check_threshold(threshold: SupportsFloat) -> float:
    """Return a score threshold.

    Raises:
        ArgumentError: It is not from 0 to 1.
        TypeError: It is not a number.
    """
    value: Any = threshold
    if getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise TypeError(f"threshold must be a number from 0 to 1, not {threshold!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except ValueError:  # Decimal("sNaN")
        number = math.nan
    if not 0 <= number <= 1:
        raise ArgumentError(f"threshold must be from 0 to 1, not {number:.10g}")
    return number
