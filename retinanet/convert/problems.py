"""Problems, which stop a conversion, and notes, which its summary lists."""

from __future__ import annotations

import re
from pathlib import Path

from retinanet.errors import UserError, plural

_SHOWN = 10
"""Problems whose text is kept; the others are only counted."""

_NOUNS = {
    **{"images": "image", "boxes": "box", "annotations": "annotation", "objects": "object"},
    **{"outlines": "outline", "regions": "region", "classes": "class", "names": "name"},
    **{"files": "file", "paths": "path", "rows": "row", "lines": "line", "columns": "column"},
}
_PLURALS = re.compile(rf"\b({'|'.join(_NOUNS)})\b")
_SINGULARS = {singular: plural_form for plural_form, singular in _NOUNS.items()}
_SINGULAR = re.compile(rf"\b({'|'.join(_SINGULARS)})\b(?! files?\b)")


def counted(count: int, text: str) -> str:
    """Return a count with a text whose first noun is plural: `1 box ...`, `2,000 boxes ...`."""
    if count == 1:
        text = _PLURALS.sub(lambda found: _NOUNS[found[0]], text, count=1)
    return f"{count:,} {text}"


def split_count(text: str) -> tuple[int, str]:
    """Return the number that begins a text, and the rest with its first noun in the plural."""
    number, _, rest = text.partition(" ")
    count = int(number.replace(",", ""))
    if count == 1:
        rest = _SINGULAR.sub(lambda found: _SINGULARS[found[0]], rest, count=1)
    return count, rest


class Problems:
    """Collects all problems before any of them stops the conversion, and counts notes."""

    def __init__(self) -> None:
        self.notes: dict[str, int | None] = {}
        """Notes and how often each occurred; None for a note without a number."""
        self._problems: list[str] = []
        self._seen: set[str] = set()

    def add(self, path: Path, line: int | None, message: str) -> None:
        """Add a problem with a file, or with one of its lines (from 1).

        A file that is in two splits is reported once.
        """
        place = f"{path}:{line}" if line else str(path)
        problem = f"{place}: {message}"
        if problem not in self._seen and len(self._problems) < _SHOWN:
            self._problems.append(problem)
        self._seen.add(problem)

    def note(self, text: str, count: int | None = 1) -> None:
        """Count something for the summary.

        Args:
            text: What is counted. Its first noun is plural, and no verb depends on the number.
            count: How many there are; None for a statement without a number.
        """
        self.notes[text] = None if count is None else (self.notes.get(text) or 0) + count

    def note_lines(self) -> list[str]:
        """Return the notes as lines for the summary."""
        return [
            f"  {text if count is None else counted(count, text)}"
            for text, count in self.notes.items()
            if count != 0
        ]

    def stop_on_problems(self, source: Path) -> None:
        """Stop if there are problems.

        Raises:
            UserError: Lists the first ten problems, and how many more there are.
        """
        count = len(self._seen)
        if not count:
            return
        lines = [f"{source}: {plural(count, 'problem')}; nothing was written"]
        lines += [f"  {problem}" for problem in self._problems]
        if count > _SHOWN:
            lines.append(f"  ... and {count - _SHOWN:,} more")
        raise UserError("\n".join(lines))
