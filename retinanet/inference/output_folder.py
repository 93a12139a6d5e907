"""The folder of a prediction: a new one, or one whose earlier prediction steps aside.

Files of two predictions never lie mixed, and an earlier one is lost only to one that is complete.
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
"""What images.json says of who wrote it."""
_LONGEST_NAME = 200
"""Bytes of a picture's name, without its number: file systems take 255, with all that is added."""


@dataclass(frozen=True, kw_only=True)
class OutputFolder:
    """Where results go, and what is to be undone if there are none."""

    path: Path
    made: tuple[Path, ...]
    """Folders that were made for it, the innermost first."""
    earlier: Path | None = None
    """Where an earlier prediction waits, if there was one."""
    lock: int | None = None
    """Descriptor by which the process that made it holds the folder; None where none can."""

    @property
    def pictures(self) -> Path:
        return self.path / PICTURES

    def finish(self) -> None:
        """Remove the earlier prediction: this one is complete."""
        if self.earlier is not None:
            shutil.rmtree(self.earlier)

    def release(self) -> None:
        """Let other predictions have the folder; for the process that made it alone."""
        if self.lock is not None:
            os.close(self.lock)

    def undo(self) -> None:
        """Leave everything as it was: there are no results."""
        if self.earlier is not None and not (self.path / RESULTS).exists():
            _move(self.earlier, self.path)
            _remove_if_empty(self.earlier / PICTURES, self.earlier)
        _remove_if_empty(self.pictures, *self.made)


def prepare_output(path: Path | None, inputs: set[Path]) -> OutputFolder:
    """Make the folder of a prediction; one that is there already gives its earlier one away.

    Args:
        path: of the folder; by default the next free of `predictions`, `predictions-2`, ..
        inputs: folders of the images, into which no picture is to be drawn.

    Raises:
        UserError: files in it are not a prediction's, another prediction is writing there, or
            images to look at lie where pictures go.
        OSError: it cannot be made.
    """
    while path is None:
        candidate = Path(free_name(Path(), "predictions"))
        with suppress(FileExistsError):  # another prediction was faster
            candidate.mkdir()
            return OutputFolder(path=candidate, made=(candidate,), lock=_hold(candidate))
    pictures = path / PICTURES
    if pictures.is_dir() and pictures.resolve() in {folder.resolve() for folder in inputs}:
        raise UserError(
            f"{pictures}: holds images to look at, and is where pictures would be written; choose "
            "another --output"
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
    """Lock a folder until the descriptor that is returned is closed, or this process is gone.

    Raises:
        UserError: another prediction is writing there.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except OSError as error:  # others: a drive without locks
        os.close(descriptor)
        if error.errno != errno.EWOULDBLOCK:
            return None
        raise UserError(
            f"{folder}: another prediction is writing there; wait for its end, or choose another "
            "--output"
        ) from None


def picture_name(image_id: int, image: Path) -> str:
    """Return the name of an image's picture; the id keeps images of one name apart."""
    stem = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else "_" for c in image.stem)
    stem = stem[:80]
    while len(os.fsencode(stem)) > _LONGEST_NAME:
        stem = stem[:-1]
    return f"{image_id:06d}_{stem}.jpg"


def recorded_picture(record: dict[str, Any]) -> str:
    """Return the same of a record in images.json."""
    return picture_name(int(record["id"]), Path(record["file_name"]))


def _set_aside(folder: Path) -> Path | None:
    """Move an earlier prediction into a folder of its own in its folder; return that.

    Raises:
        UserError: there are files of these names that are not a prediction's.
    """
    for name in (RESULTS, IMAGES):
        if (folder / name).exists() and _earlier_records(folder) is None:
            raise UserError(
                f"{folder / name}: is there already, and not known as an earlier prediction's; "
                "choose another --output, or move it away"
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
    """Return the names of an earlier prediction's pictures; None where there was none."""
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
