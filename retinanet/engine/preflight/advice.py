"""What is usual for a data set of this size: how long to train, and at which learning rate."""

from __future__ import annotations

from math import sqrt
from typing import Literal

from retinanet.checkpoints.format import Checkpoint
from retinanet.schema import Config

Start = Literal["random weights", "a backbone", "a detector"]

_RATES: dict[str, dict[Start, float]] = {
    "adamw": {"random weights": 1e-3, "a backbone": 7e-4, "a detector": 4e-4},
    "sgd": {"random weights": 2e-2, "a backbone": 1e-2, "a detector": 2e-3},
}
"""Learning rates of a batch of 16. SGD from a backbone is the paper's (section 4.1); those of AdamW
lie around what was measured on blood cells, batches of 8 (docs/finetuning.md), where more than is
said here did no harm to subnets with group norm; the two others are rules of thumb."""


def usual_epochs(images: int, start: Start) -> float:
    """Return how many epochs are usual: 30 of 300 images, 12 of COCO's 118,000.

    The first is around what was measured on blood cells (docs/finetuning.md), the last detectron2's
    and torchvision's 1x, from a backbone. Elsewhere a power of the number: the more images, the
    more steps, but fewer epochs. From a detector half as many, as was enough for blood cells. Of
    many images from random weights nothing was measured; they may well take longer.
    """
    return min(max(30 * (300 / images) ** 0.153, 12), 60) * (0.5 if start == "a detector" else 1)


def usual_rate(optimizer: str, batch_size: int, start: Start) -> float:
    """Return the usual learning rate: in proportion to the batch for SGD, to its root for AdamW."""
    scale = batch_size / 16
    return _RATES[optimizer][start] * (scale if optimizer == "sgd" else sqrt(scale))


def advise(config: Config, images: int, weights: Checkpoint | None) -> str:
    """Say what is usual for a number of training images, and what the config has.

    Args:
        config: the run's config.
        images: images of an epoch.
        weights: what the run starts from; None: the weights that the config names, if any.
    """
    start: Start = "random weights"
    if weights is not None:
        start = "a detector" if weights.categories else "a backbone"
    elif config.model.weights != "none":
        start = "a backbone"
    train = config.train
    low, high = (_round_epochs(usual_epochs(images, start) * factor) for factor in (0.7, 1.4))
    steps = [max(round(epochs * images / train.batch_size, -1), 10) for epochs in (low, high)]
    epochs = train.epochs or (train.steps or 0) * train.batch_size / images
    rate = usual_rate(train.optimizer, train.batch_size, start)
    return (
        f"usual for {images:,} images, from {start}: {low} to {high} epochs = {steps[0]:,.0f} to "
        f"{steps[1]:,.0f} steps of {train.batch_size} (here {epochs:.3g} epochs); "
        f"{train.optimizer} lr {rate * 0.7:.1g} to {rate * 2:.1g} (here {train.lr:g})"
    )


def _round_epochs(epochs: float) -> int:
    """Round to whole epochs, and from 20 on to a multiple of five."""
    return round(epochs / 5) * 5 if epochs >= 20 else round(epochs)
