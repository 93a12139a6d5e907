"""Find the image files that an index names not quite correctly.

If the config sets `data.find_images`, `find_files` replaces the names of missing files in an index
by those that `near_names` finds.
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
from retinanet.errors import plural
from retinanet.files import user_cache

FOUND = "find_images: "
"""Start of the note about the files that were found."""


def is_missing(path: Path) -> bool:
    """Whether there is no accessible file at a path."""
    try:
        os.stat(path)  # noqa: PTH116 (os.stat is half the cost)
    except (OSError, ValueError):
        return True
    return False


def existing_image_names(folder: Path) -> list[str]:
    """Return the names of the image files in a folder and its subfolders, without broken links."""
    return [name for name in find_image_names(folder) if not is_missing(folder / name)]


def find_names(names: Sequence[str], folder: Path) -> Renames:
    """Look for the files meant by names that are missing or lead outside the folder.

    Args:
        names: Names of all records.
        folder: Image folder.
    """
    missing: list[str] = []
    present: list[str] = []
    for name in names:
        is_absent = leads_outside(name) or is_missing(folder / name)
        (missing if is_absent else present).append(name)
    return find_renamed(missing, existing_image_names(folder) if missing else (), present=present)


def find_files(annotations: Annotations, folder: Path) -> Annotations:
    """Return an index in which missing files are replaced by the files that must be meant.

    The fingerprint stays the same, because the data is the same. A note says what was found.
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
    verb = "were" if count > 1 else "was"
    return f"{FOUND}{plural(count, 'image file')} {verb} found {renames.how}"


def _mapped(found: Annotations) -> Annotations:
    """Save an index in the user's cache folder and map it, if the folder is writable."""
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
    except OSError:  # nowhere to save it
        return found
    return saved or found


def describe_found(parts: Sequence[tuple[Annotations, Path]], remedy: str) -> str:
    """Return for a message where missing files were found; empty if they were not.

    Args:
        parts: Annotation files and their image folders.
        remedy: How to use the files that were found: `set data.find_images=true`.
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
            place = folder / inside
            if renames.sought == 1:
                namesakes = f"a file with its name is in {place}: if it is the right one, "
            else:
                namesakes = (
                    f"{place} has files with the names of {count:,} of them: if those are the "
                    "right ones, "
                )
            return f"{namesakes}use that folder; then {remedy}"
    return ""
