"""Checkpoints: one file of tensors and plain types that explains itself.

Read with `weights_only`, so that a stranger's file cannot run code; written to a temporary name,
flushed to the disk and renamed, so that a crash never leaves half of one.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from threading import Event
from typing import Any

import torch

from retinanet.categories import Categories
from retinanet.checkpoints.other_files import describe, name_file, name_other_archive
from retinanet.config import build_config, dump_config
from retinanet.errors import TrainingError, UserError
from retinanet.files import replacing, write_all, write_failure
from retinanet.schema import Config

_FORMAT = "retinanet checkpoint"
_VERSION = 1
_OTHER_PROJECTS = (
    "; if it is a RetinaNet of torchvision, detectron2 or mmdetection: retinanet convert "
    "checkpoint FILE OUT.pt"
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: everything beside weights and optimiser that a resume needs."""

    step: int = 0
    """Optimiser steps taken."""
    evaluated: int = 0
    """Step of the last finished evaluation."""
    best_ap: float | None = None
    """Highest AP on val so far."""
    best_step: int | None = None
    stale: int = 0
    """Evaluations since then."""
    normalizer: float | None = None
    """Moving average of positives, where the loss uses it."""
    skipped_steps: int = 0
    """Steps whose loss or gradient was not finite."""
    bad_images: tuple[str, ...] = ()
    """The message about each unreadable image so far."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file."""

    config: Config
    categories: Categories
    model: dict[str, Any]
    progress: Progress
    averaged: dict[str, Any] | None = None
    """The moving average of `model`, where `train.ema_decay` keeps one."""
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    fingerprint: str = ""
    """Fingerprint of the training annotations."""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Any]:
        """What the network is used with: the average, where there is one."""
        return self.averaged or self.model


class _CheckpointFile(FileIO):
    """The file that `torch.save` writes to: it keeps the error that torch hides behind its own.

    It has no buffer: a loader's process, forked meanwhile, must not hold half of one.
    """

    def __init__(self, path: Path, abandoned: Event | None) -> None:
        super().__init__(path, "wb")
        self._abandoned = abandoned
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self._abandoned is not None and self._abandoned.is_set():
                raise InterruptedError("the run was ended")
            write_all(super().write, data)
        except OSError as error:
            self.error = error
            raise
        return len(data)


def save_checkpoint(checkpoint: Checkpoint, path: Path, *, abandoned: Event | None = None) -> None:
    """Write a checkpoint; `path` holds the old or the new one at any moment.

    Args:
        checkpoint: the checkpoint to write.
        path: path of the file.
        abandoned: when another thread sets it, the writing ends at once and the old one stays.

    Raises:
        TrainingError: the disk does not take it.
    """
    write_tensors(_to_plain_types(checkpoint), path, abandoned=abandoned)


def write_tensors(content: dict[str, Any], path: Path, *, abandoned: Event | None = None) -> None:
    """Write tensors and plain values as torch does; see `save_checkpoint`."""
    file = None
    try:
        with (
            replacing(path, durable=True) as temporary,
            _CheckpointFile(temporary, abandoned) as file,
        ):
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        cause = file.error if file is not None and file.error is not None else error
        if not isinstance(cause, OSError):
            raise
        failure = write_failure(path, cause, needed=_tensor_bytes(content))
        stays = "; the checkpoint before it stays" if path.exists() else ""
        raise TrainingError(f"{failure}{stays}") from None


def _to_plain_types(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the file holds: tensors and plain types."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "config": dump_config(checkpoint.config),
        "categories": {
            "ids": list(checkpoint.categories.ids),
            "names": list(checkpoint.categories.names),
        },
        "model": checkpoint.model,
        "averaged": checkpoint.averaged,
        "progress": asdict(checkpoint.progress),
        "optimizer": checkpoint.optimizer,
        "scaler": checkpoint.scaler,
        "fingerprint": checkpoint.fingerprint,
        "environment": checkpoint.environment,
    }


