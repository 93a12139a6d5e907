"""Pictures -> detections, from a checkpoint alone.

Images are (H, W, 3) uint8 RGB; boxes come back in original pixels.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.data.annotations import Annotations
from retinanet.data.canvas import Size, evaluation_canvas, resized
from retinanet.data.coco_json import Categories
from retinanet.data.dataset import (
    LoadedImage,
    collate,
    empty_target,
)
from retinanet.data.images import SUFFIXES, UnreadableImageError, read_image
from retinanet.engine.checkpoint import load_checkpoint
from retinanet.engine.distributed import World, join_world
from retinanet.engine.precision import Precision, autocast, inference_precision
from retinanet.engine.rounds import to_results
from retinanet.engine.scoring import inference_config, restore_detector
from retinanet.engine.splits import evaluation_short_side
from retinanet.errors import UserError
from retinanet.evaluation.coco import Result
from retinanet.evaluation.draw import draw_boxes, enlarge, write_jpeg
from retinanet.files import replacing
from retinanet.model.detector import Detector
from retinanet.model.postprocess import Postprocess, build_postprocess
from retinanet.schema import Config
from retinanet.structures import Detections

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image to look at."""

    path: Path
    image_id: int
    size: Size | None = None
    """Height and width, where an annotation file gives them."""


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
        self._side = evaluation_short_side(config.data)

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
        for canvas in sorted({place for _, place in prepared}):
            rows = [i for i, (_, place) in enumerate(prepared) if place == canvas]
            for part in _chunks(rows, self.config.eval.batch_size):
                batch = self._detect([prepared[i][0] for i in part], canvas, postprocess)
                found |= dict(zip(part, batch, strict=True))
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


def find_pictures(inputs: Iterable[str]) -> list[Picture]:
    """Return the pictures that files, folders and globs name, numbered from 1.

    Pictures that an earlier prediction drew inside a named folder are passed over.

    Raises:
        UserError: an input that matches nothing.
    """
    paths: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            found = [p for p in found if p.parent == path or not _is_ours(p.parent)]
            problem = f"no image in this folder ({', '.join(SUFFIXES)})"
        else:
            found = [p for p in ([path] if path.is_file() else _match(text)) if p.is_file()]
            problem = "there is no such file or folder, and as a pattern it matches nothing"
        if not found:
            raise UserError(f"{text}: {problem}")
        paths += found
    return [Picture(path=path, image_id=i + 1) for i, path in enumerate(dict.fromkeys(paths))]


def _is_ours(folder: Path) -> bool:
    beside = [folder.parent / name for name in ("results.json", "images.json")]
    return folder.name == "pictures" and all(path.is_file() for path in beside)


def _match(pattern: str) -> list[Path]:
    # The shell's patterns, absolute ones too, which pathlib's glob does not take.
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207


def list_pictures(annotations: Annotations, images: Path) -> list[Picture]:
    """Return the pictures of an annotation file, with its ids."""
    return [
        Picture(path=images / name, image_id=int(image_id), size=(int(size[0]), int(size[1])))
        for name, image_id, size in zip(
            annotations.file_names, annotations.image_ids, annotations.sizes, strict=True
        )
    ]


@dataclass(kw_only=True)
class PredictionSummary:
    """What a prediction over many pictures gave."""

    results: list[Result]
    images: int
    removed: int
    """Detections under the threshold (users.md EX6)."""
    unreadable: list[str]
    records: list[dict[str, Any]]
    """Image id, file name and size of what was read, for images.json."""


def predict_pictures(
    predictor: Predictor,
    pictures: list[Picture],
    *,
    output: Path,
    threshold: float,
    draw: bool,
    progress: Callable[[int], object] = lambda done: None,
) -> PredictionSummary:
    """Detect in every picture; write results.json, images.json and, if asked, drawn pictures.

    Under torchrun each process takes its share; the main one writes the files and returns the sum.

    Args:
        predictor: the detector.
        pictures: what to look at.
        output: folder to write into.
        threshold: lowest score, in the files and the pictures alike.
        draw: write annotated pictures, too.
        progress: called with the number of pictures done.

    Raises:
        UserError: no image that can be read, or a folder that cannot be written.
    """
    summary = PredictionSummary(results=[], images=0, removed=0, unreadable=[], records=[])
    world = predictor.world
    mine = pictures[world.rank :: world.size]
    # Under the checkpoint's own threshold, the network's must sink as well.
    lowest = min(threshold, predictor.config.postprocess.score_threshold)
    try:
        (output / "pictures" if draw else output).mkdir(parents=True, exist_ok=True)
        # Several batches' worth, so that pictures of one shape find each other.
        for chunk in _chunks(mine, 4 * predictor.config.eval.batch_size):
            readable = list(_read(chunk, summary.unreadable))
            found = predictor.predict([image for _, image in readable], lowest)
            for (picture, image), detections in zip(readable, found, strict=True):
                kept = detections.above(threshold)
                summary.removed += len(detections.scores) - len(kept.scores)
                summary.results += to_results(kept, picture.image_id, predictor.categories.ids)
                summary.records.append(_image_record(picture, image))
                if draw:
                    _write_picture(output / "pictures", picture, image, kept, predictor.categories)
            summary.images += len(readable)
            progress(summary.images + len(summary.unreadable))
        parts = world.gather(summary)
        if world.is_main:
            summary = _merge(parts, pictures)
            if not summary.images:
                raise UserError(
                    f"none of the inputs is an image that can be read: {summary.unreadable[0]}"
                )
            _write_files(output, summary, predictor.categories)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None
    return summary


def _merge(parts: list[PredictionSummary], pictures: list[Picture]) -> PredictionSummary:
    """Put the shares together, in the order of the pictures."""
    place = {picture.image_id: i for i, picture in enumerate(pictures)}
    results = [result for part in parts for result in part.results]
    records = [record for part in parts for record in part.records]
    return PredictionSummary(
        results=sorted(results, key=lambda result: place[result["image_id"]]),
        images=sum(part.images for part in parts),
        removed=sum(part.removed for part in parts),
        unreadable=[message for part in parts for message in part.unreadable],
        records=sorted(records, key=lambda record: place[record["id"]]),
    )


def _write_files(output: Path, summary: PredictionSummary, categories: Categories) -> None:
    pairs = zip(categories.ids, categories.names, strict=True)
    named = [{"id": category, "name": name} for category, name in pairs]
    _write_json(output / "results.json", summary.results)
    _write_json(output / "images.json", {"images": summary.records, "categories": named})


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _read(
    pictures: list[Picture], unreadable: list[str]
) -> Iterator[tuple[Picture, NDArray[np.uint8]]]:
    for picture in pictures:
        try:
            yield picture, read_image(picture.path, picture.size)
        except UnreadableImageError as error:
            unreadable.append(str(error))


def _image_record(picture: Picture, image: NDArray[np.uint8]) -> dict[str, Any]:
    return {
        "id": picture.image_id,
        "file_name": str(picture.path),
        "width": image.shape[1],
        "height": image.shape[0],
    }


def _write_picture(
    folder: Path,
    picture: Picture,
    image: NDArray[np.uint8],
    detections: Detections,
    categories: Categories,
) -> None:
    image, times = enlarge(image, 400)  # labels would cover the objects of small pictures
    drawn = draw_boxes(
        image,
        detections.boxes.numpy() * times,
        detections.labels.numpy(),
        categories.names,
        detections.scores.numpy(),
    )
    # The id keeps pictures of one name from different folders apart.
    write_jpeg(folder / f"{picture.image_id:06d}_{picture.path.stem[:80]}.jpg", drawn)


def _write_json(path: Path, content: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
