"""`retinanet strip`: remove the state that only a resume needs from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retinanet.checkpoints.format import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.errors import UserError
from retinanet.files import check_new_file, readable_size


def strip_checkpoint(path: Path, out: Path | None = None) -> list[str]:
    """Write the weights of a checkpoint without optimiser state; return lines to print.

    If there is a moving average of the weights, it replaces the weights themselves.

    Args:
        path: Path of the checkpoint, which is not changed.
        out: Path of the file to write; None is NAME_stripped.pt beside the checkpoint.

    Raises:
        UserError: Not a checkpoint, one with nothing to remove, or `out` cannot be written.
        TrainingError: Writing failed.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.optimizer is None and checkpoint.averaged is None:
        raise UserError(f"{path}: contains only weights already; there is nothing to remove")
    out = out or path.with_name(f"{path.stem}_stripped.pt")
    check_new_file(out)
    write_weights(checkpoint, out)
    before, after = (readable_size(file.stat().st_size) for file in (path, out))
    removed = "optimiser state removed"
    if checkpoint.averaged:
        removed += ", weights of the last step replaced by their moving average"
    return [f"{path}: {before}", f"{out}: {after} ({removed}; --resume needs the original)"]


def write_weights(checkpoint: Checkpoint, out: Path) -> None:
    """Write the weights that a checkpoint is used with, without the state for a resume."""
    stripped = replace(
        checkpoint, model=checkpoint.weights, averaged=None, optimizer=None, scaler=None
    )
    save_checkpoint(stripped, out)
