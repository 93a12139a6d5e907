"""Find the run to continue: its folder, the checkpoint to resume from, its config.yaml."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinanet.checkpoints.changes import compare_configs
from retinanet.checkpoints.environment import command_line
from retinanet.checkpoints.folder_config import FolderConfig, read_folder_config
from retinanet.checkpoints.format import Checkpoint, load_checkpoint
from retinanet.checkpoints.recovery import load_resumable, newest_whole
from retinanet.checkpoints.run_folder import RunFolder, free_name, name_option
from retinanet.errors import UserError
from retinanet.files import check_writable
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedRun:
    """What the files of a run say."""

    folder: RunFolder
    checkpoint: Checkpoint
    edit: FolderConfig | None
    """The folder's config.yaml, which may have been edited."""
    ignores_edit: bool
    """Whether an edit of it takes effect only at a later resume."""
    remarks: tuple[str, ...]


def read_saved_run(path: Path, *, is_restart: bool = False) -> SavedRun:
    """Read the checkpoint to resume from and the run's config.yaml.

    Args:
        path: Run folder, or a checkpoint in it.
        is_restart: The present launch began the run itself, so its own options count.

    Raises:
        UserError: There is no checkpoint, or config.yaml has a mistake.
    """
    folder, checkpoint, remarks = find_state(path)
    dropped = None
    if is_restart:
        edit, dropped = _read_edit_at_restart(folder, checkpoint.config)
        remarks += [dropped] if dropped else []
    else:
        edit = read_folder_config(folder, checkpoint.config)
    return SavedRun(
        folder=folder,
        checkpoint=checkpoint,
        edit=edit,
        ignores_edit=dropped is not None,
        remarks=tuple(remarks),
    )


def find_run(
    folder: RunFolder, *, launchers: Sequence[str | None], dry_run: bool, auto_resume: bool
) -> SavedRun | None:
    """Return the run to continue; None if the folder is free for a new one.

    Args:
        folder: Folder that the config names.
        launchers: Launches of torchrun that the processes belong to.
        dry_run: Whether the run is only tried.
        auto_resume: Whether a run in the folder is continued, and not refused.

    Raises:
        UserError: It is not free, or its run cannot be continued.
    """
    can_continue = has_state(folder)
    if dry_run:
        if auto_resume and can_continue:
            raise UserError(
                f"--dry-run tries a new run, but --auto-resume would continue the run in "
                f"{folder.path}; leave --dry-run out, or use another --name"
            )
        check_writable(folder.path, "choose another output.dir")
        return None
    is_restart = was_begun_by(launchers, folder)
    if (auto_resume or is_restart) and can_continue:
        return read_saved_run(folder.path, is_restart=is_restart)
    folder.check_free()
    return None


def has_state(folder: RunFolder) -> bool:
    """Whether the folder has a checkpoint."""
    return any(folder.last.parent.glob("*.pt"))


def was_begun_by(launchers: Sequence[str | None], folder: RunFolder) -> bool:
    """Whether one of these launches of torchrun was the last to begin the folder's run."""
    try:
        begun_by = json.loads(folder.environment.read_text("utf-8"))["launchers"]
        return any(launcher in begun_by for launcher in launchers)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # no run, or one that ended before it wrote this file


def _read_edit_at_restart(
    folder: RunFolder, saved: Config
) -> tuple[FolderConfig | None, str | None]:
    """Return the folder's config, or a note that an edit of it is ignored for now."""
    try:
        edit = read_folder_config(folder, saved)
    except UserError as error:
        return None, f"{error}\nThis launch continues with the options that it began with"
    edits = compare_configs(edit.config, saved) if edit else []
    if edit is None or edit.is_own or not edits:
        return edit, None
    return None, (
        f"{edit.path} was edited ({', '.join(map(str, edits))}). This launch continues with the "
        "options that it began with; the edit takes effect at the next --resume"
    )


