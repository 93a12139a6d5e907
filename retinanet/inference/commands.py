"""`retinanet predict`: options -> files, and lines that say what happened."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from retinanet.data.checks import check_files
from retinanet.data.index import read_annotations
from retinanet.engine.run_folder import free_name
from retinanet.errors import UserError
from retinanet.files import check_writable
from retinanet.inference.predictor import (
    Predictor,
    find_pictures,
    list_pictures,
    predict_pictures,
)


def predict(options: argparse.Namespace) -> int:
    """Predict on what the command line names; return the exit code.

    Raises:
        UserError: a wrong threshold, checkpoint, input or output.
    """
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold:g} is not between 0 and 1")
    check_writable(Path(options.output or "predictions"), "choose another --output")
    if options.annotations:
        annotations = read_annotations(Path(options.annotations), images_only=True)
        check_files(annotations, Path(options.images), remedy="is --images right?")
        pictures = list_pictures(annotations, Path(options.images))
    else:
        pictures = find_pictures(options.inputs)
    predictor = Predictor.from_checkpoint(
        Path(options.checkpoint), options.device, options.overrides
    )
    # Earlier predictions stay, unless their folder is named.
    output = Path(options.output or predictor.world.broadcast(free_name(Path(), "predictions")))
    threshold = options.threshold
    if threshold is None:
        own = predictor.config.postprocess.score_threshold
        threshold = own if options.annotations else max(0.3, own)
    with tqdm(
        total=len(pictures), unit="image", disable=None if predictor.world.is_main else True
    ) as bar:
        summary = predict_pictures(
            predictor,
            pictures,
            output=output,
            threshold=threshold,
            draw=not options.no_pictures,
            progress=lambda done: bar.update(done - bar.n),
        )
    predictor.world.close()
    if not predictor.world.is_main:
        return 0
    for message in summary.unreadable:
        print(f"left out: {message}", file=sys.stderr)
    pictures_text = "" if options.no_pictures else f", {output / 'pictures'}/"
    print(
        f"{summary.images} images, {len(summary.results)} detections of score {threshold:g} or more"
        f" ({summary.removed} under it); wrote {output / 'results.json'}, {output / 'images.json'}"
        f"{pictures_text}"
    )
    return 0
