"""Image files that are there, but of a kind or under a suffix that is not looked for."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from retinanet.data.images.folders import is_hidden
from retinanet.data.images.reading import SUFFIXES

_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png"}
"""The first bytes of files that need another suffix only."""
_TEXTS = (".txt", ".json", ".xml", ".csv", ".text", ".yaml", ".yml", ".md")


def find_other_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the files in some folders that are no text and have no image's suffix, by stem."""
    found: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file())
        except OSError:
            continue
        for path in paths:
            if not is_hidden(path.name) and path.suffix.lower() not in (*SUFFIXES, *_TEXTS):
                found.setdefault(path.stem, path)
    return found


def why_unread(path: Path) -> str:
    """Say that a file is there in place of an image, and what to do.

    Args:
        path: a file of `find_other_files`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        start = b""
    suffix = next((own for magic, own in _MAGIC.items() if start.startswith(magic)), None)
    found = f"there is {path}, but {path.suffix or 'a name without suffix'} is not read"
    if suffix is None:
        return f"{found}; save it as JPEG or PNG"
    return (
        f"{found}; type: mv {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix(suffix)))}"
    )
