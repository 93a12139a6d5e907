"""A running experiment: what it holds, and how it starts from a config or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retinanet.data.loader import RankStep, training_loader
from retinanet.data.sampler import TrainingPlan
from retinanet.engine.average import Average
from retinanet.engine.checkpoint import Checkpoint, Progress
from retinanet.engine.distributed import World
from retinanet.engine.flops import Work
from retinanet.engine.guard import Guard
from retinanet.engine.imbalance import Imbalance
from retinanet.engine.logging import Log
from retinanet.engine.optimizer import build_optimizer, restore_optimizer
from retinanet.engine.precision import Precision, weights_type
from retinanet.engine.run_folder import RunFolder
from retinanet.engine.saver import Saver
from retinanet.engine.schedule import learning_rate
from retinanet.engine.splits import Split, build_dataset, training_plan
from retinanet.errors import UserError
from retinanet.losses.criterion import Criterion, build_criterion
from retinanet.model.detector import Detector
from retinanet.schema import Config
from retinanet.structures import Outputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """A step as the device knows it."""

    losses: Tensor
    """(2,) class and box loss of the global batch."""
    norm: Tensor
    """Of the gradient, before clipping."""
    rate: float
    """Learning rate."""
    divisor: float
    """Of the sums of losses."""
    imbalance: Imbalance | None
    """What its class loss is made of, every `train.imbalance_every` steps."""


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
    forward: Callable[[Tensor, Tensor], Outputs]
    """`wrapped`, compiled where the config says so."""
    average: Average | None
    """The moving average of the weights, where the config keeps one."""
    guard: Guard
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    criterion: Criterion
    plan: TrainingPlan
    world: World
    precision: Precision
    log: Log
    saver: Saver
    environment: dict[str, Any]
    progress: Progress
    taken: Taken | None = None
    """The newest step."""
    work: Work | None = None
    """The arithmetic of a step, which the rehearsal counts."""

    def latest(self) -> tuple[dict[str, float], float]:
        """Wait for the device; return the losses of the newest step and its gradient's norm."""
        assert self.taken is not None
        class_loss, box_loss, norm = [*self.taken.losses.tolist(), float(self.taken.norm)]
        return {"class": class_loss, "box": box_loss}, norm

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
    if world.size > 1 and config.model.norm == "sync_bn" and world.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    wrapped = world.wrap(model)
    average = Average(model, config.train.ema_decay) if config.train.ema_decay else None
    if average is not None and checkpoint is not None:
        load_weights(average.model, checkpoint.weights)
    optimizer = build_optimizer(model, config.train)
    scaler = torch.amp.GradScaler(world.device.type, enabled=_uses_scaler(precision))
    if checkpoint is not None and checkpoint.optimizer is not None:
        try:
            if checkpoint.config.train.optimizer == config.train.optimizer:  # --allow-changes
                restore_optimizer(optimizer, checkpoint.optimizer)
            if checkpoint.scaler:
                scaler.load_state_dict(checkpoint.scaler)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint's optimiser state does not fit its own config: {error}"
            ) from None
    progress = checkpoint.progress if checkpoint else None
    progress = progress or Progress(normalizer=config.loss.normalizer_start)
    if progress.skipped_steps > config.train.max_bad_steps:
        raise UserError(
            f"train.max_bad_steps: {config.train.max_bad_steps}, but the run has skipped "
            f"{progress.skipped_steps} steps so far; give at least that many"
        )
    return Run(
        config=config,
        folder=folder,
        train=train,
        val=val,
        model=model,
        wrapped=wrapped,
        forward=torch.compile(wrapped) if config.train.compile else wrapped,
        optimizer=optimizer,
        scaler=scaler,
        criterion=build_criterion(config.loss, compiled=config.train.compile),
        plan=training_plan(config, train),
        world=world,
        precision=precision,
        log=log,
        saver=Saver(folder, active=world.is_main),
        environment=environment,
        progress=progress,
        average=average,
        guard=Guard(
            world.device, allowed=config.train.max_bad_steps, skipped=progress.skipped_steps
        ),
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


def load_steps(run: Run, *, stop: int, workers: int) -> Iterator[RankStep]:
    """Load this rank's parts of the steps from where the run stands up to one (from 0)."""
    micro_batch = run.config.train.micro_batch
    assert micro_batch != "auto"  # resolved before the run began
    loader = training_loader(
        build_dataset(run.config, run.train, augment=True, losses=True),
        run.plan,
        start=run.progress.step,
        stop=stop,
        rank=run.world.rank,
        ranks=run.world.size,
        micro_batch=micro_batch,
        workers=workers,
        pin_memory=run.world.device.type == "cuda",
    )
    return iter(loader)


def checkpoint_size(run: Run) -> int:
    """Return the bytes that a checkpoint will take: weights, and their moments in the optimiser."""
    moments = {"sgd": 1, "adamw": 2}[run.config.train.optimizer]
    weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    learned = sum(p.nbytes for p in run.model.parameters() if p.requires_grad)
    copies = 1 if run.average is None else 2
    return copies * weights + moments * learned


def state(run: Run) -> Checkpoint:
    return Checkpoint(
        config=run.config,
        categories=run.train.annotations.categories,
        model=run.model.state_dict(),
        averaged=run.average.refresh().state_dict() if run.average else None,
        progress=run.progress,
        optimizer=run.optimizer.state_dict(),
        scaler=run.scaler.state_dict(),
        fingerprint=run.train.annotations.fingerprint,
        environment=run.environment,
    )
