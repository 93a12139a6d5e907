"""Read files once for all processes: a shared file system would have to serve hundreds of them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from retinanet.distributed.raise_together import raise_together
from retinanet.distributed.world import World

T = TypeVar("T")


def read_once(world: World, read: Callable[[], T]) -> T:
    """Return on every rank what rank 0 reads. All ranks call it at the same place.

    Args:
        world: This process among the others.
        read: Reads the files; it is called on rank 0.

    Raises:
        UserError, TrainingError: The error of rank 0, with its text there alone.
        Exception: Any other error, on rank 0.
    """
    if world.size == 1:
        return read()
    return send(world, _run_on(world, read, is_reader=world.is_main))


def read_once_a_machine(world: World, read: Callable[[], T]) -> T:
    """Return what the first process of each machine reads: paths and files may differ there.

    See `read_once`. The value is pickled as it is.
    """
    if world.size == 1:
        return read()
    return world.broadcast_here(_run_on(world, read, is_reader=world.is_first_here))


def do_together(world: World, work: Callable[[], T]) -> T:
    """Do the same on every rank. If it fails on any of them, all end with one message.

    See `read_once`.
    """
    return work() if world.size == 1 else _run_on(world, work, is_reader=True)


def _run_on(world: World, work: Callable[[], T], *, is_reader: bool) -> Any:
    """Return the result on the ranks that do the work, and None elsewhere; raise on all."""
    result, error = None, None
    if is_reader:
        try:
            result = work()
        except Exception as caught:  # `raise_together` raises it
            error = caught
    raise_together(world, error=error)
    return result


def send(world: World, value: T) -> T:
    """Return rank 0's value on every rank. Its tensors are sent one by one, without copies.

    Args:
        world: This process among the others.
        value: Value of rank 0, which may contain tensors on the host; elsewhere it is ignored.
    """
    if world.size == 1:
        return value
    if not world.is_main:
        unpickler = _Unpickler(io.BytesIO(world.broadcast(None)))
        value = unpickler.load()
        tensors = unpickler.tensors
    else:
        content = io.BytesIO()
        pickler = _Pickler(content)
        pickler.dump(value)
        world.broadcast(content.getvalue())
        tensors = pickler.tensors
    for tensor in tensors:
        if tensor.numel():
            # The bytes in the order of the memory, whatever the layout.
            flat = tensor.as_strided((tensor.numel(),), (1,))
            world.broadcast_tensor(flat.view(torch.uint8))
    return value


class _Pickler(pickle.Pickler):
    """Pickles a value without the content of its tensors, and lists them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        """Return what creates an empty tensor like this one; None for other values."""
        if not isinstance(value, Tensor):
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.tensors)
            # A tensor with gaps in memory is copied.
            stride = torch.empty_like(value, device="meta").stride()
            is_dense = value.stride() == stride
            self.tensors.append(value.detach() if is_dense else value.detach().contiguous())
        number = self._numbers[id(value)]
        tensor = self.tensors[number]
        return number, tuple(tensor.shape), tensor.stride(), tensor.dtype


class _Unpickler(pickle.Unpickler):
    """Creates a value with empty tensors, and lists them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the empty tensor; the same one for the same number."""
        number, shape, stride, kind = pid
        if number == len(self.tensors):
            self.tensors.append(torch.empty_strided(shape, stride, dtype=kind))
        return self.tensors[number]
