"""Detections in many image files: which files to read, and which to write.

Images are (H, W, 3) uint8 RGB; boxes are in original pixels.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import Categories
from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.reading import SUFFIXES, UnreadableImageError, read_image
from retinanet.drawing import draw_boxes, enlarge, write_jpeg
from retinanet.errors import UserError
from retinanet.evaluation.results import Result, to_results
from retinanet.files import replacing
from retinanet.inference.predictor import Predictor, chunks
from retinanet.structures import Detections


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """An image to look at."""

    path: Path
    image_id: int
    size: Size | None = None
    """Height and width, where an annotation file gives them."""


def find_images(inputs: Iterable[str]) -> list[InputImage]:
    """Return the images that files, folders and globs name, numbered from 1.

    Pictures that an earlier prediction drew inside a named folder are passed over, and what
    begins with a dot: copies and thumbnails that a computer keeps there.

    Raises:
        UserError: an input that matches nothing.
    """
    paths: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(path / name for name in find_image_names(path))
            found = [p for p in found if p.parent == path or not _holds_drawn_pictures(p.parent)]
            problem = f"no image in this folder ({', '.join(SUFFIXES)})"
        else:
            # The shell's patterns, absolute ones too, which pathlib's glob does not take.
            names = [text] if path.is_file() else sorted(glob.glob(text, recursive=True))  # noqa: PTH207
            found = [Path(name) for name in names if Path(name).is_file()]
            problem = "there is no such file or folder, and as a pattern it matches nothing"
        if not found:
            raise UserError(f"{text}: {problem}")
        paths += found
    return [InputImage(path=path, image_id=i + 1) for i, path in enumerate(dict.fromkeys(paths))]


def _holds_drawn_pictures(folder: Path) -> bool:
    """Whether a prediction drew into a folder: its results are then beside it."""
    beside = [folder.parent / name for name in ("results.json", "images.json")]
    return folder.name == "pictures" and all(path.is_file() for path in beside)


def list_images(annotations: Annotations, images: Path) -> list[InputImage]:
    """Return the images of an annotation file, with its ids."""
    return [
        InputImage(path=images / name, image_id=int(image_id), size=(int(size[0]), int(size[1])))
        for name, image_id, size in zip(
            annotations.file_names, annotations.image_ids, annotations.sizes, strict=True
        )
    ]


@dataclass(kw_only=True)
class PredictionSummary:
    """What a prediction on many images gave."""

    results: list[Result]
    images: int
    removed: int
    """Number of detections under the threshold."""
    unreadable: list[str]
    """A message for each image that was left out."""
    records: list[dict[str, Any]]
    """Image id, file name and size of what was read, for images.json."""


def predict_files(
    predictor: Predictor,
    images: list[InputImage],
    *,
    output: Path,
    threshold: float,
    draw: bool,
    progress: Callable[[int], object] = lambda done: None,
) -> PredictionSummary:
    """Detect in every image; write results.json, images.json and, if asked, drawn pictures.

    Under torchrun each process takes its share; the main one writes the files and returns the sum.

    Args:
        predictor: the detector.
        images: what to look at.
        output: folder to write into.
        threshold: lowest score, in the files and the pictures alike.
        draw: write annotated pictures, too.
        progress: called with the number of images done.

    Raises:
        UserError: no image that can be read, or a folder that cannot be written.
    """
    summary = PredictionSummary(results=[], images=0, removed=0, unreadable=[], records=[])
    world = predictor.world
    share = images[world.rank :: world.size]
    # Under the checkpoint's own threshold, the network's must sink as well.
    lowest = min(threshold, predictor.config.postprocess.score_threshold)
    try:
        (output / "pictures" if draw else output).mkdir(parents=True, exist_ok=True)
        # Several batches' worth, so that images of one shape find each other.
        for chunk in chunks(share, 4 * predictor.config.eval.batch_size):
            readable = list(_read_images(chunk, summary.unreadable))
            found = predictor.predict([pixels for _, pixels in readable], lowest)
            for (source, pixels), detections in zip(readable, found, strict=True):
                kept = detections.above(threshold)
                summary.removed += len(detections.scores) - len(kept.scores)
                summary.results += to_results(
                    *kept.numpy(),
                    image_id=source.image_id,
                    category_ids=predictor.categories.ids,
                )
                summary.records.append(_image_record(source, pixels))
                if draw:
                    _write_picture(output / "pictures", source, pixels, kept, predictor.categories)
            summary.images += len(readable)
            progress(summary.images + len(summary.unreadable))
        parts = world.gather(summary)
        if world.is_main:
            summary = _merge(parts, images)
            if not summary.images:
                raise UserError(
                    f"none of the inputs is an image that can be read: {summary.unreadable[0]}"
                )
            _write_results(output, summary, predictor.categories)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None
    return summary


def _merge(parts: list[PredictionSummary], images: list[InputImage]) -> PredictionSummary:
    """Put the shares together, in the order of the images."""
    place = {image.image_id: i for i, image in enumerate(images)}
    results = [result for part in parts for result in part.results]
    records = [record for part in parts for record in part.records]
    return PredictionSummary(
        results=sorted(results, key=lambda result: place[result["image_id"]]),
        images=sum(part.images for part in parts),
        removed=sum(part.removed for part in parts),
        unreadable=[message for part in parts for message in part.unreadable],
        records=sorted(records, key=lambda record: place[record["id"]]),
    )


def _write_results(output: Path, summary: PredictionSummary, categories: Categories) -> None:
    pairs = zip(categories.ids, categories.names, strict=True)
    named = [{"id": category, "name": name} for category, name in pairs]
    _write_json(output / "results.json", summary.results)
    _write_json(output / "images.json", {"images": summary.records, "categories": named})


def _read_images(
    images: list[InputImage], unreadable: list[str]
) -> Iterator[tuple[InputImage, NDArray[np.uint8]]]:
    """Yield what can be read, with its pixels; append a message to `unreadable` for the rest."""
    for source in images:
        try:
            yield source, read_image(source.path, source.size)
        except UnreadableImageError as error:
            unreadable.append(str(error))


def _image_record(source: InputImage, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    return {
        "id": source.image_id,
        "file_name": str(source.path),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
    }


def _write_picture(
    folder: Path,
    source: InputImage,
    pixels: NDArray[np.uint8],
    detections: Detections,
    categories: Categories,
) -> None:
    pixels, times = enlarge(pixels, 400)  # labels would cover the objects of small images
    drawn = draw_boxes(
        pixels,
        detections.boxes.numpy() * times,
        detections.labels.numpy(),
        categories.names,
        detections.scores.numpy(),
    )
    # The id keeps pictures of one name from different folders apart.
    write_jpeg(folder / f"{source.image_id:06d}_{source.path.stem[:80]}.jpg", drawn)


def _write_json(path: Path, content: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
