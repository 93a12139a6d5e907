"""A COCO file's bytes -> checked columns, piece by piece.

Each piece of a list is first read strictly and fast: the decoder checks the types, arrays check the
values. A piece that this refuses is read once more, record by record, to say what is wrong or to
allow what is only unusual (an `area` that is a text). N images, M boxes.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from retinanet.categories import Categories
from retinanet.data.coco.columns import BoxColumns, GrowingBoxColumns, ImageColumns
from retinanet.data.coco.ids import Ids
from retinanet.data.coco.json_pieces import MARK, cut_list_out, read_list
from retinanet.data.coco.records import (
    MAX_ID,
    check_annotation,
    check_ids,
    check_image,
    is_name,
    number_or_nan,
)
from retinanet.errors import UserError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-. ]+(/[A-Za-z0-9_\-. ]+)*")
"""Names that need no closer look, if they are not blank; without `..` they stay in their folder."""

_MAX_LENIENT_BYTES = 2**28
"""Larger files are not read once more by Python's json, which takes ten times the memory."""
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_BYTE_NUMBER = re.compile(r" \(byte (\d+)\)")
"""In msgspec's messages."""


class _File(msgspec.Struct):
    """The parts of a COCO file that detection needs, not decoded yet."""

    images: msgspec.Raw = msgspec.Raw(b"null")
    annotations: msgspec.Raw = msgspec.Raw(b"null")
    categories: msgspec.Raw = msgspec.Raw(b"null")


class _Image(msgspec.Struct, gc=False):
    """A record as it should be."""

    id: int
    file_name: str
    width: float
    height: float


class _Annotation(msgspec.Struct, gc=False):
    """A record as it should be; segmentations are skipped, not built."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | bool | None = None


class _AnyImage(msgspec.Struct):
    """A record as it may come."""

    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None


class _AnyAnnotation(msgspec.Struct):
    """A record as it may come."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoColumns:
    """A checked COCO file."""

    categories: Categories
    images: ImageColumns
    boxes: BoxColumns


def parse_coco(content: bytes, path: Path, *, images_only: bool) -> CocoColumns:
    """Parse and check the content of a COCO file.

    Args:
        content: bytes of the file.
        path: path of the file, for messages.
        images_only: an image list such as test-dev's: it needs neither annotations nor categories.

    Raises:
        UserError: a record that is wrong, with its place, value and remedy.
    """
    outline, file = _read_outline(content), None
    if outline is not None:
        with suppress(UserError, *_NOT_JSON):  # which the whole file then says better
            return _read_columns(path, outline, images_only=images_only)
    try:
        file = msgspec.json.decode(content, type=_File)
        return _read_columns(path, file, images_only=images_only)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not a COCO file: {error}") from None
    except _NOT_JSON as error:
        if len(content) > _MAX_LENIENT_BYTES:
            # In a list that was cut, the decoder counts bytes from the start of a piece.
            text = (
                _with_context(content, error) if file is None else _BYTE_NUMBER.sub("", str(error))
            )
            raise UserError(f"{path}: not JSON: {text}") from None
        return _read_columns(path, parse_leniently(path, content), images_only=images_only)


def _read_outline(content: bytes) -> _File | None:
    """Find the lists of a file that looks as most do, without a pass over its annotations."""
    cut = cut_list_out(content, "annotations")
    if cut is None:
        return None
    with suppress(*_NOT_JSON):
        file = msgspec.json.decode(cut[0], type=_File)
        if memoryview(file.annotations) == MARK:
            return msgspec.structs.replace(file, annotations=msgspec.Raw(cut[1]))
    return None


def _with_context(content: bytes, error: Exception) -> str:
    """Return an error of the decoder, with the text that stands before it."""
    byte = _BYTE_NUMBER.search(str(error))
    at = int(byte[1]) if byte else len(content)
    return f"{error}, after {content[max(0, at - 60) : at].decode(errors='replace')!r}"


