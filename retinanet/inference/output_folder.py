"""The output folder of a prediction: a new one, or one whose earlier prediction is moved aside.

Files of two predictions are never mixed, and only a complete prediction replaces an earlier one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.checkpoints.run_folder import free_name
from retinanet.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RESULTS, IMAGES, PICTURES = "results.json", "images.json", "pictures"
PROGRAM = "retinanet predict"
"""Name of the program in images.json."""
_LONGEST_NAME = 200
"""Bytes of a picture's name without its number; file systems allow 255 in all."""


@dataclass(frozen=True, kw_only=True)
class OutputFolder:
    """The folder for results, and how to restore it if there are none."""

    path: Path
    made: tuple[Path, ...]
    """Folders that were created for it, innermost first."""
    earlier: Path | None = None
    """Folder of the earlier prediction, if there was one."""
    lock: int | None = None
    """Descriptor of the lock on the folder; None where the system has no locks."""

    @property
    def pictures(self) -> Path:
        return self.path / PICTURES

    def finish(self) -> None:
        """Remove the earlier prediction, because this one is complete."""
        if self.earlier is not None:
            shutil.rmtree(self.earlier)

    def release(self) -> None:
        """Release the lock; only for the process that made the folder."""
        if self.lock is not None:
            os.close(self.lock)

    def undo(self) -> None:
        """Restore everything as it was, because there are no results."""
        if self.earlier is not None and not (self.path / RESULTS).exists():
            _move(self.earlier, self.path)
            _remove_if_empty(self.earlier / PICTURES, self.earlier)
        _remove_if_empty(self.pictures, *self.made)


def prepare_output(path: Path | None, inputs: set[Path]) -> OutputFolder:
    """Make the folder of a prediction; an earlier prediction in it is moved aside.

    Args:
        path: Path of the folder. None takes the next free of `predictions`, `predictions-2`, ...
        inputs: Folders of the images; no picture may be written there.

    Raises:
        UserError: It contains other files, another prediction is writing there, or input
            images are where the pictures go.
        OSError: It cannot be created.
    """
    while path is None:
        candidate = Path(free_name(Path(), "predictions"))
        with suppress(FileExistsError):  # another prediction has just taken it
            candidate.mkdir()
            return OutputFolder(path=candidate, made=(candidate,), lock=_hold(candidate))
    pictures = path / PICTURES
    if pictures.is_dir() and pictures.resolve() in {folder.resolve() for folder in inputs}:
        raise UserError(
            f"{pictures}: contains input images, and pictures would be written there. "
            "Choose another --output"
        )
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    lock = _hold(path)
    try:
        return OutputFolder(path=path, made=tuple(missing), earlier=_set_aside(path), lock=lock)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise


def _hold(folder: Path) -> int | None:
    """Lock a folder until the returned descriptor is closed or this process ends.

    Raises:
        UserError: Another prediction is writing there.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except OSError as error:  # other errors: a drive without locks
        os.close(descriptor)
        if error.errno != errno.EWOULDBLOCK:
            return None
        raise UserError(
            f"{folder}: another prediction is writing there. Wait until it ends, or choose another "
            "--output"
        ) from None


def picture_name(image_id: int, image: Path) -> str:
    """Return the name of an image's picture. The id keeps equal names apart."""
    stem = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else "_" for c in image.stem)
    stem = stem[:80]
    while len(os.fsencode(stem)) > _LONGEST_NAME:
        stem = stem[:-1]
    return f"{image_id:06d}_{stem}.jpg"


def recorded_picture(record: dict[str, Any]) -> str:
    """Return the name of the picture of a record in images.json."""
    return picture_name(int(record["id"]), Path(record["file_name"]))


def _set_aside(folder: Path) -> Path | None:
    """Move an earlier prediction into a folder inside its own; return that folder.

    Raises:
        UserError: Files of these names were not written by a prediction.
    """
    for name in (RESULTS, IMAGES):
        if (folder / name).exists() and _earlier_records(folder) is None:
            raise UserError(
                f"{folder / name}: already exists and was not written by `retinanet predict`. "
                "Choose another --output, or move the file"
            )
    if not (folder / IMAGES).exists():
        return None
    earlier = folder / free_name(folder, "earlier")
    (earlier / PICTURES).mkdir(parents=True)
    records = _earlier_records(folder)
    assert records is not None
    for name in records:
        if (folder / PICTURES / name).is_file():
            (folder / PICTURES / name).replace(earlier / PICTURES / name)
    for name in (RESULTS, IMAGES):
        with suppress(FileNotFoundError):
            (folder / name).replace(earlier / name)
    return earlier


def _earlier_records(folder: Path) -> list[str] | None:
    """Return the names of an earlier prediction's pictures; None if there is no prediction."""
    try:
        content: Any = json.loads((folder / IMAGES).read_bytes())
        if content["info"]["program"] != PROGRAM:
            return None
        return [recorded_picture(record) for record in content["images"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _move(source: Path, target: Path) -> None:
    """Move an earlier prediction back."""
    (target / PICTURES).mkdir(exist_ok=True)
    for path in (source / PICTURES).iterdir():
        path.replace(target / PICTURES / path.name)
    for name in (RESULTS, IMAGES):
        with suppress(FileNotFoundError):
            (source / name).replace(target / name)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
