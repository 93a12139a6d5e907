"""`retinanet predict`."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

from retinanet.commands.arguments import check_overrides, command_parser, device_name
from retinanet.commands.habits import answer, unused_in_predict
from retinanet.errors import UserError
from retinanet.files import check_writable


def main(words: list[str]) -> int:
    """Detect in images, write and say what; return the exit code."""
    parser = command_parser(
        "predict",
        "Detect in images: COCO-format results and annotated pictures, in original pixels.",
        "retinanet predict runs/first/checkpoints/best.pt photos/ 'more/*.jpg' --threshold 0.5\n"
        "  retinanet predict best.pt --annotations image_info_test-dev2017.json --images test2017",
    )
    parser.add_argument("checkpoint")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, folders, globs, lists (.txt, a file a line); and options such as "
        "postprocess.class_agnostic_nms=true",
    )
    parser.add_argument(
        "--annotations", metavar="J", help="COCO JSON whose images (and ids) to use"
    )
    parser.add_argument("--images", metavar="D", help="folder of its images (default: .)")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="default: predictions, or the next free of its names; a prediction that lies in DIR "
        "is replaced",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="lowest score, in files and pictures (default: 0.3; with --annotations the "
        "checkpoint's postprocess.score_threshold)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON alone")
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="{auto,cpu,cuda,mps}",
        help="default: auto",
    )
    options = parser.parse_intermixed_args(words)
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
        print("note: --threshold counts, not postprocess.score_threshold", file=sys.stderr)
    if bool(inputs) == bool(options.annotations):
        both = " (not both)" if inputs else ""
        parser.error(f"name either images, folders or globs, or a file with --annotations{both}")
    if options.images is not None and not options.annotations:
        parser.error(
            "--images is the folder of an annotation file's images, and needs --annotations; "
            "without one, name the folder itself as an INPUT"
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
    """Whether a word is `section.key=value`, and no file or pattern with such a name."""
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
    """Predict on files, folders and globs, or on the images of an annotation file.

    Raises:
        UserError: a wrong threshold, checkpoint, input or output.
    """
    from tqdm import tqdm

    from retinanet.checkpoints.folder_config import describe_ignored_edit
    from retinanet.data.checks import check_files
    from retinanet.data.coco.index import read_annotations
    from retinanet.inference.files import predict_files
    from retinanet.inference.inputs import find_inputs, list_images
    from retinanet.inference.predictor import Predictor

    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold:g} is not between 0 and 1")
    check_writable(output or Path("predictions"), "choose another --output")
    remarks: list[str] = []
    if annotations is not None:
        index = read_annotations(annotations, images_only=True)
        find = "correct file_name, or name the files in place of --annotations"
        check_files(index, images, remedy="is --images right?", find=find)
        files = list_images(index, images)
    else:
        found = find_inputs(inputs)
        files, remarks = found.images, found.remarks
    predictor = Predictor.from_checkpoint(checkpoint, device, overrides)
    is_main = predictor.world.is_main
    remarks += unused_in_predict(overrides)
    remarks += describe_ignored_edit(checkpoint, predictor.config, overrides, ["postprocess"])
    if is_main:
        for remark in remarks:
            _say(remark)
    if threshold is None:
        own = predictor.config.postprocess.score_threshold
        asked = any(text.startswith("postprocess.score_threshold") for text in overrides)
        threshold = own if annotations is not None or asked else max(0.3, own)
    with tqdm(total=len(files), unit="image", disable=None if is_main else True) as bar:

        def say(line: str) -> None:
            bar.clear()
            _say(line)

        summary, folder = predict_files(
            predictor,
            files,
            output=output,
            threshold=threshold,
            draw=draw,
            progress=lambda done: bar.update(done - bar.n),
            say=say,
        )
    predictor.world.close()
    if not is_main:
        return 0
    for note in summary.notes():
        _say(note)
    drawn = f", {folder / 'pictures'}/" if draw else ""
    print(
        f"{summary.images} images, {summary.detections} detections of score {threshold:g} or more"
        f" ({summary.removed} under it); wrote {folder / 'results.json'}, {folder / 'images.json'}"
        f"{drawn}"
    )
    return 0


def _say(line: str) -> None:
    """Print a line to stderr: a name in it may hold line breaks."""
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in line), file=sys.stderr)
