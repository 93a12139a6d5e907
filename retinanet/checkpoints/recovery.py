"""Choose the checkpoint to resume a run from, when one of its files is damaged."""

from __future__ import annotations

from pathlib import Path

from retinanet.checkpoints.environment import command_line
from retinanet.checkpoints.format import Checkpoint, load_checkpoint
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.errors import UserError


def newest_whole(folder: RunFolder) -> tuple[Path, Checkpoint, list[str]]:
    """Return the state to resume a run from: last.pt, or else the latest intact checkpoint.

    Returns:
        The file, its content, and lines on which files are damaged and which one is used instead;
        no line if last.pt is intact.

    Raises:
        UserError: No checkpoint of the folder is intact; the message has what is wrong with each.
    """
    others = [path for path in (folder.best, *folder.snapshots()) if path.exists()]
    if not others and not folder.last.exists():
        raise UserError(
            f"{folder.path}: there is no checkpoint to resume from; if the run ended before its "
            "first one, start it again without --resume"
        )
    damaged: list[str] = []
    if folder.last.exists():
        try:
            return folder.last, load_resumable(folder.last), []
        except UserError as error:
            damaged.append(str(error))
    else:
        damaged.append(f"{folder.last}: there is no such checkpoint")
    newest: tuple[Path, Checkpoint] | None = None  # keep only one in memory
    for path in others:
        try:
            checkpoint = load_resumable(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        if newest is None or checkpoint.progress.step > newest[1].progress.step:
            newest = path, checkpoint
    if newest is None:
        listed = "\n  ".join(["no checkpoint of the run can be resumed:", *damaged])
        raise UserError(
            f"{listed}\nStart again under another --name, or remove the folder {folder.path} first"
        )
    path, checkpoint = newest
    taken = f"using {path} instead, the state after step {checkpoint.progress.step}"
    return path, checkpoint, [*damaged, taken]


def load_resumable(path: Path) -> Checkpoint:
    """Read a checkpoint that a run can be resumed from.

    Raises:
        UserError: As `load_checkpoint`, or the file contains only the weights.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.optimizer is None:
        raise UserError(
            f"{path}: contains no optimiser state (`retinanet strip` removes it), so it cannot be "
            "resumed; to start a new run from its weights: "
            + command_line("train", "CONFIG", "--init-from", path)
        )
    return checkpoint
