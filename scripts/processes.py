"""The processes of a run, as Linux' /proc shows them: for the soak scripts."""

from __future__ import annotations

from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return a process and all its children's children."""
    parents = {
        int(entry.name): stat(int(entry.name))
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal()
    }
    found, new = [pid], [pid]
    while new:
        new = [p for p, fields in parents.items() if fields and int(fields[1]) in new]
        found += new
    return found


def stat(pid: int) -> list[str]:
    """Return /proc's fields after the name: state, parent, ..; nothing for a process that ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def birth(pid: int) -> str | None:
    """Return when a process began; None once it is gone, or waits for a parent to notice."""
    fields = stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def memory(pid: int) -> float:
    """Return the MB of a process's own and its share of what others hold, too; 0 once it is gone.

    Without pages of files, which the system takes back when it needs them.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def handles(pid: int) -> int:
    """Return how many files, pipes and sockets a process has open; 0 once it is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def threads(pid: int) -> int:
    """Return how many threads a process has; 0 once it is gone."""
    fields = stat(pid)
    return int(fields[17]) if fields else 0
