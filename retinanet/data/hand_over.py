"""Hand a batch over from a loader process, in one block of shared memory.

By default torch hands over each tensor in its own file of /dev/shm, with its own descriptor, from a
thread of the loader process. If memory or descriptors run out there, the error is only printed: the
batch is lost, and the training process would wait for it forever. Here a batch takes one block and
one descriptor, and it is filled where an error is reported by the loader.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from retinanet.errors import TrainingError
from retinanet.files import readable_size

SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a mount point of Linux, no file is made by name)
_ALIGN = 64
"""Each tensor starts at a multiple of this many bytes."""

_Place = tuple[int, int, torch.dtype, tuple[int, ...], tuple[int, ...]]
"""Start and length in the block (bytes), type, size and stride of a tensor."""


@dataclass(frozen=True)
class Packed:
    """A value whose tensors are in one block of shared memory."""

    value: bytes
    """The pickled value, with numbers in place of its tensors."""
    places: list[_Place]
    block: Tensor
    """(bytes,) uint8."""

    def pin_memory(self) -> Packed:
        """Copy the block into page-locked memory (called by torch's loader)."""
        return replace(self, block=self.block.pin_memory())

    def unpack(self) -> Any:
        """Return the value; its tensors are views of the block."""
        return _Unpickler(io.BytesIO(self.value), self).load()


def pack(value: Any) -> Packed:
    """Copy all tensors of a value into one block of shared memory.

    Raises:
        TrainingError: There is too little shared memory.
    """
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.dump(value)
    places: list[_Place] = []
    end = 0
    for tensor in pickler.tensors:
        # In the order of its elements in memory, without gaps.
        stride = torch.empty_like(tensor, device="meta").stride()
        places.append((end, tensor.nbytes, tensor.dtype, tuple(tensor.shape), stride))
        end += -(-tensor.nbytes // _ALIGN) * _ALIGN
    block = _shared_block(end)
    for tensor, place in zip(pickler.tensors, places, strict=True):
        _view(block, place).copy_(tensor)
    return Packed(content.getvalue(), places, block)


def free_shared_memory() -> int | None:
    """Return the free bytes of the shared memory; None if it is not limited or not known."""
    if sys.platform != "linux":
        return None
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    # A file system without blocks has no limit (tmpfs with size=0).
    return found.f_bavail * found.f_frsize if found.f_blocks else None


class _Pickler(pickle.Pickler):
    """Pickles a value without its tensors, which it collects."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, Tensor):
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    """Puts the tensors of a block back into the value."""

    def __init__(self, file: io.BytesIO, packed: Packed) -> None:
        super().__init__(file)
        self._packed = packed

    def persistent_load(self, pid: int) -> Tensor:
        return _view(self._packed.block, self._packed.places[pid])


def _view(block: Tensor, place: _Place) -> Tensor:
    """Return the tensor at a place in the block."""
    start, length, dtype, size, stride = place
    return block[start : start + length].view(dtype).as_strided(size, stride, None)


def _shared_block(size: int) -> Tensor:
    """Return (size,) uint8 in shared memory.

    Raises:
        TrainingError: There is too little shared memory.
    """
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    free = free_shared_memory()
    try:
        if free is not None and free < size:  # torch would leave an empty file behind
            raise _too_little(size, "")
        new_shared = getattr(torch.UntypedStorage, "_new_shared", None)
        # In other releases of torch, memory of the process is copied to shared memory.
        storage = new_shared(size) if new_shared else torch.UntypedStorage(size).share_memory_()
    except (RuntimeError, OSError, MemoryError) as error:
        raise _too_little(size, f" ({error})") from None
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _too_little(size: int, reason: str) -> TrainingError:
    free = free_shared_memory()
    left = "" if free is None else f", {readable_size(free)} free in {SHARED_MEMORY}"
    return TrainingError(
        f"a loader process could not hand over a batch of {readable_size(size)}: too little shared "
        f"memory{left}{reason}. Another program may use it. Lower data.workers (0 needs none; the "
        "results stay the same), or give the container more: docker run --shm-size=8g, or "
        "--ipc=host"
    )
