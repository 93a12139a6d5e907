"""An interrupted training is the same training: what a resume goes on from, and what it may change.

Where things lie, what they run on and what is reported may change, and is told; the length may,
where no learning rate that was used changes with it. Everything else is the experiment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retinanet.checkpoints.format import Checkpoint
from retinanet.checkpoints.recovery import load_resumable, newest_whole
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import dump_config, follow_config, override_config
from retinanet.engine.schedule import Schedule
from retinanet.engine.splits import Split
from retinanet.errors import UserError, some_of
from retinanet.schema import Config

_FREE = (
    # where the data lie: that they are the same is known by their fingerprints
    *("data.root", "data.train.annotations", "data.train.images"),
    *("data.val.annotations", "data.val.images", "data.find_images"),
    # what it runs on
    *("data.workers", "train.device", "train.micro_batch"),
    # what is reported and kept
    *("output.dir", "output.name", "eval.every", "eval.batch_size", "eval.pictures"),
    *("train.log_every", "train.checkpoint_every", "train.snapshot_every"),
    *("train.keep_snapshots", "train.imbalance_every"),
    # when it gives up
    *("data.max_bad_images", "train.max_bad_steps", "train.max_minutes", "train.patience"),
)
"""Options that a resume may change: they are no part of the experiment."""
_LENGTH = ("train.steps", "train.epochs")
_SURROUNDINGS = (
    *("processes", "threads", "device", "platform", "python", "torch", "torchvision"),
    *("retinanet", "git"),  # the code
)
"""Entries of the environment that equal bits depend on."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One option, before and after."""

    key: str
    before: Any
    after: Any

    @property
    def is_reordering(self) -> bool:
        """Whether the same places follow each other in another order: folders of other files."""
        lists = isinstance(self.before, list) and isinstance(self.after, list)
        return lists and sorted(self.before) == sorted(self.after)

    def __str__(self) -> str:
        return f"{self.key}: {_as_text(self.before)} -> {_as_text(self.after)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Resume:
    """What a run goes on from, and as what."""

    checkpoint: Checkpoint
    folder: RunFolder
    config: Config
    """As asked; what `auto` was resolved to stays."""
    remarks: tuple[str, ...] = ()
    """Lines about the search for a whole checkpoint."""
    changes: tuple[Change, ...] = ()
    """Changes that are allowed."""
    allow_changes: bool = False
    broken: tuple[Change, ...] = ()
    """Changes that make another experiment of it, which --allow-changes lets pass."""

    @property
    def all_broken(self) -> list[str]:
        """Every broken promise of the run so far: the list travels with its state."""
        before = self.checkpoint.environment.get("changed", [])
        step = self.checkpoint.progress.step
        return [*before, *(f"after step {step}: {change}" for change in self.broken)]


def find_state(path: Path) -> tuple[RunFolder, Checkpoint, tuple[str, ...]]:
    """Return a run's folder, the state to go on from, and what to say about it.

    Args:
        path: run folder, or a checkpoint in it. Where `last.pt` is damaged, the newest whole
            checkpoint of the folder counts.

    Raises:
        UserError: there is no state, or it cannot be gone on from.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such checkpoint or run folder")
    remarks: list[str] = []
    folder = RunFolder(path if path.is_dir() else path.absolute().parent.parent)
    if path.is_dir() or (path.absolute() == folder.last.absolute() and path.is_file()):
        path, checkpoint, remarks = newest_whole(folder)
    else:
        checkpoint = load_resumable(path)
        _check_is_newest(path, checkpoint, folder)
    if not folder.config.exists():
        raise UserError(
            f"{path}: does not lie in a run folder, as RUN/checkpoints/last.pt does; to start a "
            "new run from its weights, use --init-from"
        )
    return folder, checkpoint, tuple(remarks)


def _check_is_newest(path: Path, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Refuse to go back: a run has one history, and what follows a state would be overwritten."""
    if not folder.last.exists():
        return
    newest, further, _ = newest_whole(folder)
    if further.progress.step > checkpoint.progress.step:
        raise UserError(
            f"{path}: is the state after step {checkpoint.progress.step}, but {newest} has "
            f"{further.progress.step}: resume that one, or start a new run from this one with "
            "--init-from"
        )


def plan_resume(
    folder: RunFolder,
    checkpoint: Checkpoint,
    asked: Config,
    *,
    remarks: tuple[str, ...] = (),
    allow_changes: bool = False,
) -> Resume:
    """Compare the config that was asked for with the run's own.

    Raises:
        UserError: it is another experiment, and that is not allowed.
    """
    saved = checkpoint.config
    if saved.model.init_from is not None:  # much of it came from there, then
        if asked.model.init_from is None or _start_from_same_file(asked, saved):
            asked = override_config(asked, [f"model.init_from={json.dumps(saved.model.init_from)}"])
        asked, _ = follow_config(asked, saved, source="--resume")
    if (asked.train.epochs is None) != (saved.train.epochs is None):
        unit = "epochs" if saved.train.epochs else "steps"
        raise UserError(
            f"--resume: the length of this run is in {unit}, and so are its milestones and "
            f"evaluations; give train.{unit}"
        )
    for key in ("precision", "micro_batch"):  # what `auto` was resolved to stays
        if getattr(asked.train, key) == "auto":
            asked = override_config(asked, [f"train.{key}={getattr(saved.train, key)}"])
    changes = compare_configs(asked, saved)
    longer = any(change.key in _LENGTH for change in changes)
    free = (*_FREE, *_LENGTH, *(["train.milestones"] if longer else []))
    broken = tuple(c for c in changes if c.key not in free or c.is_reordering)
    if broken and not allow_changes:
        lines = [
            f"{change.key}: {_as_text(change.after)} here, {_as_text(change.before)} in the run"
            for change in broken
        ]
        raise UserError(
            "--resume continues one experiment, but these options differ from the run's "
            "config.yaml:\n  " + "\n  ".join(lines) + "\nStart a new run with --name, from its "
            "weights with --init-from; or break the promise with --allow-changes"
        )
    return Resume(
        checkpoint=checkpoint,
        folder=folder,
        config=asked,
        remarks=remarks,
        allow_changes=allow_changes,
        changes=tuple(change for change in changes if change not in broken),
        broken=broken,
    )


