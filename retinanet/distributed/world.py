"""Devices and processes: one rank per device, started by torchrun, or a single process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
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
"""Time that plain values are waited for: rank 0 may score detections for many minutes."""
_DEVICE_PATIENCE = timedelta(minutes=15)
"""Time that GPUs wait for each other. They never wait for scoring, only for another GPU's step."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device
    host: dist.ProcessGroup | None = None
    """Group that exchanges plain values without interrupting the device."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @property
    def on_this_machine(self) -> int:
        """Number of processes of the group on this machine, from torchrun."""
        return min(self.size, _number("LOCAL_WORLD_SIZE", self.size))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks, in float64."""
        return self.sum_later(values)()

    def sum_later(self, values: Sequence[float]) -> Callable[[], list[float]]:
        """Start to sum over all ranks; return a function that waits for the sums, in float64."""
        if self.size == 1:
            return lambda: list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        work = dist.all_reduce(tensor, group=self.host, async_op=True)

        def wait() -> list[float]:
            work.wait()
            return tensor.tolist()

        return wait

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor on the device by its sum over all ranks, without waiting."""
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
        """Copy the buffers of rank 0 to every rank; running statistics of batch norm differ."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def wrap(self, model: nn.Module, canvas: tuple[int, int]) -> nn.Module:
        """Return the model with a backward pass that averages gradients over the ranks.

        Args:
            model: Network whose trained parameters all take part in every batch.
            canvas: Height and width of a valid canvas, px.
        """
        if self.size == 1:
            return model
        given = signature(DistributedDataParallel).parameters
        renamed = "forward_sync_buffers"  # in newer torch
        no_buffer: dict[str, Any] = {renamed if renamed in given else "broadcast_buffers": False}
        # Every parameter takes part in every batch, even without boxes. Still no static_graph: with
        # no_sync it lets the weights of the ranks drift apart.
        wrapped = DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **no_buffer,  # buffers are not learned
        )
        _settle_gradient_buckets(wrapped, self.device, canvas)
        return wrapped

    def fail(self, message: str, kind: type[TrainingError] = TrainingError) -> NoReturn:
        """End the run on all ranks, which have agreed to end it; rank 0 has the message.

        Raises:
            TrainingError: Always, of the given kind.
        """
        error = kind(message if self.is_main else "")
        error.agreed = True
        raise error

    @contextmanager
    def leaving_together(self) -> Iterator[None]:
        """Keep every rank in the block until rank 0 leaves it, also after an agreed error.

        torchrun ends all processes as soon as one has ended with an error, and rank 0 may still be
        writing the state.
        """
        try:
            yield
        except (TrainingError, UserError, InterruptedRunError) as error:
            if error.agreed:
                with suppress(RuntimeError):  # rank 0 is gone
                    self.broadcast(None)
            raise
        self.broadcast(None)


def _settle_gradient_buckets(
    wrapped: nn.Module, device: torch.device, canvas: tuple[int, int]
) -> None:
    """Fix the layout of the gradient buckets before the first step.

    DDP rearranges its buckets after the first backward pass, by the order in which gradients
    arrive. With three or more ranks the order of additions depends on the buckets. A resumed run
    must add in the same order as an uninterrupted one, so both start with the second layout.
    """
    images = torch.zeros(1, 3, *canvas, dtype=torch.uint8, device=device)
    sizes = torch.tensor([canvas], device=device)
    training = wrapped.training
    wrapped.eval()  # keeps the statistics of batch norm
    for _ in range(2):
        outputs = wrapped(images, sizes)
        (outputs.logits.sum() + outputs.deltas.sum()).backward()
    wrapped.zero_grad(set_to_none=True)
    wrapped.train(training)


@contextmanager
def joined_world(
    device: Literal["auto", "cpu", "cuda", "mps"], world: World | None = None
) -> Iterator[World]:
    """Join the group of this launch for a block (see `join_world`); a given world is used as it is.

    The group is left if all ranks end the block alike. It is not left after an error of a single
    rank: that waits for the exchanges of the others, and nccl's never finish. Then `cli.main` ends
    the process at once.

    Raises:
        UserError: The device does not exist, or the variables are wrong.
    """
    if world is not None:
        yield world
        return
    world = join_world(device)
    try:
        yield world
    except BaseException as error:
        if getattr(error, "agreed", False):
            _leave(world)
        raise
    _leave(world)


def _leave(world: World) -> None:
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def join_world(device: Literal["auto", "cpu", "cuda", "mps"]) -> World:
    """Join the group given by torchrun's environment variables, or form a group of one.

    Raises:
        UserError: The device does not exist, or the variables are wrong.
    """
    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if not 0 <= rank < size:
        raise UserError(
            f"RANK={rank} and WORLD_SIZE={size} do not match; start processes with torchrun"
        )
    own_device = find_device(device, _number("LOCAL_RANK", 0))
    if size > 1 and not dist.is_initialized():
        if own_device.type == "cuda":
            torch.cuda.set_device(own_device)
        on_gpu = own_device.type == "cuda"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            timeout=_DEVICE_PATIENCE if on_gpu else _PATIENCE,
            store=fresh_store(rank, size),
            rank=rank,
            world_size=size,
            device_id=own_device if on_gpu else None,
        )
    host: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None
    return World(rank=rank, size=size, device=own_device, host=host)


def _number(variable: str, default: int) -> int:
    """Return the number in an environment variable set by torchrun.

    Raises:
        UserError: It is not a whole number.
    """
    value = os.environ.get(variable, str(default))
    try:
        return int(value)
    except ValueError:
        raise UserError(
            f"{variable}={value} is not a whole number; start processes with torchrun"
        ) from None
