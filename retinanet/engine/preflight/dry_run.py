"""`train --dry-run`: one whole step and one evaluation batch; nothing is kept."""

from __future__ import annotations

import time
from contextlib import nullcontext

from retinanet.data.loader import RankStep, on_one_core
from retinanet.distributed.device import forget_peak, peak_memory, wait_for
from retinanet.engine.meter import canvas_pixels
from retinanet.engine.preflight.forecast import DryRunTimes, forecast
from retinanet.engine.preflight.rehearsal import evaluate_first
from retinanet.engine.run import Run, load_steps
from retinanet.engine.step import take_step
from retinanet.errors import plural

_STEPS_ON_A_GPU = 3
"""Number of steps on a GPU: the first ones choose kernels; the last is timed."""


def try_first_step(run: Run) -> list[str]:
    """Take the first step and evaluate one batch; return lines about them and the whole run.

    The run cannot be used afterwards, because its weights have changed. Nothing is written.

    Raises:
        TrainingError: A loss or gradient is not finite, or too many images are unreadable.
        UserError: An image of the evaluation cannot be read.
    """
    # Without workers, the training process loads with all cores.
    with on_one_core() if run.config.data.workers else nullcontext():
        started = time.perf_counter()
        # In this process, so that it can be timed.
        part = next(load_steps(run, stop=run.progress.step + 1, workers=0))
        loading = time.perf_counter() - started
    bad = _gather_unreadable(run, part)
    trial = _step_and_evaluate(run, part, loading)
    return [
        f"dry run: one step of {plural(run.config.train.batch_size, 'image')} and the evaluation "
        f"of {trial.evaluated} went well; nothing was written",
        *(f"  left out: {message}" for message in bad),
        *forecast(run, trial),
    ]


def _step_and_evaluate(run: Run, part: RankStep, loading: float) -> DryRunTimes:
    """Take a step and evaluate one batch of images; measure both."""
    device = run.world.device
    positives, images = run.world.sum([part.positives, part.images])
    forget_peak(device)
    run.model.train()
    for _ in range(1 if device.type == "cpu" else _STEPS_ON_A_GPU):
        wait_for(device)
        started = time.perf_counter()
        take_step(run, part, positives=positives, images=images)
        wait_for(device)
        stepping = time.perf_counter() - started
    _check_step(run)
    step_memory = peak_memory(device)
    forget_peak(device)
    limit = min(run.config.eval.batch_size, len(run.val.annotations))
    started = time.perf_counter()
    evaluate_first(run, limit)
    return DryRunTimes(
        images=part.images,
        pixels=canvas_pixels(part),
        load_seconds=loading,
        step_seconds=stepping,
        step_memory=step_memory,
        evaluated=limit,
        evaluation_seconds=time.perf_counter() - started,
        evaluation_memory=peak_memory(device),
    )


def _gather_unreadable(run: Run, part: RankStep) -> list[str]:
    """Return the messages of all ranks about images that could not be read.

    Raises:
        TrainingError: Too many images, or all, could not be read.
    """
    parts: list[list[str]] = run.world.broadcast(run.world.gather(part.bad))
    bad = [message for own in parts for message in own]
    (images,) = run.world.sum([part.images])
    limit = run.config.data.max_bad_images
    if len(bad) > limit or not images:
        run.world.fail(
            f"{plural(len(bad), 'image')} of the first step could not be read, and "
            f"data.max_bad_images is {limit}; the first is {bad[0]}"
        )
    return bad


def _check_step(run: Run) -> None:
    """End the dry run if its step is not finite.

    Raises:
        TrainingError: A loss or the gradient is not finite.
    """
    losses, norm = run.latest()
    reading = run.guard.read()
    if reading.step is not None or reading.skipped > run.progress.skipped_steps:
        parts = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        run.world.fail(
            f"the first step is not finite: {parts}, gradient norm {norm:g}. Try a lower train.lr "
            "or train.precision=fp32. Are model.pixel_mean and model.pixel_std those of the "
            "backbone?"
        )