def parse_leniently(path: Path, content: bytes) -> dict[str, Any]:
    """Read what Python's json accepts too: NaN and Infinity, whose records are then named.

    Raises:
        UserError: not JSON, or not an object.
    """
    try:
        values = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not JSON: not {error.encoding} from byte {error.start} on"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not JSON: lists in lists, hundreds of levels deep") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a COCO file: {type(values).__name__} in place of an object")
    return values


def _read_columns(path: Path, file: _File | dict[str, Any], *, images_only: bool) -> CocoColumns:
    """Read the lists of a file, decoded already or not."""
    lists = {key: _find_list(path, file, key) for key in ("images", "annotations", "categories")}
    needed = ["images"] if images_only else ["images", "annotations", "categories"]
    for key in needed:
        if lists[key] is None:
            raise UserError(f'{path}: has no "{key}" list; a COCO file has {", ".join(needed)}')
    parts = read_list(path, "categories", lists["categories"], _Category, _read_none_strictly, list)
    records = list(chain(*parts))
    categories = Categories(ids=(), names=())
    if records or not images_only:
        categories = _read_categories(path, records)
    images = _read_images(path, lists["images"])
    boxes = _read_boxes(path, lists["annotations"], images, categories)
    return CocoColumns(categories=categories, images=images, boxes=boxes)


def _find_list(path: Path, file: _File | dict[str, Any], key: str) -> memoryview | list[Any] | None:
    """Return a list of the file, decoded or not, or None."""
    if isinstance(file, dict):
        value = file.get(key)
        if value is not None and not isinstance(value, list):
            raise UserError(f'{path}: not a COCO file: "{key}" is not a list')
        return value
    raw = memoryview(getattr(file, key))
    if raw[:1] == b"n":  # null
        return None
    if raw[:1] != b"[":
        raise UserError(f'{path}: not a COCO file: "{key}" is not a list')
    return raw


def _read_none_strictly(piece: bytes) -> None:
    """Leave every category to the lenient way: there are few."""


def _check_unique(path: Path, word: str, ids: NDArray[np.int64]) -> None:
    """Refuse a duplicate id, by the numbers of its first two records."""
    if (ids[1:] > ids[:-1]).all():
        return
    ordered = np.sort(ids)  # several times as fast as the argsort that says which
    if (ordered[1:] > ordered[:-1]).all():
        return
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    first = twice[order[twice + 1].argmin()]
    a, b = order[first], order[first + 1]
    raise UserError(f"{path}: {word} records {a} and {b} both have id {ids[a]}; ids must be unique")


def _read_categories(path: Path, records: list[_Category]) -> Categories:
    if not records:
        raise UserError(f'{path}: "categories" is empty; there is no class to learn')
    ids = [record.id for record in records]
    check_ids(path, "category", ids)
    _check_unique(path, "category", np.array(ids, np.int64))
    names: dict[str, int] = {}
    for record in records:
        if not is_name(record.name):
            raise UserError(f"{path}: category {record.id} has no name ({record.name!r:.60})")
        if record.name in names:
            raise UserError(
                f"{path}: categories {names[record.name]} and {record.id} are both named "
                f"{record.name!r}; rename or merge them"
            )
        names[record.name] = record.id
    ordered = sorted(records, key=lambda record: record.id)
    return Categories(ids=tuple(r.id for r in ordered), names=tuple(r.name for r in ordered))


def _read_images(path: Path, values: memoryview | list[Any] | None) -> ImageColumns:
    decoder = msgspec.json.Decoder(list[_Image])
    count = 0

    def strict(piece: bytes) -> list[Any] | None:
        try:
            records = decoder.decode(piece)
        except msgspec.ValidationError:
            return None
        return records if _are_plain(records) else None

    def lenient(records: list[Any]) -> list[Any]:
        check_ids(path, "image", [record.id for record in records], count)
        for record in records:
            check_image(path, record)
        return records

    ids, sizes, names = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)], []
    for records in read_list(path, "images", values, _AnyImage, strict, lenient):
        ids.append(np.array([record.id for record in records], np.int64))
        sizes.append(np.array([(r.height, r.width) for r in records], np.int64).reshape(-1, 2))
        names += [record.file_name for record in records]
        count += len(records)
    columns = ImageColumns(ids=np.concatenate(ids), sizes=np.concatenate(sizes), names=names)
    _check_unique(path, "image", columns.ids)
    return columns


