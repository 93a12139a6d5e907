"""Turn the list of annotations in a COCO file into checked columns.

Each piece is first read strictly and fast: the decoder checks the types, arrays check the values.
If that fails, the piece is read again record by record, to report what is wrong or to accept what
is only unusual. M boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from retinanet.data.coco.columns import BoxColumns, GrowingBoxColumns, ImageColumns
from retinanet.data.coco.ids import Ids
from retinanet.data.coco.json_pieces import read_list
from retinanet.data.coco.records import (
    MAX_ID,
    Problem,
    check_ids,
    check_unique,
    hint_at_number,
    is_id,
    number_or_nan,
    raise_first,
)
from retinanet.data.coco.resolve import KEYS, Angles, Resolved, name_record, resolve

_Nothing: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=0)] | None
"""A field that must be 0 or null; any other value sends the piece to the careful reader."""


class _Plain(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A record with only the keys of COCO; its segmentation is skipped, not decoded."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | bool | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"")


_Special = msgspec.defstruct("_Special", [(key, _Nothing, None) for key in sorted(KEYS)], gc=False)
"""Keys that may change the meaning of an annotation, in the record or in one of `HOLDERS`."""


class _Annotation(_Special, kw_only=True, gc=False):  # type: ignore[misc, valid-type, call-arg]
    """A record with other keys that do not change its meaning."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | bool | None = None
    attributes: _Special | None = None  # type: ignore[valid-type]
    extra: _Special | None = None  # type: ignore[valid-type]


class _StrictDecoder:
    """Decodes pieces; a fifth slower after the first record with other keys."""

    def __init__(self) -> None:
        self._plain: msgspec.json.Decoder[list[_Plain]] | None = msgspec.json.Decoder(list[_Plain])
        self._any = msgspec.json.Decoder(list[_Annotation])

    def decode(self, piece: bytes) -> list[_Plain] | list[_Annotation] | None:
        """Return the records of a piece, or None if one of them is not valid."""
        if self._plain is not None:
            try:
                return self._plain.decode(piece)
            except msgspec.ValidationError:
                self._plain = None
        try:
            return self._any.decode(piece)
        except msgspec.ValidationError:
            return None


def read_boxes(
    path: Path,
    values: memoryview | list[Any] | None,
    images: ImageColumns,
    category_ids: NDArray[np.int64],
) -> BoxColumns:
    """Read and check the annotations of a COCO file.

    Args:
        path: Path of the file, for messages.
        values: List of annotations, as bytes or already decoded.
        images: Images of the file.
        category_ids: (K,) category ids of the labels 0..K-1.

    Raises:
        UserError: A record is wrong. The message gives record, value and remedy.
    """
    image_rows, label_rows = Ids(images.ids), Ids(category_ids)
    decoder = _StrictDecoder()
    found = GrowingBoxColumns()
    angles = Angles()

    def strict(piece: bytes) -> BoxColumns | None:
        records = decoder.decode(piece)
        return None if records is None else _strict_columns(records, image_rows, label_rows)

    def lenient(records: list[dict[str, Any]]) -> BoxColumns:
        check_ids(path, "annotation", [record.get("id") for record in records], len(found))
        for record in records:
            problems = reference_problems(record, images=image_rows, categories=label_rows)
            raise_first(path, problems)
        rows = image_rows(np.array([record["image_id"] for record in records], np.int64))
        resolved = []
        for record, (height, width) in zip(records, images.sizes[rows].tolist(), strict=True):
            one = resolve(record, (height, width))
            if isinstance(one, Problem):
                raise_first(path, iter([one]))
            else:
                angles.see(record, one)
                resolved.append(one)
        return _lenient_columns(records, resolved, rows, label_rows)

    for part in read_list(path, "annotations", values, dict[str, Any], strict, lenient):
        found.add(part)
    if (problem := angles.problem(len(found))) is not None:
        raise_first(path, iter([problem]))
    boxes = found.columns()
    check_unique(path, "annotation", boxes.ids)
    return boxes


def reference_problems(
    record: Mapping[str, Any], *, images: Container[int], categories: Container[int]
) -> Iterator[Problem]:
    """Yield a problem for each missing image or category that an annotation refers to.

    Args:
        record: The annotation; its id is a whole number.
        images: Ids of the images in the file.
        categories: Ids of the categories in the file.
    """
    for kind, key, known, place in (
        ("unknown-image", "image_id", images, '"images"'),
        ("unknown-category", "category_id", categories, '"categories"'),
    ):
        value = record.get(key)
        if not is_id(value) or value not in known:
            text = f"has {key} {value!r:.60}, which is not in {place} ({known})"
            hint = hint_at_number(value, whole=True)
            fix = "converts strings and decimals to whole numbers" if hint else ""
            where = name_record(record)
            yield Problem(kind=kind, record=where, value=text, hint=hint, fix=fix)


def _strict_columns(
    records: list[_Plain] | list[_Annotation], image_rows: Ids, label_rows: Ids
) -> BoxColumns | None:
    """Return the columns of records with valid types, or None if a value is not valid."""
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
        and (boxes[:, 2:] > 0).all()
        and ((crowd == 0) | (crowd == 1)).all()
    )
    if not fine:
        return None
    return BoxColumns.of(ids=ids, rows=rows, labels=labels, boxes=boxes, areas=areas, crowd=crowd)


def _lenient_columns(
    records: list[dict[str, Any]],
    resolved: list[Resolved],
    rows: NDArray[np.int32],
    label_rows: Ids,
) -> BoxColumns:
    """Return the columns of records that were checked one by one."""
    return BoxColumns.of(
        ids=np.array([record["id"] for record in records], np.int64),
        rows=rows,
        labels=label_rows(np.array([record["category_id"] for record in records], np.int64)),
        boxes=np.array([one.bbox for one in resolved], np.float64).reshape(-1, 4),
        areas=np.array([number_or_nan(record.get("area")) for record in records], np.float64),
        crowd=np.array([one.crowd for one in resolved], np.int64),
        kinds=Counter(chain.from_iterable(one.kinds for one in resolved)),
    )
