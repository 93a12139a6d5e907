"""`retinanet evaluate`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.arguments import (
    OVERRIDE_HELP,
    check_checkpoint,
    check_overrides,
    command_parser,
    note,
)


def main(words: list[str]) -> int:
    """Evaluate, print and write; return the exit code."""
    parser = command_parser(
        "evaluate",
        "Compute the 12 COCO metrics and a table by class for a checkpoint or a results file.",
        "retinanet evaluate runs/first/checkpoints/best.pt\n"
        "  retinanet evaluate best.pt --annotations test.json --images images/\n"
        "  retinanet evaluate results.json --annotations test.json",
    )
    parser.add_argument("checkpoint", help="checkpoint, or COCO results JSON to score")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help=OVERRIDE_HELP
    )
    parser.add_argument(
        "--annotations", metavar="J", help="COCO JSON to score against (default: that of data.val)"
    )
    parser.add_argument("--images", metavar="D", help="folder of the images of --annotations")
    parser.add_argument("--output", metavar="DIR", help="folder for results, metrics and pictures")
    options = parser.parse_intermixed_args(words)
    check_checkpoint(options.checkpoint, "evaluate")
    check_overrides(options.overrides, "evaluate")
    notes = []
    for flag, key in (("annotations", "data.val.annotations"), ("images", "data.val.images")):
        given = any(text.startswith(f"{key}=") for text in options.overrides)
        if given and getattr(options, flag) is not None:
            notes.append(f"--{flag} is used, not {key}, which was given too")
    from retinanet.engine.evaluate import write_evaluation
    from retinanet.evaluation.coco import format_metrics
    from retinanet.files import check_writable
    from retinanet.reports.evaluate_checkpoint import evaluate_file

    path = Path(options.checkpoint)
    beside = path.parent.parent if path.parent.name == "checkpoints" else Path()
    # Another annotation file has its own folder, so metrics on val are not overwritten.
    name = path.stem + (f"-{Path(options.annotations).stem}" if options.annotations else "")
    folder = Path(options.output) if options.output else beside / "evaluation" / name
    check_writable(folder, "choose another --output")
    outcome = evaluate_file(
        path,
        annotations=Path(options.annotations) if options.annotations else None,
        images=Path(options.images) if options.images else None,
        overrides=options.overrides,
    )
    if outcome is None:
        return 0
    written = write_evaluation(outcome, folder)  # first: printing may fail
    for text in notes:
        note(text)
    print(format_metrics(outcome.metrics))
    for file in written:
        print(f"wrote {file}")
    return 0
