"""One optimiser step, queued on the device without waiting for it.

The loss of a step is a sum over the *global* batch, divided by a number that is known before the
forward pass. So ranks, micro-batches and accumulation do not change it.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.batch import Batch
from retinanet.data.loader import RankStep
from retinanet.distributed.precision import autocast
from retinanet.engine.imbalance_meter import ImbalanceMeter
from retinanet.engine.optimizer import set_learning_rate
from retinanet.engine.run import Run, StepResult


def take_step(run: Run, part: RankStep, *, positives: float, images: float) -> None:
    """Take one optimiser step and store its result in `run.result`.

    Args:
        run: The run whose weights, averages and normaliser are updated.
        part: This rank's images.
        positives: Number of positive anchors in the global batch.
        images: Number of images in the global batch.
    """
    config, step = run.config.train, part.step
    # Layers that draw random numbers (a timm backbone may) draw the same ones after a resume.
    seed = np.random.SeedSequence((config.seed, step, run.world.rank)).generate_state(1)[0]
    torch.manual_seed(int(seed))
    rate = run.schedule.learning_rate(step)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.zero_grad(set_to_none=True)
    divisor = _loss_divisor(run, positives, images)
    is_looked_at = config.imbalance_every > 0 and (step + 1) % config.imbalance_every == 0
    imbalance = ImbalanceMeter(run.config.loss) if is_looked_at else None
    losses = _accumulate(run, part.micro_batches, divisor, imbalance)
    run.world.add_up(losses)
    if imbalance is not None:
        imbalance.add_up(run.world)
    if run.scaler.is_enabled():
        _carry_bad_loss_to_gradient(run.optimizer, losses)
    run.scaler.unscale_(run.optimizer)
    norm = _clip_gradient(run.model, config.clip_norm)
    may_update = run.guard.judge(step, losses, norm, _loss_scale(run.scaler, run.world.device))
    run.optimizer.found_inf = (~may_update).float()  # type: ignore[attr-defined]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.ema is not None:
        run.ema.update(step, may_update & norm.isfinite())
    run.result = StepResult(
        losses=losses, norm=norm, rate=rate, divisor=divisor, imbalance=imbalance
    )


def _accumulate(
    run: Run, batches: list[Batch], divisor: float, imbalance: ImbalanceMeter | None
) -> Tensor:
    """Add up the gradients of this rank's micro-batches; return its share (2,) of the losses."""
    total = torch.zeros(2, device=run.world.device)
    factor = run.guard.factor
    for i, host_batch in enumerate(batches):
        last = i == len(batches) - 1
        batch = host_batch.to(run.world.device)
        # Only the last backward pass exchanges gradients.
        with nullcontext() if last else _no_exchange(run.wrapped):
            with autocast(run.world.device, run.precision):
                outputs = run.forward(batch.images, batch.sizes)
            parts = run.criterion(outputs, batch)
            if imbalance is not None:
                imbalance.add(outputs, batch)
            losses = torch.stack([parts["class"], parts["box"]]) / divisor
            # DistributedDataParallel averages over ranks; the step's loss is their sum.
            run.scaler.scale(losses.sum() * run.world.size * factor).backward()
        total = total + losses.detach()
    return total


def _no_exchange(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which gradients are not yet exchanged with other ranks."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _loss_divisor(run: Run, positives: float, images: float) -> float:
    """Return the divisor of the loss sums of the global batch, at least 1."""
    loss = run.config.loss
    if loss.normalizer == "per_image":
        return max(1.0, images)
    if loss.normalizer == "positives":
        return max(1.0, positives)
    before = run.progress.normalizer or loss.normalizer_start
    momentum = loss.normalizer_momentum
    after = momentum * before + (1 - momentum) * max(1.0, positives)
    run.progress = replace(run.progress, normalizer=after)
    return after


def _carry_bad_loss_to_gradient(optimizer: torch.optim.Optimizer, losses: Tensor) -> None:
    """Make the gradient NaN if a loss is not finite: fp16's scaler checks only gradients."""
    any_parameter = optimizer.param_groups[0]["params"][0]
    any_parameter.grad.mul_(torch.where(losses.isfinite().all(), 1.0, math.nan))


def _clip_gradient(model: nn.Module, limit: float) -> Tensor:
    """Clip the gradient to a norm (0: no limit); return its norm before clipping."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    return nn.utils.clip_grad_norm_(parameters, limit or math.inf)


def _loss_scale(scaler: torch.amp.GradScaler, device: torch.device) -> Tensor:
    """Return fp16's loss scale on the device; 0 for other precisions."""
    one = torch.ones((), device=device)
    return scaler.scale(one) if scaler.is_enabled() else one * 0
