"""The data in numbers: classes, sizes of images and boxes. K classes, N images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.categories import columns_of, pad, shown_names
from retinanet.data.coco.annotations import Annotations
from retinanet.doctor.findings import ReportSection
from retinanet.errors import plural

_ROWS = 30
"""Maximum number of classes to show. With more, only the most frequent and the rarest are shown."""
_RAREST = 5
_COCO_AREAS = (32**2, 96**2)
"""Areas (px²) at which small ends and large begins."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedSplit:
    """Index of a split, with its name in the report."""

    name: str
    annotations: Annotations


def describe_data(splits: list[NamedSplit]) -> list[ReportSection]:
    """Return the sections on classes, images and boxes."""
    filled = [split for split in splits if len(split.annotations)]
    if not filled:
        return []
    return [_describe_classes(filled), _describe_images(filled), _describe_boxes(filled)]


def _describe_classes(splits: list[NamedSplit]) -> ReportSection:
    """Return the table of category id, label, name and boxes; labels follow the sorted ids."""
    counts = {split.name: _count_by_category(split.annotations) for split in splits}
    names: dict[int, list[str]] = {}  # in the splits' order
    for by_id in counts.values():
        for category, (name, _) in by_id.items():
            if name not in names.setdefault(category, []):
                names[category].append(name)
    table: list[dict[str, Any]] = [
        {"id": category, "label": label, "name": " | ".join(names[category])}
        | {
            f"boxes {split}".strip(): by_id.get(category, ("", 0))[1]
            for split, by_id in counts.items()
        }
        for label, category in enumerate(sorted(names))
    ]
    shown = table if len(table) <= _ROWS else _most_frequent_and_rarest(table)
    texts = shown_names([row["name"] for row in shown])
    cells = [
        [f"{value:,}" if isinstance(value, int) else text for value in row.values()]
        for row, text in zip(shown, texts, strict=True)
    ]
    lines = _align_table([list(table[0]), *cells])
    if len(shown) < len(table):
        lines.append(
            f"... {len(table):,} classes; the table shows the {_ROWS - _RAREST} most frequent and "
            f"the {_RAREST} rarest that have boxes"
        )
    lines += [
        _describe_balance(split) for split in splits if split.annotations.class_counts().any()
    ]
    return ReportSection(title="classes", lines=lines, values={"classes": table})


def _most_frequent_and_rarest(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the classes with the most boxes in the first split, and those with the fewest."""
    counted = next(key for key in table[0] if key.startswith("boxes"))
    order = sorted((row for row in table if row[counted]), key=lambda row: -row[counted])
    shown = order[: _ROWS - _RAREST] + order[_ROWS - _RAREST :][-_RAREST:]
    return sorted(shown, key=lambda row: row["label"])


def _count_by_category(annotations: Annotations) -> dict[int, tuple[str, int]]:
    """Return name and number of boxes by category id."""
    counts, known = annotations.class_counts().tolist(), annotations.categories
    return {n: (name, c) for n, name, c in zip(known.ids, known.names, counts, strict=True)}


def _describe_balance(split: NamedSplit) -> str:
    counts, names = (
        split.annotations.class_counts(),
        shown_names(split.annotations.categories.names),
    )
    low, high = int(np.where(counts > 0, counts, counts.max() + 1).argmin()), int(counts.argmax())
    ratio = counts[high] / counts[low]
    if (counts > 0).sum() == 1:
        return f"{_prefix(split)}only {names[high]!r} has boxes"
    if counts[low] == counts[high]:
        which = "all classes" if counts.all() else "all classes with boxes"
        return f"{_prefix(split)}{which} have the same number of boxes"
    return f"{_prefix(split)}{names[high]!r} has {ratio:.3g} times as many boxes as {names[low]!r}"


def _align_table(rows: list[list[str]]) -> list[str]:
    """Lay out a table: numbers aligned right, the name (third column) left."""
    widths = [max(columns_of(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            pad(cell, width) if i == 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _describe_images(splits: list[NamedSplit]) -> ReportSection:
    lines, values = [], {}
    for split in splits:
        sizes = split.annotations.sizes
        sides = sizes.min(axis=1), sizes.max(axis=1)
        aspect = sides[1] / sides[0]
        short, long = (_spread(side) for side in sides)
        counts = np.diff(split.annotations.offsets)
        empty = int((counts == 0).sum())
        values[split.name or "file"] = {
            "count": len(sizes),
            "without boxes": empty,
            "short side": short,
            "long side": long,
            "aspect ratio": _spread(aspect),
        }
        share = f", {empty:,} ({100 * empty / len(sizes):.3g} %) without boxes" if empty else ""
        lines.append(
            f"{_prefix(split)}{len(sizes):,}{share}; short side {_format_spread(short)} px, long "
            f"side {_format_spread(long)} px, aspect ratio {_format_spread(_spread(aspect))}"
        )
    return ReportSection(title="images", lines=lines, values=values)


def _describe_boxes(splits: list[NamedSplit]) -> ReportSection:
    lines, values = [], {}
    for split in splits:
        annotations = split.annotations
        objects = annotations.areas[~annotations.crowd]
        if not len(objects):
            continue
        owners = annotations.image_of_box()[~annotations.crowd]
        counts = np.bincount(owners, minlength=len(annotations))
        small = int((objects < _COCO_AREAS[0]).sum())
        large = int((objects > _COCO_AREAS[1]).sum())
        medium = len(objects) - small - large
        side = _spread(np.sqrt(objects))
        crowds = int(annotations.crowd.sum())
        values[split.name or "file"] = {
            "count": len(objects),
            "crowds": crowds,
            "of an image": _spread(counts),
            "square root of area": side,
            "small": small,
            "medium": medium,
            "large": large,
        }
        shares = (100 * count / len(objects) for count in (small, medium, large))
        low, middle, high = (f"{share:.3g} %" for share in shares)
        regions = f" and {plural(crowds, 'crowd region')}" if crowds else ""
        lines += [
            f"{_prefix(split)}{len(objects):,}{regions}; {_format_spread(_spread(counts))} per "
            f"image; square root of the area {_format_spread(side)} px",
            f"  {low} small (under 32² px), {middle} medium, {high} large (over 96² px)",
        ]
    return ReportSection(title="boxes", lines=lines, values=values)


def _prefix(split: NamedSplit) -> str:
    return f"{split.name}: " if split.name else ""


def _spread(values: NDArray[Any]) -> dict[str, float]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _format_spread(spread: dict[str, float]) -> str:
    """Return `1 to 9 (median 4)`, or the value if there is only one."""
    if spread["min"] == spread["max"]:
        return f"{spread['min']:.4g}"
    return f"{spread['min']:.4g} to {spread['max']:.4g} (median {spread['median']:.4g})"
