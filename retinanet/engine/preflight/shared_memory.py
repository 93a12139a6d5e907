"""Is there enough shared memory for what the loader processes work ahead?

A container of Docker has 64 MB of it by default.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from retinanet.data.canvas import Size, evaluation_canvas
from retinanet.data.hand_over import SHARED_MEMORY, free_shared_memory
from retinanet.data.loader import PREFETCH
from retinanet.engine.preflight.micro_batch import largest_canvas
from retinanet.engine.splits import Split
from retinanet.errors import UserError
from retinanet.files import readable_size
from retinanet.model.anchors import build_anchors
from retinanet.schema import Config

_IN_HAND = 2
"""Batches that the training holds itself: the one in use, and the one that takes its place."""
_ANCHOR_BYTES = 4 + 2
"""Of each anchor: its match (int32), and lists of those that are positive or ignored, which are few
of them."""
_IMAGE_BYTES = 4096
"""Of each image: its boxes and sizes, and where tensors begin."""
_SEMAPHORE_BYTES = 4096
"""A page each; a queue has three, and one more thing of a loader five."""
_STEP = 64 * 2**20
"""The memory to ask for is rounded up to a multiple of this."""


def step_bytes(config: Config, train: Split, *, ranks: int) -> int:
    """Return the bytes of the largest part of a step that a loader process hands over."""
    images = -(-config.train.batch_size // ranks)
    return images * _image_bytes(config, largest_canvas(config, train), losses=True)


def evaluation_bytes(config: Config, val: Split, *, losses: bool) -> int:
    """Return the bytes of the largest evaluation batch that a loader process hands over."""
    data = config.data
    images = min(config.eval.batch_size, len(val.annotations))
    return images * max(
        _image_bytes(
            config,
            evaluation_canvas(
                (height, width),
                short_side=data.evaluation_short_side,
                long_side=data.long_side,
                policy=data.canvas,
            ),
            losses=losses,
        )
        for height, width in val.annotations.distinct_sizes().tolist()
    )


def _image_bytes(config: Config, canvas: Size, *, losses: bool) -> int:
    anchors = sum(build_anchors(config.anchors).per_level(canvas)) if losses else 0
    return 3 * math.prod(canvas) + _ANCHOR_BYTES * anchors + _IMAGE_BYTES


def needed(batches: Sequence[int], *, workers: int, ranks: int) -> int:
    """Return the shared memory (bytes) that loaders need at most.

    Args:
        batches: bytes of the largest batch of each loader that is open at the same time.
        workers: processes of each loader.
        ranks: training processes on this machine, each with its own loaders.
    """
    if not workers:
        return 0
    semaphores = len(batches) * (8 + 3 * workers) * _SEMAPHORE_BYTES
    return ranks * (semaphores + sum(batches) * (PREFETCH * workers + _IN_HAND))


def check_shared_memory(
    batches: Sequence[int], *, workers: int, ranks: int, option: str = "data.workers="
) -> None:
    """Refuse loaders for which the shared memory of this machine is too small.

    Args:
        batches: bytes of the largest batch of each loader that is open at the same time.
        workers: processes of each loader.
        ranks: training processes on this machine, each with its own loaders.
        option: what the user writes before the number of processes.

    Raises:
        UserError: the need, what is free, and what helps.
    """
    free, need = free_shared_memory(), needed(batches, workers=workers, ranks=ranks)
    if free is None or need <= free:
        return
    fitting = 0
    while needed(batches, workers=fitting + 1, ranks=ranks) <= free:
        fitting += 1
    found = os.statvfs(SHARED_MEMORY)
    used = (found.f_blocks - found.f_bavail) * found.f_frsize
    size = f"{-(-(need + used) // _STEP) * _STEP >> 20}m"
    fewer = f"{option}{fitting} fits, 0 needs none" if fitting else f"{option}0 needs none"
    each = f" of each of {ranks} processes" if ranks > 1 else ""
    raise UserError(
        f"{option}{workers}: the loader processes{each} hand their batches over in shared "
        f"memory, and need up to {readable_size(need)} of it, but {SHARED_MEMORY} has "
        f"{readable_size(free)} free. {fewer} (the results stay the same). Or give it more: docker "
        f"run --shm-size={size} (or --ipc=host); without a container, as root: mount -o "
        f"remount,size={size} {SHARED_MEMORY}"
    )
