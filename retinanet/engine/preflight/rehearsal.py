"""Train and evaluate on two images without a trace, so that failures appear before step 0."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from retinanet.data.sampler import Plan
from retinanet.distributed.precision import autocast
from retinanet.engine.evaluate import evaluate
from retinanet.engine.flops import FlopCounter, Work, attainable_flops
from retinanet.engine.run import Run
from retinanet.engine.splits import build_dataset
from retinanet.errors import TrainingError, UserError

_IMAGES = 2


def rehearse(run: Run) -> None:
    """Train and evaluate on two images; store the FLOPs of a step in `run.work`.

    Raises:
        TrainingError: A loss is not finite with the initial weights.
        UserError: An image cannot be read.
    """
    plan = run.plan.step(0)[0]
    flops = _count_flops(run, replace(plan, samples=plan.samples[:_IMAGES]))
    run.work = Work(
        flops_per_pixel=flops / (min(_IMAGES, len(plan.samples)) * math.prod(plan.canvas)),
        attainable=attainable_flops(run.world.device, run.precision),
    )
    evaluate_first(run, _IMAGES)


def evaluate_first(run: Run, images: int) -> None:
    """Evaluate the first images of val on each rank by itself; nothing is kept.

    Raises:
        TrainingError: The outputs are not finite.
        UserError: An image cannot be read.
    """
    evaluate(
        run.model,
        run.config,
        run.val,
        world=replace(run.world, rank=0, size=1),
        precision=run.precision,
        losses=True,
        limit=images,
    )


def _count_flops(run: Run, plan: Plan) -> int:
    """Run a few images forward and backward; return the FLOPs.

    Raises:
        TrainingError: A loss is not finite.
        UserError: An image cannot be read.
    """
    batch, bad = build_dataset(run.config, run.train, augment=True, losses=True)[plan]
    if bad and run.config.data.max_bad_images == 0:
        raise UserError(bad[0])
    batch = batch.to(run.world.device)
    run.model.eval()  # batch norm must not change
    with FlopCounter() as counter:
        with autocast(run.world.device, run.precision):
            outputs = run.model(batch.images, batch.sizes)
        losses = run.criterion(outputs, batch)
        total = losses["class"] + losses["box"]
        _check_losses(total, losses, step=run.progress.step)
        # autograd.grad returns the gradients: no parameter's .grad changes, no hook is called.
        trainable = [p for p in run.model.parameters() if p.requires_grad]
        torch.autograd.grad(total, trainable, allow_unused=True)
    return counter.get_total_flops()


def _check_losses(total: Tensor, losses: dict[str, Tensor], *, step: int) -> None:
    """Refuse losses that are not finite, at the start of a run or at a resume."""
    if math.isfinite(float(total.detach())):
        return
    parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
    remedy = (
        "the run had diverged before this state was saved: start a new run from its best "
        "checkpoint with --init-from and a lower train.lr"
        if step
        else "are model.weights, model.pixel_mean and model.pixel_std those of the backbone?"
    )
    raise TrainingError(f"the loss of the first two images is not finite: {parts}; {remedy}")
