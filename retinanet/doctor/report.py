"""A report in words for the terminal, and whole as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from retinanet.doctor.findings import Entry, Findings, Report
from retinanet.doctor.kinds import KINDS, SEVERITIES, Severity
from retinanet.files import replacing

_SHOWN = 10
"""Findings of a kind on the terminal."""
_WIDTH = 100
_START = b'{\n "subject": '
"""Of a report that is written as JSON."""


def format_report(report: Report) -> str:
    """Return a report's text: errors, warnings, facts, sections, and the sum of it all."""
    lines = [report.subject]
    for severity in SEVERITIES:
        kinds = report.by_kind(severity)
        if kinds:
            lines += ["", f"{severity}s"]
        for kind, items in kinds.items():
            lines += _fact(kind, items) if severity == "fact" else _group(kind, items)
    for section in report.sections:
        lines += ["", section.title]
        for line in section.lines:
            lines += [f"  {line}"] if len(line) < _WIDTH else _wrap(line, "  ", "    ")
        lines += section.paste
    return "\n".join([*lines, "", summary(report)])


def summary(report: Report) -> str:
    """Return how much there is to mend, in a line."""
    errors, warnings = report.count("error"), report.count("warning")
    if not errors and not warnings:
        return "sound: no errors, no warnings"
    return ", ".join(_sum(report, severity) for severity in SEVERITIES[:2])


def _sum(report: Report, severity: Severity) -> str:
    count, kinds = report.count(severity), len(report.by_kind(severity))
    if not count:
        return f"no {severity}s"
    return f"{count:,} {severity}{'s' * (count > 1)} of {kinds} kind{'s' * (kinds > 1)}"


def _group(kind: str, items: list[Findings]) -> list[str]:
    """Say a kind's meaning, its first findings and the remedy."""
    count = sum(item.count for item in items)
    lines = _wrap(f"{kind} ({count:,}): {KINDS[kind].meaning}", "  ", "    ")
    lines += _some(items)
    if count > _SHOWN:
        lines.append(f"    ... and {count - _SHOWN:,} more (--json FILE lists all)")
    return lines + _wrap(f"-> {KINDS[kind].remedy}{_fix(kind)}", "    ", "       ")


def _fix(kind: str) -> str:
    return f" (--fix: {KINDS[kind].fix})" if KINDS[kind].fix else ""


def _some(items: list[Findings]) -> Iterator[str]:
    """Yield the first findings; those without a value share a line."""
    for path, entries in _first(items):
        bare = [entry.record for entry in entries if not entry.value]
        yield from (f"    {path.name}: {sentence(entry)}" for entry in entries if entry.value)
        if bare:
            yield from _wrap(f"{path.name}: {', '.join(bare)}", "    ", "      ")


def _first(items: list[Findings]) -> Iterator[tuple[Path, list[Entry]]]:
    left = _SHOWN
    for item in items:
        entries = list(islice(item, left))
        left -= len(entries)
        if entries:
            yield item.file, entries


def sentence(entry: Entry) -> str:
    """Return a finding as a person would say it."""
    return f"{entry.record} {entry.value}".strip()


def _fact(kind: str, items: list[Findings]) -> list[str]:
    """Say a fact in few lines."""
    count = sum(item.count for item in items)
    entries = chain.from_iterable(entries for _, entries in _first(items))
    some = ", ".join(entry.record for entry in islice(entries, 3))
    more = ", ..." if count > 3 else ""
    lines = _wrap(f"{kind} ({count:,}): {KINDS[kind].meaning}", "  ", "    ")
    return lines + _wrap(f"{some}{more}", "    ", "      ")


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False
    )


def write_report(report: Report, path: Path, extra: dict[str, Any] | None = None) -> None:
    """Write all findings as JSON.

    Args:
        report: to write.
        path: of the file.
        extra: further top-level keys.
    """
    values = {
        "subject": report.subject,
        "summary": {f"{severity}s": report.count(severity) for severity in SEVERITIES},
        "counts": report.counts(),
        "kinds": [
            _kind_values(kind, items)
            for severity in SEVERITIES
            for kind, items in report.by_kind(severity).items()
        ],
        "sections": {
            section.title: section.values or {"text": section.lines} for section in report.sections
        },
        **(extra or {}),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def is_report(path: Path) -> bool:
    """Whether a file is one that `write_report` wrote; no other kind of file is read whole."""
    try:
        with path.open("rb") as file:
            if file.read(len(_START)) != _START:
                return False
            values = json.loads(_START + file.read())
    except (OSError, ValueError, RecursionError):
        return False
    return values.keys() >= {"subject", "summary", "counts", "kinds", "sections"}


def _kind_values(kind: str, items: list[Findings]) -> dict[str, Any]:
    about = KINDS[kind]
    return {
        "kind": kind,
        "severity": about.severity,
        "count": sum(item.count for item in items),
        "meaning": about.meaning,
        "remedy": about.remedy,
        "findings": [
            {"file": str(item.file), "record": entry.record, "id": entry.id, "value": entry.value}
            for item in items
            for entry in item
        ],
    }
