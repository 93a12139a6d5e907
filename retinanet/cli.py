"""The command line: a name -> a module of `commands`, which returns an exit code."""

from __future__ import annotations

import sys
from importlib import import_module

from retinanet import __version__
from retinanet.errors import nearest
from retinanet.exit_codes import run_guarded

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


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (see `exit_codes`)."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    name, *rest = words
    if name == "--version":
        print(f"retinanet {__version__}")
        return 0
    if name not in COMMANDS:
        print(
            f"error: there is no command {name!r}{nearest(name, list(COMMANDS)) or '.'} "
            f"Commands: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    return run_guarded(lambda: import_module(f"retinanet.commands.{name}").main(rest))


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
