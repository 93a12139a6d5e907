"""The training loop, from top to bottom: load, take a step, log, evaluate, save."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from retinanet.checkpoints.environment import command_line
from retinanet.checkpoints.format import Progress
from retinanet.data.loader import RankStep
from retinanet.distributed.raise_together import agree_on_signal
from retinanet.distributed.signals import Signals
from retinanet.engine.divergence import GuardState
from retinanet.engine.evaluate import Evaluation, evaluate, write_evaluation
from retinanet.engine.loss_watch import calmer_options
from retinanet.engine.meter import Meter
from retinanet.engine.parts import Parts, StepSums
from retinanet.engine.run import Run, state
from retinanet.engine.splits import build_dataset
from retinanet.engine.step import take_step
from retinanet.errors import DivergedError, InterruptedRunError, TrainingError, UserError, plural
from retinanet.evaluation.coco import format_figure
from retinanet.losses.imbalance import EDGES
from retinanet.model.detector import Detector


def train(run: Run, signals: Signals, *, started: float) -> Progress:
    """Train to the end, or as long as `train.max_minutes` allows; return the run's progress.

    Args:
        run: The run to train.
        signals: Signals that this process collects.
        started: Time at which this launch began, in seconds of the monotonic clock.

    Raises:
        TrainingError: A loss is not finite, too many images are unreadable, or the disk is full.
        InterruptedRunError: A signal came; `last.pt` holds the state.
    """
    run.log.start_progress(step=run.progress.step, steps=run.schedule.steps)
    run.model.train()
    if run.progress.step:
        run.watch.resume(run.folder.metrics, run.world)
    deadline = started + 60 * (run.config.train.max_minutes or math.inf)
    if run.schedule.is_evaluated(run.progress.step) and run.progress.step > run.progress.evaluated:
        _evaluate(run, signals)  # repeats an evaluation that was interrupted
    meter = Meter(run)
    parts = Parts(run, signals, deadline=deadline)
    for part, wait_for_sums in parts:
        if _is_patience_over(run):
            run.log.say(f"no better AP in {plural(run.progress.stale, 'evaluation')}: stopping")
            break
        sums = wait_for_sums()
        if not _may_take_step(run, part, sums, signals):
            break
        with parts.asked_ahead():
            meter.loaded()
            take_step(run, part, positives=sums.positives, images=sums.images)
        step = part.step + 1
        run.progress = replace(run.progress, step=step)
        if step % run.config.train.log_every == 0 or step == run.schedule.steps:
            _check_finite(run)
        meter.stepped(part)
        _record_imbalance(run)
        if run.schedule.is_evaluated(step):
            _save(run)  # first, so that a signal during the evaluation loses nothing
            _evaluate(run, signals)
            meter.restart()
        elif step % run.config.train.checkpoint_every == 0:
            _save(run)
        if step % (run.config.train.snapshot_every or step + 1) == 0:
            _check_finite(run)
            run.saver.snapshot(state(run), step, run.config.train.keep_snapshots)
    return run.progress


def is_finished(run: Run) -> bool:
    """Whether nothing is left to do, not even an evaluation that was interrupted."""
    step, steps = run.progress.step, run.schedule.steps
    return step > steps or _is_patience_over(run) or step == steps == run.progress.evaluated


def _is_patience_over(run: Run) -> bool:
    patience = run.config.train.patience
    return 0 < patience <= run.progress.stale


def _may_take_step(run: Run, part: RankStep, sums: StepSums, signals: Signals) -> bool:
    """Whether the ranks take the next step, as they have agreed; not if the time is over.

    Raises:
        InterruptedRunError: A rank got a signal; the state is saved.
        TrainingError: Too many images, or all images of this step, could not be read.
    """
    if sums.signalled:
        _save(run)
        _raise_interrupted(run, agree_on_signal(run.world, signals.number))
    if sums.late:
        _save(run)
        run.log.say(
            f"stopped after {run.config.train.max_minutes:g} minutes (train.max_minutes), at step "
            f"{run.progress.step} of {run.schedule.steps}; {_how_to_continue(run)}"
        )
        return False
    if sums.bad:
        _note_unreadable_images(run, part)
    if not sums.images:
        run.world.fail(f"step {part.step + 1}: none of its images could be read")
    return True


def _note_unreadable_images(run: Run, part: RankStep) -> None:
    """Report each image that a rank could not read once; past the limit all ranks stop."""
    parts: list[list[str]] = run.world.broadcast(run.world.gather(part.bad))
    known = run.progress.bad_images
    new = [message for bad in parts for message in bad if message not in known]
    limit = run.config.data.max_bad_images
    for i, message in enumerate(new, start=len(known) + 1):
        run.log.say(f"step {part.step + 1}: left out: {message} ({i} so far, limit {limit})")
    run.progress = replace(run.progress, bad_images=(*known, *new))
    if len(known) + len(new) > limit:
        run.world.fail(
            f"{plural(len(known) + len(new), 'image')} could not be read, more than "
            f"data.max_bad_images ({limit}) allows; the last was {new[-1]}"
        )


def _raise_interrupted(run: Run, number: int) -> NoReturn:
    """End the run because of a signal. The state has been saved.

    Raises:
        InterruptedRunError: Always.
    """
    text = (
        f"{signal.Signals(number).name} after step {run.progress.step} of {run.schedule.steps}: "
        f"{_how_to_continue(run)}"
    )
    run.log.keep(f"stopped: {text}")  # after SIGHUP no terminal shows it
    raise InterruptedRunError(number, text)


def _how_to_continue(run: Run) -> str:
    return (
        f"the state is in {run.folder.last}; continue with: "
        f"{command_line('train', '--resume', run.folder.path)}"
    )


def _check_finite(run: Run) -> None:
    """Wait for the device and check that losses and gradients are still finite.

    Raises:
        DivergedError: A loss or gradient is not finite.
    """
    reading = run.guard.read()
    if reading.step is not None:
        class_loss, box_loss = run.world.sum(reading.losses)
        shown = replace(reading, losses=(class_loss, box_loss))
        message = _describe_divergence(run, shown, reading.step) if run.world.is_main else ""
        run.world.fail(message, DivergedError)
    new = reading.skipped - run.progress.skipped_steps
    if new:
        run.progress = replace(run.progress, skipped_steps=reading.skipped)
        run.log.say(
            f"  by step {run.progress.step}: {plural(new, 'more step')} skipped because the loss "
            f"or the gradient was not finite ({reading.skipped} so far, train.max_bad_steps "
            f"{run.config.train.max_bad_steps})"
        )


def _describe_divergence(run: Run, reading: GuardState, step: int) -> str:
    """Describe a step that was not finite, with all that helps to find the cause."""
    dataset = build_dataset(run.config, run.train, augment=True, losses=False)
    images = [
        f"  image {int(image)}: {plural(len(target.boxes), 'box')}, "
        f"{target.boxes[:4].round().tolist()}"
        for batch, _ in (dataset[part] for part in run.plan.step(step))
        for image, target in zip(batch.image_ids, batch.targets, strict=True)
    ]
    what = "loss" if not all(map(math.isfinite, reading.losses)) else "gradient"
    parts = ", ".join(f"{n} {x:g}" for n, x in zip(("class", "box"), reading.losses, strict=True))
    kept = run.folder.best if run.folder.best.exists() else "none yet"
    return "\n".join(
        [
            f"step {step + 1}: the {what} is not finite: {parts}; learning rate "
            f"{run.schedule.learning_rate(step):g}, gradient norm {reading.norm:g}",
            *images[:16],
            f"From this step on the weights were not updated. Last checkpoint: {run.folder.last}, "
            f"best: {kept}. Inspect the step with: "
            f"{command_line('replay', run.folder.path, '--step', step + 1)}. Set "
            "train.max_bad_steps to skip a few such steps; or try, in a new run or with "
            f"--allow-changes, {calmer_options(run.config.train)}.",
        ]
    )


def _save(run: Run) -> None:
    """Save the state as last.pt, if it is finite."""
    _check_finite(run)
    run.saver.save(state(run), run.folder.last)


def _record_imbalance(run: Run) -> None:
    """Record the contributions to the class loss, if this step measured them."""
    assert run.result is not None
    if run.result.imbalance is None:
        return
    values, histograms = run.result.imbalance.read()
    run.log.record(run.progress.step, values)
    for name, counts in histograms.items():
        run.log.histogram(run.progress.step, name, EDGES, counts)


def _evaluate(run: Run, signals: Signals) -> None:
    """Evaluate the weights (and their average, if kept), record the result, and keep the best."""
    started = time.perf_counter()
    outcomes = {"val": _evaluate_model(run, run.model, signals)}
    if run.ema is not None:
        outcomes["val_average"] = _evaluate_model(run, run.ema.refresh(), signals)
    judged = list(outcomes.values())[-1]
    ap = run.world.broadcast(judged.metrics.figures["AP"] if judged else None)
    before = run.progress
    step = before.step
    is_better = ap is None or before.best_ap is None or ap > before.best_ap
    stale = 0 if is_better else before.stale + 1
    # Without an AP, or while AP is 0, the newest weights are the best guess.
    if is_better or ap == before.best_ap == 0:
        run.progress = replace(before, evaluated=step, best_ap=ap, best_step=step, stale=stale)
    else:
        run.progress = replace(before, evaluated=step, stale=stale)
    if judged is not None:
        done = {name: outcome for name, outcome in outcomes.items() if outcome is not None}
        _write_evaluation(run, judged)  # first, because it may add a note
        _record_evaluation(run, done, time.perf_counter() - started)
    if run.progress.best_step == step:
        run.saver.save(state(run), run.folder.best)
    _save(run)


def _write_evaluation(run: Run, evaluation: Evaluation) -> None:
    """Write an evaluation into the run folder.

    Raises:
        TrainingError: It cannot be written. This is not a user error: at the start, it could.
    """
    try:
        write_evaluation(evaluation, run.folder.evaluation)
    except UserError as error:
        raise TrainingError(str(error)) from None


def _evaluate_model(run: Run, model: Detector, signals: Signals) -> Evaluation | None:
    """Evaluate a model on val; return the outcome on the main process.

    Raises:
        InterruptedRunError: A rank got a signal.
    """
    try:
        return evaluate(
            model,
            run.config,
            run.val,
            world=run.world,
            precision=run.precision,
            losses=True,
            pictures=run.config.eval.pictures,
            signals=signals,
        )
    except InterruptedRunError as error:
        _raise_interrupted(run, error.number)


def _record_evaluation(run: Run, outcomes: Mapping[str, Evaluation], seconds: float) -> None:
    """Print and record the results of evaluations."""
    step = run.progress.step
    values: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        values |= {f"{name}/{key}": value for key, value in outcome.metrics.figures.items()}
        values |= {f"loss_{key}/{name}": value for key, value in outcome.losses.items()}
        for i, picture in enumerate(outcome.pictures):
            run.log.picture(step, f"{name}/{i}", picture)
        figures = outcome.metrics.figures
        aps = "  ".join(
            f"{name} {format_figure(figures[name])}"
            for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
        )
        losses = " + ".join(f"{key} {value:.3f}" for key, value in outcome.losses.items())
        what = "val with averaged weights" if name == "val_average" else name
        run.log.say(f"{what} at step {step}: {aps}  loss {losses}")
        remarks = outcome.metrics.remarks + _warnings_of_evaluation(run, outcome)
        for remark in remarks:
            run.log.say(f"  {remark}")
    run.log.say(f"  evaluated in {seconds:.0f} s{_why_best(run.progress)}")
    run.log.record(step, {**values, "val/seconds": seconds})


def _warnings_of_evaluation(run: Run, outcome: Evaluation) -> list[str]:
    """Return warnings that the training has failed."""
    figures = outcome.metrics.figures
    warning = run.watch.judge_evaluation(
        outcome.losses,
        figures["AP50"],
        run.config.train,
        boxes=sum(row.boxes for row in outcome.metrics.classes),
        images=len(run.val.annotations),
    )
    evaluations = run.progress.stale + 1
    if not warning and figures["AP"] == run.progress.best_ap == 0 and evaluations % 3 == 0:
        warning = (
            f"warning: AP has been 0 in all {evaluations} evaluations: nothing is detected yet. "
            "Is train.lr far too high or too low? Does `retinanet check` find errors in the data?"
        )
    return [warning] if warning else []


def _why_best(progress: Progress) -> str:
    """Return a note that the newest weights are kept as best.pt, and why; "" if they are not."""
    if progress.best_step != progress.step:
        return ""
    if not progress.best_ap:
        why = "there is no AP" if progress.best_ap is None else "AP is 0"
        return f"; {why}, so best.pt holds the newest weights"
    return "; this is the best AP so far"
