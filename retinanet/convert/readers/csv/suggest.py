"""What to type where the columns of a table cannot be told: a `--columns` made for that table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from retinanet.convert.box_forms import CENTRE, CORNERS, TOP_LEFT
from retinanet.convert.readers.csv.columns import NAMES, meaning_of
from retinanet.convert.readers.csv.values import split_numbers
from retinanet.convert.tables import is_number
from retinanet.data.images.reading import SUFFIXES

_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing", "unassigned")


def suggest_columns(names: Sequence[str], row: Sequence[str]) -> str:
    """Return options that read a table, for the user to correct: `--columns "image,.."`.

    Args:
        names: of the header row; none if there is no such row.
        row: the values of a row of boxes; none if there is no such row.
    """
    count = max(len(names), len(row))
    meanings = [meaning_of(name).what.partition(":")[0] for name in names] + [""] * count
    values = [*row, *[""] * count][:count]
    chosen = ["_"] * count

    def choose(name: str, *orders: list[int]) -> None:
        places = [place for order in orders for place in order if chosen[place] == "_"]
        if places:
            chosen[places[0]] = name

    def named(what: str) -> list[int]:
        return [place for place in range(count) if meanings[place] == what]

    words = [
        place
        for place, value in enumerate(values)
        if value and not is_number(value) and value.lower() not in _SPLITS
    ]
    numeric = [place for place in range(count) if is_number(values[place])]
    whole = [place for place in words if _is_box(values[place])]
    files = [place for place in words if values[place].lower().endswith(SUFFIXES)]
    words = [place for place in words if place not in whole]
    choose("image", files, named("image"), words)
    complete = (form for form in (CORNERS, TOP_LEFT, CENTRE) if all(map(named, form)))
    form = next(complete, None)
    if form is not None:
        for part in form:
            choose(part, named(part))
    elif named("whole box") or whole:
        choose("xywh", whole, named("whole box"))
    elif len(numeric) >= 4:
        free = [place for place in numeric if meanings[place] not in ("label", "image")]
        runs = [free[i : i + 4] for i in range(len(free) - 3) if free[i + 3] - free[i] == 3]
        sides = named("w") and named("h")
        for part in TOP_LEFT if sides else CORNERS:
            choose(part, named(part), *runs[:1], free)
    others = [place for place in words if meanings[place] not in NAMES]
    choose("label", named("label"), [] if any(meanings) else others)
    options = f'--columns "{",".join(chosen)}"'
    return options if "label" in chosen else f"{options} --label NAME"


def _is_box(text: str) -> bool:
    words = split_numbers(text)
    return len(words) == 4 and all(map(is_number, words))


def one_box_a_row(path: Path, values: Sequence[str]) -> str | None:
    """Return the command that gives each box a row, if a row without header has several.

    They are `path,x1,y1,x2,y2,class,x1,..`, or `path x1,y1,x2,y2,class x1,..` of YOLO in Keras.
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
