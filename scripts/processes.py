"""The processes of a run, from /proc on Linux: for the soak scripts."""

from __future__ import annotations

from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
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
    """Return the fields after the name in /proc (state, parent, ...); empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def birth(pid: int) -> str | None:
    """Return the start time of a process; None if it has ended or is a zombie."""
    fields = stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def memory(pid: int) -> float:
    """Return the memory of a process in MB, with its part of shared memory; 0 if it has ended.

    Pages of files are not counted: the system reclaims them when it needs memory.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def handles(pid: int) -> int:
    """Return the number of open files, pipes and sockets of a process; 0 if it has ended."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def threads(pid: int) -> int:
    """Return the number of threads of a process; 0 if it has ended."""
    fields = stat(pid)
    return int(fields[17]) if fields else 0
