"""Parse the bytes of a COCO file into checked columns, piece by piece.

Each piece of a list is first read strictly and fast: the decoder checks the types, arrays check the
values. If that fails, the piece is read again record by record, to report what is wrong or to
accept what is only unusual (an `area` that is a string). N images, M boxes.
"""

from __future__ import annotations

import json
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from retinanet.categories import Categories
from retinanet.data.coco.annotation_records import read_boxes
from retinanet.data.coco.columns import BoxColumns, ImageColumns
from retinanet.data.coco.foreign import name_text, name_values
from retinanet.data.coco.json_pieces import MARK, cut_list_out, read_list
from retinanet.data.coco.records import (
    MAX_ID,
    check_ids,
    check_image,
    check_unique,
    is_name,
    meant_name,
    name_in_url,
    name_remedy,
)
from retinanet.errors import UserError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-. ]+(/[A-Za-z0-9_\-. ]+)*")
"""Names that need no closer check if they are not blank and do not contain `..`."""

_MAX_LENIENT_BYTES = 2**28
"""Larger files are not read again by Python's json, which takes ten times the memory."""
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_BYTE_NUMBER = re.compile(r" \(byte (\d+)\)")
"""The place in a message of msgspec."""


class _File(msgspec.Struct):
    """The parts of a COCO file that detection needs, not decoded yet."""

    images: msgspec.Raw = msgspec.Raw(b"null")
    annotations: msgspec.Raw = msgspec.Raw(b"null")
    categories: msgspec.Raw = msgspec.Raw(b"null")


class _Image(msgspec.Struct, gc=False):
    """A valid record."""

    id: int
    file_name: str
    width: float
    height: float


class _AnyImage(msgspec.Struct):
    """A record with values of any type."""

    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None
    coco_url: Any = None


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
        content: Bytes of the file.
        path: Path of the file, for messages.
        images_only: Whether the file is an image list, which needs no annotations or categories.

    Raises:
        UserError: A record is wrong (the message gives record, value and remedy), or the file is
            not a COCO file (the message says what it is).
    """
    try:
        return _parse(content, path, images_only=images_only)
    except UserError as error:
        raise UserError(name_foreign(content, path) or str(error)) from None


def name_foreign(content: bytes, path: Path) -> str | None:
    """Describe a file that is not COCO JSON with boxes; None if it is, or if it is unknown."""
    try:
        if len(content) > _MAX_LENIENT_BYTES:
            named = None if content[:1] in b"{[" else name_text(path, content)
        else:
            named = name_values(json.loads(content), path)
    except (ValueError, RecursionError):
        named = name_text(path, content)
    return f"{path}: {named}" if named else None


def _parse(content: bytes, path: Path, *, images_only: bool) -> CocoColumns:
    """Parse the content of a COCO file: by a guess, as a whole, or with Python's json."""
    outline, file = _read_outline(content), None
    if outline is not None:
        with suppress(UserError, *_NOT_JSON):  # reading the whole file gives the better message
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
    """Find the lists of a file with the usual layout, without a pass over its annotations."""
    cut = cut_list_out(content, "annotations")
    if cut is None:
        return None
    with suppress(*_NOT_JSON):
        file = msgspec.json.decode(cut[0], type=_File)
        if memoryview(file.annotations) == MARK:
            return msgspec.structs.replace(file, annotations=msgspec.Raw(cut[1]))
    return None


def _with_context(content: bytes, error: Exception) -> str:
    """Return an error of the decoder, with the text before it."""
    byte = _BYTE_NUMBER.search(str(error))
    at = int(byte[1]) if byte else len(content)
    return f"{error}, after {content[max(0, at - 60) : at].decode(errors='replace')!r}"


