"""Compare a resume with the run so far: its data and its learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from retinanet.categories import shown_names
from retinanet.checkpoints.changes import Change
from retinanet.checkpoints.folder_config import as_override
from retinanet.engine.find_state import new_run_command
from retinanet.engine.resume import LENGTH, Resume
from retinanet.engine.run import restarts_optimizer
from retinanet.engine.schedule import Schedule, first_different_rate
from retinanet.engine.splits import Split
from retinanet.errors import UserError, some_of

_SURROUNDINGS = (
    *("processes", "threads", "device", "platform", "python", "torch", "torchvision"),
    *("retinanet", "git"),  # the code
)
"""Entries of the environment that equal bits depend on."""


def check_data(resume: Resume, train: Split, val: Split) -> None:
    """Refuse classes, images or boxes that differ from the run's; their paths may change.

    Raises:
        UserError: They differ; the message names the file.
    """
    categories, saved = train.annotations.categories, resume.checkpoint.categories
    if categories != saved:
        raise UserError(
            f"{train.annotations.path}: its categories differ from the run's: "
            f"{some_of(shown_names(categories.names))} against "
            f"{some_of(shown_names(saved.names))}"
        )
    validated = resume.checkpoint.environment.get("val_fingerprint")
    for split, known, use in (
        (train, resume.checkpoint.fingerprint, "trained"),
        (val, validated, "validated"),
    ):
        if known not in (None, split.annotations.fingerprint):
            raise UserError(
                f"{split.annotations.path}: its images or boxes differ from those the run was "
                f"{use} on; start a new run with --init-from instead of --resume"
            )


def check_rates(resume: Resume, before: Schedule, now: Schedule) -> Resume:
    """Refuse another length if it changes a learning rate that was already used.

    With --allow-changes such a length counts as a change of the experiment.

    Args:
        resume: The run to resume, and its changes.
        before: Schedule of the run so far.
        now: Requested schedule.

    Raises:
        UserError: The rate of a past step would change; the message names the first such step and
            both rates.
    """
    lengths = tuple(change for change in resume.changes if change.key in LENGTH)
    moved = first_different_rate(before, now, range(resume.checkpoint.progress.step))
    if not lengths or moved is None:
        return resume
    if {change.key for change in lengths} <= resume.allowed:
        free = tuple(change for change in resume.changes if change not in lengths)
        return replace(resume, changes=free, broken=(*resume.broken, *lengths))
    used, would_be = _rates_at(moved, before, now)
    raise UserError(
        f"--resume: {lengths[0]} would change the learning rate of past steps: step {moved + 1} "
        f"was trained at {used}, but would now have {would_be}. " + _how_to_lengthen(resume, before)
    )


def _rates_at(step: int, before: Schedule, now: Schedule) -> tuple[str, str]:
    """Return two learning rates, with enough digits to tell them apart."""
    rates = before.learning_rate(step), now.learning_rate(step)
    for digits in range(4, 17):
        one, other = (f"{rate:.{digits}g}" for rate in rates)
        if one != other:
            return one, other
    return repr(rates[0]), repr(rates[1])


def _how_to_lengthen(resume: Resume, before: Schedule) -> str:
    """Return how a run can be made longer in spite of its schedule."""
    option = before.option_that_keeps_drops()
    keep = f"Add '{option}' to keep its drops, or start" if option else "Start"
    asked = [as_override(change) for change in resume.changes if change.key.startswith("train.")]
    new_run = new_run_command(resume.folder, resume.folder.last, overrides=asked)
    return f"{keep} a new run from its weights: {new_run}; or resume anyway: {resume.command}"


def describe_resume(
    resume: Resume, before: Schedule, now: Schedule, environment: Mapping[str, Any]
) -> list[str]:
    """Return lines that tell where a run resumes, and with which changes.

    Args:
        resume: The run to resume, and its changes.
        before: Schedule of the run so far.
        now: Schedule from here on.
        environment: Environment from here on (hardware and versions).
    """
    step = resume.checkpoint.progress.step
    changes = [*resume.changes, *_compare_surroundings(resume, environment)]
    lines = [*resume.remarks, f"resuming after step {step}"]
    lines += [f"  {change}" for change in changes]
    lines += [f"  changed experiment (--allow-changes): {change}" for change in resume.broken]
    if step and restarts_optimizer(resume.config, resume.checkpoint.config):
        lines.append("  the optimiser changed: it starts without momentum")
    moved = first_different_rate(before, now, range(step, now.steps))
    if moved is not None and not resume.broken:
        was, rate = _rates_at(moved, before, now)
        lines.append(
            f"  the new length changes the schedule: lr at step {moved + 1} is {rate}, not {was}"
        )
    return lines


def _compare_surroundings(resume: Resume, after: Mapping[str, Any]) -> list[Change]:
    """List what changed in the environment: equal bits need equal hardware and versions."""
    before = resume.checkpoint.environment
    return [
        Change(key=key, before=before[key], after=after[key])
        for key in _SURROUNDINGS
        if key in before and key in after and before[key] != after[key]
    ]