def _tensor_bytes(value: Any) -> int:
    """Return the bytes of the tensors in nested dicts."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_tensor_bytes, value.values())) if isinstance(value, dict) else 0


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the host; nothing in the file is executed.

    Raises:
        UserError: missing, truncated, not ours, or a file that would run code.
    """
    content = _read_content(path)
    if not is_ours(content):
        raise _not_ours(path, f"not a checkpoint of this project{_OTHER_PROJECTS}")
    if content.get("version") != _VERSION:
        raise UserError(
            f"{path}: has format version {content.get('version')}; this release reads {_VERSION}"
        )
    try:
        categories = content["categories"]
        if len(categories["ids"]) != len(categories["names"]):
            raise TypeError("as many category ids as names")
        return Checkpoint(
            config=build_config(content["config"], source=str(path)),
            categories=Categories(ids=tuple(categories["ids"]), names=tuple(categories["names"])),
            model=content["model"],
            averaged=content["averaged"],
            progress=Progress(**content["progress"]),
            optimizer=content["optimizer"],
            scaler=content["scaler"],
            fingerprint=content["fingerprint"],
            environment=content["environment"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: a damaged checkpoint ({error})") from None


def is_ours(content: Any) -> bool:
    """Whether what a file holds is a checkpoint of this project, of whatever version."""
    return isinstance(content, dict) and content.get("format") == _FORMAT


def is_foreign(path: Path) -> bool:
    """Whether a file is whole, as far as one sees from outside, and not a checkpoint of ours."""
    if not path.is_file() or path.suffix in (".yaml", ".yml"):
        return False
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return True  # older than torch's own format, or no file of torch
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return not any(_FORMAT.encode() in archive.read(name) for name in names)
    except Exception:  # as in `check_sums`: reading it as ours says what is wrong
        return False


def _read_content(path: Path) -> Any:
    """Return what a file holds.

    Raises:
        UserError: it cannot be read, is damaged, or holds more than tensors and plain values.
    """
    if path.is_dir():
        inside = "best.pt" if path.name == "checkpoints" else "checkpoints/best.pt"
        raise UserError(f"{path}: is a folder; name a checkpoint, such as {path / inside}")
    if path.suffix in (".yaml", ".yml"):
        raise UserError(
            f"{path}: is a config; name a checkpoint, such as runs/first/checkpoints/best.pt"
        )
    if not path.is_file():
        wrong = "is no regular file" if path.exists() else "there is no such checkpoint"
        raise UserError(f"{path}: {wrong}")
    try:
        check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except Exception as error:  # a truncated file raises OSError, RuntimeError, EOFError, KeyError
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise _not_ours(
                path,
                "holds more than tensors and plain values; it was not opened, because such a "
                f"file can run code. It is not a checkpoint of this project{_OTHER_PROJECTS}",
            ) from None
        raise _not_ours(
            path, f"not a checkpoint, or a damaged or truncated one{_OTHER_PROJECTS}"
        ) from None


def _not_ours(path: Path, otherwise: str) -> UserError:
    """Return the error that names what a file is, or says `otherwise`."""
    kind = name_file(path)
    return UserError(f"{path}: {otherwise if kind is None else describe(kind, path)}")


def check_sums(path: Path) -> None:
    """Compare every part of a file with its checksum, which torch writes but does not look at.

    Raises:
        UserError: a part, or the list of parts, is not as torch wrote it.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # not torch's format: it will say so
    try:
        with zipfile.ZipFile(path) as archive:
            # Torch takes the bytes of a part that is said to be a folder, or packed, for granted.
            plain = all(p.external_attr == p.compress_type == 0 for p in archive.infolist())
            whole = plain and archive.testzip() is None
    except PermissionError:
        raise
    except Exception:  # zipfile has a dozen ways of saying that its list of parts is damaged
        whole = False
    if not whole:
        other = name_other_archive(path)
        if other is not None:
            raise UserError(f"{path}: {describe(other, path)}")
        raise UserError(
            f"{path}: is damaged or cut off: its content does not agree with its checksums. Take "
            "another copy of it, or another checkpoint"
        )
