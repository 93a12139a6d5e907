"""`retinanet replay`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.arguments import check_overrides, command_parser
from retinanet.files import check_writable


def main(words: list[str]) -> int:
    """Replay a step and print what happened; return the exit code."""
    parser = command_parser(
        "replay",
        "Repeat one training step of a run and print everything that happens in it: the images "
        "with\ntheir losses, the gradient of each part, and the first values that are not finite. "
        "The run\nfolder is only read.",
        "retinanet replay runs/first --step 1234 --pictures step_1234\n"
        "  retinanet replay runs/first --step 1234 train.device=cpu data.root=/data/coco",
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="section.key=value",
        help="location of the data and device: data.root, data.train.annotations, "
        "data.train.images, data.find_images, data.workers, train.device, train.micro_batch",
    )
    parser.add_argument(
        "--step", type=int, required=True, help="step to repeat, counted from 1 as in the log"
    )
    parser.add_argument(
        "--pictures", metavar="DIR", help="folder for pictures of its images, boxes and anchors"
    )
    options = parser.parse_intermixed_args(words)
    check_overrides(options.overrides, "replay")
    pictures = Path(options.pictures) if options.pictures else None
    if pictures is not None:
        check_writable(pictures, "choose another --pictures")
    from retinanet.replay.replay import replay

    for line in replay(Path(options.run), options.step, options.overrides, pictures=pictures):
        print(line, flush=True)
    return 0
