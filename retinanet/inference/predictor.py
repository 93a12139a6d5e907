"""Detect objects in images, with nothing but a checkpoint.

Images are (H, W, 3) uint8 RGB; boxes come back in original pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.categories import Categories
from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import inference_config, restore_detector
from retinanet.data.canvas import Size, evaluation_canvas, resized
from retinanet.data.collate import LoadedImage, collate, empty_target
from retinanet.distributed.device import choose_device
from retinanet.distributed.precision import Precision, autocast, inference_precision, numerics
from retinanet.errors import UserError, missing_attribute
from retinanet.inference.detections import ImageDetections, check_threshold
from retinanet.inference.pixels import expanded, path_of, read_pixels
from retinanet.model.detector import Detector
from retinanet.model.postprocess import Postprocess, build_postprocess
from retinanet.schema import Config
from retinanet.structures import Detections, on_host

if TYPE_CHECKING:
    from retinanet.inference.pixels import ImageInput

T = TypeVar("T")
OneImage = TypeVar("OneImage", bound="ImageInput")
"""To a type checker, `list[Path]` is not a `list[ImageInput]`: lists are invariant."""
_Read = tuple[NDArray[np.uint8], Path | None]
"""Pixels of an image, and its path if it has one."""
PIXELS_AT_ONCE = 100_000_000
"""Pixels that are held at once, of several images (300 MB)."""
_SHOWN_SCORE = 0.3
"""Default lowest score. Less certain detections matter only for the curves of an evaluation."""


def load(
    path: str | Path,
    device: str | int | torch.device = "auto",
    overrides: Sequence[str] = (),
) -> Predictor:
    """Load a detector from a checkpoint: network, classes and preprocessing come from the file.

    Args:
        path: Path of the checkpoint, such as `runs/first/checkpoints/best.pt`.
        device: "auto" (the fastest, or `train.device` of `overrides`), "cpu", "cuda", "cuda:1" (or
            1), or "mps".
        overrides: Options on top of the checkpoint's, such as
            `["postprocess.class_agnostic_nms=true"]`.

    Raises:
        UserError: Not a checkpoint of this project, a missing device, or a wrong option.
        TypeError: `overrides` is not a list of strings.
    """
    if isinstance(overrides, str):
        raise TypeError(f"overrides must be a list of strings: [{overrides!r}]")
    words = list(overrides) if isinstance(overrides, Iterable) else [overrides]
    if isinstance(overrides, Mapping) or not all(isinstance(word, str) for word in words):
        raise TypeError(
            "overrides must be a list of strings, such as "
            f"['postprocess.max_detections=50'], not {overrides!r}"
        )
    checkpoint = load_checkpoint(expanded(path))
    config = inference_config(checkpoint, words)
    place = choose_device(config.train.device if device == "auto" else device)
    precision = inference_precision(config.train.precision, place)
    return Predictor(
        restore_detector(checkpoint, place, precision),
        config,
        checkpoint.categories,
        device=place,
        precision=precision,
        threshold=_default_threshold(config, words),
    )


def _default_threshold(config: Config, overrides: Sequence[str]) -> float:
    own = config.postprocess.score_threshold
    is_asked = any(text.startswith("postprocess.score_threshold") for text in overrides)
    return own if is_asked else max(_SHOWN_SCORE, own)


class Predictor:
    """A detector that is ready to use; `load` makes one.

    Attributes:
        config: The checkpoint's options.
        categories: Ids and names of the classes.
        device: Device of the network.
        precision: Numeric precision of the network, such as "bf16".
        threshold: Lowest score by default.

    Example:
        detector = retinanet.load("runs/first/checkpoints/best.pt")
        for d in detector("photo.jpg", threshold=0.5):
            print(d.name, d.score, d.box)
    """

    def __init__(
        self,
        model: Detector,
        config: Config,
        categories: Categories,
        *,
        device: torch.device,
        precision: Precision,
        threshold: float,
    ) -> None:
        self.config = config
        self.categories = categories
        self.device = device
        self.threshold = threshold
        self._model = model
        self.precision = precision
        self._side = config.data.evaluation_short_side

    if not TYPE_CHECKING:  # a type checker still refuses wrong names
        __getattr__ = missing_attribute

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.categories.names

    def __repr__(self) -> str:
        backbone, classes = self.config.model.backbone, len(self.names)
        return f"<RetinaNet {backbone}, {classes} classes, on {self.device}>"

    @overload
    def __call__(
        self, images: ImageInput, threshold: SupportsFloat | None = None
    ) -> ImageDetections: ...

    @overload
    def __call__(
        self,
        images: list[OneImage],
        threshold: SupportsFloat | None = None,
    ) -> list[ImageDetections]: ...

    @overload
    def __call__(
        self,
        images: list[ImageInput] | tuple[ImageInput, ...],
        threshold: SupportsFloat | None = None,
    ) -> list[ImageDetections]: ...

    @overload
    def __call__(
        self, images: Iterator[ImageInput], threshold: SupportsFloat | None = None
    ) -> Iterator[ImageDetections]: ...

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput] | Iterator[ImageInput],
        threshold: SupportsFloat | None = None,
    ) -> ImageDetections | list[ImageDetections] | Iterator[ImageDetections]:
        """Detect objects in an image, in a list of images, or in a stream of them.

        Args:
            images: One image in any form that `read_pixels` takes, a list or tuple of images, or
                an iterator of them. An iterator is read `eval.batch_size` images ahead.
            threshold: Lowest score, 0 to 1. None: 0.3, or the checkpoint's own
                `postprocess.score_threshold` where that is higher or was set in `load`.

        Returns:
            The detections of one image; of a list, a list; of an iterator, an iterator in the same
            order, which holds one batch of images at a time.

        Raises:
            TypeError: Not an image, or a threshold that is not a number.
            ArgumentError: A threshold that is not from 0 to 1, a URL, or a folder.
            UserError: A file that is missing or cannot be decoded.
        """
        lowest = self.threshold if threshold is None else check_threshold(threshold)
        batch = self.config.eval.batch_size
        if isinstance(images, (list, tuple)):
            # Several batches together: images of one shape find each other.
            return list(self._stream(images, lowest, ahead=4 * batch))
        if isinstance(images, Iterator) and not hasattr(images, "read"):  # an open file has lines
            return self._stream(images, lowest, ahead=batch)
        image: Any = images  # one, or something else, which is refused
        return self._detect([(read_pixels(image), path_of(image))], lowest)[0]

    predict = __call__
    """The same as calling the detector."""

    def _stream(
        self, images: Iterable[ImageInput], threshold: float, *, ahead: int
    ) -> Iterator[ImageDetections]:
        """Yield the detections of images in order, reading a few of them ahead.

        Raises:
            TypeError, UserError: As `read_pixels` does, after the detections of all images before.
        """
        read: list[_Read] = []
        total = 0
        try:
            for number, image in enumerate(images):
                try:
                    pixels = read_pixels(image)
                except (TypeError, UserError) as error:
                    raise type(error)(f"image {number}: {error}") from None
                if isinstance(image, (np.ndarray, Tensor)):
                    pixels = pixels.copy()  # a camera may write its next frame into the same memory
                area = pixels.shape[0] * pixels.shape[1]
                if read and (len(read) == ahead or total + area > PIXELS_AT_ONCE):
                    batch, read, total = read, [], 0
                    yield from self._detect(batch, threshold)
                read.append((pixels, path_of(image)))
                total += area
        except Exception:  # from this image or the iterator; the images before it are done first
            yield from self._detect(read, threshold)
            raise
        yield from self._detect(read, threshold)

    def _detect(self, images: list[_Read], threshold: float) -> list[ImageDetections]:
        found = self.detect_pixels([pixels for pixels, _ in images], threshold)
        return [
            ImageDetections.from_tensors(
                own,
                categories=self.categories,
                image_size=(pixels.shape[0], pixels.shape[1]),
                path=path,
            )
            for (pixels, path), own in zip(images, found, strict=True)
        ]

    def detect_pixels(
        self, images: list[NDArray[np.uint8]], threshold: float | None = None
    ) -> list[Detections]:
        """Return the detections of images of any sizes as plain tensors, in original pixels.

        Args:
            images: (H, W, 3) uint8 RGB, which is not checked. Images of one canvas are computed
                together, `eval.batch_size` at a time.
            threshold: Lowest score; by default the checkpoint's `postprocess.score_threshold`.
        """
        options = self.config.postprocess
        if threshold is not None:
            options = options.model_copy(update={"score_threshold": threshold})
        postprocess = build_postprocess(options)
        prepared = [self._prepare(image) for image in images]
        found: dict[int, Detections] = {}
        with numerics(self.config.train, self.device):
            for canvas in sorted({own_canvas for _, own_canvas in prepared}):
                rows = [i for i, (_, own_canvas) in enumerate(prepared) if own_canvas == canvas]
                for chunk in chunks(rows, self.config.eval.batch_size):
                    batch = self._forward([prepared[i][0] for i in chunk], canvas, postprocess)
                    found |= dict(zip(chunk, batch, strict=True))
        return [found[i] for i in range(len(images))]

    def _prepare(self, image: NDArray[np.uint8]) -> tuple[LoadedImage, Size]:
        """Resize an image; its canvas depends on its size alone, as in evaluation."""
        original = (image.shape[0], image.shape[1])
        data = self.config.data
        size = resized(original, short_side=self._side, long_side=data.long_side)
        canvas = evaluation_canvas(
            original, short_side=self._side, long_side=data.long_side, policy=data.canvas
        )
        loaded = LoadedImage(
            pixels=image, size=size, original_size=original, image_id=0, target=empty_target()
        )
        return loaded, canvas

    @torch.inference_mode()
    def _forward(
        self, images: list[LoadedImage], canvas: Size, postprocess: Postprocess
    ) -> list[Detections]:
        batch = collate(images, canvas, None).to(self.device)
        with autocast(self.device, self.precision):
            outputs = self._model(batch.images, batch.sizes)
        return on_host(postprocess(outputs, batch.sizes, batch.original_sizes))


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`; the last one may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
