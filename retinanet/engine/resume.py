"""Which options a resume may change: an interrupted training stays the same training.

Paths, hardware and reporting may change; each change is printed. The length may change as long as
no learning rate that was already used would differ. All other options define the experiment. A
change comes from the command line, from a config file given with --resume, or from an edit of the
run's own config.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.checkpoints.changes import Change, as_text, compare_configs, options_by_name
from retinanet.checkpoints.environment import command_line
from retinanet.checkpoints.folder_config import (
    FolderConfig,
    as_override,
    keep_resolved,
)
from retinanet.checkpoints.format import Checkpoint
from retinanet.checkpoints.run_folder import RunFolder, run_folder
from retinanet.config import follow_config, named_in, override_config
from retinanet.engine.find_state import SavedRun
from retinanet.engine.refused_changes import describe_refusal, needs_new_state, resume_command
from retinanet.errors import UserError
from retinanet.schema import Config

_FREE = (
    # paths of the data; fingerprints show that the data are the same
    *("data.root", "data.train.annotations", "data.train.images"),
    *("data.val.annotations", "data.val.images", "data.find_images"),
    # hardware
    *("data.workers", "train.device", "train.micro_batch"),
    # reports and checkpoints
    *("output.dir", "output.name", "eval.every", "eval.batch_size", "eval.pictures"),
    *("train.log_every", "train.checkpoint_every", "train.snapshot_every"),
    *("train.keep_snapshots", "train.imbalance_every"),
    # limits that end a run
    *("data.max_bad_images", "train.max_bad_steps", "train.max_minutes", "train.patience"),
)
"""Options that a resume may change: they are not part of the experiment."""
LENGTH = ("train.steps", "train.epochs")
"""Options that a resume may change if no learning rate that was already used changes."""
_PLACE = ("output.dir", "output.name")
_AT_START = ("model.weights", "model.prior", "loss.normalizer_start", "train.speed")
"""Options that only matter at step 0: later they have no effect, even with --allow-changes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Resume:
    """A run to resume: its checkpoint, its config and the changes to it."""

    checkpoint: Checkpoint
    folder: RunFolder
    config: Config
    """Config as requested; values that replaced `auto` stay."""
    remarks: tuple[str, ...] = ()
    """Notes about the search for an undamaged checkpoint and about an edited config.yaml."""
    changes: tuple[Change, ...] = ()
    """Changes that a resume allows."""
    allowed: frozenset[str] = frozenset()
    """Options whose change --allow-changes permits, now or at an earlier resume."""
    broken: tuple[Change, ...] = ()
    """Changes that make it another experiment; --allow-changes permits them."""
    command: str = ""
    """Command that resumes in spite of such changes."""
    keeps_config: bool = False
    """Whether an edited config.yaml is left unchanged, for a later resume."""

    @property
    def all_broken(self) -> list[str]:
        """All changes of the experiment in the run so far; checkpoints carry the list."""
        before = self.checkpoint.environment.get("changed", [])
        step = self.checkpoint.progress.step
        return [*before, *(f"after step {step}: {change}" for change in self.broken)]

    @property
    def all_options(self) -> list[dict[str, Any]]:
        """Each step after which options changed, and the new options, for `retinanet replay`."""
        before = self.checkpoint.environment.get("options_changed", [])
        own = [c for c in (*self.changes, *self.broken) if c.key not in _FREE]
        if not own:
            return list(before)
        new = {"after_step": self.checkpoint.progress.step, "options": list(map(as_override, own))}
        return [*before, new]


def plan_resume(
    run: SavedRun,
    *,
    given: Config | None,
    overrides: Sequence[str] = (),
    source: Path | None = None,
    allow_changes: bool = False,
) -> Resume:
    """Compare the requested config with the run's own.

    Args:
        run: The run to resume.
        given: Config given on the command line, overrides applied; None uses the folder's own
            config.yaml, which may have been edited.
        overrides: Overrides (`section.key=value`) of the command line.
        source: File of the given config.
        allow_changes: Continue even as another experiment.

    Raises:
        UserError: The options are those of another experiment.
    """
    folder, edit, saved = run.folder, run.edit, run.checkpoint.config
    remarks = list(run.remarks)
    edits = compare_configs(edit.config, saved) if edit else []
    if given is None:
        asked = override_config(edit.config if edit else saved, list(overrides))
        if edit and edits:
            by = "the last launch wrote them" if edit.is_own else "the file was edited"
            remarks.append(
                f"using the options of {edit.path} ({by}), except for those of the command line"
            )
        if edit and not edit.is_own and compare_configs(asked, edit.config):
            remarks.append(
                f"rewriting {edit.path} without its comments, to add the options of the command "
                "line"
            )
    else:
        asked = keep_resolved(given, saved)
        if edit and edits and not (edit.is_own or _is_same(source, folder.config)):
            _check_edit_agrees(edit, edits, asked, folder, source)
    return _plan(
        folder,
        run.checkpoint,
        asked,
        edit=edit,
        source=source,
        overrides=overrides,
        remarks=remarks,
        allow_changes=allow_changes,
        keeps_config=run.ignores_edit,
    )


def _is_same(source: Path | None, config: Path) -> bool:
    """Whether the given config is the run's own file."""
    return source is not None and source.exists() and source.resolve() == config.resolve()


