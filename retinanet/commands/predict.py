"""`retinanet predict`."""

from __future__ import annotations

import sys
from pathlib import Path

from retinanet.commands.arguments import command_parser
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
        help="images, folders, globs; and options such as postprocess.class_agnostic_nms=true",
    )
    parser.add_argument(
        "--annotations", metavar="J", help="COCO JSON whose images (and ids) to use"
    )
    parser.add_argument("--images", metavar="D", default=".", help="folder of its images")
    parser.add_argument(
        "--output", metavar="DIR", help="default: predictions, or the next free of its names"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="lowest score, in files and pictures (default: 0.3; with --annotations the "
        "checkpoint's postprocess.score_threshold)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON alone")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    options = parser.parse_intermixed_args(words)
    overrides = [word for word in options.inputs if "=" in word and not Path(word).exists()]
    inputs = [word for word in options.inputs if word not in overrides]
    if bool(inputs) == bool(options.annotations):
        both = " (not both)" if inputs else ""
        parser.error(f"name either images, folders or globs, or a file with --annotations{both}")
    return predict(
        Path(options.checkpoint),
        inputs,
        annotations=Path(options.annotations) if options.annotations else None,
        images=Path(options.images),
        output=Path(options.output) if options.output else None,
        threshold=options.threshold,
        draw=not options.no_pictures,
        device=options.device,
        overrides=overrides,
    )


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

    from retinanet.checkpoints.run_folder import free_name
    from retinanet.data.checks import check_files
    from retinanet.data.coco.index import read_annotations
    from retinanet.inference.files import find_images, list_images, predict_files
    from retinanet.inference.predictor import Predictor

    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold:g} is not between 0 and 1")
    check_writable(output or Path("predictions"), "choose another --output")
    if annotations is not None:
        index = read_annotations(annotations, images_only=True)
        find = "correct file_name, or name the files in place of --annotations"
        check_files(index, images, remedy="is --images right?", find=find)
        files = list_images(index, images)
    else:
        files = find_images(inputs)
    predictor = Predictor.from_checkpoint(checkpoint, device, overrides)
    # Earlier predictions stay, unless their folder is named.
    output = output or Path(predictor.world.broadcast(free_name(Path(), "predictions")))
    if threshold is None:
        own = predictor.config.postprocess.score_threshold
        threshold = own if annotations is not None else max(0.3, own)
    with tqdm(
        total=len(files), unit="image", disable=None if predictor.world.is_main else True
    ) as bar:
        summary = predict_files(
            predictor,
            files,
            output=output,
            threshold=threshold,
            draw=draw,
            progress=lambda done: bar.update(done - bar.n),
        )
    predictor.world.close()
    if not predictor.world.is_main:
        return 0
    for message in summary.unreadable:
        print(f"left out: {message}", file=sys.stderr)
    drawn = f", {output / 'pictures'}/" if draw else ""
    print(
        f"{summary.images} images, {len(summary.results)} detections of score {threshold:g} or more"
        f" ({summary.removed} under it); wrote {output / 'results.json'}, {output / 'images.json'}"
        f"{drawn}"
    )
    return 0
