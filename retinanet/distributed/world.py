"""Devices and processes: one rank a device, started by torchrun, or a single process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.distributed.device import find_device
from retinanet.distributed.rendezvous import fresh_store
from retinanet.errors import InterruptedRunError, TrainingError, UserError

_PATIENCE = timedelta(hours=2)
"""Scoring on rank 0 keeps the others waiting for minutes."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device
    host: dist.ProcessGroup | None = None
    """The group that exchanges plain values: the device computes on meanwhile."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @property
    def on_this_machine(self) -> int:
        """Number of processes of the group on this machine, as torchrun says."""
        return min(self.size, _number("LOCAL_WORLD_SIZE", self.size))

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

    def wrap(self, model: nn.Module, canvas: tuple[int, int]) -> nn.Module:
        """Return the model whose backward pass averages gradients over the ranks.

        Args:
            model: every parameter that is trained takes part in every batch.
            canvas: Height and width (px) of a canvas that it takes.
        """
        if self.size == 1:
            return model
        given = signature(DistributedDataParallel).parameters
        renamed = "forward_sync_buffers"  # in newer torch
        no_buffer: dict[str, Any] = {renamed if renamed in given else "broadcast_buffers": False}
        # Every parameter takes part in every batch, without boxes too; still, no static_graph:
        # torch's does not hold with no_sync, the ranks' weights drift apart.
        wrapped = DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **no_buffer,  # none of them is learned
        )
        _settle_gradient_buckets(wrapped, self.device, canvas)
        return wrapped

    def fail(self, message: str, kind: type[TrainingError] = TrainingError) -> NoReturn:
        """End the run on all ranks, which have agreed that it must end; rank 0 says why.

        Raises:
            TrainingError: always, of the kind given.
        """
        error = kind(message if self.is_main else "")
        error.agreed = True
        raise error

    @contextmanager
    def leaving_together(self) -> Iterator[None]:
        """Let no rank leave the block, by its end or by an end that all agreed on, before rank 0.

        torchrun ends the others as soon as one process of the run has ended with an error, and
        rank 0 may still be writing the state.
        """
        try:
            yield
        except (TrainingError, UserError, InterruptedRunError) as error:
            if error.agreed:
                with suppress(RuntimeError):  # rank 0 is gone: there is nothing to wait for
                    self.broadcast(None)
            raise
        self.broadcast(None)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _settle_gradient_buckets(
    wrapped: nn.Module, device: torch.device, canvas: tuple[int, int]
) -> None:
    """Let the gradients find their buckets before the first step.

    The first backward pass shows in which order gradients come, and the buckets are then laid out
    anew. With three ranks the order of additions follows from the buckets; so that a resumed run
    adds as one that was never interrupted, both begin with the second layout.
    """
    images = torch.zeros(1, 3, *canvas, dtype=torch.uint8, device=device)
    sizes = torch.tensor([canvas], device=device)
    training = wrapped.training
    wrapped.eval()  # the statistics of batch norm do not move
    for _ in range(2):
        outputs = wrapped(images, sizes)
        (outputs.logits.sum() + outputs.deltas.sum()).backward()
    wrapped.zero_grad(set_to_none=True)
    wrapped.train(training)


def join_world(device: Literal["auto", "cpu", "cuda", "mps"]) -> World:
    """Take this process's place: torchrun's environment variables, or a world of one.

    Raises:
        UserError: the device asked for is not there.
    """
    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if not 0 <= rank < size:
        raise UserError(
            f"RANK={rank} and WORLD_SIZE={size} do not fit; start processes with torchrun"
        )
    own_device = find_device(device, _number("LOCAL_RANK", 0))
    if size > 1 and not dist.is_initialized():
        if own_device.type == "cuda":
            torch.cuda.set_device(own_device)
        backend = "nccl" if own_device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            timeout=_PATIENCE,
            store=fresh_store(rank, size),
            rank=rank,
            world_size=size,
        )
    host: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None
    return World(rank=rank, size=size, device=own_device, host=host)


def _number(variable: str, default: int) -> int:
    """Return the number in an environment variable, as torchrun sets it.

    Raises:
        UserError: it is none.
    """
    value = os.environ.get(variable, str(default))
    try:
        return int(value)
    except ValueError:
        raise UserError(
            f"{variable}={value} is no whole number; start processes with torchrun"
        ) from None
