"""Where a run is that is to be resumed: its folder, and the state in it to go on from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from retinanet.checkpoints.environment import command_line
from retinanet.checkpoints.format import Checkpoint, load_checkpoint
from retinanet.checkpoints.recovery import load_resumable, newest_whole
from retinanet.checkpoints.run_folder import RunFolder, free_name, name_option
from retinanet.errors import UserError


def find_state(path: Path) -> tuple[RunFolder, Checkpoint, list[str]]:
    """Return a run's folder, the state to go on from, and what to say about it.

    Args:
        path: run folder, its folder of checkpoints, its config.yaml, or a checkpoint in it. Where
            `last.pt` is damaged, the newest whole checkpoint of the folder counts.

    Raises:
        UserError: there is no state, or it cannot be resumed.
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
        remarks.append(f"{folder.config}: was missing; it is written again from the checkpoint")
    records = [folder.metrics, folder.path / "tensorboard"]
    lost = [record.name for record in records if not record.exists()]
    if checkpoint.progress.step and lost:
        remarks.append(
            f"{folder.path} has no {' and no '.join(lost)} of the steps so far: it begins after "
            f"step {checkpoint.progress.step}"
        )
    return folder, checkpoint, remarks


def _run_folder_of(path: Path) -> RunFolder:
    """Return the run folder that a folder is, or whose checkpoints lie in it.

    Raises:
        UserError: checkpoints lie in it, but it belongs to no run folder.
    """
    folder = RunFolder(path)
    if folder.last.parent.is_dir() or not any(path.glob("*.pt")):
        return folder
    if path.absolute().name == "checkpoints":
        return RunFolder(path.absolute().parent)
    newest = max(path.glob("*.pt"), key=lambda file: (file.name == "last.pt", file.name))
    raise UserError(
        f"{path}: holds checkpoints, but is not the folder of a run, in which they lie in "
        f"`checkpoints`. {_how_to_place(newest, load_checkpoint(newest))}"
    )


def _load_named(path: Path) -> tuple[Checkpoint, list[str]]:
    """Read the checkpoint that was named, which must be the newest of its run."""
    parent = path.absolute().parent
    if parent.name != "checkpoints":
        checkpoint = load_resumable(path)
        raise UserError(
            f"{path}: does not lie in a run folder, as RUN/checkpoints/last.pt does. "
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
    """Refuse to go back: a run has one history, and what follows a state would be overwritten."""
    if not folder.last.exists():
        return
    newest, further, _ = newest_whole(folder)
    if further.progress.step > checkpoint.progress.step:
        raise UserError(
            f"{path}: is the state after step {checkpoint.progress.step}, but {newest} has "
            f"{further.progress.step}. Resume that one: "
            f"{command_line('train', '--resume', folder.path)}; or start a new run from this one: "
            f"{new_run_command(folder, path)}"
        )


def _check_is_run_folder(folder: RunFolder, path: Path, checkpoint: Checkpoint) -> None:
    """Refuse to make a run folder of whatever lies above a checkpoint.

    Raises:
        UserError: the folder holds other things than a run does.
    """
    if folder.environment.is_file() or (folder.path / "train.log").is_file():
        return  # what else lies there was put there by its owner
    own = {"checkpoints", "evaluation", "tensorboard", "metrics.jsonl"}
    other = sorted(entry.name for entry in folder.path.iterdir() if entry.name not in own)
    other = [name for name in other if not name.startswith(".")]
    if not other:
        return
    source = path if path.is_file() else newest_whole(folder)[0]
    raise UserError(
        f"{path}: does not lie in a run folder: {folder.path} has no config.yaml, but other files "
        f"({other[0]}). {_how_to_place(source, checkpoint)}"
    )


def _how_to_place(path: Path, checkpoint: Checkpoint) -> str:
    """Say how a checkpoint that lies alone is resumed, or started from."""
    if checkpoint.optimizer is None:
        start = command_line("train", "CONFIG", "--init-from", path)
        return f"It holds the weights alone; to start a new run from them: {start}"
    output = checkpoint.config.output
    name = free_name(Path("runs"), output.name or "run")
    inside = Path("runs") / name / "checkpoints"
    copy = f"mkdir -p {_quoted(inside)} && cp {_quoted(path)} {_quoted(inside / 'last.pt')}"
    return f"Give it a folder of its own: {copy} && " + command_line(
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
        folder: of this run.
        weights: its checkpoint; None: the weights do not fit, and the other run has its own.
        config: YAML file of the new one; None: the run's own config.yaml.
        overrides: `section.key=value` on top of it.
    """
    own = ("output.", "model.init_from")
    kept = [text for text in overrides if not text.strip().startswith(own)]
    absolute = folder.path.absolute()
    name = free_name(absolute.parent, absolute.name)
    parent = absolute.parent if folder.path.name in ("", "..") else folder.path.parent
    words = ("train", config or folder.config, f"output.dir={parent}", *kept)
    start = ("--init-from", weights) if weights else ("model.init_from=null",)
    return f"{command_line(*words, *start)} {name_option(name)}"
