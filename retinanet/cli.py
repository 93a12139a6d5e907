"""The command line: each command is a module of `commands` that returns an exit code."""

from __future__ import annotations

import atexit
import signal
import sys
from functools import cache
from importlib import import_module

from retinanet import __version__
from retinanet.errors import UserError, nearest
from retinanet.exit_codes import end_at_once, is_in_group, print_traceback, run_guarded
from retinanet.stop_signals import stop_with_torchrun
from retinanet.terminal import guarded_streams

COMMANDS = {
    "train": "train a detector",
    "evaluate": "compute COCO metrics of a checkpoint or a results file",
    "predict": "detect objects in images",
    "check": "find mistakes in annotations and images",
    "convert": "convert Pascal VOC, YOLO, CSV or OpenImages to COCO JSON,\n"
    "or weights from torchvision, detectron2 or mmdetection to a checkpoint",
    "benchmark": "measure the speed of data loading, stage by stage",
    "replay": "repeat one step of a run and show what happened in it,\n"
    "such as where a value stopped being finite",
    "strip": "remove the optimiser state from a checkpoint: half the size or less",
    "lab": "train with each loss of the focal loss paper, for a table beside the paper's",
    "demo": "draw a data set, train on it, evaluate, and draw detections",
    "config": "list every option with its default and meaning, or print a resolved config",
}
"""Each is a module of the same name, imported only when it is used, so that help is instant."""
_MEANT = {
    **dict.fromkeys(("fit", "finetune", "fine-tune", "tune", "resume"), "train"),
    **dict.fromkeys(("val", "validate", "test", "score"), "evaluate"),
    **dict.fromkeys(("detect", "infer", "inference", "visualize"), "predict"),
    **dict.fromkeys(("help", "-?"), "--help"),
    **dict.fromkeys(("version", "-v", "-V"), "--version"),
}
"""Commands of other projects, and the one that does it here."""
_EXAMPLES = (
    "train finetune_small data.root=my_data",
    "evaluate runs/my_run/checkpoints/best.pt",
    "predict runs/my_run/checkpoints/best.pt photos/",
    "check my_data/train.json --images my_data/images",
    "convert voc VOC2007 voc.json",
)
_TRAINING = {"train", "lab", "demo"}
"""Commands that do not wait forever for a terminal that does not read."""
_PATIENCE_SECONDS = 10.0
_WRITING = {*_TRAINING, "evaluate", "predict", "convert", "strip"}
"""Commands whose results are files: they succeed even if nothing could be printed."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (see `exit_codes`).

    Printing can neither end nor delay the work. If the printed text is the result and stdout cannot
    be written, the code is 1, unless the reader has closed it, as `head` does.

    Raises:
        SystemExit: argparse has printed help (0) or an error (2).
    """
    words = sys.argv[1:] if arguments is None else arguments
    stop_with_torchrun()
    _end_quietly()
    name = words[0] if words else ""
    writes = name in _WRITING and not {"-h", "--help", "--dry-run"} & set(words)
    if writes:
        warning = "warning: stdout cannot be written: {reason}; the command continues without it"
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
        except BaseException:
            if not is_in_group():
                raise
            print_traceback()
            code = 1
    if is_in_group():
        end_at_once(code)
    is_lost = stdout.failure is not None and not stdout.reader_is_gone
    return 1 if code == 0 and is_lost and not writes else code


def _run(words: list[str]) -> int:
    """Run the command named by the first word; without one, print the overview."""
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    name, *rest = words
    if name == "--version":
        print(f"retinanet {__version__}")
        return 0
    if name not in COMMANDS:
        meant = f"; did you mean {_MEANT[name]}?" if name in _MEANT else ""
        raise UserError(
            f"there is no command {name!r}{meant or nearest(name, list(COMMANDS)) or '.'} "
            f"Commands: {', '.join(COMMANDS)}"
        )
    return import_module(f"retinanet.commands.{name}").main(rest)


@cache
def _end_quietly() -> None:
    """Print no traceback on Ctrl-C while the program exits after its command."""

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
            "       retinanet --version",
            "",
            "commands:",
            *lines,
            "",
            "examples:",
            *(f"  retinanet {words}" for words in _EXAMPLES),
            "",
            "See `retinanet COMMAND --help` for the options of a command.",
        ]
    )
