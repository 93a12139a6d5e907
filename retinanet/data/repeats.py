"""Repeat-factor sampling: images of rare classes occur several times in an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from retinanet.data.boxes_used import parts
from retinanet.data.coco.annotations import Annotations


def repeat_factors(
    annotations: Annotations, rows: NDArray[np.int64], *, threshold: float
) -> NDArray[np.float64]:
    """Return how often each of some images occurs in an epoch, at least 1.

    The factor of an image is the largest sqrt(threshold / f(c)) of its classes c. f(c) is the share
    of images with a box of class c (Gupta et al., *LVIS*, appendix B.2). Crowds do not count.

    Args:
        annotations: Index of the split.
        rows: (N,) rows of the images to train on.
        threshold: Share of images, 0..1, below which a class is rare.
    """
    is_trained_on = np.zeros(len(annotations), bool)
    is_trained_on[rows] = True
    classes = len(annotations.categories)
    counts = np.zeros(classes, np.int64)
    for owner, label in _image_class_pairs(annotations):
        counts += np.bincount(label[is_trained_on[owner]], minlength=classes)
    with np.errstate(divide="ignore"):
        of_class = np.maximum(1.0, np.sqrt(threshold * len(rows) / counts))
    factors = np.ones(len(annotations))
    for owner, label in _image_class_pairs(annotations):
        np.maximum.at(factors, owner, of_class[label])
    return factors[rows]


def _image_class_pairs(
    annotations: Annotations,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each pair of an image (row) and a class in it (label) once."""
    classes = len(annotations.categories)
    for first, last in parts(annotations):
        start, stop = annotations.offsets[[first, last]]
        owner = np.repeat(np.arange(first, last), np.diff(annotations.offsets[first : last + 1]))
        learned = ~annotations.crowd[start:stop]
        pairs = np.unique(owner[learned] * classes + annotations.labels[start:stop][learned])
        yield pairs // classes, pairs % classes
