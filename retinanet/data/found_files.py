"""The file names of an index where they are only nearly right: what is missing, and what is meant.

`find_files` of an index gives its images the names of the files that `near_names` finds, where the
config asks for it (`data.find_images`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retinanet.data.coco.annotations import Annotations, FileNames, map_annotations
from retinanet.data.coco.records import leads_outside
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.near_names import Renames, find_renamed
from retinanet.files import user_cache

FOUND = "find_images: "
"""How the remark about what was found begins."""


def is_missing(path: Path) -> bool:
    """Whether there is nothing at a path that can be looked at."""
    try:
        os.stat(path)  # noqa: PTH116 (os.stat is half the cost)
    except (OSError, ValueError):
        return True
    return False


def existing_image_names(folder: Path) -> list[str]:
    """Return the names of the image files in a folder and its folders, without links to nothing."""
    return [name for name in find_image_names(folder) if not is_missing(folder / name)]


def find_names(names: Sequence[str], folder: Path) -> Renames:
    """Look for the files that names mean which are not there, or which lead outside the folder.

    Args:
        names: names of all records.
        folder: folder that they start from.
    """
    missing: list[str] = []
    present: list[str] = []
    for name in names:
        is_absent = leads_outside(name) or is_missing(folder / name)
        (missing if is_absent else present).append(name)
    return find_renamed(missing, existing_image_names(folder) if missing else (), present=present)


def find_files(annotations: Annotations, folder: Path) -> Annotations:
    """Return an index whose missing files have the names of those that can only be meant.

    Its fingerprint stays: it is the same data, wherever the files lie. What was found is a remark.
    """
    names = list(annotations.file_names)
    renames = find_names(names, folder)
    if not renames:
        return annotations
    found = replace(
        annotations,
        file_names=FileNames.of([renames.files.get(name, name) for name in names]),
        remarks=(*annotations.remarks, _remark(renames)),
        mapped_from=None,
    )
    return _mapped(found)


def _remark(renames: Renames) -> str:
    count = len(renames.files)
    plural = "s were" if count > 1 else " was"
    return f"{FOUND}{count:,} image file{plural} found {renames.how}"


def _mapped(found: Annotations) -> Annotations:
    """Return an index as one that is mapped from the user's cache folder, if that takes it."""
    try:
        status = found.path.stat()
        source = {
            "file": [str(found.path.absolute()), status.st_size, status.st_mtime_ns],
            "content": found.fingerprint,
            "names": hashlib.sha256(found.file_names.blob.data).hexdigest(),
            "remarks": list(found.remarks),
        }
        key = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]
        place = user_cache() / f"found-{key}.index"
        saved = map_annotations(place, found.path, lambda kept: kept == source)
        if saved is None:
            place.parent.mkdir(parents=True, exist_ok=True)
            found.save(place, source)
            saved = map_annotations(place, found.path)
    except OSError:  # nowhere to keep it
        return found
    return saved or found


def describe_found(parts: Sequence[tuple[Annotations, Path]], remedy: str) -> str:
    """Say for a message under which names missing files are there; empty if under none.

    Args:
        parts: annotation files and their image folders.
        remedy: what takes the files that were found: `set data.find_images=true`.
    """
    found = [(folder, find_names(list(index.file_names), folder)) for index, folder in parts]
    texts = [(f"in {folder}, " if len(parts) > 1 else "", renames) for folder, renames in found]
    lines = [f"{place}{renames}" for place, renames in texts if renames]
    if lines:
        return f"{'; '.join(lines)}: {remedy}"
    for folder, renames in found:
        if renames.unclear:
            name, text = next(iter(renames.unclear.items()))
            return (
                f"{text}; correct the file name of {name!r}, or move the files that are not meant"
            )
        if renames.elsewhere:
            count, inside = renames.elsewhere
            namesakes = "its namesake is" if renames.sought == 1 else f"{count:,} have namesakes"
            place = folder / inside
            return f"{namesakes} in {place}: if those are meant, name that folder; then {remedy}"
    return ""
