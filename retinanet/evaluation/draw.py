"""Pictures of boxes. Images are (H, W, 3) uint8 RGB, boxes (D, 4) xyxy px."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(label: int) -> tuple[int, int, int]:
    """Return a class's colour; neighbours differ, since hues follow the golden ratio."""
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
    thickness = max(1, round(max(image.shape[:2]) / 500))
    # Weak detections first, so that strong ones lie on top.
    for i in reversed(range(len(boxes))):
        label = int(labels[i])
        name = names[label] if scores is None else f"{names[label]} {scores[i]:.2f}"
        _draw_box(canvas, boxes[i], class_colour(label), name, thickness)
    return canvas


def _draw_box(
    canvas: Image, box: NDArray[np.float32], colour: tuple[int, int, int], text: str, thickness: int
) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
    scale = 0.35 + 0.1 * thickness
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    top = y1 if y1 >= height + 4 else y1 + height + 4  # inside the box where there is no room above
    cv2.rectangle(canvas, (x1, top - height - 4), (x1 + width + 2, top), colour, cv2.FILLED)
    light = sum(colour) > 380
    ink = (0, 0, 0) if light else (255, 255, 255)
    cv2.putText(canvas, text, (x1 + 1, top - 3), _FONT, scale, ink, 1, cv2.LINE_AA)


def side_by_side(left: Image, right: Image, titles: tuple[str, str]) -> Image:
    """Return two pictures of one size beside each other, each under its title."""
    return np.concatenate([_titled(left, titles[0]), _titled(right, titles[1])], axis=1)


def _titled(image: Image, title: str) -> Image:
    bar = np.full((18, image.shape[1], 3), 32, np.uint8)
    cv2.putText(bar, title, (4, 13), _FONT, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, image])


def grid(images: Sequence[Image], columns: int) -> Image:
    """Return pictures in rows, each padded to the largest."""
    height = max(image.shape[0] for image in images) + 4
    width = max(image.shape[1] for image in images) + 4
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height, min(columns, len(images)) * width, 3), 32, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height + 2, i % columns * width + 2
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def enlarge(image: Image, longest: int) -> tuple[Image, int]:
    """Return a small image enlarged a whole number of times, so that names fit, and that number."""
    times = max(1, longest // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1), times


def fit(image: Image, longest: int) -> Image:
    """Return the image shrunk so that no side is longer than `longest` px."""
    scale = min(1.0, longest / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    if scale == 1:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) RGB image.

    Raises:
        OSError: the folder or the disk does not take it.
    """
    # Not by cv2.imwrite: it fails in silence, and on Windows at every name that is not ASCII.
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(content.tobytes())
