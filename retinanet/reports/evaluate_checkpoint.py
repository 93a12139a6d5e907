"""Evaluate a checkpoint or a results file, for `retinanet evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retinanet.checkpoints.folder_config import describe_ignored_edit
from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.restore import inference_config, restore_detector
from retinanet.config import override_config
from retinanet.data.checks import check_same_classes
from retinanet.data.coco.content import unpack
from retinanet.data.coco.index import read_annotations
from retinanet.data.loader_processes import say_to_stderr
from retinanet.distributed.precision import describe_fallback, inference_precision, numerics
from retinanet.distributed.read_once import read_once_a_machine
from retinanet.distributed.world import World, joined_world
from retinanet.engine.evaluate import Evaluation, evaluate
from retinanet.engine.preflight.grid_check import check_evaluation_grids
from retinanet.engine.preflight.loader_limits import check_evaluation_loader
from retinanet.engine.splits import check_places, ground_truth, open_split
from retinanet.errors import UserError
from retinanet.evaluation.coco import evaluate_results
from retinanet.evaluation.results import Known, parse_results
from retinanet.files import check_regular
from retinanet.reports.results_evidence import check_boxes, describe_results
from retinanet.schema import Config, SplitConfig


def evaluate_file(
    path: Path,
    *,
    annotations: Path | None,
    images: Path | None,
    overrides: list[str],
    world: World | None = None,
    say: Callable[[str], object] = say_to_stderr,
) -> Evaluation | None:
    """Evaluate a checkpoint, or score a file of COCO results.

    Args:
        path: Path of the checkpoint or of the results file.
        annotations: COCO JSON to score against; None uses the val split of a checkpoint.
        images: Folder of the images of `annotations`.
        overrides: Options `section.key=value` on top of the checkpoint's.
        world: World that the caller has joined and will leave; None joins one.
        say: Called with notes about the input.

    Returns:
        The evaluation on the main process, None on the others.

    Raises:
        UserError: A wrong checkpoint, file or option.
    """
    if not is_results_file(path):
        return evaluate_checkpoint(
            path, annotations=annotations, images=images, overrides=overrides, world=world, say=say
        )
    if annotations is None:
        raise UserError(f"{path}: a results file needs --annotations, the file to score it against")
    if images is not None:
        say("note: --images has no effect on a results file: no image is read")
    return evaluate_results_file(path, annotations, overrides, say)


def evaluate_checkpoint(
    path: Path,
    *,
    annotations: Path | None,
    images: Path | None,
    overrides: list[str],
    world: World | None = None,
    say: Callable[[str], object] = say_to_stderr,
) -> Evaluation | None:
    """Evaluate a checkpoint on its own val split, or on another file with the same classes.

    See `evaluate_file`.
    """
    checkpoint = load_checkpoint(path)
    config = inference_config(checkpoint, overrides)
    if images is not None and annotations is None:
        raise UserError(f"--images {images} needs --annotations; or set data.val.images=...")
    if annotations is not None:
        _check_given(annotations, images)
        folder = str(images.absolute()) if images else config.data.val.images
        if not isinstance(folder, str) and len(folder) > 1:
            raise UserError(
                f"--annotations needs --images, because data.val.images has {len(folder)} folders"
            )
        val = SplitConfig(annotations=str(annotations.absolute()), images=folder)
        # With both given, the data.root of the training machine need not exist here.
        root = "" if images else config.data.root
        data = config.data.model_copy(update={"val": val, "root": root})
        config = config.model_copy(update={"data": data})
        if images is None:
            check_places(config, ["val"], "; or name the folder of the images: --images FOLDER")
    else:
        check_places(
            config, ["val"], "; or evaluate on other data: --annotations FILE --images FOLDER"
        )
    with joined_world(config.train.device, world) as joined:
        if joined.is_main:
            sections = ("data", "eval", "postprocess")
            for line in describe_ignored_edit(path, checkpoint.config, overrides, sections):
                say(line)
        split = read_once_a_machine(joined, lambda: open_split(config, "val"))
        check_same_classes(checkpoint.categories, path, split.annotations)
        for remark in check_evaluation_loader(config, split, joined):
            say(remark)
        check_evaluation_grids(config, split)
        precision = inference_precision(config.train.precision, joined.device)
        if joined.is_main:
            for line in describe_fallback(config.train.precision, precision):
                say(line)
        model = restore_detector(checkpoint, joined.device, precision)
        with numerics(config.train, joined.device):
            return evaluate(
                model,
                config,
                split,
                world=joined,
                precision=precision,
                pictures=config.eval.pictures,
            )


def _check_given(annotations: Path, images: Path | None) -> None:
    """Refuse files and folders of the command line that do not exist."""
    if not annotations.exists():
        raise UserError(f"--annotations {annotations}: there is no such file")
    if annotations.is_dir():
        raise UserError(f"--annotations {annotations}: is a folder; name a COCO JSON file")
    if images is not None and not images.is_dir():
        wrong = "is not a folder" if images.exists() else "there is no such folder"
        raise UserError(f"--images {images}: {wrong}")


def is_results_file(path: Path) -> bool:
    """Whether a file contains results and not a checkpoint, by its first byte, or by its name."""
    try:
        with check_regular(path).open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        start = b""
    return start.startswith((b"[", b"{", b"\x1f\x8b")) or ".json" in path.suffixes[-2:]


def evaluate_results_file(
    path: Path,
    annotations: Path,
    overrides: list[str],
    say: Callable[[str], object] = say_to_stderr,
) -> Evaluation:
    """Score an existing results file.

    Raises:
        UserError: A wrong file, record or option.
    """
    config = override_config(Config(), overrides)
    for text in overrides:
        if text.partition("=")[0].strip() != "postprocess.max_detections":
            say(
                f"{text}: has no effect on a results file; the only option with an effect is "
                "postprocess.max_detections=N"
            )
    try:
        content = check_regular(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    index = read_annotations(annotations)
    truth = ground_truth(index)
    known = Known(
        image_ids=truth.image_ids, file_names=index.file_names, category_ids=truth.category_ids
    )
    results, remarks = parse_results(unpack(path, content), path, known=known)
    check_boxes(results, index, path)
    metrics = evaluate_results(truth, results, max_detections=config.postprocess.max_detections)
    metrics.remarks[:0] = [*remarks, *describe_results(results, truth, metrics)]
    return Evaluation(
        metrics=metrics, results=results, losses={}, pictures=[], annotations=annotations
    )
