"""A report as text for the terminal, and as a JSON file with all findings."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from retinanet.doctor.findings import Finding, Findings, ReportSection
from retinanet.doctor.kinds import KINDS, SEVERITIES, Severity
from retinanet.errors import plural
from retinanet.files import check_regular, replacing

_MAX_LISTED = 10
"""Findings of one kind shown on the terminal."""
_WIDTH = 100
"""Width of the text, columns."""
_START = b'{\n "subject": '
"""First bytes of a report's JSON file."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The complete report of a check."""

    subject: str
    """What was checked."""
    findings: list[Findings]
    sections: list[ReportSection]

    def __str__(self) -> str:
        return format_report(self)

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
        """Return the number of findings of each kind that was found."""
        return {
            kind: sum(findings.count for findings in several)
            for severity in SEVERITIES
            for kind, several in self.by_kind(severity).items()
        }


def format_report(report: Report) -> str:
    """Return a report's text: errors, warnings, facts, sections and the summary."""
    lines = [report.subject]
    for severity in SEVERITIES:
        kinds = report.by_kind(severity)
        if kinds:
            lines += ["", f"{severity}s"]
        for kind, found in kinds.items():
            describe = _describe_fact if severity == "fact" else _describe_kind
            lines += describe(kind, found)
    for section in report.sections:
        lines += ["", section.title]
        for line in section.lines:
            lines += [f"  {line}"] if len(line) < _WIDTH else _wrap(line, "  ", "    ")
        lines += section.paste
    return "\n".join([*lines, "", summary(report)])


def summary(report: Report) -> str:
    """Return one line with the number of errors and warnings."""
    errors, warnings = report.count("error"), report.count("warning")
    if not errors and not warnings:
        return "sound: no errors, no warnings"
    return ", ".join(_count_of(report, severity) for severity in SEVERITIES[:2])


def _count_of(report: Report, severity: Severity) -> str:
    count, kinds = report.count(severity), len(report.by_kind(severity))
    if not count:
        return f"no {severity}s"
    return f"{plural(count, severity)} of {plural(kinds, 'kind')}"


def _describe_kind(kind: str, found: list[Findings]) -> list[str]:
    """Return the meaning of an error or a warning, its first findings and the remedy."""
    count = sum(findings.count for findings in found)
    lines = _wrap(f"{kind} ({count:,}): {KINDS[kind].meaning}", "  ", "    ")
    lines += _first_lines(found)
    if count > _MAX_LISTED:
        lines.append(f"    ... and {count - _MAX_LISTED:,} more (--json FILE lists all)")
    fix = f" (--fix: {KINDS[kind].fix})" if KINDS[kind].fix else ""
    return lines + _wrap(f"-> {KINDS[kind].remedy}{fix}", "    ", "       ")


def _first_lines(found: list[Findings]) -> Iterator[str]:
    """Yield the first findings; findings without a value share a line."""
    for path, first in _first_findings(found):
        bare = [finding.record for finding in first if not finding.value]
        yield from (f"    {path.name}: {finding}" for finding in first if finding.value)
        if bare:
            yield from _wrap(f"{path.name}: {', '.join(bare)}", "    ", "      ")


def _first_findings(found: list[Findings]) -> Iterator[tuple[Path, list[Finding]]]:
    left = _MAX_LISTED
    for findings in found:
        first = list(islice(findings, left))
        left -= len(first)
        if first:
            yield findings.file, first


def _describe_fact(kind: str, found: list[Findings]) -> list[str]:
    """Return the meaning of a fact and its first three records."""
    count = sum(findings.count for findings in found)
    first = chain.from_iterable(findings for _, findings in _first_findings(found))
    records = ", ".join(finding.record for finding in islice(first, 3))
    more = ", ..." if count > 3 else ""
    lines = _wrap(f"{kind} ({count:,}): {KINDS[kind].meaning}", "  ", "    ")
    return lines + _wrap(f"{records}{more}", "    ", "      ")


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False
    )


def write_report(report: Report, path: Path, extra: dict[str, Any] | None = None) -> None:
    """Write all findings as JSON.

    Args:
        report: Report to write.
        path: Path of the file.
        extra: More top-level keys.
    """
    values = {
        "subject": report.subject,
        "summary": {f"{severity}s": report.count(severity) for severity in SEVERITIES},
        "counts": report.counts(),
        "kinds": [
            _kind_values(kind, found)
            for severity in SEVERITIES
            for kind, found in report.by_kind(severity).items()
        ],
        "sections": {
            section.title: section.values or {"text": section.lines} for section in report.sections
        },
        **(extra or {}),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def is_report(path: Path) -> bool:
    """Whether `write_report` wrote a file; other files are not read to the end."""
    try:
        with check_regular(path).open("rb") as file:
            if file.read(len(_START)) != _START:
                return False
            values = json.loads(_START + file.read())
    except (OSError, ValueError, RecursionError):
        return False
    return values.keys() >= {"subject", "summary", "counts", "kinds", "sections"}


def _kind_values(kind: str, found: list[Findings]) -> dict[str, Any]:
    about = KINDS[kind]
    return {
        "kind": kind,
        "severity": about.severity,
        "count": sum(findings.count for findings in found),
        "meaning": about.meaning,
        "remedy": about.remedy,
        "findings": [
            {
                "file": str(findings.file),
                "record": finding.record,
                "id": finding.id,
                "value": finding.value,
            }
            for findings in found
            for finding in findings
        ],
    }
