"""The training loop, whole: config and splits in, a run folder out.

The loss of a step is a sum over the *global* batch divided by a number that is known before the
forward pass, so ranks, micro-batches and accumulation do not change it.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.data.loader import RankStep, training_loader
from retinanet.engine.checkpoint import Progress, save_checkpoint
from retinanet.engine.evaluate import Evaluation, evaluate, write_evaluation
from retinanet.engine.meter import Meter
from retinanet.engine.precision import autocast
from retinanet.engine.run import Run, save_last, state
from retinanet.engine.run_folder import program
from retinanet.engine.signals import collect_signals
from retinanet.engine.splits import build_dataset
from retinanet.errors import InterruptedRunError, TrainingError, UserError
from retinanet.structures import Batch


def train(run: Run) -> Progress:
    """Train to the end; return how far the run is then.

    Raises:
        TrainingError: a non-finite loss, too many unreadable images, a full disk.
        InterruptedRunError: SIGINT or SIGTERM came; `last.pt` holds the state.
    """
    run.log.start_progress(step=run.progress.step, steps=run.steps)
    run.model.train()
    with collect_signals() as signals:
        if _due(run, run.progress.step) and run.progress.step > run.progress.evaluated:
            _evaluate(run, signals)  # makes up for one that an interruption cut off
        meter = Meter(run)
        for part in _loader(run):
            if _is_patience_over(run):
                run.log.say(f"No better AP in {run.progress.stale} evaluations: stopping")
                break
            meter.loaded()
            losses, norm, rate, signal_number = _step(run, part, signals)
            run.progress = replace(run.progress, step=part.step + 1)
            meter.stepped(losses, norm, rate)
            if signal_number:
                save_last(run)
                _stop(run, signal_number)
            if _due(run, part.step + 1):
                save_last(run)  # first, so that a signal during the evaluation loses nothing
                _evaluate(run, signals)
                meter.restart()
            elif (part.step + 1) % run.config.train.checkpoint_every == 0:
                save_last(run)
    return run.progress


def rehearse(run: Run) -> None:
    """Train and evaluate on two images, without leaving a trace: what fails, fails before step 0.

    Raises:
        TrainingError: a loss that is not finite with the initial weights.
        UserError: an image that cannot be read.
    """
    dataset = build_dataset(run.config, run.train, augment=True, losses=True)
    plan = run.plan.step(0)
    batch, bad = dataset[replace(plan, samples=plan.samples[:2])]
    if bad and run.config.data.max_bad_images == 0:
        raise UserError(bad[0])
    batch = batch.to(run.world.device)
    run.model.eval()  # batch norm must not move
    with autocast(run.world.device, run.precision):
        outputs = run.model(batch.images, batch.sizes)
    losses = run.criterion(outputs, batch)
    total = losses["class"] + losses["box"]
    if not math.isfinite(float(total.detach())):
        parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
        remedy = (
            "the run had diverged before this state was saved: start a new one from its best "
            "checkpoint with --init-from and a lower train.lr"
            if run.progress.step
            else "are model.weights, model.pixel_mean and model.pixel_std those of the backbone?"
        )
        raise TrainingError(f"the loss of the first two images is not finite: {parts}; {remedy}")
    total.backward()
    run.model.zero_grad(set_to_none=True)
    alone = replace(run.world, rank=0, size=1)
    evaluate(
        run.model, run.config, run.val, world=alone, precision=run.precision, losses=True, limit=2
    )


def _loader(run: Run) -> Iterator[RankStep]:
    micro_batch = run.config.train.micro_batch
    assert micro_batch != "auto"  # resolved before the run began
    return iter(
        training_loader(
            build_dataset(run.config, run.train, augment=True, losses=True),
            run.plan,
            start=run.progress.step,
            stop=run.steps,
            rank=run.world.rank,
            ranks=run.world.size,
            micro_batch=micro_batch,
            workers=run.config.data.workers,
            pin_memory=run.world.device.type == "cuda",
        )
    )


def _step(
    run: Run, part: RankStep, signals: list[int]
) -> tuple[dict[str, float], float, float, int]:
    """Take one optimiser step; return global losses, gradient norm, learning rate, signal."""
    # Layers that draw random numbers (a backbone of timm may) draw the same after a resume.
    torch.manual_seed(_seed(run.config.train.seed, part.step, run.world.rank))
    sums = [part.positives, part.images, len(part.bad)]
    positives, images, bad, interrupts, ends = run.world.sum(
        [*sums, signal.SIGINT in signals, signal.SIGTERM in signals]
    )
    if bad:
        _note_bad(run, part)
    number = signal.SIGTERM if ends else signal.SIGINT if interrupts else 0
    if not images:
        raise TrainingError(f"step {part.step + 1}: none of its images could be read")
    rate = _set_learning_rate(run, part.step)
    divisor = _divisor(run, positives, images)
    run.optimizer.zero_grad(set_to_none=True)
    local = _accumulate(run, part.micro_batches, divisor)
    totals = run.world.sum([float(local["class"]), float(local["box"])])
    losses = dict(zip(("class", "box"), totals, strict=True))
    run.scaler.unscale_(run.optimizer)
    norm = float(_clip(run))
    # With fp16 a gradient may overflow: the scaler then skips the step and halves its factor. Under
    # 1 there was nothing left to overflow.
    overflow = run.scaler.is_enabled() and run.scaler.get_scale() >= 1
    if not all(map(math.isfinite, totals)) or not (math.isfinite(norm) or overflow):
        raise TrainingError(_diverged(run, part, local, losses, rate, norm))
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return losses, norm, rate, number


def _accumulate(run: Run, batches: list[Batch], divisor: float) -> dict[str, Tensor]:
    """Add up the gradients of this rank's micro-batches; return its share of the losses."""
    totals = {name: torch.zeros((), device=run.world.device) for name in ("class", "box")}
    for i, host_batch in enumerate(batches):
        last = i == len(batches) - 1
        batch = host_batch.to(run.world.device)
        # Only the last backward pass exchanges gradients.
        with nullcontext() if last else _no_exchange(run.wrapped):
            with autocast(run.world.device, run.precision):
                outputs = run.wrapped(batch.images, batch.sizes)
            losses = run.criterion(outputs, batch)
            loss = (losses["class"] + losses["box"]) / divisor
            # DistributedDataParallel averages over ranks; the step's loss is their sum.
            run.scaler.scale(loss * run.world.size).backward()
        for name, value in losses.items():
            totals[name] += value.detach() / divisor
    return totals


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