def find_state(path: Path) -> tuple[RunFolder, Checkpoint, list[str]]:
    """Return a run's folder, the checkpoint to resume from, and notes about it.

    Args:
        path: Run folder, its `checkpoints` folder, its config.yaml, or a checkpoint in it. If
            `last.pt` is damaged, the newest undamaged checkpoint of the folder is used.

    Raises:
        UserError: There is no checkpoint, or it cannot be resumed.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such checkpoint or run folder")
    if path.is_dir():
        folder = _run_folder_of(path)
        _, checkpoint, remarks = newest_whole(folder)
    elif path.name == "config.yaml":
        folder = RunFolder(path.parent)
        _, checkpoint, remarks = newest_whole(folder)
    else:
        checkpoint, remarks = _load_named(path)
        folder = RunFolder(path.absolute().parent.parent)
    if not folder.config.exists() and not folder.config.is_symlink():
        _check_is_run_folder(folder, path, checkpoint)
        remarks.append(f"{folder.config} was missing; it is recreated from the checkpoint")
    records = [folder.metrics, folder.path / "tensorboard"]
    lost = [record.name for record in records if not record.exists()]
    if checkpoint.progress.step and lost:
        remarks.append(
            f"{folder.path} has no {' and no '.join(lost)} of the steps so far: recording starts "
            f"after step {checkpoint.progress.step}"
        )
    return folder, checkpoint, remarks


def _run_folder_of(path: Path) -> RunFolder:
    """Return the run folder for a path: the folder itself, or the parent of `checkpoints`.

    Raises:
        UserError: The folder contains checkpoints, but is not part of a run folder.
    """
    folder = RunFolder(path)
    if folder.last.parent.is_dir() or not any(path.glob("*.pt")):
        return folder
    if path.absolute().name == "checkpoints":
        return RunFolder(path.absolute().parent)
    newest = max(path.glob("*.pt"), key=lambda file: (file.name == "last.pt", file.name))
    raise UserError(
        f"{path}: contains checkpoints, but is not a run folder, which has them in a subfolder "
        f"`checkpoints`. {_how_to_place(newest, load_checkpoint(newest))}"
    )


def _load_named(path: Path) -> tuple[Checkpoint, list[str]]:
    """Read the given checkpoint, which must be the newest of its run."""
    parent = path.absolute().parent
    if parent.name != "checkpoints":
        checkpoint = load_resumable(path)
        raise UserError(
            f"{path}: is not in a run folder, as RUN/checkpoints/last.pt is. "
            f"{_how_to_place(path, checkpoint)}"
        )
    folder = RunFolder(parent.parent)
    if path.absolute() == folder.last.absolute() and path.is_file():
        _, checkpoint, remarks = newest_whole(folder)
        return checkpoint, remarks
    checkpoint = load_resumable(path)
    _check_is_newest(path, checkpoint, folder)
    return checkpoint, []


def _check_is_newest(path: Path, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Refuse to go back in a run, because its later checkpoints and metrics would be overwritten.

    Raises:
        UserError: The run has a newer checkpoint.
    """
    if not folder.last.exists():
        return
    newest, further, _ = newest_whole(folder)
    if further.progress.step > checkpoint.progress.step:
        raise UserError(
            f"{path}: is the state after step {checkpoint.progress.step}, but {newest} is newer "
            f"(step {further.progress.step}). Resume that one: "
            f"{command_line('train', '--resume', folder.path)}; or start a new run from this one: "
            f"{new_run_command(folder, path)}"
        )


def _check_is_run_folder(folder: RunFolder, path: Path, checkpoint: Checkpoint) -> None:
    """Refuse to turn just any folder above a checkpoint into a run folder.

    Raises:
        UserError: The folder contains files that do not belong to a run.
    """
    if folder.environment.is_file() or (folder.path / "train.log").is_file():
        return  # it is a run folder, and other files in it are the user's
    own = {"checkpoints", "evaluation", "tensorboard", "metrics.jsonl"}
    other = sorted(entry.name for entry in folder.path.iterdir() if entry.name not in own)
    other = [name for name in other if not name.startswith(".")]
    if not other:
        return
    source = path if path.is_file() else newest_whole(folder)[0]
    raise UserError(
        f"{path}: is not in a run folder: {folder.path} has no config.yaml, but other files "
        f"({other[0]}). {_how_to_place(source, checkpoint)}"
    )


def _how_to_place(path: Path, checkpoint: Checkpoint) -> str:
    """Return how to resume a checkpoint outside a run folder, or how to start from it."""
    if checkpoint.optimizer is None:
        start = command_line("train", "CONFIG", "--init-from", path)
        return f"It contains only weights; to start a new run from them: {start}"
    output = checkpoint.config.output
    name = free_name(Path("runs"), output.name or "run")
    inside = Path("runs") / name / "checkpoints"
    copy = f"mkdir -p {_quoted(inside)} && cp {_quoted(path)} {_quoted(inside / 'last.pt')}"
    return f"Make a run folder for it: {copy} && " + command_line(
        "train", "--resume", Path("runs") / name
    )


def _quoted(path: Path) -> str:
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def new_run_command(
    folder: RunFolder,
    weights: Path | None,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Return the command that starts another run from the weights of this one.

    Args:
        folder: Folder of this run.
        weights: Checkpoint of this run; None if its weights do not fit the new run.
        config: YAML file of the new run; None uses this run's config.yaml.
        overrides: Overrides (`section.key=value`) for the new run.
    """
    own = ("output.", "model.init_from")
    kept = [text for text in overrides if not text.strip().startswith(own)]
    absolute = folder.path.absolute()
    name = free_name(absolute.parent, absolute.name)
    parent = absolute.parent if folder.path.name in ("", "..") else folder.path.parent
    words = ("train", config or folder.config, f"output.dir={parent}", *kept)
    start = ("--init-from", weights) if weights else ("model.init_from=null",)
    return f"{command_line(*words, *start)} {name_option(name)}"
