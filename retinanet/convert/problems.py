"""What a conversion meets: problems, which stop it, and notes, which its summary lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from retinanet.errors import UserError

_SHOWN = 10
"""Problems whose text is kept; the others are only counted."""


class Problems:
    """Collects all problems before any of them stops the conversion, and counts notes."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        """How often something was skipped, read differently, or is odd."""
        self._problems: list[str] = []
        self._seen: set[str] = set()

    def add(self, path: Path, line: int | None, message: str) -> None:
        """Keep what is wrong with a file, or with a line of it (from 1).

        Two splits may hold the same file: a problem is kept once.
        """
        place = f"{path}:{line}" if line else str(path)
        problem = f"{place}: {message}"
        if problem not in self._seen and len(self._problems) < _SHOWN:
            self._problems.append(problem)
        self._seen.add(problem)

    def note(self, text: str, count: int = 1) -> None:
        """Count something that the summary should say."""
        self.notes[text] += count

    def stop_on_problems(self, source: Path) -> None:
        """Refuse a source with problems.

        Raises:
            UserError: the first ten, and how many more there are.
        """
        count = len(self._seen)
        if not count:
            return
        plural = "s" * (count > 1)
        lines = [f"{source}: {count:,} problem{plural}; nothing was written"]
        lines += [f"  {problem}" for problem in self._problems]
        if count > _SHOWN:
            lines.append(f"  ... and {count - _SHOWN:,} more")
        raise UserError("\n".join(lines))
