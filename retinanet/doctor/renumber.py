"""Corrects numbers in a whole file: numbers written as text, and category ids off by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from retinanet.data.coco.records import is_id, meant_number
from retinanet.doctor.bad_records import Values

CLASS_NAMES = "class names in place of category ids"
NUMBERS = "numbers written as text or fractions"
"""Key under which `replace_by_numbers` is counted."""
_IDS = {
    "images": ("id",),
    "annotations": ("id", "image_id", "category_id", "iscrowd"),
    "categories": ("id",),
}
_SIZES = {"images": ("width", "height"), "annotations": ("area",), "categories": ()}


def replace_by_numbers(values: Values) -> int:
    """Replace numbers written as text and ids written as fractions; return the count.

    All three lists change alike, so that references to records stay valid.
    """
    count = 0
    for key in _IDS:
        for record in values[key]:
            if not isinstance(record, dict):
                continue
            for name in (*_IDS[key], *_SIZES[key]):
                count += _replace_by_number(record, name, whole=name in _IDS[key])
            box = record.get("bbox")
            if key == "annotations" and isinstance(box, str) and (meant := _list_in_text(box)):
                box = record["bbox"] = meant
                count += 1
            if key == "annotations" and isinstance(box, list):
                count += sum([_replace_by_number(box, i, whole=False) for i in range(len(box))])
    return count


def _list_in_text(text: str) -> list[float | int] | None:
    """Return the four numbers of a box written as text: "[1, 2, 3, 4]" or "1, 2, 3, 4"."""
    words = [word.strip() for word in text.strip().removeprefix("[").removesuffix("]").split(",")]
    numbers = [number for word in words if (number := meant_number(word)) is not None]
    return numbers if len(words) == len(numbers) == 4 else None


def replace_class_names(values: Values) -> int:
    """Replace class names used as category ids; return the count."""
    names: dict[str, list[Any]] = {}
    for record in values["categories"]:
        if isinstance(record, dict) and isinstance(record.get("name"), str):
            names.setdefault(record["name"], []).append(record.get("id"))
    ids = {record.get("id") for record in values["categories"] if _has_text_id(record)}
    count = 0
    for annotation in values["annotations"]:
        name = annotation.get("category_id") if isinstance(annotation, dict) else None
        if isinstance(name, str) and name not in ids and len(names.get(name, ())) == 1:
            annotation["category_id"] = names[name][0]
            count += 1
    return count


def _has_text_id(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("id"), str)


def _replace_by_number(holder: Any, key: str | int, *, whole: bool) -> bool:
    """Replace a value by the number that it means; return whether it changed."""
    value = holder.get(key) if isinstance(holder, dict) else holder[key]
    if not isinstance(value, str) and not (whole and isinstance(value, float)):
        return False
    meant = meant_number(value)
    if meant is None or (whole and not is_id(meant)):
        return False
    holder[key] = meant
    return True


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Category ids of the annotations that are off by one."""

    step: int
    """Number to add to the ids in the annotations: 1 or -1."""
    text: str
    sure: bool
    """Whether this is the only explanation: categories 1..K, and 0..K-1 in all annotations."""


def find_shift(values: Values) -> Shift | None:
    """Return the shift of the annotations' category ids, if some are unknown and a shift fits."""
    known = _meant_ids(values["categories"], "id")
    used = _meant_ids(values["annotations"], "category_id")
    if not known or not used or used <= known:
        return None
    for step, based in ((1, "0-based"), (-1, "1-based")):
        if {number + step for number in used} <= known:
            text = (
                f"annotations have category ids {min(used)}..{max(used)}, categories "
                f"{min(known)}..{max(known)}: the annotations look {based}"
            )
            sure = step == 1 and min(used) == 0 and known == set(range(1, len(known) + 1))
            for key, name in (("annotations", "category_id"), ("categories", "id")):
                objects = [record for record in values[key] if isinstance(record, dict)]
                sure = sure and all(is_id(record.get(name)) for record in objects)
            return Shift(step=step, text=text, sure=sure)
    return None


def shift_categories(values: Values, step: int) -> int:
    """Add `step` to the category ids of all annotations; return their number."""
    records = [record for record in values["annotations"] if isinstance(record, dict)]
    for record in records:
        record["category_id"] += step
    return len(records)


def _meant_ids(records: list[Any], key: str) -> set[int]:
    """Return ids, including those written as text or fractions, which `--fix` replaces first."""
    meant = [meant_number(record.get(key)) for record in records if isinstance(record, dict)]
    return {number for number in meant if isinstance(number, int) and is_id(number)}


def renumber(values: Values) -> Counter[str]:
    """Give images and categories with a bad id a new one, and update the references to them.

    Bad ids are texts, numbers that some JSON readers round, and negative image ids. Nothing changes
    if annotations refer to a missing record, which may be one of these under another id. Duplicate
    bad ids are kept.
    """
    changes: Counter[str] = Counter()
    for key, reference in (("images", "image_id"), ("categories", "category_id")):
        records = [record for record in values[key] if isinstance(record, dict)]
        ids = Counter(_id_key(record.get("id")) for record in records)
        wanted = {
            _id_key(annotation.get(reference))
            for annotation in values["annotations"]
            if isinstance(annotation, dict)
        }
        if not wanted <= ids.keys():
            continue
        top = max([0, *(record["id"] for record in records if is_id(record.get("id")))])
        new: dict[tuple[str, Any], int] = {}
        for record in records:
            name = _id_key(record.get("id"))
            if name is None or ids[name] > 1 or _is_usable(record["id"], key):
                continue
            top += 1
            new[name] = record["id"] = top
        for annotation in values["annotations"] if new else []:
            name = _id_key(annotation.get(reference)) if isinstance(annotation, dict) else None
            if name in new:
                annotation[reference] = new[name]
        changes["bad-id"] += len(new)
    return +changes


def _is_usable(value: Any, key: str) -> bool:
    return is_id(value) and (key != "images" or value >= 0)


def _id_key(value: Any) -> tuple[str, Any] | None:
    """Return a key that distinguishes ids, if the id is a text or a number."""
    return (type(value).__name__, value) if type(value) in (str, int, float) else None
