"""Check what several processes must have in common before they train together."""

from __future__ import annotations

from retinanet.checkpoints.format import Checkpoint
from retinanet.checkpoints.init_from import fingerprint
from retinanet.distributed.world import World
from retinanet.engine.resume import Resume, experiment
from retinanet.engine.splits import Split
from retinanet.errors import UserError
from retinanet.schema import Config


def check_ranks_agree(
    world: World,
    config: Config,
    train_split: Split,
    val_split: Split,
    resume: Resume | None,
    start: Checkpoint | None,
) -> None:
    """Refuse processes that would train different things: one machine may have an outdated file.

    Raises:
        UserError: They differ; the message names the difference.
    """
    ours = {
        **experiment(config),
        f"{train_split.annotations.path}": train_split.annotations.fingerprint,
        f"{val_split.annotations.path}": val_split.annotations.fingerprint,
        "the state to resume from": resume and resume.checkpoint.progress,
        "the weights to start from": start and world.size > 1 and fingerprint(start.weights),
    }
    theirs: list[dict[str, object]] = world.broadcast(world.gather(ours))
    for values in zip(*(rank.items() for rank in theirs), strict=True):
        (what, first), *others = values
        for rank, (_, value) in enumerate(others, start=1):
            if value != first:
                raise UserError(
                    f"{what} is {first} in process 0, but {value} in process {rank}: all machines "
                    "need the same options and files, and must share the run folder"
                )


def check_sync_bn(config: Config, world: World) -> None:
    """Refuse accumulation with sync_bn, where each forward pass waits for all processes.

    Processes whose shares differ by one image could need different numbers of passes.

    Raises:
        UserError: The micro-batch is too small; the message names the size that works.
    """
    share, micro_batch = -(-config.train.batch_size // world.size), config.train.micro_batch
    assert micro_batch != "auto"
    if config.model.norm == "sync_bn" and world.size > 1 and micro_batch < share:
        raise UserError(
            f"model.norm: sync_bn needs each process's whole share of the batch at a time, but "
            f"train.micro_batch is {micro_batch}: set it to {share}, or use model.norm=gn"
        )
