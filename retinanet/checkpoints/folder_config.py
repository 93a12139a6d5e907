"""The config.yaml of a run folder, which may have been edited since the run wrote it.

A checkpoint contains its own config. The file beside it is for people: their edits take effect at
the next `--resume`. Evaluation and prediction do not use it.
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
    """Current content of the config.yaml of a run folder."""

    path: Path
    config: Config
    is_own: bool
    """Whether it is unchanged since the newest launch of the run."""


def read_folder_config(folder: RunFolder, saved: Config) -> FolderConfig | None:
    """Read the config.yaml of a run folder; None if it does not exist.

    Args:
        folder: Folder of the run.
        saved: Config of the run. What `auto` was resolved to there stays the same.

    Raises:
        UserError: It cannot be read as a config.
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
            f"{error}\nThis is the config of the run in {folder.path}; resuming applies its edits. "
            "Nothing was written. Correct the file, or remove it, so that it is written again from "
            f"the checkpoint: {remove} {shlex.quote(str(path))}"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return FolderConfig(
        path=path,
        config=_keep_place(keep_resolved(config, saved), saved, path),
        is_own=folder.is_config_as_written(),
    )


def _keep_place(config: Config, saved: Config, path: Path) -> Config:
    """Return a config with the output folder of the run, if its file does not set one."""
    kept = []
    if "dir" not in config.output.model_fields_set:
        kept.append(Change(key="output.dir", before=None, after=saved.output.dir))
    if config.output.name == path.stem:  # without a name it got that of its file
        kept.append(Change(key="output.name", before=None, after=saved.output.name))
    return override_config(config, list(map(as_override, kept))) if kept else config


def keep_resolved(asked: Config, saved: Config) -> Config:
    """Return `asked` with `auto` replaced by what it was resolved to in the run."""
    resolved = [
        f"train.{key}={as_text(getattr(saved.train, key))}"
        for key in ("precision", "compile_loss", "micro_batch")
        if getattr(asked.train, key) == "auto"
    ]
    return override_config(asked, resolved) if resolved else asked


def describe_ignored_edit(
    path: Path, saved: Config, overrides: Sequence[str], sections: Sequence[str]
) -> list[str]:
    """Return notes on edits of the config.yaml beside a checkpoint, which have no effect here.

    Args:
        path: Path of the checkpoint.
        saved: Config in the checkpoint.
        overrides: Words `section.key=value` that were given; edits of these options are ignored.
        sections: Sections that matter to the command, such as `postprocess`.
    """
    if path.absolute().parent.name != "checkpoints":
        return []
    folder = RunFolder(path.absolute().parent.parent)
    try:
        found = read_folder_config(folder, saved)
    except UserError:
        return []  # nothing here depends on it; a resume reports what is wrong
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
        "checkpoint contains its own config. Give the options on the command line: "
        + shlex.join(map(as_override, edits))
    ]


def as_override(change: Change) -> str:
    """Return a change as a word of the command line."""
    value = change.after
    return f"{change.key}={json.dumps(value) if isinstance(value, list) else as_text(value)}"
