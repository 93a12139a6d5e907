"""What a conversion meets: problems, which stop it, and notes, which its summary counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from retinanet.errors import UserError

_SHOWN = 10


class Findings:
    """Collects every bad line before any of them stops the conversion."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        """How often something was skipped, taken otherwise, or is odd."""
        self._problems: list[str] = []
        self._count = 0

    def problem(self, path: Path, line: int | None, message: str) -> None:
        """Keep what is wrong with a file, or with a line of it (from 1)."""
        self._count += 1
        if len(self._problems) < _SHOWN:
            place = f"{path}:{line}" if line else str(path)
            self._problems.append(f"{place}: {message}")

    def note(self, meaning: str, count: int = 1) -> None:
        """Count something that the summary should say."""
        self.notes[meaning] += count

    def stop_on_problems(self, source: Path) -> None:
        """Refuse a source with problems.

        Raises:
            UserError: the first ten, and how many more there are.
        """
        if not self._count:
            return
        plural = "s" * (self._count > 1)
        lines = [f"{source}: {self._count:,} problem{plural}; nothing was written"]
        lines += [f"  {problem}" for problem in self._problems]
        if self._count > _SHOWN:
            lines.append(f"  ... and {self._count - _SHOWN:,} more")
        raise UserError("\n".join(lines))