def parse_leniently(path: Path, content: bytes) -> dict[str, Any]:
    """Read JSON with NaN and Infinity, as Python's json does, so that messages name the record.

    Raises:
        UserError: The content is not JSON, or not an object.
    """
    try:
        values = json.loads(content)
    except json.JSONDecodeError as error:
        cut = not error.doc[error.pos :].strip() and error.pos > 0
        cut = cut or error.msg.startswith("Unterminated string")
        hint = ": the file is cut off; copy or download it again" if cut else ""
        raise UserError(
            f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}{hint}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not JSON: not valid {error.encoding} at byte {error.start}; save it as UTF-8"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not JSON: lists are nested hundreds of levels deep") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a COCO file: {type(values).__name__} instead of an object")
    return values


def _read_columns(path: Path, file: _File | dict[str, Any], *, images_only: bool) -> CocoColumns:
    """Read the lists of a file, as bytes or already decoded."""
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
    ids = np.array(categories.ids, np.int64)
    boxes = read_boxes(path, lists["annotations"], images, ids)
    return CocoColumns(categories=categories, images=images, boxes=boxes)


def _find_list(path: Path, file: _File | dict[str, Any], key: str) -> memoryview | list[Any] | None:
    """Return a list of the file, as bytes or already decoded, or None."""
    if isinstance(file, dict):
        value = file.get(key)
        if value is not None and not isinstance(value, list):
            raise UserError(
                f'{path}: not a COCO file: "{key}" is not a list; write a list of objects'
            )
        return value
    raw = memoryview(getattr(file, key))
    if raw[:1] == b"n":  # null
        return None
    if raw[:1] != b"[":
        raise UserError(f'{path}: not a COCO file: "{key}" is not a list; write a list of objects')
    return raw


def _read_none_strictly(piece: bytes) -> None:
    """Leave all categories to the lenient reader: there are few."""


def _read_categories(path: Path, records: list[_Category]) -> Categories:
    if not records:
        raise UserError(
            f'{path}: "categories" is empty; there is no class to learn: '
            'add entries such as {"id": 1, "name": "cat"}'
        )
    ids = [record.id for record in records]
    check_ids(path, "category", ids)
    check_unique(path, "category", np.array(ids, np.int64))
    names: dict[str, int] = {}
    for record in records:
        record.name = meant_name(record.name)
        if not is_name(record.name):
            raise UserError(
                f"{path}: category {record.id} has the name {record.name!r:.60}; "
                f"{name_remedy(record.name)}"
            )
        if record.name in names:
            raise UserError(
                f"{path}: categories {names[record.name]} and {record.id} are both named "
                f"{record.name!r:.60}; rename or merge them: `retinanet check "
                f"{shlex.quote(str(path))} --fix OUT.json` removes one without boxes, and adding "
                "--fix-as names=merged merges them"
            )
        names[record.name] = record.id
    ordered = sorted(records, key=lambda record: record.id)
    return Categories(ids=tuple(r.id for r in ordered), names=tuple(r.name for r in ordered))


def _read_images(path: Path, values: memoryview | list[Any] | None) -> ImageColumns:
    decoder = msgspec.json.Decoder(list[_Image])
    count = from_url = 0

    def strict(piece: bytes) -> list[Any] | None:
        try:
            records = decoder.decode(piece)
        except msgspec.ValidationError:
            return None
        return records if _are_plain(records) else None

    def lenient(records: list[Any]) -> list[Any]:
        nonlocal from_url
        check_ids(path, "image", [record.id for record in records], count)
        for record in records:
            if record.file_name is None:
                record.file_name = name_in_url(record.coco_url)
                from_url += record.file_name is not None
            check_image(path, record)
        return records

    ids, sizes, names = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)], []
    for records in read_list(path, "images", values, _AnyImage, strict, lenient):
        ids.append(np.array([record.id for record in records], np.int64))
        sizes.append(np.array([(r.height, r.width) for r in records], np.int64).reshape(-1, 2))
        names += [record.file_name for record in records]
        count += len(records)
    columns = ImageColumns(
        ids=np.concatenate(ids), sizes=np.concatenate(sizes), names=names, from_url=from_url
    )
    check_unique(path, "image", columns.ids)
    return columns


def _are_plain(records: list[_Image]) -> bool:
    """Whether records with valid types have values that need no closer check."""
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
