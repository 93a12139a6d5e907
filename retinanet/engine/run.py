"""A running experiment: what it holds, and how it starts from a config or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.config import Config
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.checkpoint import Checkpoint, Progress, save_checkpoint
from retinanet.engine.distributed import Precision, World
from retinanet.engine.logging import Log
from retinanet.engine.optimizer import build_optimizer
from retinanet.engine.run_folder import RunFolder
from retinanet.engine.splits import Split, training_plan
from retinanet.model.detector import Detector


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
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model)
    model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped: nn.Module = model
    if world.size > 1:
        if config.model.norm == "sync_bn" and world.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [world.device.index] if world.device.type == "cuda" else None
        wrapped = DistributedDataParallel(model, device_ids=ids)
    optimizer = build_optimizer(model, config.train)
    scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
    if checkpoint is not None and checkpoint.optimizer is not None:
        optimizer.load_state_dict(checkpoint.optimizer)
        scaler.load_state_dict(checkpoint.scaler or {})
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
        plan=training_plan(config, train),
        world=world,
        precision=precision,
        log=log,
        environment=environment,
        progress=start if checkpoint is None else checkpoint.progress,
    )


def state(run: Run) -> Checkpoint:
    return Checkpoint(
        config=run.config,
        categories=run.train.annotations.categories,
        model=run.model.state_dict(),
        progress=run.progress,
        optimizer=run.optimizer.state_dict(),
        scaler=run.scaler.state_dict(),
        fingerprint=run.train.annotations.fingerprint(),
        environment=run.environment,
    )


def save_last(run: Run) -> None:
    if run.world.is_main:
        save_checkpoint(state(run), run.folder.last)
