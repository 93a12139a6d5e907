"""What ends one process ends all, at the same place and with one message."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from retinanet.distributed.world import World
from retinanet.errors import InterruptedRunError, TrainingError, UserError


def raise_together(world: World, *, error: Exception | None, signals: Sequence[int]) -> None:
    """Raise on every rank what any of them met: one that went on would wait for the others.

    All ranks call it at the same place.

    Args:
        world: this process among the others.
        error: what went wrong on this rank.
        signals: numbers of the signals that this rank received.

    Raises:
        UserError, TrainingError: of the first rank that has one. Rank 0 alone has the text: the
            others would print it again.
        Exception: any other error of this rank.
        InterruptedRunError: SIGTERM or SIGINT reached some rank.
    """
    flags = [error is not None, signal.SIGTERM in signals, signal.SIGINT in signals]
    failed, ends, interrupts = world.sum(flags)
    if failed:
        _raise_first(world, error)
    if ends or interrupts:
        raise InterruptedRunError(signal.SIGTERM if ends else signal.SIGINT, "")


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
