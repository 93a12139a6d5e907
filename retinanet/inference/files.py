"""Detection in many image files: an image that fails does not affect the others.

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
from retinanet.drawing import JPEG_SIDE, describe_failure, save_picture
from retinanet.errors import TrainingError, UserError, first_line
from retinanet.files import write_error
from retinanet.inference.detections import ImageDetections
from retinanet.inference.inputs import InputImage
from retinanet.inference.output_folder import (
    RESULTS,
    OutputFolder,
    picture_name,
    prepare_output,
    recorded_picture,
)
from retinanet.inference.predictor import PIXELS_AT_ONCE, Predictor
from retinanet.inference.result_files import (
    ImageResult,
    PredictionSummary,
    ResultFiles,
    join,
    remove_parts,
)
from retinanet.structures import Detections

_Item = tuple[int, InputImage, NDArray[np.uint8]]
"""Place among the inputs, image, pixels."""


def predict_files(
    predictor: Predictor,
    images: list[InputImage],
    *,
    world: World,
    output: Path | None,
    threshold: float,
    draw: bool,
    progress: Callable[[int], object] = lambda done: None,
    say: Callable[[str], object] = lambda line: None,
) -> tuple[PredictionSummary, Path]:
    """Detect in every image; write results.json, images.json and, if asked, drawn pictures.

    The files are written while results come in (see `result_files`). If an error or a signal ends
    the prediction early, they hold the images that are done, and there is a picture of exactly
    these images. An image that cannot be read, or that the network fails on, is left out. One that
    cannot be drawn keeps its detections. Under torchrun each process takes its share, and the main
    process joins the files and returns the total.

    Args:
        predictor: The detector.
        images: Images to detect objects in.
        world: This process among the others.
        output: Folder to write into; an earlier prediction there is replaced. None makes a new one.
        threshold: Lowest score, in the files and in the pictures.
        draw: Write annotated pictures, too.
        progress: Called with the number of images done.
        say: Called with lines about an early end.

    Returns:
        A summary of the results, and the folder.

    Raises:
        UserError: No image can be read, or the folder cannot be written.
        TrainingError: The disk is full or broken, or the network failed on every image.
    """
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
            raise write_error(folder.path, error) from None
        raise
    finally:
        if world.is_main:
            folder.release()
    return whole, folder.path


def _agree_on_folder(output: Path | None, images: list[InputImage], world: World) -> OutputFolder:
    """Let the main process make the folder; return it, or raise its error, on every process."""
    folder: OutputFolder | UserError | TrainingError | None = None
    if world.is_main:
        try:
            folder = prepare_output(output, {image.path.parent for image in images})
            remove_parts(folder.path)
        except OSError as error:
            folder = write_error(output or Path("predictions"), error)
        except UserError as error:
            folder = error
    agreed: OutputFolder | UserError | TrainingError = world.broadcast(folder)
    if not isinstance(agreed, OutputFolder):
        raise agreed
    return agreed


def _read_chunks(
    images: Iterator[tuple[int, InputImage]], size: int, summary: PredictionSummary
) -> Iterator[list[_Item]]:
    """Yield the images that can be read in groups, so that images of one shape share a batch.

    A group has at most `size` images, and no more than fit into memory. Images that cannot be read
    are left out.
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
                summary.remarks.append(
                    f"{image.path}: has {frames:,} frames; only the first was used"
                )
            area = decoded.shape[0] * decoded.shape[1]
            if chunk and pixels + area > PIXELS_AT_ONCE:
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
    """Detect in a few images, draw them, and record each as done or left out."""
    # A threshold below the checkpoint's own lowers the network's as well.
    lowest = min(threshold, predictor.config.postprocess.score_threshold)
    found = _detect(predictor, [pixels for _, _, pixels in chunk], lowest)
    for (place, image, pixels), detections in zip(chunk, found, strict=True):
        if isinstance(detections, str):
            summary.left_out.append((str(image.path), detections))
            summary.failures += 1
            continue
        kept = ImageDetections.from_tensors(
            detections.above(threshold),
            categories=predictor.categories,
            image_size=(pixels.shape[0], pixels.shape[1]),
            path=image.path,
        )
        if pictures is not None:
            path = pictures / picture_name(image.image_id, image.path)
            remark = _draw_picture(path, pixels, kept)
            if remark:
                summary.remarks.append(f"{image.path}: {remark}")
        summary.removed += len(detections.scores) - len(kept)
        summary.done.append(_image_result(place, image, kept))


def _detect(
    predictor: Predictor, images: list[NDArray[np.uint8]], lowest: float
) -> list[Detections | str]:
    """Return the detections of each image, or why the network failed on it."""
    try:
        return list(predictor.detect_pixels(images, lowest))
    except (UserError, RuntimeError, MemoryError, cv2.error) as error:
        if len(images) == 1:
            return [f"the network failed on it: {_reason(error)}"]
    return [one for image in images for one in _detect(predictor, [image], lowest)]


def _reason(error: Exception) -> str:
    if isinstance(error, (MemoryError, cv2.error)):
        return describe_failure(error)
    return first_line(error)


def _image_result(place: int, image: InputImage, found: ImageDetections) -> ImageResult:
    height, width = found.image_size
    record = {"id": image.image_id, "file_name": str(image.path), "width": width, "height": height}
    return ImageResult(
        place=place,
        record=json.dumps(record),
        detections=json.dumps(found.to_coco(image.image_id))[1:-1],
        count=len(found),
    )


def _draw_picture(path: Path, pixels: NDArray[np.uint8], found: ImageDetections) -> str:
    """Draw an image's detections; return a note about the picture, or an empty text.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        drawn = found.picture(pixels)
        failure = save_picture(path, drawn)
    except (MemoryError, cv2.error) as error:
        failure = f"no picture: {describe_failure(error)}"
    if not failure and max(found.image_size) > JPEG_SIDE:
        size = f"{drawn.shape[1]}x{drawn.shape[0]} px"
        return f"its picture is scaled down to {size}, the limit of JPEG"
    return failure


def _check_any(summary: PredictionSummary) -> None:
    """Check that at least one image has results.

    Raises:
        UserError: None of them can be read.
        TrainingError: The network failed on all images that can be read.
    """
    if summary.done or not summary.inputs:
        return
    first, reason = summary.left_out[0]
    if summary.failures:
        raise TrainingError(f"no image has results. {first}: {reason}")
    raise UserError(f"none of the inputs can be read as an image. {first}: {reason}")


def _end_early(
    folder: OutputFolder,
    files: ResultFiles,
    summary: PredictionSummary,
    undrawn: list[_Item],
    *,
    part: int | None,
    say: Callable[[str], object],
) -> None:
    """Write the results so far and report them. If there are none, leave no trace.

    Args:
        folder: Folder of the prediction.
        files: The result files in it.
        summary: Results of this process.
        undrawn: Images without results yet, of which some may have a picture.
        part: Number of this process; None for a single process.
        say: See `predict_files`.
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
        say(f"{who}{summary.images:,} {of} images are done. Their results are in {folder.path}")
    if folder.earlier is not None and folder.earlier.exists():
        say(f"the earlier predictions are in {folder.earlier}")
    if summary.done or len(summary.left_out) > 1:  # otherwise the error reports it
        for note in summary.notes():
            say(note)
