"""`retinanet strip`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.arguments import command_parser


def main(words: list[str]) -> int:
    """Strip a checkpoint; return the exit code."""
    parser = command_parser(
        "strip",
        "Write a checkpoint without what only --resume needs. Evaluation, prediction and "
        "--init-from\nwork as before; of averaged weights (train.ema_decay) the average stays.",
        "retinanet strip runs/first/checkpoints/best.pt first.pt",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="it stays as it is")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="default: *_stripped.pt")
    options = parser.parse_args(words)
    from retinanet.checkpoints.strip import strip_checkpoint

    print("\n".join(strip_checkpoint(options.checkpoint, options.out)))
    return 0
