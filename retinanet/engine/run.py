"""The state of a running experiment, and how it starts from a config or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from retinanet.checkpoints.format import Checkpoint, Progress
from retinanet.checkpoints.restore import load_weights, place
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.checkpoints.saver import Saver
from retinanet.data.loader import RankStep, training_loader
from retinanet.data.loader_processes import say_to_stderr
from retinanet.data.sampler import TrainingPlan
from retinanet.distributed.compiler import resolve_compile_loss
from retinanet.distributed.precision import Precision
from retinanet.distributed.world import World
from retinanet.engine.divergence import DivergenceGuard
from retinanet.engine.ema import Ema
from retinanet.engine.flops import Work
from retinanet.engine.imbalance_meter import ImbalanceMeter
from retinanet.engine.logs.log import Log
from retinanet.engine.loss_watch import LossWatch
from retinanet.engine.optimizer import build_optimizer, restore_optimizer
from retinanet.engine.schedule import Schedule, build_schedule
from retinanet.engine.splits import Split, build_dataset, training_plan
from retinanet.errors import UserError
from retinanet.losses.criterion import Criterion, build_criterion
from retinanet.model.backbone import ResNet
from retinanet.model.detector import Detector
from retinanet.schema import Config
from retinanet.structures import Outputs


@dataclass(frozen=True, kw_only=True, eq=False)
class StepResult:
    """Results of a step, still on the device."""

    losses: Tensor
    """(2,) class and box loss of the global batch; of several ranks, this rank's share."""
    norm: Tensor
    """Norm of the gradient, before clipping."""
    rate: float
    """Learning rate."""
    divisor: float
    """Divisor of the sums of losses."""
    positives: float
    """Number of positive anchors in the global batch."""
    imbalance: ImbalanceMeter | None
    """Contributions to the class loss, every `train.imbalance_every` steps."""


@dataclass(kw_only=True, eq=False)
class Run:
    """Everything a running experiment holds."""

    config: Config
    folder: RunFolder
    train: Split
    val: Split
    model: Detector
    wrapped: nn.Module
    """The model, wrapped in DistributedDataParallel if there are several processes."""
    forward: Callable[[Tensor, Tensor], Outputs]
    """`wrapped`, compiled if the config asks for it."""
    ema: Ema | None
    """Moving average of the weights, if the config asks for one."""
    guard: DivergenceGuard
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    criterion: Criterion
    plan: TrainingPlan
    schedule: Schedule
    world: World
    precision: Precision
    log: Log
    saver: Saver
    environment: dict[str, Any]
    progress: Progress
    result: StepResult | None = None
    """Result of the newest step."""
    watch: LossWatch = field(default_factory=LossWatch)
    """Warns when finite losses are too large or do not change."""
    work: Work | None = None
    """FLOPs of a step, counted by the rehearsal."""

    def latest(self) -> tuple[dict[str, float], float]:
        """Wait for the device; return the losses of the newest step and its gradient's norm.

        All ranks call it, because the losses are summed over the ranks only here.
        """
        assert self.result is not None
        class_loss, box_loss = self.world.sum(self.result.losses.tolist())
        return {"class": class_loss, "box": box_loss}, float(self.result.norm)


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
    """Build a run from its parts; a checkpoint restores its state.

    Raises:
        UserError: The checkpoint's optimiser state does not fit, or the run has already skipped
            more steps than `train.max_bad_steps`.
    """
    place(model, world.device, precision, channels_last=config.train.channels_last)
    if checkpoint is not None:
        load_weights(model, checkpoint.model)
    if world.size > 1 and config.model.norm == "sync_bn" and world.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    plan = training_plan(config, train)
    # Other backbones may accept only the canvases of this run.
    is_resnet = isinstance(model.backbone, ResNet)
    wrapped = world.wrap(model, (128, 128) if is_resnet else plan.step(0)[0].canvas)
    ema = Ema(model, config.train.ema_decay) if config.train.ema_decay else None
    if ema is not None and checkpoint is not None:
        load_weights(ema.model, checkpoint.weights)
    optimizer = build_optimizer(model, config.train)
    scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
    if checkpoint is not None:
        _restore_optimization(optimizer, scaler, checkpoint, config)
    progress = checkpoint.progress if checkpoint else None
    progress = progress or Progress(normalizer=config.loss.normalizer_start)
    if progress.skipped_steps > config.train.max_bad_steps:
        raise UserError(
            f"train.max_bad_steps is {config.train.max_bad_steps}, but the run has already "
            f"skipped {progress.skipped_steps} steps; give at least that many"
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
        criterion=build_criterion(
            config.loss,
            compiled=config.train.compile or resolve_compile_loss(config.train, world.device),
        ),
        plan=plan,
        schedule=build_schedule(config, steps_per_epoch=plan.steps_per_epoch),
        world=world,
        precision=precision,
        log=log,
        saver=Saver(folder, active=world.is_main),
        environment=environment,
        progress=progress,
        ema=ema,
        guard=DivergenceGuard(
            world.device, allowed=config.train.max_bad_steps, skipped=progress.skipped_steps
        ),
    )


def _restore_optimization(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    checkpoint: Checkpoint,
    config: Config,
) -> None:
    """Load the state of the optimiser and the scaler, if the checkpoint has one.

    If --allow-changes has chosen another optimiser or other parameter groups, the optimiser starts
    afresh: torch stores moments by the position of a parameter in its group.

    Raises:
        UserError: The state does not fit.
    """
    if checkpoint.optimizer is None:
        return
    try:
        if not restarts_optimizer(config, checkpoint.config):
            restore_optimizer(optimizer, checkpoint.optimizer)
        if checkpoint.scaler:
            scaler.load_state_dict(checkpoint.scaler)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint's optimiser state does not fit its own config: {error}"
        ) from None


def restarts_optimizer(now: Config, before: Config) -> bool:
    """Whether the moments of one experiment do not fit the optimiser of another."""

    def groups(config: Config) -> tuple[object, ...]:
        train = config.train
        has_own_rate = train.backbone_lr_factor != 1
        exempt = train.decay_exempt if train.weight_decay else "none"
        return (train.optimizer, has_own_rate, exempt, config.model.freeze, config.model.norm)

    return groups(now) != groups(before)


def load_steps(run: Run, *, stop: int, workers: int) -> Generator[RankStep]:
    """Load this rank's parts of the steps, from the run's current step up to `stop` (excluded)."""
    micro_batch = run.config.train.micro_batch
    assert micro_batch != "auto"  # resolved before the run starts
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
        say=run.log.say if run.world.is_main else say_to_stderr,
    )
    return iter(loader)


def checkpoint_size(run: Run) -> int:
    """Return the size of a checkpoint in bytes: the weights and the optimiser's moments."""
    moments = {"sgd": 1, "adamw": 2}[run.config.train.optimizer]
    weights = sum(tensor.nbytes for tensor in run.model.state_dict().values())
    trainable = sum(p.nbytes for p in run.model.parameters() if p.requires_grad)
    copies = 1 if run.ema is None else 2
    return copies * weights + moments * trainable


def state(run: Run) -> Checkpoint:
    """Return the run's current state. Its tensors are those of the run, not copies."""
    return Checkpoint(
        config=run.config,
        categories=run.train.annotations.categories,
        model=run.model.state_dict(),
        averaged=run.ema.refresh().state_dict() if run.ema else None,
        progress=run.progress,
        optimizer=run.optimizer.state_dict(),
        scaler=run.scaler.state_dict(),
        fingerprint=run.train.annotations.fingerprint,
        environment=run.environment,
    )
