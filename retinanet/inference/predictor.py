"""Images -> detections, from a checkpoint alone.

Images are (H, W, 3) uint8 RGB; boxes come back in original pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.categories import Categories
from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import inference_config, restore_detector
from retinanet.data.canvas import Size, evaluation_canvas, resized
from retinanet.data.collate import LoadedImage, collate, empty_target
from retinanet.distributed.precision import Precision, autocast, inference_precision
from retinanet.distributed.world import World, join_world
from retinanet.model.detector import Detector
from retinanet.model.postprocess import Postprocess, build_postprocess
from retinanet.schema import Config
from retinanet.structures import Detections

T = TypeVar("T")


class Predictor:
    """A detector ready to use.

    Example:
        predictor = Predictor.from_checkpoint(Path("runs/bccd/checkpoints/best.pt"))
        detections = predictor.predict([image])[0].above(0.5)
    """

    def __init__(
        self,
        model: Detector,
        config: Config,
        categories: Categories,
        *,
        world: World,
        precision: Precision,
    ) -> None:
        self.config = config
        self.categories = categories
        self.world = world
        self._model = model
        self._device = world.device
        self._precision = precision
        self._side = config.data.evaluation_short_side

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str = "auto", overrides: Sequence[str] = ()
    ) -> Predictor:
        """Rebuild the network, its classes and its preprocessing from one file.

        Args:
            path: of the checkpoint.
            device: auto, cpu, cuda or mps.
            overrides: `section.key=value` on top of its config, such as
                `postprocess.class_agnostic_nms=true`.

        Raises:
            UserError: not a checkpoint of this project, a device that is not there, a wrong option.
        """
        checkpoint = load_checkpoint(Path(path))
        config = inference_config(checkpoint, overrides)
        world = join_world(device)  # type: ignore[arg-type]
        precision = inference_precision(config.train.precision, world.device)
        return cls(
            restore_detector(checkpoint, world.device, precision),
            config,
            checkpoint.categories,
            world=world,
            precision=precision,
        )

    def predict(
        self, images: list[NDArray[np.uint8]], threshold: float | None = None
    ) -> list[Detections]:
        """Return the detections of images of any sizes, in their original pixels.

        Args:
            images: those of one canvas are computed together, eval.batch_size at a time.
            threshold: lowest score; by default the checkpoint's postprocess.score_threshold.
        """
        options = self.config.postprocess
        if threshold is not None:
            options = options.model_copy(update={"score_threshold": threshold})
        postprocess = build_postprocess(options)
        prepared = [self._prepare(image) for image in images]
        found: dict[int, Detections] = {}
        for canvas in sorted({own_canvas for _, own_canvas in prepared}):
            rows = [i for i, (_, own_canvas) in enumerate(prepared) if own_canvas == canvas]
            for chunk in chunks(rows, self.config.eval.batch_size):
                batch = self._detect([prepared[i][0] for i in chunk], canvas, postprocess)
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
    def _detect(
        self, images: list[LoadedImage], canvas: Size, postprocess: Postprocess
    ) -> list[Detections]:
        batch = collate(images, canvas, None).to(self._device)
        with autocast(self._device, self._precision):
            outputs = self._model(batch.images, batch.sizes)
        found = postprocess(outputs, batch.sizes, batch.original_sizes)
        return [detections.cpu() for detections in found]


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`; the last one may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
