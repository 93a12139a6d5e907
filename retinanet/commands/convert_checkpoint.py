"""`retinanet convert checkpoint`: checkpoints of other projects to ours, and back."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.arguments import OVERRIDE_HELP, command_parser
from retinanet.errors import UserError
from retinanet.files import check_new_file, write_failure


def main(words: list[str]) -> int:
    """Convert a checkpoint from or to another project; return the exit code."""
    parser = command_parser(
        "convert checkpoint",
        "Convert a RetinaNet from torchvision, detectron2 or mmdetection to a checkpoint for "
        "`evaluate`,\n`predict` and `train --init-from`, or an ImageNet backbone to one for "
        "`model.weights` and\n`--init-from`. With --to, convert in the other direction. No code in "
        "a file is ever executed.",
        "retinanet convert checkpoint retinanet_resnet50_fpn_coco-eeacb38b.pth coco.pt\n"
        "  retinanet convert checkpoint model_final.pth cells.pt --categories train.json\n"
        "  retinanet convert checkpoint runs/first/checkpoints/best.pt peer.pth --to detectron2",
    )
    parser.add_argument(
        "source", type=Path, help="file of the other project; with --to, our checkpoint"
    )
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    parser.add_argument(
        "--from",
        dest="peer",
        choices=["torchvision", "detectron2", "mmdetection"],
        help="project that the file comes from; default: detected from the names of its weights",
    )
    parser.add_argument(
        "--style",
        choices=["caffe", "pytorch"],
        help="style of the backbone; caffe is MSRA's (BGR, stride in the 1x1 convolution); "
        "default: as in the file, else the project's usual one",
    )
    parser.add_argument(
        "--categories",
        type=Path,
        metavar="JSON",
        help="file with its classes: a COCO file, or a list of names; default: as in the file, "
        "else COCO's",
    )
    parser.add_argument(
        "--box-weights",
        type=float,
        nargs=4,
        metavar=("DX", "DY", "DW", "DH"),
        help="detectron2's BBOX_REG_WEIGHTS; default: as in the file, else 1",
    )
    parser.add_argument(
        "--to", choices=["torchvision", "detectron2"], help="convert our checkpoint to this project"
    )
    options = parser.parse_intermixed_args(words)
    from retinanet.checkpoints.format import load_checkpoint, save_checkpoint
    from retinanet.interop.classes import read_categories
    from retinanet.interop.from_checkpoint import export_checkpoint
    from retinanet.interop.to_checkpoint import convert_checkpoint

    out: Path = options.out
    check_new_file(out)
    try:
        if options.to:
            used = (options.peer, options.style, options.categories, options.box_weights)
            if any(used) or options.overrides:
                raise UserError(
                    "--to cannot be combined with --from, --style, --categories, --box-weights or "
                    "section.key=value; leave them out"
                )
            lines = export_checkpoint(load_checkpoint(options.source), out, to=options.to)
        else:
            checkpoint, lines = convert_checkpoint(
                options.source,
                peer=options.peer,
                style=options.style,
                categories=read_categories(options.categories) if options.categories else None,
                box_weights=options.box_weights,
                overrides=options.overrides,
            )
            save_checkpoint(checkpoint, out)
    except OSError as error:
        raise write_failure(out, error) from None
    print("\n".join([*lines, f"wrote {out}"]))
    return 0
