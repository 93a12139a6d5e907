"""The evaluation of a checkpoint, or of a file of results: what `retinanet evaluate` does."""

from __future__ import annotations

from pathlib import Path

from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import inference_config, restore_detector
from retinanet.config import override_config
from retinanet.data.checks import check_same_classes
from retinanet.data.coco.index import read_annotations
from retinanet.distributed.precision import inference_precision
from retinanet.distributed.world import join_world
from retinanet.engine.evaluate import Evaluation, evaluate
from retinanet.engine.splits import ground_truth, locate_split, open_split
from retinanet.errors import UserError
from retinanet.evaluation.coco import evaluate_results
from retinanet.evaluation.results import read_results
from retinanet.schema import Config, SplitConfig


def evaluate_checkpoint(
    path: Path,
    *,
    annotations: Path | None,
    images: Path | None,
    overrides: list[str],
) -> Evaluation | None:
    """Evaluate a checkpoint on its own val split, or on another file with the same classes.

    Returns:
        The evaluation on the main process, None on the others.

    Raises:
        UserError: a wrong checkpoint, file or option.
    """
    checkpoint = load_checkpoint(path)
    config = inference_config(checkpoint, overrides)
    if images is not None and annotations is None:
        raise UserError(f"--images {images} goes with --annotations; or set data.val.images=...")
    if annotations is not None:
        folder = str(images.absolute()) if images else config.data.val.images
        if not isinstance(folder, str) and len(folder) > 1:
            raise UserError(
                f"--annotations needs --images: data.val.images are {len(folder)} folders"
            )
        val = SplitConfig(annotations=str(annotations.absolute()), images=folder)
        # With both places given, the training machine's data.root need not exist here.
        root = "" if images else config.data.root
        data = config.data.model_copy(update={"val": val, "root": root})
        config = config.model_copy(update={"data": data})
    else:
        try:
            locate_split(config, "val")
        except UserError as error:
            remedy = "--annotations FILE --images FOLDER evaluate it on data that is here"
            raise UserError(f"{error}; {remedy}") from None
    world = join_world(config.train.device)
    try:
        split = open_split(config, "val")
        check_same_classes(checkpoint.categories, path, split.annotations)
        precision = inference_precision(config.train.precision, world.device)
        model = restore_detector(checkpoint, world.device, precision)
        return evaluate(
            model,
            config,
            split,
            world=world,
            precision=precision,
            pictures=config.eval.pictures,
        )
    finally:
        world.close()


def evaluate_results_file(path: Path, annotations: Path, overrides: list[str]) -> Evaluation:
    """Score an existing results file.

    Raises:
        UserError: a wrong file or record.
    """
    config = override_config(Config(), overrides)
    truth = ground_truth(read_annotations(annotations))
    results = read_results(path, image_ids=truth.image_ids, category_ids=truth.category_ids)
    metrics = evaluate_results(truth, results, max_detections=config.postprocess.max_detections)
    return Evaluation(
        metrics=metrics, results=results, losses={}, pictures=[], annotations=annotations
    )