def _start_from_same_file(asked: Config, saved: Config) -> bool:
    """Whether two experiments start from one file, however its path is written."""
    one, other = (Path(str(c.model.init_from)).expanduser().resolve() for c in (asked, saved))
    return one == other


def compare_configs(asked: Config, saved: Config) -> list[Change]:
    """List the options that differ, by name."""
    after, before = _flatten(dump_config(asked)), _flatten(dump_config(saved))
    return [
        Change(key=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def experiment(config: Config) -> dict[str, Any]:
    """Return the options that a training depends on, by name."""
    return {key: value for key, value in _flatten(dump_config(config)).items() if key not in _FREE}


def check_data(resume: Resume, train: Split, val: Split) -> None:
    """Refuse other classes, and other images or boxes than the run's; where they lie is free.

    Raises:
        UserError: they differ; the message names the file.
    """
    categories, saved = train.annotations.categories, resume.checkpoint.categories
    if categories != saved:
        raise UserError(
            f"{train.annotations.path}: its categories differ from the run's: "
            f"{some_of(categories.names)} against {some_of(saved.names)}"
        )
    validated = resume.checkpoint.environment.get("val_fingerprint")
    for split, known, use in (
        (train, resume.checkpoint.fingerprint, "trained"),
        (val, validated, "validated"),
    ):
        if known not in (None, split.annotations.fingerprint):
            raise UserError(
                f"{split.annotations.path}: its images or boxes differ from those that the run was "
                f"{use} on; start a new run with --init-from instead of --resume"
            )


def check_rates(resume: Resume, before: Schedule, now: Schedule) -> Resume:
    """Refuse another length under which a learning rate that was used would be another.

    With --allow-changes that length joins the broken promises.

    Args:
        resume: what the run goes on from.
        before: the schedule of the run so far.
        now: the one that is asked for.

    Raises:
        UserError: there is such a step; the message names the first, and both rates.
    """
    lengths = tuple(change for change in resume.changes if change.key in _LENGTH)
    moved = _first_different_rate(before, now, range(resume.checkpoint.progress.step))
    if not lengths or moved is None:
        return resume
    if resume.allow_changes:
        free = tuple(change for change in resume.changes if change not in lengths)
        return replace(resume, changes=free, broken=(*resume.broken, *lengths))
    step, used, would_be = moved
    raise UserError(
        f"--resume: {lengths[0]} moves the schedule into what was trained already: step "
        f"{step + 1} had learning rate {used:.4g} and would have {would_be:.4g}. "
        + _how_to_lengthen(before)
    )


def _first_different_rate(
    before: Schedule, now: Schedule, steps: range
) -> tuple[int, float, float] | None:
    """Return the first step with another learning rate, that before and that now."""
    for step in steps:
        used, would_be = before.learning_rate(step), now.learning_rate(step)
        if used != would_be:
            return step, used, would_be
    return None


def _how_to_lengthen(before: Schedule) -> str:
    """Say how a run can be made longer in spite of its schedule."""
    whole = all(milestone % before.unit == 0 for milestone in before.milestones)
    if before.train.schedule == "multistep" and whole:
        milestones = [milestone // before.unit for milestone in before.milestones]
        keep = f"Keep its drops with 'train.milestones={milestones}', or start"
    else:
        keep = "Start"
    return (
        f"{keep} a new run from its weights with --init-from, or break the promise with "
        "--allow-changes"
    )


def describe_resume(
    resume: Resume, before: Schedule, now: Schedule, environment: Mapping[str, Any]
) -> list[str]:
    """Say where a run goes on, and with what changes.

    Args:
        resume: what the run goes on from.
        before: the schedule of the run so far.
        now: the one from here on.
        environment: what it is computed with from here on.
    """
    step = resume.checkpoint.progress.step
    changes = [*resume.changes, *_compare_surroundings(resume, environment)]
    lines = [*resume.remarks, f"resuming after step {step}"]
    lines += [f"  {change}" for change in changes]
    lines += [
        f"  broken promise (--allow-changes): {change}: this is another experiment from here on"
        for change in resume.broken
    ]
    moved = _first_different_rate(before, now, range(step, now.steps))
    if moved and not resume.broken:
        at, was, rate = moved
        lines.append(
            f"  another length moves the schedule: lr is {rate:.4g} at step {at + 1}, not {was:.4g}"
        )
    return lines


def _compare_surroundings(resume: Resume, after: Mapping[str, Any]) -> list[Change]:
    """List what is other around the run: equal bits need equal surroundings."""
    before = resume.checkpoint.environment
    return [
        Change(key=key, before=before[key], after=after[key])
        for key in _SURROUNDINGS
        if key in before and key in after and before[key] != after[key]
    ]


def _as_text(value: Any) -> str:
    """Return an option's value as YAML would have it."""
    return "null" if value is None else str(value)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options in one dict, with names such as `train.lr`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
