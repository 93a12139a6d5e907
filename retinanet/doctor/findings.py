"""What the doctor finds, kept as numbers until it is printed: there may be millions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.doctor.kinds import KINDS, SEVERITIES, Severity


class Entry(NamedTuple):
    """One finding; record and value read as a sentence."""

    record: str
    """`annotation 812 (image 37)`."""
    value: str
    """`has bbox [3, 4, 0, 9]`."""
    id: int | None = None
    """Of the record, if it has one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The findings of one kind in one file."""

    kind: str
    file: Path
    count: int
    entry: Callable[[int], Entry]
    """Writes down finding number i."""

    def __iter__(self) -> Iterator[Entry]:
        return (self.entry(i) for i in range(self.count))


def findings_of(kind: str, file: Path, entries: Sequence[Entry]) -> list[Findings]:
    """Return findings that are written down already: a list of one, or of none."""
    if not entries:
        return []
    return [Findings(kind=kind, file=file, count=len(entries), entry=entries.__getitem__)]


@dataclass(frozen=True, kw_only=True)
class ReportSection:
    """Something worth knowing about the data as a whole."""

    title: str
    lines: list[str]
    """For the terminal, which indents and wraps them."""
    paste: list[str] = field(default_factory=list)
    """Lines of YAML after them, as they stand."""
    values: dict[str, Any] = field(default_factory=dict)
    """For the JSON file."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the doctor says."""

    subject: str
    """What was looked at."""
    found: list[Findings]
    sections: list[ReportSection]

    def by_kind(self, severity: Severity) -> dict[str, list[Findings]]:
        """Return the findings of a severity by kind, in the order of `kinds`."""
        grouped = {kind: [f for f in self.found if f.kind == kind] for kind in KINDS}
        return {
            kind: items
            for kind, items in grouped.items()
            if items and KINDS[kind].severity == severity
        }

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(f.count for f in self.found if KINDS[f.kind].severity == severity)

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each kind that there is."""
        kinds = [kind for severity in SEVERITIES for kind in self.by_kind(severity)]
        return {kind: sum(f.count for f in self.found if f.kind == kind) for kind in kinds}
