"""Decides which size boxes refer to, if the record and the file of an image differ in size.

Either only the recorded size is wrong, and the boxes are px of the file. Or the boxes belong to an
image of the recorded size, and the file is a scaled copy of it. M boxes of such images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinanet.doctor.box_readings import (
    PLAIN,
    Boxes,
    BoxReading,
    Sizes,
    convert_boxes,
    judge,
    overshoot,
    slip_limit,
)

Frame = Literal["file", "record"]
"""Size that the boxes refer to: the file's size or the recorded one."""
_OTHERS = [BoxReading("xyxy"), BoxReading("cxcywh"), BoxReading("yxyx")]
"""Layouts that must be excluded as well: with them, nearly any size may fit."""
_MIN_LEAVING, _STRONG_SHARE = 3, 0.2
"""Number and share of boxes that must leave an image of the wrong size."""
_BORDER = 0.51
"""Distance in px within which a box counts as ending at the border."""
_CHANCE, _MIN_TIES = 5, 3
"""Boxes at a border are evidence only if there are this many times more than by chance, plus so
many."""
_MIN_REACH = 0.9
"""Share of the file's sides that some of its boxes should reach."""


@dataclass(frozen=True, kw_only=True)
class MismatchedBoxes:
    """Boxes of images with different sizes in record and file."""

    boxes: Boxes
    """(M, 4) boxes as in the annotation file."""
    record_sizes: Sizes
    """(M, 2) height and width in the record."""
    file_sizes: Sizes
    """(M, 2) height and width of the file."""


def find_frame(mismatched: MismatchedBoxes) -> Frame | None:
    """Return the only size that the boxes can refer to, or None if that is not clear."""
    boxes, record, file = mismatched.boxes, mismatched.record_sizes, mismatched.file_sizes
    if not _is_uniform(record, file):
        return None
    exchanged = record[:, ::-1]
    frames = [record, file]
    is_exchange = bool((exchanged == file).all())
    if not is_exchange and (record[:, 0] != record[:, 1]).any():
        frames.append(exchanged)
    others = [judge(boxes, frame, other) for frame in frames for other in _OTHERS]
    as_record, as_file, *as_exchanged = (judge(boxes, frame, PLAIN) for frame in frames)
    if min(fit.leaving for fit in (*others, *as_exchanged)) < _MIN_LEAVING:
        return None
    is_file = as_file.good and _are_too_large(boxes, record)
    if is_file and (is_exchange or _reaches_far(boxes, file)):
        return "file"
    # A file with another aspect ratio may be padded as well as stretched.
    is_record = _has_same_shape(record, file) and as_record.good
    too_large = _are_too_large(boxes, file)
    return "record" if is_record and (too_large or _ends_at_border(boxes, record)) else None


def _are_too_large(boxes: Boxes, sizes: Sizes) -> bool:
    """Whether many boxes leave images of these sizes, some of them in every layout."""
    read = convert_boxes(boxes, PLAIN, sizes)
    leaving = overshoot(read, sizes) > slip_limit(sizes)
    if leaving.sum() < max(_MIN_LEAVING, _STRONG_SHARE * len(boxes)):  # mistakes are fewer
        return False
    boxes, sizes = boxes[leaving], sizes[leaving]
    inexplicable = np.ones(len(boxes), bool)
    for other in _OTHERS:
        read = convert_boxes(boxes, other, sizes)
        fits = (overshoot(read, sizes) <= _BORDER) & (read[:, 2:] > 0).all(axis=1)
        inexplicable &= ~fits
    return bool(inexplicable.sum() >= _MIN_LEAVING)


def _is_uniform(record: Sizes, file: Sizes) -> bool:
    """Whether all images differ in the same way: by swapped sides, or by a factor per side."""
    if (record[:, ::-1] == file).all():
        return True
    factors = file / record
    middle = np.median(factors, axis=0)
    return bool((np.abs(record * middle - file) <= 1 + middle).all())


def _has_same_shape(record: Sizes, file: Sizes) -> bool:
    """Whether record and file differ by the same factor on both sides, up to rounding."""
    factor = np.median(file / record)
    return bool((np.abs(record * factor - file) <= 1 + factor).all())


def _reaches_far(boxes: Boxes, sizes: Sizes) -> bool:
    """Whether some boxes come close to the right and the lower border of their image."""
    reach = (boxes[:, :2] + boxes[:, 2:]) / sizes[:, ::-1]
    return bool((reach.max(axis=0) >= _MIN_REACH).all())


def _ends_at_border(boxes: Boxes, sizes: Sizes) -> bool:
    """Whether many more boxes end at the right or lower border than by chance."""
    distance: NDArray[np.float64] = np.abs(boxes[:, :2] + boxes[:, 2:] - sizes[:, ::-1])
    ties = int((distance <= _BORDER).any(axis=1).sum())
    chance = float((2 * _BORDER / sizes).sum())
    return ties >= _MIN_TIES + _CHANCE * chance
