"""Check before the loaders start that the system has the memory and open files they need."""

from __future__ import annotations

from retinanet.distributed.raise_together import raise_together
from retinanet.distributed.world import World
from retinanet.engine.preflight.descriptors import allow_descriptors
from retinanet.engine.preflight.shared_memory import (
    check_shared_memory,
    evaluation_bytes,
    step_bytes,
)
from retinanet.engine.splits import Split
from retinanet.errors import UserError
from retinanet.schema import Config


def check_training_loaders(
    config: Config, train: Split, val: Split | None, world: World
) -> list[str]:
    """Check the loaders of training and evaluation, which run at the same time; return notes.

    Args:
        config: The experiment.
        train: Training split.
        val: Split that is evaluated; None if none is.
        world: This process and the other ranks, which must all call this.

    Raises:
        UserError: Too little shared memory or too few open files, on any machine.
    """
    batches = [step_bytes(config, train, ranks=world.size)]
    if val is not None:
        batches.append(evaluation_bytes(config, val, losses=True))
    return _check(batches, config.data.workers, world)


def check_evaluation_loader(config: Config, val: Split, world: World) -> list[str]:
    """Check the loader of an evaluation without losses; return notes.

    Raises:
        UserError: Too little shared memory or too few open files, on any machine.
    """
    return _check([evaluation_bytes(config, val, losses=False)], config.data.workers, world)


def check_benchmark_loader(config: Config, train: Split, *, workers: int) -> list[str]:
    """Check the loader of the training split by itself; return notes.

    Raises:
        UserError: Too little shared memory or too few open files.
    """
    batch, option = step_bytes(config, train, ranks=1), "--workers "
    check_shared_memory([batch], workers=workers, ranks=1, option=option)
    return allow_descriptors(1, workers=workers, option=option)


def _check(batches: list[int], workers: int, world: World) -> list[str]:
    error, remarks = None, []
    try:
        check_shared_memory(batches, workers=workers, ranks=world.on_this_machine)
        remarks = allow_descriptors(len(batches), workers=workers)
    except UserError as caught:
        error = caught
    raise_together(world, error=error)
    return remarks
