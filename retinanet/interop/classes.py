"""Classes of a foreign detector: which row of its logits belongs to which category."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from retinanet.categories import Categories
from retinanet.data.coco.records import is_name, meant_name
from retinanet.errors import UserError, plural, some_of
from retinanet.files import check_regular
from retinanet.interop.coco_names import COCO

_REMEDY = (
    "give its classes: retinanet convert checkpoint FILE OUT.pt --categories JSON (a COCO file, "
    "or a list of names)"
)


class _CocoFile(msgspec.Struct):
    """The part of a COCO file that is read: its annotations would be gigabytes of objects."""

    categories: list[Any]


def _decode_json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content, type=_CocoFile | list[Any])
    except msgspec.MsgspecError:  # perhaps because of a NaN in its annotations
        return json.loads(content)


def read_categories(path: Path) -> Categories:
    """Read classes from a COCO file, or from a list of names (their ids are then 1, 2, ...).

    Raises:
        UserError: The file is neither, or has a duplicate name or id.
    """
    try:
        content = _decode_json(check_regular(path).read_bytes())
        records = content.categories if isinstance(content, _CocoFile) else content
        records = records["categories"] if isinstance(records, dict) else records
        if not isinstance(records, list):
            raise TypeError
        names = [meant_name(record) for record in records]
        # A list of only numbers may be ids.
        if all(isinstance(n, str) for n in names) and any(isinstance(r, str) for r in records):
            pairs = list(enumerate(names, start=1))
        else:
            pairs = sorted((record["id"], meant_name(record["name"])) for record in records)
        if not all(type(i) is int and is_name(n) for i, n in pairs):
            raise TypeError
    except OSError as error:
        raise UserError(f"--categories {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"--categories {path}: is neither a COCO file with categories nor a list of names"
        ) from None
    return _unique_categories(pairs, f"--categories {path}")


def _unique_categories(pairs: list[tuple[int, str]], where: str) -> Categories:
    ids, names = zip(*pairs, strict=True) if pairs else ((), ())
    for what, values in (("id", ids), ("name", names)):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise UserError(f"{where}: duplicate {what} {twice!r}")
    if not pairs:
        raise UserError(f"{where}: contains no class")
    return Categories(ids=ids, names=names)


def classes_by_id(rows: int, given: Categories | None, path: Path) -> tuple[Categories, list[int]]:
    """Return the classes of logits whose row is the category id (torchvision), and their rows.

    Args:
        rows: Logits of an anchor, including background. As many names as logits: there is no
            background, and the names are in the order of the labels.
        given: Classes that the user gave.
        path: Path of the checkpoint, for messages.

    Raises:
        UserError: The classes are not known, or do not match the logits.
    """
    if given is None and rows != 91:
        raise UserError(f"{path}: has {rows} logits per anchor and no class names; {_REMEDY}")
    categories = given or COCO
    if categories.ids == tuple(range(1, rows + 1)):
        return categories, list(range(rows))  # trained with labels from 0, without background
    beyond = [number for number in categories.ids if not 0 <= number < rows]
    if beyond:
        raise UserError(
            f"{path}: has logits for the category ids 0 to {rows - 1}, but a category has the id "
            f"{beyond[0]}; {_REMEDY}"
        )
    return categories, list(categories.ids)


def classes_in_order(
    rows: int, given: Categories | None, named: list[str] | None, path: Path
) -> tuple[Categories, list[int]]:
    """Return the classes of logits that are in the order of names or ids, and their rows.

    Args:
        rows: Logits of an anchor.
        given: Classes that the user gave.
        named: Names of the rows in the checkpoint itself (mmdetection); without them the rows are
            in the order of the ids.
        path: Path of the checkpoint, for messages.

    Raises:
        UserError: The classes are not known, or do not match the logits.
    """
    there = f"{path}: has logits for {plural(rows, 'class')}"
    if named is not None and len(named) != rows:
        raise UserError(f"{there}, but {plural(len(named), 'class name')}; {_REMEDY}")
    if named is not None and given is not None:
        named, spelt = _coco_spelling(named), _coco_spelling(given.names)
        if sorted(named) != sorted(spelt):
            raise UserError(f"--categories: {path} itself has other class names: {some_of(named)}")
        return given, [named.index(name) for name in spelt]
    if named is not None:
        own = _unique_categories(list(enumerate(named, start=1)), str(path))
        return (COCO if _coco_spelling(named) == list(COCO.names) else own), list(range(rows))
    if given is None and rows != len(COCO):
        raise UserError(f"{there} and no class names; {_REMEDY}")
    categories = given or COCO
    if len(categories) != rows:
        raise UserError(f"{there}, but {len(categories)} are given; {_REMEDY}")
    return categories, list(range(rows))


def _coco_spelling(names: Sequence[str]) -> list[str]:
    """Return names as COCO spells them: older mmdetection writes traffic_light."""
    return [name.replace("_", " ") for name in names]


def names_in(content: Any) -> list[str] | None:
    """Return the class names in a checkpoint from mmdetection; None if it has none."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    of_data = meta.get("dataset_meta")
    for place in (meta, of_data if isinstance(of_data, Mapping) else {}):
        for key in ("CLASSES", "classes"):
            names = place.get(key)
            if isinstance(names, list | tuple) and names:
                return [str(name) for name in names]
    return None
