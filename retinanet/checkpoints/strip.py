"""`retinanet strip`: a checkpoint without what only a resume needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retinanet.checkpoints.format import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.errors import UserError
from retinanet.files import check_new_file, readable_size


def strip_checkpoint(path: Path, out: Path | None = None) -> list[str]:
    """Write a checkpoint's weights without optimiser state; return lines that say what was done.

    Where there is a moving average of the weights, it takes the place of the weights themselves.

    Args:
        path: path of the checkpoint, which stays as it is.
        out: file to write, by default NAME_stripped.pt beside it.

    Raises:
        UserError: not a checkpoint, one with nothing to drop, or an `out` that cannot be written.
        TrainingError: the disk does not take it.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.optimizer is None and checkpoint.averaged is None:
        raise UserError(f"{path}: holds the weights alone already; there is nothing to drop")
    out = out or path.with_name(f"{path.stem}_stripped.pt")
    check_new_file(out)
    write_weights(checkpoint, out)
    before, after = (readable_size(file.stat().st_size) for file in (path, out))
    dropped = "optimiser state dropped"
    if checkpoint.averaged:
        dropped += ", and the weights of the last step in favour of their moving average"
    return [f"{path}: {before}", f"{out}: {after} ({dropped}; --resume needs the original)"]


def write_weights(checkpoint: Checkpoint, out: Path) -> None:
    """Write the weights that a checkpoint is used with, without what only a resume needs."""
    stripped = replace(
        checkpoint, model=checkpoint.weights, averaged=None, optimizer=None, scaler=None
    )
    save_checkpoint(stripped, out)
