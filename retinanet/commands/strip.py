"""`retinanet strip`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.arguments import command_parser


def main(words: list[str]) -> int:
    """Strip a checkpoint; return the exit code."""
    parser = command_parser(
        "strip",
        "Write a copy of a checkpoint without the state that only --resume needs. Evaluation,\n"
        "prediction and --init-from work as before. With averaged weights (train.ema_decay), only\n"
        "the average is kept.",
        "retinanet strip runs/first/checkpoints/best.pt first.pt",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint to copy; it is not changed"
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="file to write (default: NAME_stripped.pt)"
    )
    options = parser.parse_args(words)
    from retinanet.checkpoints.strip import strip_checkpoint

    print("\n".join(strip_checkpoint(options.checkpoint, options.out)))
    return 0
