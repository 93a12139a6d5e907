"""Recognize rows of other formats in label files, and give a command that converts them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from retinanet.convert.tables import read_number


def other_format(words: Sequence[str], folder: Path) -> str | None:
    """Return the other format of a row and a command that converts it; None if there is none.

    Args:
        words: Columns of the row.
        folder: Folder of the label file.
    """
    numbers = [read_number(word) for word in words]
    count, unnamed = len(words), numbers.count(None)
    if count in (15, 16) and unnamed == 1 and numbers[0] is None:
        cut, hidden, corners = numbers[1], numbers[2], [n for n in numbers[4:8] if n is not None]
        # An outline with 7 points has shares in these columns.
        if cut is not None and -1 <= cut <= 1 and hidden in (-1, 0, 1, 2, 3) and max(corners) > 2:
            what, order, then = "KITTI's", "$1, $5, $6, $7, $8", "--units px --box-form xyxy"
            return _remedy(f"looks like {what}", count, f"print {order}", then, folder)
    if count in (9, 10) and None not in numbers[:8] and numbers[8] is None:
        what, order = (
            "DOTA's (four corners, class, difficulty)",
            "$9, $1, $2, $3, $4, $5, $6, $7, $8",
        )
        return _remedy(f"looks like {what}", count, f"print {order}", "--units px", folder)
    if count == 8 and all(word.lstrip("-").isdecimal() for word in words):
        order = "if ($6 > 0) print $6, $1, $2, $3, $4"  # class 0 is for regions to ignore
        what = "looks like VisDrone's (its regions to ignore are left out)"
        return _remedy(what, count, order, "--units px --box-form xywh", folder, "-F, ")
    if count == 5 and None not in numbers[:4]:
        first, largest = numbers[0] or 0, max(number or 0 for number in numbers[:4])
        if numbers[4] is None or (first % 1 and words[4].isdecimal()):
            then = "--units px, and --box-form xyxy if it has corners" if largest > 2 else ""
            return _remedy("has the class last", count, "print $5, $1, $2, $3, $4", then, folder)
    return None


def _remedy(what: str, count: int, order: str, options: str, folder: Path, mark: str = "") -> str:
    """Return a command that rewrites such rows in a folder, and does not change others."""
    then = f"; then use {options}" if options else ""
    awk = f"awk {mark}'NF >= {count} {{{order}; next}} 1'"
    return (
        f"the row {what}; to rewrite all files, type: (cd {shlex.quote(str(folder))} && for f in "
        f'*.txt; do {awk} "$f" > "$f.new" && mv "$f.new" "$f"; done){then}'
    )
