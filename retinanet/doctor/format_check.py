"""Tests whether the boxes of a file are [x, y, width, height] in px, or in another format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retinanet.data.checks import (
    CENTRES,
    CORNERS,
    box_parts,
    corner_area,
    find_wrong_format,
    fit_as_centres,
    fit_as_corners,
)
from retinanet.data.coco.annotations import Annotations
from retinanet.doctor.box_readings import PLAIN, read_boxes
from retinanet.doctor.findings import Finding, Findings, findings_of
from retinanet.errors import plural

WRONG_FORMATS = ("corner-boxes", "centre-boxes", "normalised-boxes", "suspicious-format")
"""Kinds of finding that concern all boxes of a file."""
_MANY, _SHARE = 10, 0.2
"""Number and share of boxes far outside their image from which the format is suspicious."""
_FAR, _FAR_SHARE = 2, 0.01
"""px, and share of the image's side, beyond which a box is far outside its image."""


def find_format_faults(annotations: Annotations) -> list[Findings]:
    """Find a file whose boxes, all or many of them, are not [x, y, width, height] px."""
    wrong = find_wrong_format(annotations)
    if wrong is not None:
        kinds = {
            "corners": "corner-boxes",
            "centres": "centre-boxes",
            "normalised": "normalised-boxes",
        }
        kind = kinds.get(wrong.kind, "suspicious-format")
        return findings_of(kind, annotations.path, [Finding("", wrong.text)])
    text = _describe_suspicion(annotations)
    kind = "suspicious-format" if text else "doubtful-format"
    text = text or _describe_doubt(annotations)
    return findings_of(kind, annotations.path, [Finding("", text)] if text else [])


def _describe_doubt(annotations: Annotations) -> str:
    """Describe which other format the boxes may have, if training would accept them."""
    boxes = annotations.boxes.astype(np.float64)
    sizes = annotations.sizes[annotations.image_of_box()]
    verdict = read_boxes(boxes, sizes, annotations.areas, np.full_like(boxes, np.nan))
    if verdict.is_clear:
        return ""
    others = ", or ".join(str(reading) for reading in verdict.readings if reading != PLAIN)
    return verdict.text + (f"; they may be {others}" if others else "")


def _describe_suspicion(annotations: Annotations) -> str:
    """Describe which format would fit, if many boxes extend beyond their image."""
    total = len(annotations.boxes)
    far, areas = 0, 0
    misfits = {what: np.zeros(len(annotations), np.int64) for what in (CORNERS, CENTRES)}
    owners = annotations.image_of_box()
    for start, stop, size in box_parts(annotations):
        boxes, owner = annotations.boxes[start:stop], owners[start:stop]
        far += int(_leaves_far(boxes, size).sum())
        areas += int(corner_area(boxes, annotations.areas[start:stop]).sum())
        for what, fits in ((CORNERS, fit_as_corners), (CENTRES, fit_as_centres)):
            misfits[what] += np.bincount(owner[~fits(boxes, size)], minlength=len(annotations))
    if far < max(_MANY, _SHARE * total):
        return ""
    filled = np.diff(annotations.offsets) > 0
    fitting = {what: int((filled & (count == 0)).sum()) for what, count in misfits.items()}
    clues = [
        f"in {images} of {int(filled.sum())} images, all boxes would fit as {what}"
        for what, images in fitting.items()
        if images >= _SHARE * filled.sum()
    ]
    clues += [f"{plural(areas, 'box has', 'boxes have')} the area of {CORNERS}"] if areas else []
    if not clues:  # whole objects may be annotated, beyond the border
        return ""
    clue = "; ".join(clues)
    return (
        f"{far} of {total} boxes extend beyond their image by more than {_FAR} px and 1 %; {clue}"
    )


def _leaves_far(boxes: NDArray[np.float32], size: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which boxes are far outside their image."""
    (x, y, w, h), (height, width) = boxes.T, size.T
    wide, high = (np.maximum(_FAR, _FAR_SHARE * side) for side in (width, height))
    return (x < -wide) | (y < -high) | (x + w > width + wide) | (y + h > height + high)