def _check_edit_agrees(
    edit: FolderConfig, edits: list[Change], asked: Config, folder: RunFolder, source: Path | None
) -> None:
    """Refuse to drop an edit of config.yaml in favour of another config file.

    Raises:
        UserError: The two differ; the message names the options.
    """
    values = options_by_name(asked)
    lost = [c for c in edits if values.get(c.key) != c.after and c.key not in _PLACE]
    if not lost:
        return
    lines = [
        f"  {c.key}: {as_text(c.after)} there, {as_text(values.get(c.key))} in "
        f"{source or 'the given config'}"
        for c in lost
    ]
    raise UserError(
        f"{edit.path} was edited, but another config is given. They disagree:\n"
        + "\n".join(lines)
        + f"\nTo resume with the edit: {command_line('train', '--resume', folder.path)}. To drop "
        f"the edit, remove {edit.path}; it will be recreated"
    )


def _plan(
    folder: RunFolder,
    checkpoint: Checkpoint,
    asked: Config,
    *,
    edit: FolderConfig | None,
    source: Path | None,
    overrides: Sequence[str],
    remarks: Sequence[str],
    allow_changes: bool,
    keeps_config: bool,
) -> Resume:
    """Sort the requested changes into allowed and refused ones.

    Raises:
        UserError: The changes make it another experiment, and that is not allowed.
    """
    saved = checkpoint.config
    if saved.model.init_from is not None:  # then some options were adopted from that checkpoint
        if asked.model.init_from is None or _start_from_same_file(asked, saved):
            asked = override_config(asked, [f"model.init_from={json.dumps(saved.model.init_from)}"])
        asked, _ = follow_config(asked, saved, source="--resume")
    if (asked.train.epochs is None) != (saved.train.epochs is None):
        unit = "epochs" if saved.train.epochs else "steps"
        remedy = f"give train.{unit}"
        if edit and (edit.config.train.epochs is None) != (saved.train.epochs is None):
            remedy = f"undo the edit of {edit.path}, or remove the file; it will be recreated"
        raise UserError(
            f"--resume: this run counts its length, milestones and evaluations in {unit}; {remedy}"
        )
    asked = keep_resolved(asked, saved)
    edited = options_by_name(edit.config) if edit else {}
    asked, place_remarks = _keep_place(asked, saved, folder, edited, overrides)
    changes = compare_configs(asked, saved)
    longer = any(change.key in LENGTH for change in changes)
    free = (*_FREE, *LENGTH, *(["train.milestones"] if longer else []))
    keys = {change.key for change in changes}
    if edit is not None and edit.is_own and not allow_changes:
        # The last launch allowed these changes, but ended before it saved a checkpoint.
        allowed = {c.key for c in changes if edited.get(c.key) == c.after}
    else:
        allowed = keys if allow_changes else set()
    broken = [c for c in changes if c.key not in free or c.is_reordering]
    refused = [c for c in broken if c.key not in allowed or needs_new_state(c)]
    _check_start(broken)
    if refused:
        raise UserError(describe_refusal(refused, folder, edit, source, overrides))
    late = [c for c in broken if c.key in _AT_START]
    if late:
        asked = override_config(asked, [_as_before(change) for change in late])
    return Resume(
        checkpoint=checkpoint,
        folder=folder,
        config=asked,
        remarks=(
            *remarks,
            *place_remarks,
            *(f"{c.key} has no effect after step 0: it stays {as_text(c.before)}" for c in late),
        ),
        allowed=frozenset(allowed),
        changes=tuple(change for change in changes if change not in broken),
        broken=tuple(change for change in broken if change not in late),
        command=resume_command(folder, source, overrides),
        keeps_config=keeps_config,
    )


def _check_start(broken: Sequence[Change]) -> None:
    """Refuse to change the initial weights: a resumed run has its own weights.

    Raises:
        UserError: The initial weights are changed.
    """
    for change in broken:
        if change.key == "model.init_from":
            raise UserError(
                f"{change.key}: a resumed run continues with its own weights, not with those of "
                f"{as_text(change.after)}; to start a new run from these, leave --resume out and "
                "use another --name"
            )


def _as_before(change: Change) -> str:
    return as_override(Change(key=change.key, before=change.after, after=change.before))


def _keep_place(
    asked: Config,
    saved: Config,
    folder: RunFolder,
    edited: Mapping[str, Any],
    overrides: Sequence[str],
) -> tuple[Config, list[str]]:
    """Return `asked` with the run's actual folder: a resumed run stays where it is.

    Returns:
        The config, and a note for each option that asks for another folder.
    """
    before, after = options_by_name(saved), options_by_name(asked)
    if run_folder(asked).path.resolve() == folder.path.resolve():
        return asked, []
    remarks = []
    given = named_in(overrides)
    for key in _PLACE:
        by_edit = key in edited and edited[key] != before[key] and edited[key] == after[key]
        if key in given or (by_edit and after[key] != before[key]):
            remarks.append(
                f"{key}: {after[key]} has no effect on a resume: the run stays in its folder, "
                f"{folder.path}. To move the run, move that folder and give its new path to "
                "--resume"
            )
    dumped = [_as_before(Change(key=k, before=before[k], after=after[k])) for k in _PLACE]
    return override_config(asked, dumped), remarks


def _start_from_same_file(asked: Config, saved: Config) -> bool:
    """Whether two experiments start from the same file, however its path is written."""
    one, other = (Path(str(c.model.init_from)).expanduser().resolve() for c in (asked, saved))
    return one == other


def experiment(config: Config) -> dict[str, Any]:
    """Return the options that a training depends on, by name."""
    return {key: value for key, value in options_by_name(config).items() if key not in _FREE}