def _are_plain(records: list[_Image]) -> bool:
    """Whether records of the right types have values that need no closer look."""
    sides = np.array([(record.height, record.width) for record in records]).reshape(-1, 2)
    return bool(
        (sides >= 1).all()
        and (sides < 2**31).all()
        and (sides == np.floor(sides)).all()
        and all(0 <= record.id < MAX_ID for record in records)
        and all(_is_plain_name(record.file_name) for record in records)
    )


def _is_plain_name(name: str) -> bool:
    return bool(_PLAIN_NAME.fullmatch(name)) and ".." not in name and not name.isspace()


def _read_boxes(
    path: Path,
    values: memoryview | list[Any] | None,
    images: ImageColumns,
    categories: Categories,
) -> BoxColumns:
    image_rows, label_rows = Ids(images.ids), Ids(np.array(categories.ids, np.int64))
    decoder = msgspec.json.Decoder(list[_Annotation])
    found = GrowingBoxColumns()

    def strict(piece: bytes) -> BoxColumns | None:
        try:
            return _strict_columns(decoder.decode(piece), image_rows, label_rows)
        except msgspec.ValidationError:
            return None

    def lenient(records: list[Any]) -> BoxColumns:
        check_ids(path, "annotation", [record.id for record in records], len(found))
        for record in records:
            check_annotation(path, record, images=image_rows, categories=label_rows)
        return _lenient_columns(records, image_rows, label_rows)

    for part in read_list(path, "annotations", values, _AnyAnnotation, strict, lenient):
        found.add(part)
    boxes = found.columns()
    _check_unique(path, "annotation", boxes.ids)
    return boxes


def _strict_columns(
    records: list[_Annotation], image_rows: Ids, label_rows: Ids
) -> BoxColumns | None:
    """Return the columns of records whose types are right, or None if a value is not."""
    try:
        ids = np.array([record.id for record in records], np.int64)
        rows = image_rows(np.array([record.image_id for record in records], np.int64))
        labels = label_rows(np.array([record.category_id for record in records], np.int64))
        crowd = np.array([record.iscrowd or 0 for record in records], np.int64)
    except OverflowError:
        return None
    flat = chain.from_iterable([record.bbox for record in records])
    boxes = np.fromiter(flat, np.float64, 4 * len(records)).reshape(-1, 4)
    areas = np.array([record.area for record in records], np.float64)  # None becomes NaN
    fine = (
        (np.abs(ids) < MAX_ID).all()
        and (rows >= 0).all()
        and (labels >= 0).all()
        and (np.abs(boxes) < 2**31).all()
        and (boxes[:, 2:] >= 0).all()
        and ((crowd == 0) | (crowd == 1)).all()
    )
    if not fine:
        return None
    return BoxColumns.of(ids=ids, rows=rows, labels=labels, boxes=boxes, areas=areas, crowd=crowd)


def _lenient_columns(records: list[Any], image_rows: Ids, label_rows: Ids) -> BoxColumns:
    """Return the columns of records that have been checked one by one."""
    return BoxColumns.of(
        ids=np.array([record.id for record in records], np.int64),
        rows=image_rows(np.array([record.image_id for record in records], np.int64)),
        labels=label_rows(np.array([record.category_id for record in records], np.int64)),
        boxes=np.array([record.bbox for record in records], np.float64).reshape(-1, 4),
        areas=np.array([number_or_nan(record.area) for record in records], np.float64),
        crowd=np.array([record.iscrowd or 0 for record in records], np.int64),
    )
