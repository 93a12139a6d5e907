"""Suggest a `--columns` for a table whose columns are not clear."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from retinanet.convert.box_forms import CENTRE, CORNERS, PAIRS, TOP_LEFT, WHOLE, Y_FIRST, Form
from retinanet.convert.readers.csv.columns import meaning_of
from retinanet.convert.readers.csv.values import split_numbers
from retinanet.convert.tables import is_number, read_number
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import some_of

_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing", "unassigned")
_NO_BOX = ("label", "image", "image_width", "image_height", "score", "angle", "ignore")
_MANY = 10
"""Rows."""


def suggest_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return options that read a table, for the user to choose from: `--columns "image,..."`.

    There are several if names and values do not show what the numbers of a box are. There are none
    if no column can be the image, or too few have numbers.

    Args:
        names: Column names of the header row; empty if there is no such row.
        rows: Values of the first rows of boxes.
    """
    row = rows[0] if rows else []
    count = max(len(names), len(row))
    whats = [meaning_of(name).what.partition(":")[0] for name in names] + [""] * count
    values = [*row, *[""] * count][:count]
    words = [
        place
        for place, value in enumerate(values)
        if value and not is_number(value) and value.lower() not in _SPLITS and not _is_box(value)
    ]
    unnamed = [place for place in words if not whats[place]]
    files = [place for place in words if values[place].lower().endswith(SUFFIXES)]
    images = [*files, *_named(whats[:count], "image"), *unnamed]
    if not images:
        return ""
    labels = _named(whats[:count], "label") or unnamed
    labels = sorted((p for p in labels if p != images[0]), key=lambda p: _is_constant(rows, p))
    taken = {images[0], *labels[:1]}
    options = []
    for form, places in _boxes(whats[:count], values, rows, taken):
        label = (labels or _class_numbers(whats[:count], rows, {*taken, *places}))[:1]
        chosen = ["_"] * count
        for place, part in zip(places, form, strict=True):
            chosen[place] = part
        chosen[images[0]] = "image"
        for place in label:
            chosen[place] = "label"
        told = f'--columns "{",".join(chosen)}"' + ("" if label else " --label NAME")
        options.append((told, ",".join(form)))
    if len(options) < 2:
        text = "".join(told for told, _ in options)
    else:
        text = ", or ".join(f"{told} if a box is {form}" for told, form in options)
    if options and len(labels) > 1:
        others = some_of([repr(names[p]) if names else f"column {p + 1}" for p in labels[1:]])
        text += f"; move label if the class is in {others}"
    return text


def _is_constant(rows: Sequence[Sequence[str]], place: int) -> bool:
    return len({row[place] for row in rows if len(row) > place}) < 2


def _class_numbers(
    whats: Sequence[str], rows: Sequence[Sequence[str]], taken: set[int]
) -> list[int]:
    """Return the only other column of small repeated whole numbers, which may be classes."""
    found = []
    for place in range(len(whats)):
        texts = [row[place] for row in rows if len(row) > place]
        are_small = texts and all(re.fullmatch(r"\d{1,4}", text) for text in texts)
        if place not in taken and not whats[place] and are_small and len(set(texts)) < len(texts):
            found.append(place)
    return found if len(found) == 1 else []


def _named(whats: Sequence[str], what: str) -> list[int]:
    return [place for place, own in enumerate(whats) if own == what]


