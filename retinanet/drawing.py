"""Draw boxes on images, and arrange pictures side by side.

Images are (H, W, 3) uint8 RGB, boxes (D, 4) xyxy px.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retinanet.files import is_disk_failure, replacing

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LABEL_START, _LABEL_END = 28, 14
"""Characters kept at the start and the end of a long label; the score is at the end."""
JPEG_SIDE = 65_500
"""Longest side that a JPEG can have, px."""


class DrawingError(Exception):
    """A picture cannot be made; its data are not affected."""


def label_text(text: str) -> str:
    """Return a text as a short line that can be drawn: control characters become `?`.

    Half a surrogate pair, which JSON and file names may contain, would crash OpenCV.
    """
    line = "".join(" " if c.isspace() else c if c.isprintable() else "?" for c in text)
    if len(line) <= _LABEL_START + _LABEL_END + 2:
        return line
    return f"{line[:_LABEL_START]}..{line[-_LABEL_END:]}"


def class_colour(label: int) -> Colour:
    """Return the colour of a class; hues follow the golden ratio, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + label * 0.618034) % 1, 0.85, 0.95)
    return int(red * 255), int(green * 255), int(blue * 255)


def draw_boxes(
    image: Image,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    names: Sequence[str],
    scores: NDArray[np.float32] | None = None,
) -> Image:
    """Return a copy of the image with boxes, class names and, if given, scores (D,)."""
    canvas = np.ascontiguousarray(image).copy()
    # On a long strip the short side decides, or thick lines would cover the boxes.
    thickness = max(1, round(min(max(image.shape[:2]), 4 * min(image.shape[:2])) / 500))
    # Weak detections first, so that strong ones lie on top.
    for i in reversed(range(len(boxes))):
        label = int(labels[i])
        name = names[label] if scores is None else f"{names[label]} {scores[i]:.2f}"
        draw_box(canvas, boxes[i], class_colour(label), name, thickness)
    return canvas


def draw_box(
    canvas: Image, box: NDArray[np.float32], colour: Colour, text: str, thickness: int
) -> None:
    """Draw one box and its text (`label_text`) onto a picture, which must be contiguous."""
    text = label_text(text)
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
    scale = 0.35 + 0.1 * thickness
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    top = y1 if y1 >= height + 4 else y1 + height + 4  # inside the box if there is no room above it
    cv2.rectangle(canvas, (x1, top - height - 4), (x1 + width + 2, top), colour, cv2.FILLED)
    light = sum(colour) > 380
    ink = (0, 0, 0) if light else (255, 255, 255)
    cv2.putText(canvas, text, (x1 + 1, top - 3), _FONT, scale, ink, 1, cv2.LINE_AA)


def outline(image: Image, boxes: NDArray[np.float32], colour: Colour, thickness: int) -> None:
    """Draw boxes as plain lines, without smoothing, onto a picture."""
    for x1, y1, x2, y2 in np.rint(boxes).astype(int).tolist():
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness)


def hatch(image: Image, region: NDArray[np.bool_], colour: Colour) -> None:
    """Draw half transparent diagonal stripes, 2 of 12 px, onto a picture where `region` (H, W)."""
    rows, columns = np.indices(region.shape, dtype=np.int32)
    stripes = region & ((rows + columns) % 12 < 2)
    image[stripes] = image[stripes] // 2 + np.array(colour, np.uint8) // 2


def side_by_side(left: Image, right: Image, titles: tuple[str, str]) -> Image:
    """Return two pictures of one size beside each other, each under its title."""
    return np.concatenate([titled(left, titles[0]), titled(right, titles[1])], axis=1)


def titled(image: Image, *titles: str) -> Image:
    """Return a picture under a bar with a line of text for each of `titles`."""
    bar = np.full((18 * len(titles), image.shape[1], 3), 32, np.uint8)
    for i, title in enumerate(titles):
        line = "".join(c if c.isprintable() else "?" for c in title)
        cv2.putText(bar, line, (4, 13 + 18 * i), _FONT, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, image])


def grid(images: Sequence[Image], columns: int) -> Image:
    """Return a picture of the images in rows, each padded to the largest."""
    height = max(image.shape[0] for image in images) + 4
    width = max(image.shape[1] for image in images) + 4
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height, min(columns, len(images)) * width, 3), 32, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height + 2, i % columns * width + 2
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def enlarge(image: Image, longest: int) -> tuple[Image, int]:
    """Return an image enlarged by a whole factor, so that names fit, and the factor."""
    times = max(1, longest // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1), times


def scaled(image: Image, scale: float) -> Image:
    """Return a picture shrunk or enlarged by any factor."""
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(image, size, interpolation=way).astype(np.uint8, copy=False)


def fit(image: Image, longest: int) -> Image:
    """Return the image shrunk so that no side is longer than `longest` px."""
    scale = min(1.0, longest / max(image.shape[:2]))
    return image if scale == 1 else scaled(image, scale)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) RGB image: a PNG where the name ends in `.png`, else a JPEG.

    A JPEG with a side over `JPEG_SIDE` is scaled down. The file is whole or, after an error, as it
    was before.

    Raises:
        DrawingError: The encoder fails, or there is not enough memory.
        OSError: The folder cannot be written, or the disk is full.
    """
    is_png = path.suffix.lower() == ".png"
    options = [] if is_png else [cv2.IMWRITE_JPEG_QUALITY, 95]
    try:
        pixels = cv2.cvtColor(image if is_png else fit(image, JPEG_SIDE), cv2.COLOR_RGB2BGR)
        # Not with cv2.imwrite, which misses a full disk and, on Windows, fails on non-ASCII names.
        encoded, content = cv2.imencode(".png" if is_png else ".jpg", pixels, options)
    except (cv2.error, MemoryError) as error:
        raise DrawingError(f"{path}: {describe_failure(error)}") from None
    if not encoded:
        height, width = image.shape[:2]
        kind = "PNG" if is_png else "JPEG"
        raise DrawingError(f"{path}: the {kind} encoder failed at {width}x{height} px")
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())


def save_picture(path: Path, image: NDArray[np.uint8]) -> str:
    """Write an (H, W, 3) RGB image as a JPEG; a failure is returned, because work can continue.

    Returns:
        The path and the reason of a failure; an empty string if the picture is written.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        write_image(path, image)
    except DrawingError as error:
        return f"no picture: {error}"
    except OSError as error:
        if is_disk_failure(error):
            raise
        return f"no picture: {path}: {error.strerror}"
    return ""


def describe_failure(error: cv2.error | MemoryError) -> str:
    """Return the reason of a failure in one line."""
    if isinstance(error, MemoryError) or getattr(error, "code", None) == cv2.Error.StsNoMem:
        return "not enough memory"
    text = str(getattr(error, "err", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
