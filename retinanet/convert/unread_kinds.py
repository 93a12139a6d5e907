"""Image files in a format that is not supported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from retinanet.data.images.folders import is_hidden, read_head
from retinanet.data.images.identify import explain_unreadable
from retinanet.data.images.reading import SUFFIXES

_TEXTS = (".txt", ".json", ".xml", ".csv", ".text", ".yaml", ".yml", ".md")


def find_other_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the files in some folders that are neither text nor have an image suffix, by stem."""
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
    """Describe a file found instead of an image, and what to do.

    Args:
        path: A file of `find_other_files`.
    """
    return f"there is {path}: {explain_unreadable(path, read_head(path))}"
