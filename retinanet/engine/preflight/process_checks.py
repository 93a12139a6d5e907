"""Check what several processes must have in common before they train together."""

from __future__ import annotations

from retinanet.data.sampler import canvases_of_batch
from retinanet.distributed.world import World
from retinanet.engine.resume import experiment
from retinanet.engine.splits import Split
from retinanet.errors import UserError, plural
from retinanet.schema import Config


def check_every_rank_has_images(config: Config, world: World) -> None:
    """Refuse processes that would only wait for the others.

    Raises:
        UserError: There are more processes than images in a batch.
    """
    batch_size = config.train.batch_size
    if world.size > batch_size:
        raise UserError(
            f"train.batch_size is {batch_size}, but there are {world.size} processes, so some "
            f"would have nothing to do: start at most {plural(batch_size, 'process')}, or set "
            f"train.batch_size={world.size} (then train.lr may need to be higher, too)"
        )


def check_ranks_agree(
    world: World,
    config: Config,
    train_split: Split,
    val_split: Split,
) -> None:
    """Refuse processes that would train different things: one machine may have an outdated file.

    Raises:
        UserError: They differ; the message names the difference.
    """
    ours = {
        **experiment(config),
        f"{train_split.annotations.path}": train_split.annotations.fingerprint,
        f"{val_split.annotations.path}": val_split.annotations.fingerprint,
    }
    theirs: list[dict[str, object]] = world.broadcast(world.gather(ours))
    for values in zip(*(rank.items() for rank in theirs), strict=True):
        (what, first), *others = values
        for rank, (_, value) in enumerate(others, start=1):
            if value != first:
                raise UserError(
                    f"{what} is {first} in process 0, but {value} in process {rank}: all machines "
                    "need the same options and files"
                )


def check_sync_bn(config: Config, world: World) -> None:
    """Refuse accumulation with sync_bn, where each forward pass waits for all processes.

    Processes whose shares differ by one image, or lie on several canvases, could need different
    numbers of passes.

    Raises:
        UserError: The micro-batch is too small, or a share may lie on several canvases; the message
            names what works.
    """
    if config.model.norm != "sync_bn" or world.size == 1:
        return
    needs = "model.norm: sync_bn needs each process's whole share of the batch at a time"
    batch_size, micro_batch = config.train.batch_size, config.train.micro_batch
    assert micro_batch != "auto"
    canvases = canvases_of_batch(batch_size, config.data.images_per_canvas)
    if world.size % canvases:  # otherwise every process has images of only one canvas
        raise UserError(
            f"{needs}, but data.canvas_group {config.data.canvas_group} cuts the batch into "
            f"{canvases} canvases for {world.size} processes: start {canvases} processes, or use "
            "data.canvas_group=null or model.norm=gn"
        )
    share = -(-batch_size // world.size)
    if micro_batch < share:
        raise UserError(
            f"{needs}, but train.micro_batch is {micro_batch}: set it to {share}, or use "
            "model.norm=gn"
        )
