"""Files that are whole at any moment, and folders that can be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinanet.errors import UserError


@contextmanager
def replacing(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """Yield a temporary name to write to; it takes the place of `path` when all went well.

    After an error, or a crash, `path` is as it was before.

    Args:
        path: to write.
        unique: several processes may write it at once. A crash then leaves its temporary file for
            good, where otherwise the next attempt takes it over.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp" if unique else f"{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: Path, remedy: str) -> None:
    """Refuse a folder that is not there and cannot be made, or cannot be written into.

    Raises:
        UserError: what stands in the way, and the remedy.
    """
    parent = next(p for p in [folder, *folder.absolute().parents] if os.path.lexists(p))
    if not parent.is_dir():
        raise UserError(f"{folder}: cannot be made: {parent} is not a folder; {remedy}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written: no permission in {parent}; {remedy}")


def user_cache() -> Path:
    """Return the folder for what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "retinanet"
