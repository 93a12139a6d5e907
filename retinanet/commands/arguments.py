"""The parser of a command, and what it says of options that have dashes."""

from __future__ import annotations

import argparse
from typing import Any

OVERRIDE_HELP = "an option in place of the file's, such as train.lr=0.005"


def command_parser(name: str, meaning: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of `retinanet NAME`."""
    return _Parser(
        prog=f"retinanet {name}",
        description=meaning,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


class _Parser(argparse.ArgumentParser):
    """Tells those who write options of an experiment with dashes how they are written here."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        self._refuse(unknown)
        return options

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_intermixed_args(args, namespace)
        self._refuse(unknown)
        return options

    def _refuse(self, unknown: list[str]) -> None:
        """Refuse words that are no options of the command; argparse's own message has no hint."""
        if not unknown:
            return
        message = f"unrecognized arguments: {' '.join(unknown)}"
        takes_overrides = any(action.dest in ("overrides", "inputs") for action in self._actions)
        first = unknown[0].removeprefix("--")
        if takes_overrides and first and first != unknown[0]:
            option = _as_override([first, *unknown[1:]])
            message += f" (options of an experiment have no dashes: {option})"
        self.error(message)


def _as_override(words: list[str]) -> str:
    """Return `train.epochs=3` for the words `epochs 3`, or an example."""
    name, _, value = words[0].partition("=")
    if not value and len(words) > 1 and not words[1].startswith("--"):
        value = words[1]
    from retinanet.config import find_option

    option = find_option(name)
    return f"{option}={value or '..'}" if option else "train.lr=0.005"
