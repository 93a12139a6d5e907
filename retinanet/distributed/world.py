"""Devices and processes: one rank per device, started by torchrun, or a single process."""

from __future__ import annotations

import os
import socket
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
from retinanet.distributed.rendezvous import ask_first, fresh_store
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
    machine: dist.ProcessGroup | None = None
    """The same among the processes of this machine; None if all of them are on it."""
    first_here: int = 0
    """Rank of the first process of this machine."""

    @property
    def is_first_here(self) -> bool:
        """Whether this process reads files for the others of its machine."""
        return self.rank == self.first_here

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

    def broadcast_here(self, value: Any) -> Any:
        """Return the value of the first process of this machine on each of its processes."""
        if self.size == 1:
            return value
        values = [value]
        group = self.machine or self.host
        dist.broadcast_object_list(values, src=self.first_here, group=group)
        return values[0]

    def broadcast_tensor(self, tensor: Tensor) -> None:
        """Replace the content of a tensor on the host by that of rank 0."""
        if self.size > 1:
            dist.broadcast(tensor, src=0, group=self.host)

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


Device = Literal["auto", "cpu", "cuda", "mps"]
"""Values of `train.device`."""


@contextmanager
def joined_world(
    device: Device | Callable[[], Device], world: World | None = None
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


def join_world(device: Device | Callable[[], Device]) -> World:
    """Join the group given by torchrun's environment variables, or form a group of one.

    Args:
        device: Value of `train.device`, or a function that finds it out. Of several processes, only
            the first calls the function, and the others use what it returns.

    Raises:
        UserError: The device does not exist, or the variables are wrong.
    """
    size, rank, local_rank = _number("WORLD_SIZE", 1), _number("RANK", 0), _number("LOCAL_RANK", 0)
    if not 0 <= rank < size:
        raise UserError(
            f"RANK={rank} and WORLD_SIZE={size} do not match; start processes with torchrun"
        )
    name: str
    if size == 1:
        name = device if isinstance(device, str) else device()
        return World(rank=rank, size=size, device=find_device(name, local_rank))
    store = None
    if isinstance(device, str):
        name = device
    else:
        store = fresh_store(rank, size)
        name = ask_first(store, rank, device)
    own_device = find_device(name, local_rank)
    if not dist.is_initialized():
        _initialize(own_device, store or fresh_store(rank, size), rank, size)
    host: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
    machine, first_here = _join_machine(host, rank, size)
    return World(
        rank=rank, size=size, device=own_device, host=host, machine=machine, first_here=first_here
    )


def _initialize(device: torch.device, store: dist.Store, rank: int, size: int) -> None:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        timeout=_DEVICE_PATIENCE if on_gpu else _PATIENCE,
        store=store,
        rank=rank,
        world_size=size,
        device_id=device if on_gpu else None,
    )


def _join_machine(
    host: dist.ProcessGroup, rank: int, size: int
) -> tuple[dist.ProcessGroup | None, int]:
    """Return the group of this machine's processes, None if they are all, and its first rank."""
    # torchrun numbers the machines; other launchers may not.
    own = os.environ.get("GROUP_RANK", socket.gethostname())
    names: list[Any] = [None] * size
    dist.all_gather_object(names, own, group=host)
    machines = list(dict.fromkeys(names))
    if len(machines) == 1:
        return None, 0
    ranks_of = [[other for other in range(size) if names[other] == name] for name in machines]
    # Every rank takes part in the making of every group.
    groups: list[Any] = [
        dist.new_group(ranks, backend="gloo", timeout=_PATIENCE) for ranks in ranks_of
    ]
    place = machines.index(own)
    return groups[place], ranks_of[place][0]


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
