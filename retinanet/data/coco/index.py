"""Turn COCO JSON into an index: read and checked once, then mapped from a cache.

The cache is stored beside the annotation file, or in the user's cache folder if that is not
writable. It is valid if size and modification time match the annotation file; if only the time
differs (a copy, a checkout), a hash of the content decides. A cache that is stale, damaged or from
another release is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.data.coco.annotations import Annotations, FileNames, map_annotations
from retinanet.data.coco.content import read_bytes, read_content, unpack
from retinanet.data.coco.locks import alone
from retinanet.data.coco.parsing import CocoColumns, parse_coco
from retinanet.data.coco.resolve import REMARKS, remark
from retinanet.errors import plural
from retinanet.files import user_cache

_BYTES_AT_ONCE = 2**22
"""Bytes hashed at a time."""


def open_annotations(path: Path) -> Annotations:
    """Return the index of a COCO file, from its cache if that is valid.

    Raises:
        UserError: The file cannot be read, or a record is wrong.
    """
    try:
        status = path.stat()
    except OSError:
        return read_annotations(path)  # its message gives the reason
    source: dict[str, Any] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    digest = cache(lambda: _hash_file(path))

    def is_current(saved: dict[str, Any]) -> bool:
        return source == {key: saved[key] for key in source}

    def has_content(saved: dict[str, Any]) -> bool:
        return source["size"] == saved["size"] and saved["sha256"] == digest()

    def cached(belongs: Callable[[dict[str, Any]], bool]) -> Annotations | None:
        found = (map_annotations(place, path, belongs) for place in _cache_places(path))
        return next((annotations for annotations in found if annotations is not None), None)

    annotations = cached(is_current)
    if annotations is None:
        # The ranks of a machine start at once: one parses, the others use its cache.
        with alone(path):
            annotations = cached(is_current)
            if annotations is None and (copied := cached(has_content)) is not None:
                return _save_with_new_source(copied, {**source, "sha256": digest()})
            annotations = annotations or _make_index(path, source)
    return annotations


def _save_with_new_source(annotations: Annotations, source: dict[str, Any]) -> Annotations:
    """Record the time of a file that was touched or copied, so that it is hashed only once."""
    place = annotations.mapped_from
    assert place is not None
    try:
        annotations.save(place, source)
    except OSError:
        return annotations  # the file is hashed again next time
    return map_annotations(place, annotations.path) or annotations


def _cache_places(path: Path) -> list[Path]:
    """Return the places of a cache: beside the file, or in the user's cache folder."""
    digest = _hash_bytes(str(path.absolute()).encode())[:16]
    beside = path.with_name(f".{path.name}.index")
    return [beside, user_cache() / f"{path.stem}-{digest}.index"]


def _make_index(path: Path, source: dict[str, Any]) -> Annotations:
    """Read a file and save its index in the first place that is writable."""
    content = read_bytes(path)
    with ThreadPoolExecutor(1) as pool:  # hashing releases the interpreter for the parser
        digest = pool.submit(_hash_bytes, content)
        columns = parse_coco(unpack(path, content), path, images_only=False)
        source = {**source, "sha256": digest.result()}
    del content
    annotations = _to_index(path, columns)
    for place in _cache_places(path):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            annotations.save(place, source)
        except OSError:
            continue  # not writable, or full
        return map_annotations(place, path) or annotations
    return annotations  # nowhere to save it: the file is read again next time


def read_annotations(path: Path, *, images_only: bool = False) -> Annotations:
    """Read and check a COCO JSON file into memory, without the cache.

    Args:
        path: Path of the file.
        images_only: Whether the file is an image list, which needs no annotations or categories.

    Raises:
        UserError: A record is wrong. The message gives record, value and remedy.
    """
    return _to_index(path, parse_coco(read_content(path), path, images_only=images_only))


def index_content(content: bytes, path: Path) -> Annotations:
    """Check the content of a COCO file; `path` is used in messages.

    Raises:
        UserError: A record is wrong. The message gives record, value and remedy.
    """
    return _to_index(path, parse_coco(content, path, images_only=False))


def _to_index(path: Path, columns: CocoColumns) -> Annotations:
    """Order the boxes of a file by image and turn its columns into an index."""
    images, boxes = columns.images, columns.boxes
    boxes.sort()
    counts = np.bincount(boxes.rows, minlength=len(images.ids))
    names = FileNames.of(images.names)
    arrays: dict[str, Any] = {
        "image_ids": images.ids,
        "sizes": images.sizes,
        "offsets": np.concatenate([[0], np.cumsum(counts)]),
        "annotation_ids": boxes.ids,
        "boxes": boxes.boxes,
        "labels": boxes.labels,
        "crowd": boxes.crowd,
        "areas": boxes.areas,
    }
    fingerprint = hashlib.sha256()
    learned = ("image_ids", "sizes", "offsets", "boxes", "labels", "crowd")
    for array in (*(arrays[name] for name in learned), names.blob, names.ends):
        fingerprint.update(np.ascontiguousarray(array).data)
    return Annotations(
        path=path,
        categories=columns.categories,
        file_names=names,
        remarks=tuple(_remarks(columns)),
        fingerprint=fingerprint.hexdigest()[:16],
        **arrays,
    )


def _remarks(columns: CocoColumns) -> Iterator[str]:
    """Yield notes with counts: values that were filled in, records that were read differently."""
    if count := columns.images.from_url:
        named = plural(count, "image without file_name", "images without file_name")
        yield f"{named}: the last part of coco_url is used"
    if count := columns.boxes.filled:
        filled = plural(count, "annotation without area", "annotations without area")
        yield f"{filled}: filled with width x height"
    for kind in REMARKS:
        if count := columns.boxes.kinds[kind]:
            yield remark(kind, count)


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while window := file.read(_BYTES_AT_ONCE):
            digest.update(window)
    return digest.hexdigest()


def _hash_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
