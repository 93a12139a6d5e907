"""Detections in many image files: one after the other, so that none costs the others' results.

Images are (H, W, 3) uint8 RGB; boxes are in original pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.data.images.frames import frame_count
from retinanet.data.images.reading import UnreadableImageError, decode_image, load_content
from retinanet.distributed.world import World
from retinanet.drawing import (
    JPEG_SIDE,
    describe_failure,
    draw_boxes,
    enlarge,
    fit,
    save_picture,
)
from retinanet.errors import TrainingError, UserError, first_line
from retinanet.evaluation.results import to_results
from retinanet.files import is_disk_failure, write_failure
from retinanet.inference.inputs import InputImage
from retinanet.inference.output_folder import (
    RESULTS,
    OutputFolder,
    picture_name,
    prepare_output,
    recorded_picture,
)
from retinanet.inference.predictor import Predictor
from retinanet.inference.result_files import (
    ImageResult,
    PredictionSummary,
    ResultFiles,
    join,
    remove_parts,
)
from retinanet.structures import Detections

_PIXELS = 100_000_000
"""Pixels that are held at once, of several images (300 MB)."""
_Item = tuple[int, InputImage, NDArray[np.uint8]]
"""Place among the inputs, image, pixels."""


def predict_files(
    predictor: Predictor,
    images: list[InputImage],
    *,
    output: Path | None,
    threshold: float,
    draw: bool,
    progress: Callable[[int], object] = lambda done: None,
    say: Callable[[str], object] = lambda line: None,
) -> tuple[PredictionSummary, Path]:
    """Detect in every image; write results.json, images.json and, if asked, drawn pictures.

    The files are written as results come (see `result_files`). At an early end, by an error or by
    an exception that a signal raises, they hold all that is done, and there are pictures of exactly
    these images. An image that cannot be read, or that the network fails at, is left out; one that
    cannot be drawn keeps its detections. Under torchrun each process takes its share; the main one
    puts the files together and returns the sum.

    Args:
        predictor: the detector.
        images: what to look at.
        output: folder to write into, whose earlier prediction is replaced; by default a new one.
        threshold: lowest score, in the files and the pictures alike.
        draw: write annotated pictures, too.
        progress: called with the number of images done.
        say: called with lines about an early end, and what is done by then.

    Returns:
        What was found, and the folder.

    Raises:
        UserError: no image that can be read, or a folder that cannot be written.
        TrainingError: the disk is full or broken, or the network failed at every image.
    """
    world = predictor.world
    folder = _agree_on_folder(output, images, world)
    share = range(world.rank, len(images), world.size)
    summary = PredictionSummary(inputs=len(share))
    part = world.rank if world.size > 1 else None
    files = ResultFiles(folder.path, predictor.categories, inputs=len(images), part=part)
    unfinished: list[_Item] = []
    try:
        if draw:
            folder.pictures.mkdir(exist_ok=True)
        pictures = folder.pictures if draw else None
        chosen = ((place, images[place]) for place in share)
        for chunk in _read_chunks(chosen, 4 * predictor.config.eval.batch_size, summary):
            unfinished = chunk
            _detect_chunk(predictor, chunk, summary, threshold, pictures)
            unfinished = []
            if summary.done:
                files.write_if_due(summary)
            progress(summary.images + len(summary.left_out))
        if part is not None:
            files.write(summary)  # should another process end before all have come together
        parts = world.gather(summary)
        whole = join(parts) if world.is_main else summary
        if world.is_main:
            _check_any(whole)
            files.write_whole(whole)
            remove_parts(folder.path)
            folder.finish()
    except BaseException as error:
        undrawn = unfinished if draw else []
        _end_early(folder, files, summary, undrawn, part=part, say=say)
        if isinstance(error, OSError):
            raise _write_error(folder.path, error) from None
        raise
    finally:
        if world.is_main:
            folder.release()
    return whole, folder.path


def _agree_on_folder(output: Path | None, images: list[InputImage], world: World) -> OutputFolder:
    """Let the main process make the folder; return it, or raise what it raised, everywhere."""
    folder: OutputFolder | UserError | TrainingError | None = None
    if world.is_main:
        try:
            folder = prepare_output(output, {image.path.parent for image in images})
            remove_parts(folder.path)
        except OSError as error:
            folder = _write_error(output or Path("predictions"), error)
        except UserError as error:
            folder = error
    agreed: OutputFolder | UserError | TrainingError = world.broadcast(folder)
    if not isinstance(agreed, OutputFolder):
        raise agreed
    return agreed


def _read_chunks(
    images: Iterator[tuple[int, InputImage]], size: int, summary: PredictionSummary
) -> Iterator[list[_Item]]:
    """Yield what can be read, several images together, so that those of one shape find each other.

    At most `size` of them, and so many that memory holds them; what cannot be read is left out.
    """
    chunk: list[_Item] = []
    pixels = seen = 0
    for place, image in images:
        try:
            content = load_content(image.path)
            decoded = decode_image(image.path, content, image.size)
        except UnreadableImageError as error:
            reason = str(error).removeprefix(f"{image.path}: ")
            summary.left_out.append((str(image.path), reason))
        else:
            frames = frame_count(content)
            if frames > 1:
                summary.remarks.append(f"{image.path}: the first of {frames:,} frames was used")
            area = decoded.shape[0] * decoded.shape[1]
            if chunk and pixels + area > _PIXELS:
                yield chunk
                chunk, pixels = [], 0
            chunk.append((place, image, decoded))
            pixels += area
        seen += 1
        if seen % size == 0:
            yield chunk
            chunk, pixels = [], 0
    if seen % size or chunk:
        yield chunk


def _detect_chunk(
    predictor: Predictor,
    chunk: list[_Item],
    summary: PredictionSummary,
    threshold: float,
    pictures: Path | None,
) -> None:
    """Detect in a few images, draw them, and note each as done or left out."""
    # Under the checkpoint's own threshold, the network's must sink as well.
    lowest = min(threshold, predictor.config.postprocess.score_threshold)
    found = _detect(predictor, [pixels for _, _, pixels in chunk], lowest)
    for (place, image, pixels), detections in zip(chunk, found, strict=True):
        if isinstance(detections, str):
            summary.left_out.append((str(image.path), detections))
            summary.failures += 1
            continue
        kept = detections.above(threshold)
        if pictures is not None:
            path = pictures / picture_name(image.image_id, image.path)
            remark = _draw_picture(path, pixels, kept, predictor.categories.names)
            if remark:
                summary.remarks.append(f"{image.path}: {remark}")
        summary.removed += len(detections.scores) - len(kept.scores)
        summary.done.append(_image_result(place, image, pixels, kept, predictor.categories.ids))


def _detect(
    predictor: Predictor, images: list[NDArray[np.uint8]], lowest: float
) -> list[Detections | str]:
    """Return the detections of images; of one that the network fails at, why."""
    try:
        return list(predictor.predict(images, lowest))
    except (UserError, RuntimeError, MemoryError, cv2.error) as error:
        if len(images) == 1:
            return [f"the network failed at it: {_reason(error)}"]
    return [one for image in images for one in _detect(predictor, [image], lowest)]


def _reason(error: Exception) -> str:
    if isinstance(error, (MemoryError, cv2.error)):
        return describe_failure(error)
    return first_line(error)


def _image_result(
    place: int,
    image: InputImage,
    pixels: NDArray[np.uint8],
    detections: Detections,
    category_ids: tuple[int, ...],
) -> ImageResult:
    results = to_results(*detections.numpy(), image_id=image.image_id, category_ids=category_ids)
    size = {"width": pixels.shape[1], "height": pixels.shape[0]}
    record = {"id": image.image_id, "file_name": str(image.path), **size}
    return ImageResult(
        place=place,
        record=json.dumps(record),
        detections=json.dumps(results)[1:-1],
        count=len(results),
    )


def _draw_picture(
    path: Path, pixels: NDArray[np.uint8], detections: Detections, names: tuple[str, ...]
) -> str:
    """Draw an image's detections; return what there is to say of the picture.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        shrunk = fit(pixels, JPEG_SIDE)
        drawn, _ = enlarge(shrunk, 400)  # labels would cover the objects of small images
        down, across = (drawn.shape[axis] / pixels.shape[axis] for axis in (0, 1))
        drawn = draw_boxes(
            drawn,
            detections.boxes.numpy() * np.array([across, down, across, down], np.float32),
            detections.labels.numpy(),
            names,
            detections.scores.numpy(),
        )
        failure = save_picture(path, drawn)
    except (MemoryError, cv2.error) as error:
        failure = f"no picture: {describe_failure(error)}"
    if not failure and shrunk is not pixels:
        return f"its picture is scaled down to {shrunk.shape[1]}x{shrunk.shape[0]} px: JPEG's limit"
    return failure