def _boxes(
    whats: Sequence[str], values: Sequence[str], rows: Sequence[Sequence[str]], taken: set[int]
) -> list[tuple[tuple[str, ...], list[int]]]:
    """Return the possible forms of a box, and the columns of its numbers."""
    for form in (CORNERS, TOP_LEFT, CENTRE, ("x1", "y1", "w", "h")):
        if all(part in whats for part in form):
            places = [_named(whats, part)[0] for part in form]
            return [(TOP_LEFT if form[0] == "x1" and form[2] == "w" else form, places)]
    whole = [place for place, value in enumerate(values) if _is_box(value)]
    if whole:
        texts = [split_numbers(row[whole[0]]) for row in rows if len(row) > whole[0]]
        forms = _possible_forms(texts)
        return [((name,), whole[:1]) for name, form in WHOLE.items() if form in forms]
    free = [p for p, value in enumerate(values) if is_number(value) and p not in taken]
    free = [p for p in free if whats[p] not in _NO_BOX]
    sides = [*_named(whats, "w"), *_named(whats, "h")]
    if len(sides) == 2 and len(free) >= 4:
        places = [*[p for p in free if p not in sides][:2], *sides]
        return [(form, places) for form in (TOP_LEFT, CENTRE)]
    runs = [free[i : i + 4] for i in range(len(free) - 3) if free[i + 3] - free[i] == 3]
    places = [*runs, free[:4]][0]
    if len(places) < 4:
        return []
    texts = [[row[place] for place in places] for row in rows if len(row) > max(places)]
    return [(form, places) for form in _possible_forms(texts)]


def _possible_forms(texts: Sequence[Sequence[str]]) -> list[Form]:
    """Return the forms that the numbers allow, the likeliest first."""
    boxes = [[number for text in row if (number := read_number(text)) is not None] for row in texts]
    boxes = [box for box in boxes if len(box) == 4]
    if not boxes:
        return [CORNERS, TOP_LEFT, CENTRE]
    if all(a < c and b < d for a, b, c, d in boxes):
        corners = [CORNERS, Y_FIRST]  # sizes do not exceed the positions of so many boxes
        return corners if len(boxes) >= _MANY else [*corners, TOP_LEFT, CENTRE]
    pairs = [PAIRS] if all(a < b and c < d for a, b, c, d in boxes) else []
    return [*pairs, TOP_LEFT, CENTRE]


def _is_box(text: str) -> bool:
    words = split_numbers(text)
    return len(words) == 4 and all(map(is_number, words))


def describe_values(path: Path, names: Sequence[str], row: Sequence[str]) -> str | None:
    """Return why no `--columns` can read a table, if its first row shows it."""
    several = []
    for name, value in zip(names, row, strict=False):
        words = split_numbers(value)
        if value.startswith(("{", "[{")):
            return (
                f"has JSON or Python dictionaries in the column {name!r:.60}, which is not "
                "supported; give each number of a box its own column (x, y, width, height), or "
                "export COCO JSON, Pascal VOC or YOLO from the tool that wrote it"
            )
        if len(words) > 4 and len(words) % 4 == 0 and all(map(is_number, words)):
            return (
                f"has {len(words) // 4} boxes in the column {name!r:.60} of one row; write one row "
                "for each box, with its class"
            )
        if len(words) == 2 and all(map(is_number, words)):
            several.append(name)
    if len(several) != 2:
        return None
    old, new = (shlex.quote(str(p)) for p in (path, path.with_stem(f"{path.stem}-numbers")))
    return (
        f"has two numbers in each of the columns {' and '.join(map(repr, several))}; to give each "
        f"number its own column, without a header row: sed 1d {old} | tr -d '\"()[]' > {new}"
    )


def one_box_a_row(path: Path, values: Sequence[str]) -> str | None:
    """Return the command that gives each box its own row, if a row without header has several.

    Such rows are `path,x1,y1,x2,y2,class,x1,...`, or `path x1,y1,x2,y2,class x1,...` (keras-yolo).
    """
    is_spaced = re.search(r"\S\s+-?\d+(\.\d+)?$", values[0]) and len(values) % 4 == 1
    if not is_spaced and (
        len(values) < 11 or len(values) % 5 != 1 or not all(map(is_number, values[6:10]))
    ):
        return None
    old, new = (shlex.quote(str(p)) for p in (path, path.with_stem(f"{path.stem}-rows")))
    if is_spaced:
        program = '{for(i=2;i<=NF;i++) print $1","$i}'
        return f"awk '{program}' {old} > {new}"
    program = "{for(i=2;i<NF;i+=5) print $1,$i,$(i+1),$(i+2),$(i+3),$(i+4)}"
    return f"awk -F, -v OFS=, '{program}' {old} > {new}"