def _set_learning_rate(run: Run, step: int) -> float:
    rate = run.learning_rate(step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    return rate


def _clip(run: Run) -> Tensor:
    """Clip the gradients; return their norm before it."""
    parameters = [p for p in run.model.parameters() if p.grad is not None]
    limit = run.config.train.clip_norm or math.inf
    return nn.utils.clip_grad_norm_(parameters, limit)


def _due(run: Run, step: int) -> bool:
    """Whether an evaluation follows a step: every eval.every steps or epochs, and at the end."""
    interval = run.evaluation_interval
    return step == run.steps or (interval > 0 and step % interval == 0)


def is_finished(run: Run) -> bool:
    """Whether nothing is left to do, not even an evaluation that an interruption cut off."""
    step = run.progress.step
    return step > run.steps or _is_patience_over(run) or step == run.steps == run.progress.evaluated


def _evaluate(run: Run, signals: list[int]) -> None:
    """Evaluate, record, and keep the best."""

    def interrupted() -> None:
        if signals:
            _stop(run, signals[-1])

    started = time.perf_counter()
    outcome = evaluate(
        run.model,
        run.config,
        run.val,
        world=run.world,
        precision=run.precision,
        losses=True,
        pictures=run.config.eval.pictures,
        interrupted=interrupted,
    )
    ap = run.world.broadcast(outcome.metrics.figures["AP"] if outcome else None)
    before = run.progress
    step = before.step
    # Without ground truth there is no AP: the newest weights are then the best guess.
    if ap is None or before.best_ap is None or ap > before.best_ap:
        run.progress = replace(before, evaluated=step, best_ap=ap, best_step=step, stale=0)
    else:
        run.progress = replace(before, evaluated=step, stale=before.stale + 1)
    if outcome is None:
        return
    _record_evaluation(run, outcome, time.perf_counter() - started)
    if run.progress.best_step == step:
        save_checkpoint(state(run), run.folder.best)
    save_last(run)


def _record_evaluation(run: Run, outcome: Evaluation, seconds: float) -> None:
    step = run.progress.step
    write_evaluation(outcome, run.folder.evaluation)
    values = {f"val/{name}": value for name, value in outcome.metrics.figures.items()}
    values |= {f"loss_{name}/val": value for name, value in outcome.losses.items()}
    run.log.record(step, {**values, "val/seconds": seconds})
    for i, picture in enumerate(outcome.pictures):
        run.log.picture(step, f"val/{i}", picture)
    figures = outcome.metrics.figures
    shown = "  ".join(
        f"{name} {'n/a' if figures[name] is None else f'{figures[name]:.3f}'}"
        for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    )
    losses = " + ".join(f"{name} {value:.3f}" for name, value in outcome.losses.items())
    best = "  (best so far)" if run.progress.best_step == step else ""
    run.log.say(f"val at step {step}: {shown}  loss {losses}  {seconds:.0f} s{best}")
    for remark in outcome.metrics.remarks:
        run.log.say(f"  {remark}")


def _is_patience_over(run: Run) -> bool:
    patience = run.config.train.patience
    return 0 < patience <= run.progress.stale


def _stop(run: Run, number: int) -> None:
    name = signal.Signals(number).name
    raise InterruptedRunError(
        number,
        f"{name} after step {run.progress.step} of {run.steps}: the state is in {run.folder.last}; "
        f"continue with: {program()} train --resume {run.folder.path}",
    )


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def _note_bad(run: Run, part: RankStep) -> None:
    """Name the images that a rank could not read, each once; stop past the limit, all together."""
    parts: list[list[str]] = run.world.broadcast(run.world.gather(part.bad))
    known = run.progress.bad_images
    new = [message for bad in parts for message in bad if message not in known]
    limit = run.config.data.max_bad_images
    for i, message in enumerate(new, start=len(known) + 1):
        run.log.say(f"step {part.step + 1}: left out: {message} ({i} so far, limit {limit})")
    run.progress = replace(run.progress, bad_images=(*known, *new))
    if len(known) + len(new) > limit:
        raise TrainingError(
            f"{len(known) + len(new)} images could not be read, more than data.max_bad_images "
            f"{limit}; the last was {new[-1]}"
        )


def _diverged(
    run: Run,
    part: RankStep,
    local: dict[str, Tensor],
    losses: dict[str, float],
    rate: float,
    norm: float,
) -> str:
    """Say all that helps to find out why a loss is not finite (users.md ST3)."""
    images = [
        f"  image {int(image)}: {len(target.boxes)} boxes, {target.boxes[:4].round().tolist()}"
        for batch in part.micro_batches
        for image, target in zip(batch.image_ids, batch.targets, strict=True)
    ]
    parts = ", ".join(f"{name} {value:g} (here {local[name]:g})" for name, value in losses.items())
    kept = run.folder.best if run.folder.best.exists() else "none yet"
    return "\n".join(
        [
            f"step {part.step + 1}: the loss is not finite: {parts}; learning rate {rate:g}, "
            f"gradient norm {norm:g}",
            *images[:16],
            f"No update was made; last checkpoint: {run.folder.last}, best: {kept}. Try a lower "
            "train.lr, a longer train.warmup_steps, a smaller train.clip_norm, or "
            "train.precision=fp32.",
        ]
    )
