"""`retinanet predict`."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

from retinanet.commands.arguments import (
    check_checkpoint,
    check_overrides,
    command_parser,
    device_name,
    note,
)
from retinanet.commands.habits import answer, unused_in_predict
from retinanet.errors import UserError, plural
from retinanet.files import check_writable


def main(words: list[str]) -> int:
    """Detect objects in images and write the results; return the exit code."""
    parser = command_parser(
        "predict",
        "Detect objects in images; write COCO-format results and annotated pictures.",
        "retinanet predict runs/first/checkpoints/best.pt photos/ 'more/*.jpg' --threshold 0.5\n"
        "  retinanet predict best.pt --annotations image_info_test-dev2017.json --images test2017",
    )
    parser.add_argument("checkpoint", help="path of the checkpoint")
    parser.add_argument(
        "inputs",
        nargs="*",
        default=[],
        metavar="INPUT",
        help="images, folders, patterns or lists (.txt, one file per line); options such as "
        "postprocess.class_agnostic_nms=true, too",
    )
    parser.add_argument(
        "--annotations", metavar="J", help="COCO JSON that names the images and their ids"
    )
    parser.add_argument(
        "--images", metavar="D", help="folder of the images of --annotations (default: .)"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="output folder (default: predictions, predictions-2, ...); an earlier prediction in "
        "it is replaced",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="lowest score in files and pictures, 0 to 1 (default: 0.3; with --annotations the "
        "checkpoint's postprocess.score_threshold)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write only the JSON files")
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="{auto,cpu,cuda,mps}",
        help="device to run on (default: auto, the fastest)",
    )
    options = parser.parse_intermixed_args(words)
    check_checkpoint(options.checkpoint, "predict")
    overrides = [word for word in options.inputs if _is_option(word)]
    inputs = [word for word in options.inputs if word not in overrides]
    for word in overrides:
        name, _, value = word.partition("=")
        if "." not in name and (text := answer(name, value, "predict")):
            parser.error(f"{word} is not an option here: {text}")
    check_overrides(overrides, "predict")
    if options.threshold is not None and any(
        word.startswith("postprocess.score_threshold=") for word in overrides
    ):
        note("--threshold is used, not postprocess.score_threshold")
    if bool(inputs) == bool(options.annotations):
        both = " (not both)" if inputs else ""
        parser.error(f"give images, folders or patterns, or a file with --annotations{both}")
    if options.images is not None and not options.annotations:
        parser.error(
            "--images needs --annotations: it is the folder of an annotation file's images. "
            "Without one, give the folder itself as an INPUT"
        )
    return predict(
        Path(options.checkpoint),
        inputs,
        annotations=Path(options.annotations) if options.annotations else None,
        images=Path(options.images or "."),
        output=Path(options.output) if options.output else None,
        threshold=options.threshold,
        draw=not options.no_pictures,
        device=options.device,
        overrides=overrides,
    )


def _is_option(word: str) -> bool:
    """Whether a word is `section.key=value`, not a file or pattern with such a name."""
    return "=" in word and not os.path.exists(word) and not glob.glob(word)  # noqa: PTH110, PTH207


def predict(
    checkpoint: Path,
    inputs: list[str],
    *,
    annotations: Path | None,
    images: Path,
    output: Path | None,
    threshold: float | None,
    draw: bool,
    device: str,
    overrides: list[str],
) -> int:
    """Predict on files, folders and patterns, or on the images of an annotation file.

    Raises:
        UserError: A wrong threshold, checkpoint, input or output.
    """
    from tqdm import tqdm

    from retinanet.checkpoints.folder_config import describe_ignored_edit
    from retinanet.data.checks import check_files
    from retinanet.data.coco.index import read_annotations
    from retinanet.distributed.precision import describe_fallback
    from retinanet.distributed.world import joined_world
    from retinanet.inference.files import predict_files
    from retinanet.inference.inputs import find_inputs, list_images
    from retinanet.inference.predictor import load

    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold:g} is not from 0 to 1")
    check_writable(output or Path("predictions"), "choose another --output")
    remarks: list[str] = []
    if annotations is not None:
        index = read_annotations(annotations, images_only=True)
        find = "correct file_name, or give the files instead of --annotations"
        check_files(index, images, remedy="is --images right?", find=find)
        files = list_images(index, images)
    else:
        found = find_inputs(inputs)
        files, remarks = found.images, found.remarks
    with joined_world(device) as world:  # type: ignore[arg-type]
        predictor = load(checkpoint, world.device, overrides)
        remarks += describe_fallback(predictor.config.train.precision, predictor.precision)
        remarks += unused_in_predict(overrides)
        remarks += describe_ignored_edit(checkpoint, predictor.config, overrides, ["postprocess"])
        if world.is_main:
            for remark in remarks:
                _say(remark)
        if threshold is None and annotations is not None:
            threshold = predictor.config.postprocess.score_threshold
        elif threshold is None:
            threshold = predictor.threshold
        with tqdm(total=len(files), unit="image", disable=None if world.is_main else True) as bar:

            def say(line: str) -> None:
                bar.clear()
                _say(line)

            summary, folder = predict_files(
                predictor,
                files,
                world=world,
                output=output,
                threshold=threshold,
                draw=draw,
                progress=lambda done: bar.update(done - bar.n),
                say=say,
            )
    if not world.is_main:
        return 0
    for text in summary.notes():
        _say(text)
    drawn = f", {folder / 'pictures'}/" if draw else ""
    done, detections = plural(summary.images, "image"), plural(summary.detections, "detection")
    print(
        f"{done}, {detections} with a score of {threshold:g} or more ({summary.removed:,} below); "
        f"wrote {folder / 'results.json'}, {folder / 'images.json'}{drawn}"
    )
    return 0


def _say(line: str) -> None:
    """Print a line to stderr; names in it may contain line breaks."""
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in line), file=sys.stderr)
