"""Checkpoints: one self-contained file of tensors and plain types.

It is read with `weights_only`, so that someone else's file cannot run code. It is written to a
temporary name, flushed to the disk and renamed, so that a crash never leaves half a file.
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
    "; to convert a RetinaNet from torchvision, detectron2 or mmdetection: retinanet convert "
    "checkpoint FILE OUT.pt"
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run: all state that a resume needs besides weights and optimiser."""

    step: int = 0
    """Optimiser steps taken."""
    evaluated: int = 0
    """Step of the last finished evaluation."""
    best_ap: float | None = None
    """Highest AP on val so far."""
    best_step: int | None = None
    stale: int = 0
    """Evaluations since the best one."""
    normalizer: float | None = None
    """Moving average of the number of positives, if the loss uses it."""
    skipped_steps: int = 0
    """Number of steps with a non-finite loss or gradient."""
    bad_images: tuple[str, ...] = ()
    """Messages about unreadable images so far."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file."""

    config: Config
    categories: Categories
    model: dict[str, Any]
    progress: Progress
    averaged: dict[str, Any] | None = None
    """The moving average of `model`, if `train.ema_decay` keeps one."""
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    fingerprint: str = ""
    """Fingerprint of the training annotations."""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Any]:
        """Weights to use the network with: the average, if there is one."""
        return self.averaged or self.model


class _CheckpointFile(FileIO):
    """The file that `torch.save` writes to; it keeps the system error that torch replaces.

    It has no buffer, because a loader process forked meanwhile would get a copy of it.
    """

    def __init__(self, path: Path, abandoned: Event | None) -> None:
        super().__init__(path, "wb")
        self._abandoned = abandoned
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self._abandoned is not None and self._abandoned.is_set():
                raise InterruptedError("the run has ended")
            write_all(super().write, data)
        except OSError as error:
            self.error = error
            raise
        return len(data)


def save_checkpoint(checkpoint: Checkpoint, path: Path, *, abandoned: Event | None = None) -> None:
    """Write a checkpoint; at any moment `path` is the old or the new one.

    Args:
        checkpoint: Checkpoint to write.
        path: Path of the file.
        abandoned: Event with which another thread stops the writing; the old file is then kept.

    Raises:
        TrainingError: It cannot be written.
    """
    write_tensors(_to_plain_types(checkpoint), path, abandoned=abandoned)


def write_tensors(content: dict[str, Any], path: Path, *, abandoned: Event | None = None) -> None:
    """Write tensors and plain values with `torch.save`; see `save_checkpoint`."""
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
        stays = "; the previous checkpoint is kept" if path.exists() else ""
        raise TrainingError(f"{failure}{stays}") from None


def _to_plain_types(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the content of the file: tensors and plain types."""
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
    """Return the size of the tensors in nested dicts, in bytes."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_tensor_bytes, value.values())) if isinstance(value, dict) else 0


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the host; nothing in the file is executed.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint, or could run code.
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
            raise TypeError("the numbers of category ids and names differ")
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
    """Whether the content of a file is a checkpoint of this project, of any version."""
    return isinstance(content, dict) and content.get("format") == _FORMAT


def is_foreign(path: Path) -> bool:
    """Whether a file looks intact and is not a checkpoint of this project."""
    if not path.is_file() or path.suffix in (".yaml", ".yml"):
        return False
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return True  # older than torch's zip format, or not written by torch
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return not any(_FORMAT.encode() in archive.read(name) for name in names)
    except Exception:  # as in `check_sums`: `load_checkpoint` reports what is wrong
        return False


def _read_content(path: Path) -> Any:
    """Return the content of a file.

    Raises:
        UserError: It cannot be read, is damaged, or contains more than tensors and plain values.
    """
    if path.is_dir():
        inside = "best.pt" if path.name == "checkpoints" else "checkpoints/best.pt"
        raise UserError(f"{path}: is a folder; name a checkpoint, such as {path / inside}")
    if path.suffix in (".yaml", ".yml"):
        raise UserError(
            f"{path}: is a config; name a checkpoint, such as runs/first/checkpoints/best.pt"
        )
    if not path.is_file():
        wrong = "is not a regular file" if path.exists() else "there is no such checkpoint"
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
                "contains more than tensors and plain values; it was not opened, because such a "
                f"file can run code. It is not a checkpoint of this project{_OTHER_PROJECTS}",
            ) from None
        raise _not_ours(
            path, f"not a checkpoint, or a damaged or truncated one{_OTHER_PROJECTS}"
        ) from None


def _not_ours(path: Path, otherwise: str) -> UserError:
    """Return the error that names what a file is, or with the message `otherwise`."""
    kind = name_file(path)
    return UserError(f"{path}: {otherwise if kind is None else describe(kind, path)}")


def check_sums(path: Path) -> None:
    """Compare every part of a file with its checksum, which torch writes but does not check.

    Raises:
        UserError: A part, or the list of parts, is not as torch wrote it.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # not torch's zip format: torch.load reports it
    try:
        with zipfile.ZipFile(path) as archive:
            # torch reads parts marked as a folder or compressed without a check.
            plain = all(p.external_attr == p.compress_type == 0 for p in archive.infolist())
            whole = plain and archive.testzip() is None
    except PermissionError:
        raise
    except Exception:  # zipfile raises many kinds of errors for a damaged list of parts
        whole = False
    if not whole:
        other = name_other_archive(path)
        if other is not None:
            raise UserError(f"{path}: {describe(other, path)}")
        raise UserError(
            f"{path}: is damaged or cut off: its content does not match its checksums. Use another "
            "copy of it, or another checkpoint"
        )
