"""Check that shared memory has room for the batches that loader processes prefetch.

A Docker container has 64 MB of it by default.
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
"""Batches that training itself holds: the current one and the next one."""
_ANCHOR_BYTES = 4 + 2
"""Bytes per anchor: its match (int32), and its part of the short lists of positive and ignored
anchors."""
_IMAGE_BYTES = 4096
"""Bytes per image: its boxes and sizes, and the alignment of tensors."""
_SEMAPHORE_BYTES = 4096
"""Bytes per semaphore: a page. Each queue of a loader has three; five more belong to the loader."""
_STEP = 64 * 2**20
"""The suggested memory is rounded up to a multiple of this."""


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
        batches: Bytes of the largest batch of each loader that is open at the same time.
        workers: Number of processes of each loader.
        ranks: Number of training processes on this machine, each with its own loaders.
    """
    if not workers:
        return 0
    semaphores = len(batches) * (8 + 3 * workers) * _SEMAPHORE_BYTES
    return ranks * (semaphores + sum(batches) * (PREFETCH * workers + _IN_HAND))


def check_shared_memory(
    batches: Sequence[int], *, workers: int, ranks: int, option: str = "data.workers="
) -> None:
    """Refuse loaders that need more shared memory than this machine has.

    Args:
        batches: Bytes of the largest batch of each loader that is open at the same time.
        workers: Number of processes of each loader.
        ranks: Number of training processes on this machine, each with its own loaders.
        option: Option that sets `workers`, for messages.

    Raises:
        UserError: There is too little; the message names the need, the free memory and remedies.
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
        f"{option}{workers}: the loader processes{each} pass their batches through shared memory "
        f"and need up to {readable_size(need)} of it, but {SHARED_MEMORY} has only "
        f"{readable_size(free)} free. {fewer} (the results stay the same). Or enlarge it: docker "
        f"run --shm-size={size} (or --ipc=host); without a container, as root: mount -o "
        f"remount,size={size} {SHARED_MEMORY}"
    )
