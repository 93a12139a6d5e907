"""Devices and processes: one rank a device, started by torchrun, or a single process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from retinanet.errors import UserError

_PATIENCE = timedelta(hours=2)
"""Scoring on rank 0 keeps the others waiting for minutes."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device
    host: dist.ProcessGroup | None = None
    """What plain values are exchanged by: the device computes on meanwhile."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.host)
        return tensor.tolist()

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor on the device by its sum over all ranks, without waiting for it."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, group=self.host)
        return values or []

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.host)
        return values[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank rank 0's buffers: batch norm's running statistics are each rank's own."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join_world(device: Literal["auto", "cpu", "cuda", "mps"]) -> World:
    """Take this process's place: torchrun's environment variables, or a world of one.

    Raises:
        UserError: the device asked for is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size > 1 and not dist.is_initialized():
        if place.type == "cuda":
            torch.cuda.set_device(place)
        backend = "nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    host: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None
    return World(rank=rank, size=size, device=place, host=host)


def _device(name: str, local_rank: int) -> torch.device:
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    if not has[name]:
        there = ", ".join(kind for kind, present in has.items() if present)
        raise UserError(f"train.device: {name} is not on this machine; there is: {there}")
    if name == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"torchrun started process {local_rank} here, but the machine has "
                f"{torch.cuda.device_count()} CUDA devices: one process a device"
            )
        return torch.device("cuda", local_rank)
    return torch.device(name)
