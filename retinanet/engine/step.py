"""One optimiser step, queued on the device without waiting for it.

The loss of a step is a sum over the *global* batch, divided by a number that is known before the
forward pass. So ranks, micro-batches and accumulation do not change it.
"""

from __future__ import annotations

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
    if imbalance is not None:
        imbalance.add_up(run.world)
    run.scaler.unscale_(run.optimizer)
    norm = _clip_gradient(run.model, config.clip_norm)
    skips = run.guard.judge(step, losses, norm, _is_overflow(run, losses))
    run.optimizer.found_inf = skips  # type: ignore[attr-defined]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.ema is not None:
        run.ema.update(step, skips)
    run.result = StepResult(
        losses=losses,
        norm=norm,
        rate=rate,
        divisor=divisor,
        positives=positives,
        imbalance=imbalance,
    )


def _accumulate(
    run: Run, batches: list[Batch], divisor: float, imbalance: ImbalanceMeter | None
) -> Tensor:
    """Add up the gradients of this rank's micro-batches; return its share (2,) of the losses."""
    shares = []
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        # Only the last backward pass exchanges gradients.
        with nullcontext() if last else _no_exchange(run.wrapped):
            shares.append(_forward_and_back(run, batch, divisor, imbalance))
    return sum(shares[1:], start=shares[0])


def _forward_and_back(
    run: Run, host_batch: Batch, divisor: float, imbalance: ImbalanceMeter | None
) -> Tensor:
    """Add the gradients of a micro-batch to those of the weights; return its share of the losses.

    Only that share lives on: the next micro-batch may need the memory of all else.
    """
    batch = host_batch.to(run.world.device)
    with autocast(run.world.device, run.precision):
        outputs = run.forward(batch.images, batch.sizes)
    parts = run.criterion(outputs, batch)
    sums = [parts["class"], parts["box"]]
    losses = torch.stack(sums).detach() / divisor
    # A loss that is not finite makes the gradient NaN, which the exchange carries to every rank.
    factor = run.guard.factor + (losses * 0).sum()
    # DistributedDataParallel averages over ranks; the step's loss is their sum.
    slope = run.scaler.scale(factor * run.world.size) / divisor
    torch.autograd.backward(sums, [slope, slope])
    if imbalance is not None:
        imbalance.add(outputs, batch)  # now, because the activations are gone
    return losses


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


def _clip_gradient(model: nn.Module, limit: float) -> Tensor:
    """Clip the gradient to a norm (0: no limit); return its norm before clipping."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def _is_overflow(run: Run, losses: Tensor) -> Tensor | None:
    """Whether a gradient that is not finite is an overflow of fp16, which only lowers its scale.

    That is: the scale is at least 1, and the loss of every rank is finite. The gradient cannot tell
    whether it is, so fp16 sums the losses over the ranks in each step.

    Args:
        run: The run.
        losses: (2,) this rank's share of the losses.

    Returns:
        Scalar on the device; None for other precisions, which have no scale.
    """
    if not run.scaler.is_enabled():
        return None
    everywhere = losses.clone()
    run.world.add_up(everywhere)
    scale = run.scaler.scale(torch.ones((), device=losses.device))
    return everywhere.isfinite().all() & (scale >= 1)
