"""How commands read their words."""

from __future__ import annotations

import argparse
from typing import NoReturn

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
    """Says how options of an experiment are written to those who write them as other tools do."""

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments: --" in message:
            message += " (options of an experiment have no dashes: train.lr=0.005)"
        super().error(message)
