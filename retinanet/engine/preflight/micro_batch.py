"""Resolve `train.micro_batch`: the value for `auto`, and a trial of it before step 0.

The result of a training does not depend on it: the batch is only cut into more or fewer pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from retinanet.batch import Batch
from retinanet.config import override_config
from retinanet.data.canvas import Size, cover, evaluation_canvas
from retinanet.data.collate import LoadedImage, collate, empty_target
from retinanet.data.sampler import canvases_of_batch
from retinanet.distributed.device import has_own_memory, wait_for
from retinanet.distributed.precision import autocast
from retinanet.distributed.world import World
from retinanet.engine.run import Run
from retinanet.engine.splits import Split, training_canvas
from retinanet.model.anchors import AnchorGenerator
from retinanet.schema import Config
from retinanet.structures import BACKGROUND, Target

_HOST_PIXELS = 2_500_000
"""Canvas pixels of a micro-batch on a CPU: two images of COCO. More would not be faster."""


def resolve_micro_batch(config: Config, train: Split, world: World) -> int:
    """Return the micro-batch: the number of images that a device processes at a time.

    On a GPU, `auto` is as many images as possible, until `fit_micro_batch` has tried them. On a
    CPU, it is the number of images that fit into `_HOST_PIXELS`.
    """
    if config.train.micro_batch != "auto":
        return config.train.micro_batch
    most = _most_images(config, world)
    if has_own_memory(world.device):
        return most
    return min(most, max(1, _HOST_PIXELS // max(map(math.prod, _image_canvases(config, train)))))


def fit_micro_batch(run: Run, *, asked: int | str) -> list[str]:
    """Try `train.micro_batch` at the plan's largest canvas; halve an `auto` that does not fit.

    All ranks try at the same time and agree, because two processes may share a device. The result
    is stored in the run's config.

    Args:
        run: The run, before its first step.
        asked: Value in the user's config: `auto` or a number.

    Returns:
        Notes about a smaller micro-batch.

    Raises:
        TrainingError: The requested number of images does not fit, or not even one image fits.
    """
    config = run.config
    micro_batch = config.train.micro_batch
    assert micro_batch != "auto"
    canvas = largest_canvas(config, run.train)
    tried = min(micro_batch, _most_images(config, run.world))
    fitting = largest_that_fits(tried, lambda images: _fits(run, images, canvas), run.world)
    size = f"{canvas[1]}x{canvas[0]} px"
    memory = f"the device's memory{_memory_size(run.world.device)}"
    if fitting is None:
        run.world.fail(
            f"train.micro_batch: not even one image of {size} fits into {memory}: lower "
            "data.short_side and data.long_side, or use a smaller model.backbone or "
            "train.precision=bf16"
        )
    if fitting == tried:
        return []
    does = f"{fitting} {'does' if fitting == 1 else 'do'}"
    if asked != "auto":
        run.world.fail(
            f"train.micro_batch={asked}: {tried} images of {size} do not fit into {memory}, "
            f"but {does}: set train.micro_batch={fitting} (the batch and the results stay the "
            "same)"
        )
    run.config = override_config(config, [f"train.micro_batch={fitting}"])
    return [f"train.micro_batch auto: {tried} images did not fit into memory, but {does}"]


def _most_images(config: Config, world: World) -> int:
    """Return the images of the largest micro-batch: a rank's share, or those of one canvas."""
    return min(-(-config.train.batch_size // world.size), _images_of_canvas(config))


def _images_of_canvas(config: Config) -> int:
    """Return the most images that share a canvas."""
    size = config.train.batch_size
    return -(-size // canvases_of_batch(size, config.data.images_per_canvas))


def largest_that_fits(images: int, fits: Callable[[int], bool], world: World) -> int | None:
    """Halve a number of images (rounding up) until it fits on every rank; None if 1 is too many."""
    while images:
        (failed,) = world.sum([not fits(images)])
        if not failed:
            return images
        images = -(-images // 2) if images > 1 else 0
    return None


def _fits(run: Run, images: int, canvas: Size) -> bool:
    """Whether the device has the memory for a forward and backward pass of a micro-batch."""
    try:
        _forward_and_back(run, images, canvas)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        fitted = False
    else:
        fitted = True
    # After the except clause nothing refers to the tensors of the pass any more.
    if has_own_memory(run.world.device):
        torch.accelerator.empty_cache()
    return fitted


def _is_out_of_memory(error: RuntimeError) -> bool:
    # cuDNN, cuBLAS and Apple's GPUs have error texts of their own.
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "ALLOC_FAILED")
    )


def _forward_and_back(run: Run, images: int, canvas: Size) -> None:
    """Run blank images forward and backward without a trace.

    The gradients are returned, not added to those of the parameters, so the hooks of
    DistributedDataParallel, which wait for the other ranks, are not called.
    """
    trainable = [p for p in run.model.parameters() if p.requires_grad]
    # Room for accumulated gradients, and for the moments that AdamW creates in its first step.
    copies = 1 if run.optimizer.state else {"sgd": 1, "adamw": 3}[run.config.train.optimizer]
    reserved = [torch.empty_like(p) for p in trainable for _ in range(copies)]
    batch = _blank_batch(run.model.anchors, images, canvas).to(run.world.device)
    training = run.model.training
    run.model.eval()  # batch norm must not change
    try:
        with autocast(run.world.device, run.precision):
            outputs = run.model(batch.images, batch.sizes)
        losses = run.criterion(outputs, batch)
        torch.autograd.grad(losses["class"] + losses["box"], trainable, allow_unused=True)
    finally:
        run.model.train(training)
    wait_for(run.world.device)  # errors of the device appear here
    del reserved


def _blank_batch(anchors: AnchorGenerator, images: int, canvas: Size) -> Batch:
    """Return a batch of images without boxes; all their anchors are negatives."""
    image = LoadedImage(
        pixels=np.zeros((1, 1, 3), np.uint8),
        size=(1, 1),
        original_size=(1, 1),
        image_id=0,
        target=empty_target(),
    )

    def match(place: Size, target: Target) -> Tensor:
        del target
        return torch.full((sum(anchors.per_level(place)),), BACKGROUND, dtype=torch.int32)

    return collate([image] * images, canvas, match)


def _memory_size(device: torch.device) -> str:
    """Return a GPU's memory in parentheses, for a message; "" for other devices."""
    if device.type != "cuda":
        return ""
    total = torch.cuda.get_device_properties(device).total_memory
    return f" ({total / 2**30:.1f} GiB)"


def largest_canvas(config: Config, train: Split) -> Size:
    """Return the largest canvas that a step may have.

    The images left over in the buckets at the end of an epoch share a canvas that covers them all,
    and so may a wide and a tall image of a group.
    """
    canvases = _image_canvases(config, train)
    return cover(canvases) if _images_of_canvas(config) > 1 else max(canvases, key=math.prod)


def _image_canvases(config: Config, train: Split) -> list[Size]:
    """Return the canvas of each image size, at the largest short side."""
    data = config.data
    fixed = training_canvas(data)
    if fixed:
        return [fixed]
    return [
        evaluation_canvas(
            (height, width),
            short_side=max(data.short_side),
            long_side=data.long_side,
            policy=data.canvas,
        )
        for height, width in train.annotations.distinct_sizes().tolist()
    ]
