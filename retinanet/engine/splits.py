"""Build checked splits, datasets and plans from a config: joins the data with model and losses."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retinanet.assign.build import Assign, build_assign
from retinanet.data import checks
from retinanet.data.augment import Augment
from retinanet.data.boxes_used import Census, take_census
from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.coco.index import open_annotations
from retinanet.data.coco.selection import select
from retinanet.data.dataset import DetectionDataset, Read
from retinanet.data.found_files import find_files
from retinanet.data.images.reading import read_image
from retinanet.data.loader import Loader, evaluation_loader
from retinanet.data.presets import PRESETS
from retinanet.data.repeats import repeat_factors
from retinanet.data.sampler import TrainingPlan, evaluation_plans
from retinanet.errors import UserError
from retinanet.evaluation.coco import GroundTruth
from retinanet.foreign_config import next_command
from retinanet.model.anchors import AnchorGenerator, build_anchors
from retinanet.schema import Config, DataConfig, Paths, SplitConfig
from retinanet.structures import Target


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """A checked annotation file, its image folder, and the boxes that losses use."""

    annotations: Annotations
    images: Path
    min_box_side: float
    """Shortest side of a box that is used, in original px."""
    census: Census


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """Assigns the anchors of a canvas; runs in the loader processes."""

    anchors: AnchorGenerator
    assign: Assign

    def __call__(self, canvas: Size, target: Target) -> Tensor:
        """Return the match (A,) of each anchor; see `retinanet.assign`."""
        anchors = self.anchors(canvas, torch.device("cpu"))
        return self.assign(anchors, self.anchors.levels(canvas), target)


def open_split(config: Config, name: str) -> Split:
    """Read and check `data.train` or `data.val`.

    Raises:
        UserError: Something is wrong with the file, its records or its images.
    """
    places = locate_split(config, name)
    parts = _open_parts(places, find=config.data.find_images)
    annotations, images = _join_parts(config, name, parts)
    return check_split(annotations, images, config.data, name=name, parts=parts)


def locate_split(config: Config, name: str) -> list[tuple[Path, Path]]:
    """Return the annotation files of `data.train` or `data.val` with their image folders.

    Raises:
        UserError: An option is not set, or a file does not exist.
    """
    place: SplitConfig = getattr(config.data, name)
    for key in ("annotations", "images"):
        if not getattr(place, key):
            raise UserError(
                f"data.{name}.{key} is not set; it is relative to data.root, or absolute"
            )
    root = Path(config.data.root).expanduser()
    files, folders = _as_list(place.annotations), _as_list(place.images)
    needs_root = not all(os.path.isabs(path) for path in (*files, *folders))  # noqa: PTH117
    if needs_root and config.data.root and not os.path.isdir(root):  # noqa: PTH112 (is_dir raises for a forbidden one)
        raise UserError(f"data.root: there is no such folder, or no permission to see it: {root}")
    for file in files:
        if not (root / file).exists():
            remedy = next_command(root) if needs_root else ""
            raise UserError(
                f"{root / file}: there is no such annotation file (data.{name}.annotations"
                + ("" if os.path.isabs(file) else _relation(config.data.root))  # noqa: PTH117
                + ")"
                + (f". {remedy}" if remedy else "")
            )
    duplicates = [file for file in files if files.count(file) > 1]
    if duplicates:
        raise UserError(f"data.{name}.annotations: {duplicates[0]} is in the list twice")
    if len(folders) == 1:
        folders *= len(files)
    return [(root / file, root / folder) for file, folder in zip(files, folders, strict=True)]


def _relation(root: str) -> str:
    return ", relative to data.root" if root else ", and data.root is not set"


def check_places(config: Config, names: Sequence[str], also: str = "") -> None:
    """Refuse a run whose data have moved; the message names the options for the new paths.

    Args:
        config: Config of the run.
        names: Splits that are needed: `train`, `val`.
        also: Another remedy, for the end of the message.

    Raises:
        UserError: A file or a folder does not exist; the message names the options to give.
    """
    for name in names:
        try:
            for file, folder in locate_split(config, name):
                if not os.path.isdir(folder):  # noqa: PTH112 (is_dir raises for a forbidden one)
                    raise UserError(f"{folder}: there is no such image folder (for {file})")
        except UserError as error:
            place: SplitConfig = getattr(config.data, name)
            paths = [*_as_list(place.annotations), *_as_list(place.images)]
            options = "data.root=FOLDER"
            if all(os.path.isabs(path) for path in paths):  # noqa: PTH117
                options = f"data.{name}.annotations=FILE data.{name}.images=FOLDER"
            raise UserError(f"{error}. If the data have moved, give {options}{also}") from None


def _as_list(paths: Paths) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths)


def _open_parts(places: list[tuple[Path, Path]], *, find: bool) -> list[tuple[Annotations, Path]]:
    """Return the index and the image folder of each file; `find` searches for missing images."""
    opened = [(open_annotations(file), folder) for file, folder in places]
    return [(find_files(index, folder), folder) for index, folder in opened] if find else opened


def _join_parts(
    config: Config, name: str, parts: list[tuple[Annotations, Path]]
) -> tuple[Annotations, Path]:
    """Return the selected part of a split's files, and the folder of its file names."""
    classes, limit = config.data.classes, getattr(config.data, name).limit
    opened, folders = [index for index, _ in parts], [folder for _, folder in parts]
    for other in opened[1:]:
        checks.check_same_classes(opened[0].categories, opened[0].path, other, classes)
    if len(opened) == 1 and classes is None and limit is None:
        return opened[0], folders[0]
    whole = [os.path.abspath(folder) for folder in folders]  # noqa: PTH100 (without `..`)
    try:
        common = os.path.commonpath(whole)
    except ValueError:  # two drives of Windows
        return select(opened, whole, classes=classes, limit=limit), Path()
    inside = [Path(os.path.relpath(folder, common)).as_posix() for folder in whole]
    prefixes = ["" if path == "." else path for path in inside]
    return select(opened, prefixes, classes=classes, limit=limit), Path(common)


