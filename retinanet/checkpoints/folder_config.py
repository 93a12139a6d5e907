"""The config.yaml of a run folder, which its owner may have edited since the run wrote it.

A checkpoint carries its own config. The file beside it is for people: what they change in it is
what they want of the next `--resume`, and nothing that evaluation or prediction would look at.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinanet.checkpoints.changes import Change, as_text, compare_configs
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import load_config, named_in, override_config
from retinanet.errors import UserError
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """What the config.yaml of a run folder says now."""

    path: Path
    config: Config
    is_own: bool
    """Whether it is as the newest launch of the run has left it."""


def read_folder_config(folder: RunFolder, saved: Config) -> FolderConfig | None:
    """Read the config.yaml of a run folder; None if there is none.

    Args:
        folder: of the run.
        saved: the run's own config: what `auto` was resolved to there stays so.

    Raises:
        UserError: it cannot be read as a config.
    """
    path = folder.config
    if not path.is_symlink() and not path.exists():
        return None
    try:
        if path.is_file() and not path.read_bytes().strip():
            raise UserError(f"{path}: is empty")
        config = load_config(path)
    except UserError as error:
        remove = "rm -r" if path.is_dir() else "rm"
        raise UserError(
            f"{error}\nThis is the config of the run in {folder.path}, and what is changed in it "
            "counts at a resume. Nothing was written. Correct it, or take the run's own back by "
            f"removing it, as it is then written again: {remove} {shlex.quote(str(path))}"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return FolderConfig(
        path=path,
        config=_keep_place(keep_resolved(config, saved), saved, path),
        is_own=folder.is_config_as_written(),
    )


def _keep_place(config: Config, saved: Config, path: Path) -> Config:
    """Return a config with the run's own place, where its file says nothing of it."""
    kept = []
    if "dir" not in config.output.model_fields_set:
        kept.append(Change(key="output.dir", before=None, after=saved.output.dir))
    if config.output.name == path.stem:  # a config without a name is named by its file
        kept.append(Change(key="output.name", before=None, after=saved.output.name))
    return override_config(config, list(map(as_override, kept))) if kept else config


def keep_resolved(asked: Config, saved: Config) -> Config:
    """Return `asked` with what `auto` was resolved to in the run."""
    resolved = [
        f"train.{key}={getattr(saved.train, key)}"
        for key in ("precision", "micro_batch")
        if getattr(asked.train, key) == "auto"
    ]
    return override_config(asked, resolved) if resolved else asked


def describe_ignored_edit(
    path: Path, saved: Config, overrides: Sequence[str], sections: Sequence[str]
) -> list[str]:
    """Say which options were edited in the config.yaml beside a checkpoint, to no effect here.

    Args:
        path: of the checkpoint.
        saved: the config in it.
        overrides: `section.key=value` that were given: these count.
        sections: those that matter here, such as `postprocess`.
    """
    if path.absolute().parent.name != "checkpoints":
        return []
    folder = RunFolder(path.absolute().parent.parent)
    try:
        found = read_folder_config(folder, saved)
    except UserError:
        return []  # nothing here depends on it; a resume says what is wrong with it
    if found is None or found.is_own:
        return []
    given = named_in(overrides)
    edits = [
        change
        for change in compare_configs(found.config, saved)
        if change.key.partition(".")[0] in sections and change.key not in given
    ]
    if not edits:
        return []
    return [
        f"{found.path} was edited ({', '.join(map(str, edits))}), which has no effect here: a "
        "checkpoint carries its own config. Give options on the command line: "
        + shlex.join(map(as_override, edits))
    ]


def as_override(change: Change) -> str:
    """Return the word of a command line that makes a change."""
    value = change.after
    return f"{change.key}={json.dumps(value) if isinstance(value, list) else as_text(value)}"
