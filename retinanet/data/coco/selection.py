"""Several annotation files as one, with all or some of their classes and images.

The result is an index like any other, mapped from the user's cache folder. N images, M boxes.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import shlex
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import Categories, shown_names
from retinanet.data.coco.annotations import Annotations, FileNames, map_annotations
from retinanet.errors import UserError, nearest, plural, some_of
from retinanet.files import user_cache

_COLUMNS = ("image_ids", "sizes", "annotation_ids", "boxes", "labels", "crowd", "areas")


def select(
    files: Sequence[Annotations],
    folders: Sequence[str],
    *,
    classes: Sequence[str] | None,
    limit: int | None,
) -> Annotations:
    """Join annotation files and select classes and images. The classes have equal ids in all files.

    Args:
        files: Indexes of the annotation files.
        folders: Prefix of the file names of each file; may be empty.
        classes: Names to keep, None for all; images that lose all their boxes stay.
        limit: Number of images to keep, None for all. The choice is fixed, and a smaller limit
            keeps a subset of a larger one.

    Raises:
        UserError: A class is unknown.
    """
    categories = files[0].categories
    for name in classes or ():
        if name not in categories.names:
            raise UserError(
                f"{files[0].path}: data.classes: there is no class {name!r:.60}"
                f"{_hint_at_class(name, categories)}"
            )
    choices = [None if classes is None else sorted(set(classes)), limit]
    # A resumed run may find the same files elsewhere: their paths are not in the fingerprint.
    fingerprint = _short_hash([[file.fingerprint for file in files], choices])
    # Changes that a fingerprint leaves out (class names, areas) show in the modification time.
    stamps = [_size_and_time(file.path) for file in files]
    # File names may differ from those in the file (data.find_images).
    sums = [zlib.crc32(file.file_names.blob.data) for file in files]
    source = {"files": stamps, "names": sums, "folders": list(folders), "content": fingerprint}
    path = Path(" + ".join(str(file.path) for file in files))
    place = user_cache() / f"selection-{_short_hash(source)}.index"
    found = map_annotations(place, path, lambda saved: saved == source)
    if found is not None:
        return found
    if any(file.categories != files[0].categories for file in files):
        files = [take_classes(file, classes) for file in files]
    chosen = _subset(_concatenate(files, folders, path), classes, limit, fingerprint=fingerprint)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        chosen.save(place, source)
    except OSError:
        return chosen  # nowhere to save it
    return map_annotations(place, path) or chosen


def _hint_at_class(name: str, categories: Categories) -> str:
    """Return what an unknown class name may mean, or the names of all classes."""
    of_id = dict(zip(map(str, categories.ids), categories.names, strict=True))
    if name in of_id:
        return f"; classes are chosen by name: category {name} is {of_id[name]!r:.60}"
    there = f"; the classes are: {some_of(shown_names(categories.names), 20)}"
    return nearest(name, list(categories.names)) or there


def take_classes(annotations: Annotations, classes: Sequence[str] | None) -> Annotations:
    """Return an index of the named classes that the file has; None keeps all."""
    return _subset(annotations, classes, None, fingerprint="")


def _size_and_time(path: Path) -> list[str | int]:
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def _short_hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _concatenate(files: Sequence[Annotations], folders: Sequence[str], path: Path) -> Annotations:
    """Join files; ids that an earlier file already uses are raised."""
    arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}
    remarks = [remark for file in files for remark in file.remarks]
    ends = [np.zeros(1, np.int64)]
    names: list[str] = []
    for file, folder in zip(files, folders, strict=True):
        for name in _COLUMNS:
            column = getattr(file, name)
            shift = _id_shift(arrays[name], column) if name.endswith("ids") else 0
            if shift and name == "image_ids":
                remarks.append(
                    f"{file.path.name}: image ids are also used in another file: here they are "
                    f"raised by {shift}"
                )
            arrays[name].append(column + shift if shift else column)
        ends.append(file.offsets[1:] + ends[-1][-1])
        names += [f"{folder}/{name}" if folder else name for name in file.file_names]
    remarks += _images_in_several(files, names)
    columns: dict[str, Any] = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return Annotations(
        path=path,
        categories=files[0].categories,
        file_names=FileNames.of(names),
        offsets=np.concatenate(ends),
        remarks=tuple(remarks),
        fingerprint="",
        **columns,
    )


def _images_in_several(files: Sequence[Annotations], names: list[str]) -> Iterator[str]:
    """Yield a warning if several files annotate the same images (one class each, for example)."""
    owner = np.repeat(np.arange(len(files)), [len(file) for file in files]).tolist()
    first: dict[str, int] = {}
    places = ((posixpath.normpath(name), file) for name, file in zip(names, owner, strict=True))
    shared = {name for name, file in places if first.setdefault(name, file) != file}
    if shared:
        words = shlex.join(str(file.path) for file in files)
        yield (
            f"warning: {plural(len(shared), 'image')} {'is' if len(shared) == 1 else 'are'} in "
            f"several annotation files, for example {min(shared)!r}: the boxes of one file are "
            "background in the other. `retinanet "
            f"convert coco {words} OUT.json --to coco --images FOLDER --merge` merges the files"
        )


def _id_shift(before: list[NDArray[Any]], ids: NDArray[Any]) -> int:
    """Return the number to add to ids so that they differ from those of earlier files."""
    known = np.concatenate(before) if before else np.zeros(0, np.int64)
    if not np.isin(ids, known).any():
        return 0
    return int(known.max()) + 1 - min(0, int(ids.min()))


def _subset(
    all_of: Annotations, classes: Sequence[str] | None, limit: int | None, *, fingerprint: str
) -> Annotations:
    """Return an index of some classes and images of another one."""
    rows = np.arange(len(all_of))
    if limit is not None:
        # A fixed order, so that runs with other seeds or a larger limit share the images.
        rows = np.sort(np.random.default_rng(0).permutation(len(all_of))[:limit])
    wanted = [
        label
        for label, name in enumerate(all_of.categories.names)
        if classes is None or name in classes
    ]
    of_label = np.full(len(all_of.categories), -1, np.int32)
    of_label[wanted] = np.arange(len(wanted))
    owner = all_of.image_of_box()
    is_taken = np.zeros(len(all_of), bool)
    is_taken[rows] = True
    places = np.flatnonzero(is_taken[owner] & (of_label[all_of.labels] >= 0))
    counts = np.bincount(owner[places], minlength=len(all_of))[rows]
    others = int(is_taken[owner].sum()) - len(places)
    ids, names = all_of.categories.ids, all_of.categories.names
    return Annotations(
        path=all_of.path,
        categories=Categories(
            ids=tuple(ids[label] for label in wanted), names=tuple(names[label] for label in wanted)
        ),
        image_ids=all_of.image_ids[rows],
        sizes=all_of.sizes[rows],
        file_names=FileNames.of([all_of.file_names[row] for row in rows.tolist()]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        annotation_ids=all_of.annotation_ids[places],
        boxes=all_of.boxes[places],
        labels=of_label[all_of.labels[places]],
        crowd=all_of.crowd[places],
        areas=all_of.areas[places],
        remarks=(*all_of.remarks, *_remarks(all_of, rows, wanted, others)),
        fingerprint=fingerprint,
    )


def _remarks(
    all_of: Annotations, rows: NDArray[np.int64], wanted: list[int], others: int
) -> Iterator[str]:
    """Yield notes about what was left out: images, and boxes of other classes."""
    if len(rows) < len(all_of):
        yield f"limit: {len(rows):,} of {plural(len(all_of), 'image')} used"
    if len(wanted) < len(all_of.categories):
        yield (
            f"classes: {len(wanted)} of {len(all_of.categories)} used; {plural(others, 'box')} of "
            "other classes left out"
        )
