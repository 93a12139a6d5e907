"""The ways a run ends early that are not our bugs, and helpers for their messages."""

import difflib
import errno
from collections.abc import Sequence
from pathlib import Path

_SHORTAGES = {
    errno.EMFILE: "this process has too many files open: allow more (ulimit -n 4096)",
    errno.ENFILE: "the machine has too many files open: end what has opened them",
    errno.ENOMEM: "the machine has no memory left: end other programs, or lower data.workers",
}
"""What keeps a file from being read that may be sound."""


class UserError(Exception):
    """The user's input is wrong: the message names file, record, value and remedy (exit code 2)."""

    agreed = False
    """Whether all processes of the run raise it at the same place; rank 0 has the text."""


class TrainingError(Exception):
    """The run failed while running, a non-finite loss for example (exit code 1)."""

    agreed = False
    """Whether all processes of the run raise it at the same place; rank 0 has the text."""


class DivergedError(TrainingError):
    """The loss or its gradient is no longer finite."""


class InterruptedRunError(Exception):
    """A signal ended the run; its state is saved."""

    agreed = True

    def __init__(self, number: int, where: str) -> None:
        super().__init__(where)
        self.number = number


def shortage(path: Path | str | None, error: OSError) -> TrainingError | None:
    """Return the error of a machine that cannot open any further file; None: the file is wrong.

    Args:
        path: Path of the file, where it is known.
        error: Error of the system.
    """
    remedy = _SHORTAGES.get(error.errno or 0)
    if remedy is None:
        return None
    return TrainingError(f"{path}: cannot be opened: {remedy}" if path else remedy)


def first_line(error: Exception) -> str:
    """Return the first line of an error's own text, for the middle of a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")


def nearest(word: str, choices: list[str]) -> str:
    """Return `"; did you mean X?"` for the closest of `choices`, or an empty string."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    close = close or [choice for choice in choices if word and choice.startswith(word)]
    return f"; did you mean {close[0]}?" if close else ""


def some_of(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names of a list for a message, with `..` in place of the rest."""
    return ", ".join(names[:limit]) + (", .." if len(names) > limit else "")
