"""The classes of a data set, and how their names are printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_WIDEST = 40
"""Width of a name in a table, in columns."""
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, kw_only=True)
class Categories:
    """Ids and names of the classes; label k belongs to the k-th id, in ascending order."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def shown_names(names: Sequence[str], widest: int = _WIDEST) -> list[str]:
    r"""Return names as they can be printed on one line; different names stay different.

    Control characters and those that change the writing direction are escaped (`\n`, `\u202e`). A
    name with spaces at its ends is quoted. A long one is cut to `widest` columns and ends with
    `...`.
    """
    clean = [_readable(name) for name in names]
    shown = [_shorten(text, widest) for text in clean]
    owners: dict[str, set[str]] = {}
    for name, text in zip(names, shown, strict=True):
        owners.setdefault(text, set()).add(name)
    return [
        text if len(owners[text]) == 1 else _numbered(whole, widest, number)
        for number, (whole, text) in enumerate(zip(clean, shown, strict=True), 1)
    ]


def shown_name(name: str, widest: int = _WIDEST) -> str:
    """Return a name as it can be printed on one line; see `shown_names`."""
    return _shorten(_readable(name), widest)


def columns_of(text: str) -> int:
    """Return the width of a text in a terminal, in columns: Chinese characters take two."""
    return sum(_character_columns(character) for character in text)


def pad(text: str, width: int) -> str:
    """Return a text padded with spaces to `width` columns."""
    return text + " " * (width - columns_of(text))


def _character_columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _readable(name: str) -> str:
    """Return a name without characters that move the cursor or change the writing direction."""
    text = unicodedata.normalize("NFC", name)
    text = "".join(c.encode("unicode_escape").decode() if _is_control(c) else c for c in text)
    return f"'{text}'" if text != text.strip() else text


def _is_control(character: str) -> bool:
    kind = unicodedata.category(character)  # two joiners hold letters of some scripts together
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character not in _JOINERS)


def _shorten(text: str, widest: int) -> str:
    """Return a text of at most `widest` columns; a cut one ends with `...`."""
    return text if columns_of(text) <= widest else _head(text, widest - 3) + "..."


def _numbered(text: str, widest: int, number: int) -> str:
    """Return the beginning of a text, followed by a unique number."""
    end = f"...({number})"
    return _head(text, widest - len(end)) + end


def _head(text: str, width: int) -> str:
    """Return as much of the beginning of a text as fits into `width` columns."""
    taken = 0
    for place, character in enumerate(text):
        taken += _character_columns(character)
        if taken > width:
            return text[:place]
    return text
