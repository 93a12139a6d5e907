"""A running experiment: what it holds, and how it starts from a config or a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.data.canvas import evaluation_canvas
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.checkpoint import Checkpoint, Progress, save_checkpoint
from retinanet.engine.distributed import World
from retinanet.engine.logging import Log
from retinanet.engine.optimizer import build_optimizer
from retinanet.engine.precision import Precision, weights_type
from retinanet.engine.run_folder import RunFolder
from retinanet.engine.schedule import learning_rate
from retinanet.engine.splits import Split, preset_canvas, training_plan
from retinanet.errors import UserError
from retinanet.losses.criterion import Criterion, build_criterion
from retinanet.model.detector import Detector
from retinanet.schema import Config

_HOST_PIXELS = 2_500_000
"""Canvas pixels of a micro-batch on a CPU: two images of COCO. More are no faster there."""


@dataclass(kw_only=True, eq=False)
class Run:
    """Everything a running experiment holds."""

    config: Config
    folder: RunFolder
    train: Split
    val: Split
    model: Detector
    wrapped: nn.Module
    """The model, inside DistributedDataParallel where there are several processes."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    criterion: Criterion
    plan: TrainingPlan
    world: World
    precision: Precision
    log: Log
    environment: dict[str, Any]
    progress: Progress

    @property
    def unit(self) -> int:
        """Steps in the unit that the schedule counts in: an epoch's, or 1."""
        return self.plan.steps_per_epoch if self.config.train.epochs else 1

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return (self.config.train.epochs or self.config.train.steps or 0) * self.unit

    @property
    def evaluation_interval(self) -> int:
        """Steps between evaluations; 0 is only at the end."""
        every = self.config.eval.every
        if every is None:
            every = 1 if self.config.train.epochs else 5000
        return every * self.unit

    @property
    def milestones(self) -> list[int]:
        """Steps at which the learning rate drops."""
        given = self.config.train.milestones
        if given is None:
            return [round(self.steps * 2 / 3), round(self.steps * 8 / 9)]
        return [milestone * self.unit for milestone in given]

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        config = self.config.train
        return learning_rate(
            step,
            peak=config.lr,
            steps=self.steps,
            warmup_steps=config.warmup_steps,
            warmup_factor=config.warmup_factor,
            schedule=config.schedule,
            milestones=self.milestones,
            drop=config.lr_drop,
        )


def start_run(
    config: Config,
    *,
    folder: RunFolder,
    train: Split,
    val: Split,
    model: Detector,
    world: World,
    precision: Precision,
    log: Log,
    environment: dict[str, Any],
    checkpoint: Checkpoint | None,
) -> Run:
    """Join the parts of a run; with a checkpoint, as it was when that was written."""
    place(model, world.device, precision, channels_last=config.train.channels_last)
    if checkpoint is not None:
        load_weights(model, checkpoint.model)
    wrapped: nn.Module = model
    if world.size > 1:
        if config.model.norm == "sync_bn" and world.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [world.device.index] if world.device.type == "cuda" else None
        wrapped = DistributedDataParallel(model, device_ids=ids)
    optimizer = build_optimizer(model, config.train)
    scaler = torch.amp.GradScaler(world.device.type, enabled=_uses_scaler(precision))
    if checkpoint is not None and checkpoint.optimizer is not None:
        try:
            optimizer.load_state_dict(checkpoint.optimizer)
            scaler.load_state_dict(checkpoint.scaler or {})
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint's optimiser state does not fit its own config: {error}"
            ) from None
    start = Progress(normalizer=config.loss.normalizer_start)
    return Run(
        config=config,
        folder=folder,
        train=train,
        val=val,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        scaler=scaler,
        criterion=build_criterion(config.loss),
        plan=training_plan(config, train),
        world=world,
        precision=precision,
        log=log,
        environment=environment,
        progress=start if checkpoint is None else checkpoint.progress,
    )


def _uses_scaler(precision: Precision) -> bool:
    return precision == "fp16"


def place(
    model: Detector, device: torch.device, precision: Precision, *, channels_last: bool
) -> None:
    """Move a network to a device, in the type and the layout that it computes in."""
    model.layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device, weights_type(precision), memory_format=model.layout)  # type: ignore[call-overload]


def load_weights(model: Detector, weights: Mapping[str, Any]) -> None:
    """Load a checkpoint's weights into its own network.

    Raises:
        UserError: they do not fit.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"the checkpoint's weights do not fit its own config: {reason}") from None


def resolve_micro_batch(config: Config, train: Split, world: World) -> int:
    """Return how many images a device takes at a time; `auto` is what its memory suggests.

    On a GPU that is the rank's whole share of the batch; on a CPU as many as `_HOST_PIXELS` hold.
    """
    if config.train.micro_batch != "auto":
        return config.train.micro_batch
    share = -(-config.train.batch_size // world.size)
    if world.device.type != "cpu":
        return share
    data = config.data
    fixed = preset_canvas(data)
    canvases = (
        [fixed]
        if fixed
        else [
            evaluation_canvas(
                (height, width),
                short_side=max(data.short_side),
                long_side=data.long_side,
                policy=data.canvas,
            )
            for height, width in train.annotations.distinct_sizes().tolist()
        ]
    )
    return min(share, max(1, _HOST_PIXELS // max(map(math.prod, canvases))))


def checkpoint_size(run: Run) -> int:
    """Return the bytes that a checkpoint will take: weights, and their moments in the optimiser."""
    moments = {"sgd": 1, "adamw": 2}[run.config.train.optimizer]
    weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    learned = sum(p.nbytes for p in run.model.parameters() if p.requires_grad)
    return weights + moments * learned


def state(run: Run) -> Checkpoint:
    return Checkpoint(
        config=run.config,
        categories=run.train.annotations.categories,
        model=run.model.state_dict(),
        progress=run.progress,
        optimizer=run.optimizer.state_dict(),
        scaler=run.scaler.state_dict(),
        fingerprint=run.train.annotations.fingerprint,
        environment=run.environment,
    )


def save_last(run: Run) -> None:
    if run.world.is_main:
        save_checkpoint(state(run), run.folder.last)
