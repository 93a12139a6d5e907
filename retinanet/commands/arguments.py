"""The parser of a command, and what it says of options that it does not know."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet.errors import UserError, nearest

OVERRIDE_HELP = "an option in place of the file's, such as train.lr=0.005"


def command_parser(name: str, meaning: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of `retinanet NAME`."""
    parser = _Parser(
        prog=f"retinanet {name}",
        description=meaning,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.command = name
    return parser


class _Parser(argparse.ArgumentParser):
    """Tells those who write options as other projects do how they are written here."""

    command = ""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        self._refuse(options, unknown, args)
        return options

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_intermixed_args(args, namespace)
        self._refuse(options, unknown, args)
        return options

    def _refuse(
        self, options: argparse.Namespace, unknown: list[str], args: Sequence[str] | None
    ) -> None:
        """Refuse words that are no options of the command; say which option counts of several."""
        words = list(sys.argv[1:] if args is None else args)
        if unknown:
            message = f"unrecognized arguments: {' '.join(unknown)}"
            self.error(message + self._explain(unknown, words))
        for action in self._actions:
            count = sum(word.partition("=")[0] in action.option_strings for word in words)
            if count > 1 and action.nargs != 0 and not isinstance(action, argparse._AppendAction):
                flag, value = action.option_strings[0], getattr(options, action.dest)
                note(f"{flag} is given {count} times; the last counts: {value}")

    def _explain(self, unknown: list[str], words: list[str]) -> str:
        """Return what was probably meant by an unknown option, in brackets, if anything was."""
        word = unknown[0]
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("-") and len(word) > 2 and os.path.exists(word):  # noqa: PTH110
            return f" (a path that begins with a dash is written {shlex.quote(f'./{word}')})"
        if not name or not word.startswith("--"):
            return ""
        own = [flag for action in self._actions for flag in action.option_strings]
        close = nearest(f"--{name}", [flag for flag in own if flag.startswith("--")])
        takes_overrides = any(action.dest in ("overrides", "inputs") for action in self._actions)
        if takes_overrides:
            from retinanet.commands.habits import answer

            # What is not known as an option leaves its value among the other words.
            follows = words[words.index(word) + 1 :] if word in words else unknown[1:]
            if not value and follows and not follows[0].startswith("--"):
                value = follows[0]
            meant = answer(name, value, self.command)
            if meant and (meant.startswith("--") or " " in meant):
                return f" (here: {meant})"
            if meant or not close:
                example = "train.lr=0.005"
                if self.command in ("evaluate", "predict"):
                    example = "postprocess.score_threshold=0.1"
                return f" (options of an experiment have no dashes: {meant or example})"
        return f" ({close.removeprefix('; ')})" if close else ""


def check_overrides(overrides: Sequence[str], command: str) -> None:
    """Say which value counts of an option that is given twice, and explain words of another form.

    Args:
        overrides: words of the command line that should be `section.key=value`.
        command: that they were given to.

    Raises:
        UserError: the first of them.
    """
    given: dict[str, str] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if "." not in key and equals:
            from retinanet.commands.habits import answer

            meant = answer(key, value, command)
            if meant:
                raise UserError(f"{text!r} is not of the form section.key=value; here: {meant}")
        if not equals and Path(text).is_file() and text.endswith(".json"):
            raise UserError(
                f"{text}: an annotation file is given with its option: "
                + ("data.train.annotations=.." if command == "train" else f"--annotations {text}")
            )
        if equals and given.get(key, value) != value:
            note(f"{key} is given twice; the last counts: {value}, not {given[key]}")
        other = {"train.steps": "train.epochs", "train.epochs": "train.steps"}.get(key, "")
        if "null" not in (value, given.get(other, "null")):
            note(f"{key} takes the place of {other}, which is given before it")
        given[key] = value


def note(text: str) -> None:
    """Say on stderr what may not be meant, though it may: scripts add to words of their own."""
    print(f"note: {text}", file=sys.stderr)


def device_name(value: str) -> str:
    """Read the value of --device.

    Raises:
        ArgumentTypeError: it is none; the message says how one GPU of several is chosen.
    """
    if value in ("auto", "cpu", "cuda", "mps"):
        return value
    from retinanet.commands.habits import answer

    meant = answer("device", value, "predict")
    raise argparse.ArgumentTypeError(f"{value!r} is not auto, cpu, cuda or mps; here: {meant}")
