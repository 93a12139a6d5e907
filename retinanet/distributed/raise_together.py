"""End all processes at the same place and with one message if one of them fails."""

from __future__ import annotations

from retinanet.distributed.world import World
from retinanet.errors import InterruptedRunError, TrainingError, UserError


def raise_together(world: World, *, error: Exception | None, number: int = 0) -> None:
    """Raise on every rank if any rank has an error: one that continued would wait for the others.

    All ranks call it at the same place.

    Args:
        world: This process among the others.
        error: Error of this rank, if any.
        number: Number of the signal that this rank received; 0 for none.

    Raises:
        UserError, TrainingError: The error of the first rank that has one. Only rank 0 has the
            text, so that it is printed once.
        Exception: Any other error of this rank.
        InterruptedRunError: Some rank received a signal.
    """
    failed, signalled = world.sum([error is not None, number > 0])
    if failed:
        _raise_first(world, error)
    if signalled:
        raise InterruptedRunError(agree_on_signal(world, number), "")


def agree_on_signal(world: World, number: int) -> int:
    """Return one signal for all ranks: the highest number that any of them received.

    SIGTERM therefore wins over SIGINT. All ranks call it at the same place.

    Args:
        world: This process among the others.
        number: Number of the signal that this rank received; 0 for none.
    """
    return max(world.broadcast(world.gather(number)))


def _raise_first(world: World, error: Exception | None) -> None:
    """Raise the first expected error on all ranks, and a bug only on its own rank."""
    expected = error if isinstance(error, (UserError, TrainingError)) else None
    told = world.broadcast([one for one in world.gather(expected) if one is not None])
    if error is not None and expected is None:
        raise error  # a bug, or a device out of memory: its own rank reports it
    first = told[0] if told else TrainingError("")
    ending = first if world.is_main else type(first)("")
    ending.agreed = True
    raise ending
