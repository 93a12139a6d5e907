"""What the doctor finds, kept as numbers until it is printed: there may be millions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.doctor.kinds import KINDS, SEVERITIES, Severity


class Finding(NamedTuple):
    """One finding; record and value read as a sentence."""

    record: str
    """`annotation 812 (image 37)`."""
    value: str
    """`has bbox [3, 4, 0, 9]`."""
    id: int | None = None
    """Of the record, if it has one."""

    def __str__(self) -> str:
        return f"{self.record} {self.value}".strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The findings of one kind in one file."""

    kind: str
    file: Path
    count: int
    finding: Callable[[int], Finding]
    """Writes down finding number i."""

    def __iter__(self) -> Iterator[Finding]:
        return (self.finding(i) for i in range(self.count))


def findings_of(kind: str, file: Path, found: Sequence[Finding]) -> list[Findings]:
    """Return the findings of one kind in one file, or an empty list where there are none."""
    if not found:
        return []
    return [Findings(kind=kind, file=file, count=len(found), finding=found.__getitem__)]


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
    """What was checked."""
    findings: list[Findings]
    sections: list[ReportSection]

    def by_kind(self, severity: Severity) -> dict[str, list[Findings]]:
        """Return the findings of a severity by kind, in the order of `KINDS`."""
        grouped = {
            kind: [findings for findings in self.findings if findings.kind == kind]
            for kind in KINDS
            if KINDS[kind].severity == severity
        }
        return {kind: several for kind, several in grouped.items() if several}

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(
            findings.count
            for findings in self.findings
            if KINDS[findings.kind].severity == severity
        )

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each kind that there is."""
        return {
            kind: sum(findings.count for findings in several)
            for severity in SEVERITIES
            for kind, several in self.by_kind(severity).items()
        }
