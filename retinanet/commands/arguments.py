"""The parser of a command, and its messages about unknown options."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet.errors import UserError, nearest

OVERRIDE_HELP = "option that replaces the one in the config, such as train.lr=0.005"


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
    """Explains options that are written as in other projects."""

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
        """Refuse unknown words; note which value counts if an option is repeated."""
        words = list(sys.argv[1:] if args is None else args)
        if unknown:
            message = f"unrecognized arguments: {' '.join(unknown)}"
            self.error(message + self._explain(unknown, words))
        for action in self._actions:
            count = sum(word.partition("=")[0] in action.option_strings for word in words)
            if count > 1 and action.nargs != 0 and not isinstance(action, argparse._AppendAction):
                flag, value = action.option_strings[0], getattr(options, action.dest)
                note(f"{flag} is given {count} times; the last value is used: {value}")

    def _explain(self, unknown: list[str], words: list[str]) -> str:
        """Return what an unknown option probably meant, in parentheses, or an empty string."""
        word = unknown[0]
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("-") and len(word) > 2 and os.path.exists(word):  # noqa: PTH110
            return f" (write a path that begins with a dash as {shlex.quote(f'./{word}')})"
        if not name or not word.startswith("--"):
            return ""
        own = [flag for action in self._actions for flag in action.option_strings]
        close = nearest(f"--{name}", [flag for flag in own if flag.startswith("--")])
        takes_overrides = any(action.dest in ("overrides", "inputs") for action in self._actions)
        if takes_overrides:
            from retinanet.commands.habits import answer

            # argparse leaves the value of an unknown option among the other words.
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
                return f" (options of the config have no dashes: {meant or example})"
        return f" ({close.removeprefix('; ')})" if close else ""


def check_overrides(overrides: Sequence[str], command: str) -> None:
    """Note which value counts if an option is repeated, and refuse words of another form.

    Args:
        overrides: Words of the command line that should be `section.key=value`.
        command: Command that they were given to.

    Raises:
        UserError: A word is of another form, and what it means is known.
    """
    given: dict[str, str] = {}
    foreign = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if "." not in key and equals:
            from retinanet.commands.habits import answer

            meant = answer(key, value, command)
            if meant:
                foreign.append(f"{text!r} is not of the form section.key=value; here: {meant}")
        if not equals and Path(text).is_file() and text.endswith(".json"):
            raise UserError(
                f"{text}: give an annotation file with its option: "
                + (
                    f"data.train.annotations={text}"
                    if command == "train"
                    else f"--annotations {text}"
                )
            )
        if equals and given.get(key, value) != value:
            note(f"{key} is given twice; the last value is used: {value}, not {given[key]}")
        other = {"train.steps": "train.epochs", "train.epochs": "train.steps"}.get(key, "")
        if "null" not in (value, given.get(other, "null")):
            note(f"{key} replaces {other}, which is given before it")
        given[key] = value
    if foreign:
        raise UserError("\n".join(foreign))


def check_checkpoint(word: str, command: str) -> None:
    """Refuse `model=best.pt` and the like in place of the path of a checkpoint.

    Raises:
        UserError: The word is of this form, and not a file.
    """
    key, equals, value = word.partition("=")
    if equals and not os.path.exists(word):  # noqa: PTH110
        from retinanet.commands.habits import answer

        meant = answer(key, value, command) or f"retinanet {command} runs/first/checkpoints/best.pt"
        raise UserError(f"{word!r} is not a checkpoint; here: {meant}")


def note(text: str) -> None:
    """Print a note on stderr about words that may be a mistake, or may come from a script."""
    print(f"note: {text}", file=sys.stderr)


def device_name(value: str) -> str:
    """Read the value of --device.

    Raises:
        ArgumentTypeError: It is not a device; the message explains how to choose a GPU.
    """
    if value in ("auto", "cpu", "cuda", "mps"):
        return value
    from retinanet.commands.habits import answer

    meant = answer("device", value, "predict")
    raise argparse.ArgumentTypeError(f"{value!r} is not auto, cpu, cuda or mps; here: {meant}")
