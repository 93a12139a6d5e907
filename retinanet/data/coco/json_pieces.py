"""Read a JSON list of records piece by piece, with few objects in memory at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from retinanet.errors import UserError

T = TypeVar("T", bound=Sized)

PIECE = 2**18
"""Bytes decoded at a time, so that the objects stay in the processor's cache."""
_BOUNDARY = re.compile(rb"\}\s*,\s*\{")
"""Between two records."""
_END = re.compile(rb'(?<=\})\s*\]\s*,\s*"(?:images|categories|licenses|info)"\s*:')
"""From the end of a list of records to the next key."""
_RECORD_NUMBER = re.compile(r"\$\[(\d+)\]")
"""In msgspec's messages: `$[7]` is the eighth record of a list."""
MARK = b"[[8128, 496, 28, 6]]"
"""Placeholder for a list that was cut out."""
_TAIL_BYTES = 2**20
"""Bytes at the end of a file that are searched for the end of a list."""


def cut_list_out(content: bytes, key: str) -> tuple[bytes, memoryview] | None:
    """Cut the list `key` out of a JSON object; return the rest (with `MARK` for it) and the list.

    This is a guess that saves a pass over the list; None if the content does not have the usual
    layout. The guess was right if the rest is an object whose `key` is `MARK` and the part cut
    out is a list. Otherwise the matched text may be inside another value.
    """
    opening = re.search(rb'"%b"\s*:\s*\[' % key.encode(), content)
    if opening is None:
        return None
    start = opening.end() - 1
    tail = max(start, len(content) - _TAIL_BYTES)
    following = _END.search(content, tail)
    end = 1 + content.rfind(b"]", tail, following.end() if following else len(content))
    before, after = content[:start], content[end:]
    if end <= start or MARK in before or MARK in after:
        return None
    return b"".join((before, MARK, after)), memoryview(content)[start:end]


def read_list(
    path: Path,
    key: str,
    values: memoryview | list[Any] | None,
    kind: type[Any],
    strict: Callable[[bytes], T | None],
    lenient: Callable[[list[Any]], T],
) -> Iterator[T]:
    """Read the records of a list, piece by piece.

    Args:
        path: Path of the file, for messages.
        key: Key of the list, for messages.
        values: The list, as bytes of the file or already decoded.
        kind: The lenient record type.
        strict: Reads a piece, or returns None if a record is not valid.
        lenient: Reads records of `kind`, or raises an error that says what is wrong with one.
    """
    decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]

    def read(piece: bytes) -> T:
        part = strict(piece)
        return lenient(_decode(piece, decoder, kind)) if part is None else part

    count = 0
    try:
        if not isinstance(values, memoryview):
            yield lenient(msgspec.convert(values or [], type=list[kind]))  # type: ignore[valid-type]
            return
        for part in _read_pieces(values, read):
            yield part
            count += len(part)
    except msgspec.ValidationError as error:
        number = _RECORD_NUMBER.search(str(error))
        record = f" record {count + int(number[1])}" if number else ""
        problem = str(error).partition(" - at ")[0]
        raise UserError(f'{path}: not a COCO file: "{key}"{record}: {problem}') from None
    except UnicodeEncodeError:  # msgspec cannot print a string with half of a surrogate pair
        raise UserError(
            f'{path}: not a COCO file: "{key}": a record is a string instead of an object'
        ) from None


def _decode(piece: bytes, decoder: msgspec.json.Decoder[list[Any]], kind: type[Any]) -> list[Any]:
    """Decode a piece to records of a kind; a number too large for a float becomes infinite."""
    try:
        return decoder.decode(piece)
    except msgspec.ValidationError as error:
        if "out of range" not in str(error):
            raise
    try:
        values = json.loads(piece)
    except ValueError as error:  # the piece ends in the wrong place
        raise msgspec.DecodeError(str(error)) from None
    return msgspec.convert(values, type=list[kind])  # type: ignore[valid-type]


def _read_pieces(values: memoryview, read: Callable[[bytes], T]) -> Iterator[T]:
    """Cut a JSON list between its records and read each piece, itself a list."""
    start, end = 1, len(values) - 1
    search_from = start + PIECE
    while start < end:
        boundary = _BOUNDARY.search(values, search_from, end) if search_from < end else None
        stop = boundary.start() + 1 if boundary else end
        try:
            yield read(b"".join((b"[", values[start:stop], b"]")))
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # A piece that ends inside a string or a nested list is not valid JSON: try the next
            # boundary. A valid piece ends between two records, because its brackets match.
            if boundary is None:
                raise
            search_from = stop + PIECE // 8
            continue
        start = boundary.end() - 1 if boundary else end
        search_from = start + PIECE
