"""What ends one process ends all, at the same place and with one message."""

from __future__ import annotations

from retinanet.distributed.world import World
from retinanet.errors import InterruptedRunError, TrainingError, UserError


def raise_together(world: World, *, error: Exception | None, number: int = 0) -> None:
    """Raise on every rank what any of them met: one that went on would wait for the others.

    All ranks call it at the same place.

    Args:
        world: this process among the others.
        error: what went wrong on this rank.
        number: of the signal that this rank received; 0 for none.

    Raises:
        UserError, TrainingError: of the first rank that has one. Rank 0 alone has the text: the
            others would print it again.
        Exception: any other error of this rank.
        InterruptedRunError: a signal reached some rank.
    """
    failed, signalled = world.sum([error is not None, number > 0])
    if failed:
        _raise_first(world, error)
    if signalled:
        raise InterruptedRunError(agree_on_signal(world, number), "")


def agree_on_signal(world: World, number: int) -> int:
    """Return one signal for all ranks, of those that they received: the highest number.

    So SIGTERM counts before SIGINT. All ranks call it at the same place.

    Args:
        world: this process among the others.
        number: of the signal that this rank received; 0 for none.
    """
    return max(world.broadcast(world.gather(number)))


def _raise_first(world: World, error: Exception | None) -> None:
    """Raise the error of the first rank that has an expected one; a bug on its own rank."""
    expected = error if isinstance(error, (UserError, TrainingError)) else None
    told = world.broadcast([one for one in world.gather(expected) if one is not None])
    if error is not None and expected is None:
        raise error  # a bug, or a device out of memory: its own rank tells about it
    first = told[0] if told else TrainingError("")
    ending = first if world.is_main else type(first)("")
    ending.agreed = True
    raise ending
