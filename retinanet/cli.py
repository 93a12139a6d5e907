"""The command line: a name -> a module of `commands`, which returns an exit code."""

from __future__ import annotations

import atexit
import signal
import sys
from functools import cache
from importlib import import_module

from retinanet import __version__
from retinanet.errors import UserError, nearest
from retinanet.exit_codes import run_guarded
from retinanet.stop_signals import stop_with_torchrun
from retinanet.terminal import guarded_streams

COMMANDS = {
    "train": "train a detector: retinanet train finetune_small data.root=my_data",
    "evaluate": "COCO figures of a checkpoint: retinanet evaluate runs/my_run/checkpoints/best.pt",
    "predict": "detect in images: retinanet predict runs/my_run/checkpoints/best.pt photos/",
    "check": "all that is wrong with data: "
    "retinanet check my_data/train.json --images my_data/images",
    "convert": "Pascal VOC, YOLO, CSV, OpenImages to COCO JSON: "
    "retinanet convert voc VOC2007 voc.json;\n"
    "torchvision's, detectron2's, mmdetection's checkpoints: retinanet convert checkpoint",
    "benchmark": "how many images a second the data path gives, stage by stage",
    "replay": "take one step of a run again: what happened in it, "
    "and where it stopped being finite",
    "strip": "a checkpoint without optimiser state, to keep or to give away: half the size or less",
    "lab": "train under each loss of the focal loss paper: a table beside the paper's, figures",
    "demo": "draw a data set, train on it, evaluate, draw detections",
    "config": "every option with its default and meaning, or an experiment as resolved",
}
"""Each is a module of its name; it is imported when it is asked for, so that help comes at once."""


_TRAINING = {"train", "lab", "demo"}
"""They do not stand still for a terminal that does not read."""
_PATIENCE_SECONDS = 10.0
_WRITING = {*_TRAINING, "evaluate", "predict", "convert", "strip"}
"""Their results are files, so they succeed although nothing could be printed."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (see `exit_codes`).

    Nothing that is printed can end or hold up its work. Where the text is the result, and stdout
    does not take it, the code is 1, unless its reader has closed it, as `head` does.

    Raises:
        SystemExit: argparse has printed help (0) or a mistake (2).
    """
    words = sys.argv[1:] if arguments is None else arguments
    stop_with_torchrun()
    _end_quietly()
    name = words[0] if words else ""
    writes = name in _WRITING and not {"-h", "--help", "--dry-run"} & set(words)
    if writes:
        warning = "warning: stdout cannot be written: {reason}; the work goes on without it"
    else:
        warning = "error: stdout cannot be written: {reason}"
    patience = _PATIENCE_SECONDS if name in _TRAINING else None
    with guarded_streams(patience=patience, warning=warning) as stdout:
        try:
            code = run_guarded(lambda: _run(words))
        except SystemExit as end:
            if end.code or stdout.failure is None:
                raise
            code = 0
    is_lost = stdout.failure is not None and not stdout.reader_is_gone
    return 1 if code == 0 and is_lost and not writes else code


def _run(words: list[str]) -> int:
    """Run the command that the first word names; print what they are without one."""
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    name, *rest = words
    if name == "--version":
        print(f"retinanet {__version__}")
        return 0
    if name not in COMMANDS:
        raise UserError(
            f"there is no command {name!r}{nearest(name, list(COMMANDS)) or '.'} "
            f"Commands: {', '.join(COMMANDS)}"
        )
    return import_module(f"retinanet.commands.{name}").main(rest)


@cache
def _end_quietly() -> None:
    """Let Ctrl-C leave no traceback while the program ends, after its command is done."""

    def die_at_once() -> None:
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    atexit.register(die_at_once)


def _overview() -> str:
    commands = [f"{name:11}{meaning}" for name, meaning in COMMANDS.items()]
    lines = [f"  {text}".replace("\n", "\n" + " " * 13) for text in commands]
    return "\n".join(
        [
            "usage: retinanet COMMAND ...",
            "",
            *lines,
            "",
            "`retinanet COMMAND --help` tells more.",
        ]
    )
