"""The doctor's findings. Texts are made only when printed: there may be millions of findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One finding; record and value together form a sentence."""

    record: str
    """`annotation 812 (image 37)`."""
    value: str
    """`has bbox [3, 4, 0, 9]`."""
    id: int | None = None
    """Id of the record, if it has one."""

    def __str__(self) -> str:
        return f"{self.record} {self.value}".strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The findings of one kind in one file."""

    kind: str
    file: Path
    count: int
    finding: Callable[[int], Finding]
    """Returns finding number i."""

    def __iter__(self) -> Iterator[Finding]:
        return (self.finding(i) for i in range(self.count))


def findings_of(kind: str, file: Path, found: Sequence[Finding]) -> list[Findings]:
    """Return the findings of one kind in one file, or an empty list if there are none."""
    if not found:
        return []
    return [Findings(kind=kind, file=file, count=len(found), finding=found.__getitem__)]


@dataclass(frozen=True, kw_only=True)
class ReportSection:
    """A part of the report about the data as a whole."""

    title: str
    lines: list[str]
    """Text for the terminal, where it is indented and wrapped."""
    paste: list[str] = field(default_factory=list)
    """Lines printed after them as they are, for example YAML to paste."""
    values: dict[str, Any] = field(default_factory=dict)
    """Content for the JSON file."""
