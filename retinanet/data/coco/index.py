"""COCO JSON -> its index: read and checked once, then mapped from a cache.

The cache lies beside the annotation file, or in the user's cache folder where that cannot be
written. It belongs to the annotation file by size and time of change, or by a hash of the content
where the time differs (a copy, a checkout), and is made anew where it is stale, damaged, or of
another release.
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
from retinanet.data.coco.resolve import REMARKS
from retinanet.files import user_cache

_BYTES_AT_ONCE = 2**22
"""Bytes hashed at a time."""


def open_annotations(path: Path) -> Annotations:
    """Return the index of a COCO file, from its cache if that is sound; otherwise it is made.

    Raises:
        UserError: the file cannot be read, or a record is wrong.
    """
    try:
        status = path.stat()
    except OSError:
        return read_annotations(path)  # which says why not
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
        # The ranks of a machine start at once: one parses, the others find what it made.
        with alone(path):
            annotations = cached(is_current)
            if annotations is None and (copied := cached(has_content)) is not None:
                return _save_with_new_source(copied, {**source, "sha256": digest()})
            annotations = annotations or _make_index(path, source)
    return annotations


def _save_with_new_source(annotations: Annotations, source: dict[str, Any]) -> Annotations:
    """Note the time of a file that was touched or copied, so that it is hashed only once."""
    place = annotations.mapped_from
    assert place is not None
    try:
        annotations.save(place, source)
    except OSError:
        return annotations  # it is hashed again next time
    return map_annotations(place, annotations.path) or annotations


def _cache_places(path: Path) -> list[Path]:
    """Return where the cache may lie: beside the file, or in the user's cache folder."""
    digest = _hash_bytes(str(path.absolute()).encode())[:16]
    beside = path.with_name(f".{path.name}.index")
    return [beside, user_cache() / f"{path.stem}-{digest}.index"]


def _make_index(path: Path, source: dict[str, Any]) -> Annotations:
    """Read a file and keep its index in the first place that takes it."""
    content = read_bytes(path)
    with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter to the parser
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
            continue  # a folder or a disk that takes no more
        return map_annotations(place, path) or annotations
    return annotations  # nowhere to keep it: the next opening reads the file again


def read_annotations(path: Path, *, images_only: bool = False) -> Annotations:
    """Read and check a COCO JSON file into memory; the cache takes no part.

    Args:
        path: path of the file.
        images_only: an image list such as test-dev's: it needs neither annotations nor categories.

    Raises:
        UserError: a record that is wrong, with its place, value and remedy.
    """
    return _to_index(path, parse_coco(read_content(path), path, images_only=images_only))


def index_content(content: bytes, path: Path) -> Annotations:
    """Check the content of a COCO file; `path` is its name in messages.

    Raises:
        UserError: a record that is wrong, with its place, value and remedy.
    """
    return _to_index(path, parse_coco(content, path, images_only=False))


def _to_index(path: Path, columns: CocoColumns) -> Annotations:
    """Order the boxes of a file by image; its columns go over to the index."""
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
    """Yield what was filled in or read differently, counted."""
    if count := columns.images.from_url:
        yield f"{count} images without file_name: the last part of coco_url is taken"
    if columns.boxes.filled:
        yield f"{columns.boxes.filled} annotations without area: filled with width x height"
    for kind, text in REMARKS.items():
        if columns.boxes.kinds[kind]:
            yield f"{columns.boxes.kinds[kind]} {text}"


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while window := file.read(_BYTES_AT_ONCE):
            digest.update(window)
    return digest.hexdigest()


def _hash_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
