"""Errors that are not bugs of this project, and helpers for their messages."""

import difflib
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_SHORTAGES = {
    errno.EMFILE: "this process has too many files open: allow more (ulimit -n 4096)",
    errno.ENFILE: "the machine has too many files open: end the programs that opened them",
    errno.ENOMEM: "the machine has no memory left: end other programs, or lower data.workers",
}
"""Errors of the machine, not of the file, with their remedies."""


class UserError(Exception):
    """The user's input is wrong; the message names file, record, value and remedy (exit code 2)."""

    agreed = False
    """Whether all processes of the run raise it at the same place; only rank 0 has the text."""


class ArgumentError(UserError, ValueError):
    """A function was called from Python with a value that it does not take."""


class TrainingError(Exception):
    """The run failed, for example by a non-finite loss (exit code 1)."""

    agreed = False
    """Whether all processes of the run raise it at the same place; only rank 0 has the text."""


class DivergedError(TrainingError):
    """The loss or its gradient is no longer finite."""


class InterruptedRunError(Exception):
    """A signal ended the run; its state is saved."""

    agreed = True

    def __init__(self, number: int, where: str) -> None:
        super().__init__(where)
        self.number = number


def shortage(path: Path | str | None, error: OSError) -> TrainingError | None:
    """Return the error if the machine cannot open any more files; None if the file is wrong.

    Args:
        path: Path of the file, if known.
        error: Error that the system raised.
    """
    remedy = _SHORTAGES.get(error.errno or 0)
    if remedy is None:
        return None
    return TrainingError(f"{path}: cannot be opened: {remedy}" if path else remedy)


def first_line(error: Exception) -> str:
    """Return the first line of an error's own text, for the middle of a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")


def missing_attribute(owner: object, name: str) -> NoReturn:
    """Refuse an attribute that does not exist; the message lists those that do.

    It is the `__getattr__` of classes whose users may expect the names of other projects.

    Raises:
        AttributeError: Always.
    """
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):  # which libraries look for, too
        public = [word for word in dir(owner) if not word.startswith("_")]
        text += f". It has: {', '.join(public)}. docs/python.md has the names of other projects"
    raise AttributeError(text, name=name, obj=owner)


def nearest(word: str, choices: list[str]) -> str:
    """Return `"; did you mean X?"` for the closest of `choices`, or an empty string."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    close = close or [choice for choice in choices if word and choice.startswith(word)]
    return f"; did you mean {close[0]}?" if close else ""


def some_of(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names of a list for a message, with `...` in place of the rest."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a count with its noun: `1 image`, `2,000 images`, `3 boxes`.

    Args:
        count: Number of things.
        noun: Singular.
        nouns: Plural; None appends `s`, or `es` where the noun ends in s, x, sh or ch (not of
            "epoch").
    """
    if nouns is None:
        hisses = noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch")
        nouns = noun + ("es" if hisses else "s")
    return f"{count:,} {noun if count == 1 else nouns}"
