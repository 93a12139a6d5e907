"""Checkpoints: one file of tensors and plain types that explains itself.

Read with `weights_only`, so that a stranger's file cannot run code; written to a temporary name,
flushed to the disk and renamed, so that a crash never leaves half of one.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from retinanet.config import build_config, dump_config
from retinanet.data.coco_json import Categories
from retinanet.errors import TrainingError, UserError
from retinanet.files import replacing
from retinanet.schema import Config

_FORMAT = "retinanet checkpoint"
_VERSION = 1


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
    bad_images: tuple[str, ...] = ()
    """What was said of each unreadable image so far."""


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
    """Of the training annotations."""
    environment: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; `path` holds the old or the new one at any moment.

    Raises:
        TrainingError: the disk does not take it.
    """
    content = {
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
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise TrainingError(
            f"{path}: the checkpoint could not be written ({error}); the one before it stays"
        ) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the host; nothing in the file is executed.

    Raises:
        UserError: missing, truncated, not ours, or a file that would run code.
    """
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project")
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


def _read(path: Path) -> Any:
    if path.is_dir():
        inside = "best.pt" if path.name == "checkpoints" else "checkpoints/best.pt"
        raise UserError(f"{path}: is a folder; name a checkpoint, such as {path / inside}")
    if path.suffix in (".yaml", ".yml"):
        raise UserError(f"{path}: is a config; name a checkpoint, such as runs/first/best.pt")
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # a truncated file raises OSError, RuntimeError, EOFError, KeyError
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f"{path}: holds more than tensors and plain values; it was not opened, because "
                "such a file can run code. It is not a checkpoint of this project"
            ) from None
        raise UserError(f"{path}: not a checkpoint, or a damaged or truncated one") from None