def check_split(
    annotations: Annotations,
    images: Path,
    config: DataConfig,
    *,
    name: str,
    parts: Sequence[tuple[Annotations, Path]] = (),
) -> Split:
    """Check annotations against the images; for training, also select the boxes to use.

    Args:
        annotations: Index of the split.
        images: Folder that its file names are relative to.
        config: Data options.
        name: `train` or `val`.
        parts: Indexes and image folders that the split was joined from, if it was.

    Raises:
        UserError: The split is empty, has a wrong box format, or lacks images.
    """
    learn = name == "train"
    checks.check_has_data(annotations, split=name, learn=learn)
    checks.check_format(annotations)
    leave_out = ""
    if len(parts) == 1:
        words = ["retinanet", "check", str(annotations.path), "--images", str(images)]
        leave_out = f"`{shlex.join([*words, '--fix', 'OUT.json'])}` leaves them out"
    checks.check_files(
        annotations, images, leave_out=leave_out, parts=parts if len(parts) > 1 else ()
    )
    if not learn:
        checks.check_whole(annotations, images)
    side = config.min_box_side if learn else 0.0
    census = take_census(annotations, min_box_side=side)
    if learn and not census.learnable.any():
        raise UserError(
            f"{annotations.path}: data.{name} has no box left to learn from: "
            + "; ".join(census.remarks)
        )
    return Split(annotations=annotations, images=images, min_box_side=side, census=census)


def open_training_splits(config: Config) -> tuple[Split, Split]:
    """Read both splits; their classes must be the same.

    Raises:
        UserError: See `open_split`.
    """
    train, val = open_split(config, "train"), open_split(config, "val")
    checks.check_same_classes(train.annotations.categories, train.annotations.path, val.annotations)
    if config.data.find_images:
        _check_found_once(config, train, val)
    return train, val


