"""One optimiser step, given to the device without waiting for it.

The loss of a step is a sum over the *global* batch divided by a number that is known before the
forward pass, so ranks, micro-batches and accumulation do not change it.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.data.loader import RankStep
from retinanet.distributed.precision import autocast
from retinanet.engine.imbalance import Imbalance
from retinanet.engine.optimizer import set_learning_rate
from retinanet.engine.run import Run, StepResult
from retinanet.structures import Batch


def take_step(run: Run, part: RankStep, *, positives: float, images: float) -> None:
    """Take one optimiser step; `run.result` then tells of it.

    Args:
        run: whose weights, averages and normaliser move.
        part: this rank's images.
        positives: anchors of the global batch.
        images: of the global batch.
    """
    # Layers that draw random numbers (a backbone of timm may) draw the same after a resume.
    torch.manual_seed(_seed(run.config.train.seed, part.step, run.world.rank))
    rate = run.schedule.learning_rate(part.step)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.zero_grad(set_to_none=True)
    divisor = _divisor(run, positives, images)
    imbalance = _imbalance(run, part.step)
    losses = _accumulate(run, part.micro_batches, divisor, imbalance)
    run.world.add_up(losses)
    if imbalance is not None:
        imbalance.add_up(run.world)
    _spoil_if_bad(run, losses)
    run.scaler.unscale_(run.optimizer)
    norm = _clip(run)
    fine = run.guard.judge(part.step, losses, norm, _loss_scale(run))
    run.optimizer.found_inf = (~fine).float()  # type: ignore[attr-defined]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.ema is not None:
        run.ema.update(part.step, fine & norm.isfinite())
    run.result = StepResult(
        losses=losses, norm=norm, rate=rate, divisor=divisor, imbalance=imbalance
    )


def _spoil_if_bad(run: Run, losses: Tensor) -> None:
    """Make the gradient NaN where a loss is not finite: fp16's scaler looks at gradients alone."""
    if run.scaler.is_enabled():
        any_parameter = run.optimizer.param_groups[0]["params"][0]
        any_parameter.grad.mul_(torch.where(losses.isfinite().all(), 1.0, math.nan))


def _imbalance(run: Run, step: int) -> Imbalance | None:
    """Return what counts the examples of a step, where its turn has come."""
    every = run.config.train.imbalance_every
    return Imbalance(run.config.loss) if every and (step + 1) % every == 0 else None


def _accumulate(
    run: Run, batches: list[Batch], divisor: float, imbalance: Imbalance | None
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
    """Return the context of a backward pass whose gradients stay on this rank for now."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _divisor(run: Run, positives: float, images: float) -> float:
    """Return what the sums of the global batch are divided by, at least 1."""
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


def _clip(run: Run) -> Tensor:
    """Clip the gradients; return their norm before it."""
    parameters = [p for p in run.model.parameters() if p.grad is not None]
    limit = run.config.train.clip_norm or math.inf
    return nn.utils.clip_grad_norm_(parameters, limit)


def _loss_scale(run: Run) -> Tensor:
    """Return the factor of the loss in fp16, on the device; 0 where there is none."""
    one = torch.ones((), device=run.world.device)
    return run.scaler.scale(one) if run.scaler.is_enabled() else one * 0


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