def _check_any(summary: PredictionSummary) -> None:
    """Raise where no image has results.

    Raises:
        UserError: none can be read.
        TrainingError: the network failed at those that can.
    """
    if summary.done or not summary.inputs:
        return
    first, reason = summary.left_out[0]
    if summary.failures:
        raise TrainingError(f"no image has results; {first}: {reason}")
    raise UserError(f"none of the inputs is an image that can be read: {first}: {reason}")


def _end_early(
    folder: OutputFolder,
    files: ResultFiles,
    summary: PredictionSummary,
    undrawn: list[_Item],
    *,
    part: int | None,
    say: Callable[[str], object],
) -> None:
    """Write all that is done, and say so; without anything done, leave no trace.

    Args:
        folder: of the prediction.
        files: in it.
        summary: what this process has done.
        undrawn: images of which some may have a picture, and no results yet.
        part: number of this process; None if it is alone.
        say: see `predict_files`.
    """
    done = {image.place for image in summary.done}
    try:
        for place, image, _ in undrawn:
            if place not in done:
                name = picture_name(image.image_id, image.path)
                (folder.pictures / name).unlink(missing_ok=True)
        if part is not None:
            files.end_part(summary)
        elif summary.done:
            files.write(summary)
        if not part and not (folder.path / RESULTS).exists():
            folder.undo()
    except OSError as error:
        say(f"{folder.path}: the last results could not be written: {error.strerror}")
        for lost in summary.done[files.written :]:
            (folder.pictures / recorded_picture(json.loads(lost.record))).unlink(missing_ok=True)
        del summary.done[files.written :]
    if summary.done:
        who = "" if part is None else f"process {part}: "
        of = f"of {summary.inputs:,}" if part is None else f"of its {summary.inputs:,}"
        say(f"{who}{summary.images:,} {of} images are done; their results are in {folder.path}")
    if folder.earlier is not None and folder.earlier.exists():
        say(f"the predictions that were there before are in {folder.earlier}")
    if summary.done or len(summary.left_out) > 1:  # else the error says it
        for note in summary.notes():
            say(note)


def _write_error(folder: Path, error: OSError) -> UserError | TrainingError:
    if is_disk_failure(error):
        return write_failure(folder, error)
    return UserError(f"{folder}: cannot be written: {error.strerror}")