def _check_found_once(config: Config, train: Split, val: Split) -> None:
    """Refuse an image file that was found for two differently named images, one in each split.

    Raises:
        UserError: There is such a file; the message names the first.
    """
    shared = checks.shared_files(train.annotations, train.images, val.annotations, val.images)
    if not shared:
        return
    written = [
        _join_parts(config, name, _open_parts(locate_split(config, name), find=False))[0]
        for name in ("train", "val")
    ]
    for rows in shared:
        names = [
            os.path.normpath(split.images / index.file_names[row])
            for split, index, row in zip((train, val), written, rows, strict=True)
        ]
        if names[0] != names[1]:
            raise UserError(
                f"{val.images / val.annotations.file_names[rows[1]]}: data.find_images finds it "
                f"for image {train.annotations.image_ids[rows[0]]} of data.train ({names[0]}) and "
                f"for image {val.annotations.image_ids[rows[1]]} of data.val ({names[1]}); name "
                "each split's own folder in data.train.images and data.val.images"
            )


def training_plan(config: Config, split: Split) -> TrainingPlan:
    """Return the plan that lists the images of each step."""
    data = config.data
    learnable = split.census.learnable
    rows = np.flatnonzero(learnable) if data.drop_empty else np.arange(len(learnable))
    factors = None
    if data.repeat_threshold:
        factors = repeat_factors(split.annotations, rows, threshold=data.repeat_threshold)
    return TrainingPlan(
        split.annotations.sizes,
        rows=rows,
        factors=factors,
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        short_sides=training_short_sides(data),
        long_side=data.long_side,
        resize=data.resize,
        canvas=data.canvas,
        canvas_group=data.images_per_canvas,
        fixed_canvas=training_canvas(data),
        partners=PRESETS[data.preset].partners,
    )


def training_short_sides(data: DataConfig) -> tuple[int, ...]:
    """Return the short sides (px) that training draws from."""
    return PRESETS[data.preset].short_sides(data.short_side)


def training_canvas(data: DataConfig) -> Size | None:
    """Return the preset's fixed canvas (height, width); None if it has none."""
    return PRESETS[data.preset].canvas(data.short_side, data.preset_canvas)


def build_dataset(
    config: Config, split: Split, *, augment: bool, losses: bool, read: Read = read_image
) -> DetectionDataset:
    """Build the dataset of a split; `losses` also assigns anchors, which losses need."""
    return DetectionDataset(
        split.annotations,
        images=split.images,
        min_box_side=split.min_box_side,
        long_side=config.data.long_side,
        augment=build_augment(config) if augment else None,
        match=build_matcher(config) if losses else None,
        read=read,
    )


def build_augment(config: Config) -> Augment:
    """Build the augmentation of an experiment."""
    data = config.data
    return Augment(preset=PRESETS[data.preset], hflip=data.hflip, transforms=data.augment)


def build_matcher(config: Config) -> Callable[[Size, Target], Tensor]:
    """Build the function that assigns anchors to the ground truth of an image."""
    return Matcher(anchors=build_anchors(config.anchors), assign=build_assign(config.assign))


def build_evaluation_loader(
    config: Config,
    split: Split,
    *,
    losses: bool,
    rank: int,
    ranks: int,
    pin_memory: bool,
    limit: int | None = None,
) -> Loader:
    """Return this rank's batches of a split; `limit` takes only the first images."""
    data = config.data
    plans = evaluation_plans(
        split.annotations.sizes[:limit],
        batch_size=config.eval.batch_size,
        short_side=data.evaluation_short_side,
        long_side=data.long_side,
        canvas=data.canvas,
    )
    return evaluation_loader(
        build_dataset(config, split, augment=False, losses=losses),
        plans[rank::ranks],
        workers=data.workers if limit is None else 0,
        pin_memory=pin_memory,
    )


def ground_truth(annotations: Annotations, limit: int | None = None) -> GroundTruth:
    """Return the ground truth that detections are scored against: all boxes, unchanged."""
    images = len(annotations) if limit is None else min(limit, len(annotations))
    stop = int(annotations.offsets[images])
    categories = annotations.categories
    return GroundTruth(
        image_ids=annotations.image_ids[:limit].tolist(),
        category_ids=categories.ids,
        category_names=categories.names,
        boxes=annotations.boxes[:stop].astype(np.float64),
        box_image_ids=np.repeat(
            annotations.image_ids[:images], np.diff(annotations.offsets[: images + 1])
        ),
        box_category_ids=np.array(categories.ids)[annotations.labels[:stop]],
        areas=annotations.areas[:stop],
        crowd=annotations.crowd[:stop],
    )
