"""The changes that a resume refuses, and the message with all remedies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet.checkpoints.changes import Change, as_text, options_by_name
from retinanet.checkpoints.environment import command_line
from retinanet.checkpoints.folder_config import FolderConfig
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import named_in
from retinanet.engine.find_state import new_run_command

_SHAPES = (
    *("model.backbone", "model.fpn_channels", "model.p6_from"),
    *("model.head_convs", "model.head_channels", "model.head_norm"),
)
_RECORDS = ("data.classes", "data.train.limit", "data.val.limit")
_FED = (
    *("model.backbone", "model.stride_in_1x1", "model.channel_order", "model.norm_eps"),
    *("model.pixel_mean", "model.pixel_std", "model.p7_relu"),
)
"""Options that change what the weights mean: a new run cannot start from these weights either."""


def needs_new_state(change: Change) -> bool:
    """Whether not even --allow-changes permits a change: the weights or the data would not fit."""
    if change.key == "model.norm":
        return _is_between_norms(change)
    if change.key in ("anchors.sizes", "anchors.ratios"):  # only the number of anchors matters
        one, other = (v[0] if change.key == "anchors.sizes" else v for v in _values(change))
        return len(one) != len(other)
    return change.key in (*_SHAPES, *_RECORDS)


def _is_between_norms(change: Change) -> bool:
    """Whether the type of norm layer changes; all kinds of batch norm share their weights."""
    return "gn" in _values(change)


def _values(change: Change) -> tuple[Any, Any]:
    return change.before, change.after


def describe_refusal(
    refused: Sequence[Change],
    folder: RunFolder,
    edit: FolderConfig | None,
    source: Path | None,
    overrides: Sequence[str],
) -> str:
    """Return a message with the refused options and all remedies."""
    given = named_in(overrides)
    edited = options_by_name(edit.config) if edit else {}
    by_edit = {
        c.key
        for c in refused
        if source is None and c.key not in given and edited.get(c.key) == c.after
    }
    lines = [
        f"  {c.key}: {as_text(c.after)} {f'in {folder.config}' if c.key in by_edit else 'here'}, "
        f"{as_text(c.before)} in the run"
        for c in refused
    ]
    if by_edit:
        lines.append(
            f"To drop the edit of {folder.config}: undo it, or remove the file; it will be "
            "recreated"
        )
    takes_weights = not any(
        c.key in _FED or (c.key == "model.norm" and _is_between_norms(c)) for c in refused
    )
    start = new_run_command(
        folder, folder.last if takes_weights else None, config=source, overrides=overrides
    )
    weights = ", from the weights of this run" if takes_weights else ""
    lines.append(f"To start a new run with these options{weights}: {start}")
    fixed = [c.key for c in refused if needs_new_state(c)]
    if fixed:
        lines.append(f"This run cannot be resumed with another {', '.join(fixed)}")
    else:
        lines.append(f"To resume anyway: {resume_command(folder, source, overrides)}")
    return (
        "--resume continues one experiment, but these options differ from the run's:\n"
        + "\n".join(lines)
    )


def resume_command(folder: RunFolder, source: Path | None, overrides: Sequence[str]) -> str:
    """Return the command that resumes even as another experiment."""
    config = [source] if source else []
    return command_line("train", *config, "--resume", folder.path, *overrides, "--allow-changes")
