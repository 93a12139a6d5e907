"""Read YOLO: folders or lists of images, and a text file of labels for each image."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from retinanet.convert.dataset import FoundImage, FoundImages
from retinanet.convert.image_files import name_inside, note_hidden_files, read_image_infos
from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import map_in_threads, read_bytes
from retinanet.convert.readers.yolo.config import YoloConfig
from retinanet.convert.readers.yolo.evidence import Evidence, LabelRules
from retinanet.convert.readers.yolo.labels import (
    LabelFiles,
    absolute,
    label_path,
    stem_of,
)
from retinanet.convert.readers.yolo.lists import ListedImage, is_file, read_list
from retinanet.convert.readers.yolo.rows import read_labels
from retinanet.convert.readers.yolo.unlabelled import report_name_rule, report_unlabelled
from retinanet.convert.rules import FIND, SKIP
from retinanet.convert.unread_kinds import find_other_files, why_unread
from retinanet.data.canvas import Size
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_PLACES = 3
"""Number of label folders that the summary lists."""


def read_yolo(
    config: YoloConfig,
    rules: LabelRules,
    problems: Problems,
    *,
    labels: Path | None,
    missing_images: str,
    unlabelled: str,
) -> list[FoundImages]:
    """Read the images of all splits and their labels.

    file_name is relative to the folder of the split. If a split has several folders or lists, it is
    relative to the first folder that holds all its images: images/SPLIT, images, the root, or the
    common parent folder.

    Args:
        config: Where the images are.
        rules: How to read the labels.
        problems: Collects problems and notes.
        labels: Folder of label files that come before those in all other places.
        missing_images: As for `assemble`; `skip` also leaves out label files without an image.
        unlabelled: `refuse` splits without labels, and images whose labels may be elsewhere; or
            take them as images without boxes (`empty`).

    Raises:
        UserError: The labels, taken together, contradict the way they are read.
    """
    listed = {
        split: _images_of_split(config, split, missing_images, problems) for split in config.splits
    }
    images = [image.path for own in listed.values() for image in own]
    files = LabelFiles(images, config.root, labels)
    evidence = Evidence()
    parts = [
        _read_split(config, split, own, files, rules, evidence, missing_images, problems)
        for split, own in listed.items()
    ]
    if objection := evidence.objection(rules, lambda: _smallest_side(images)):
        raise UserError(f"{config.path}: {objection}; nothing was written")
    _report_shared_labels(files, images, problems)
    _note_images_of_several_splits(listed, problems)
    there = {
        split: [image.path for image in own if is_file(image.path)] for split, own in listed.items()
    }
    bare = [image for own in there.values() for image in own if files.of(image).path is None]
    unread = list(files.unread())
    if unlabelled == "empty" or not report_name_rule(bare, unread, problems):
        unread = _report_labels_without_image(
            config, files, images, unread, problems, missing_images
        )
        report_unlabelled(config, there, files, unread, unlabelled, problems)
    if unread:
        problems.note(
            f"text files with labels, but without an image, such as {unread[0]}: not read",
            len(unread),
        )
    _note_places(config, files, images, problems)
    problems.note("hidden text files (name or folder begins with a dot): not read", files.hidden)
    return parts


def _images_of_split(
    config: YoloConfig, split: str, missing_images: str, problems: Problems
) -> list[ListedImage]:
    """Return the images of a split, without duplicates."""
    images: dict[Path, ListedImage] = {}
    entries = config.splits[split]
    for entry in entries:
        for image in _images_of(entry, config.root, missing_images, problems):
            if images.setdefault(absolute(image.path), image) is not image:
                problems.note("images listed twice in a split: taken once")
    if not images:
        of_split = f" of {split}" if split else ""
        problems.add(
            config.path,
            None,
            f"there are no images{of_split} in {' and '.join(map(str, entries))}; correct the path"
            + (f", or leave {split} out with --sets" if len(config.splits) > 1 else ""),
        )
    return list(images.values())


def _images_of(
    entry: Path, root: Path, missing_images: str, problems: Problems
) -> list[ListedImage]:
    """Return the images of a folder or list."""
    if not entry.is_dir():
        return read_list(entry, root, problems, find_missing=missing_images in FIND)
    note_hidden_files(entry, problems)
    paths = [entry / name for name in find_image_names(entry)]
    return [ListedImage(path, path, None) for path in paths]


def _read_split(
    config: YoloConfig,
    split: str,
    listed: list[ListedImage],
    files: LabelFiles,
    rules: LabelRules,
    evidence: Evidence,
    missing_images: str,
    problems: Problems,
) -> FoundImages:
    there = [image.path for image in listed if image.line is None or is_file(image.path)]
    folder = _common_folder(config, split, there)
    part = FoundImages(name=split, folder=folder, normalized=rules.units != "px")
    paths = [files.of(image.path).path for image in listed]
    contents = map_in_threads(read_bytes, [path for path in paths if path is not None])
    sizes: list[Size | None] = [None] * len(listed)
    if rules.units == "px":  # whether boxes fit their image shows whether they are read right
        infos = read_image_infos([image.path for image in listed])
        sizes = [None if isinstance(info, str) else info.shown for info in infos]
    for (path, source, line), label, size in zip(listed, paths, sizes, strict=True):
        content = next(contents) if label is not None else b""
        name = name_inside(folder, path.absolute())
        boxes = []  # the image has no label file
        if label is not None:
            boxes = read_labels(label, content, rules, evidence, problems, size)
        # A path of another machine, not a path at all, or no file with a similar name. This is
        # reported here, because a file that is found later would have no labels.
        if name is None or "\0" in name or (missing_images in FIND and not is_file(path)):
            if missing_images in SKIP:
                problems.note("images without a file: skipped")
                problems.note("boxes of images without a file: skipped", len(boxes))
            else:
                problems.add(
                    source,
                    line,
                    f"{str(path)!r:.200}: there is no such image file; --missing-images find looks "
                    f"for its name in {config.root}, skip leaves it out",
                )
            continue
        image = FoundImage(source=source, line=line, file_name=name, boxes=boxes)
        if label is not None:
            image.source, image.line = label, None
        part.images.append(image)
    return part


def _smallest_side(images: list[Path]) -> float:
    """Return the smallest side of images, px; 0 if none can be read."""
    infos = read_image_infos(images)
    return min((min(info.shown) for info in infos if not isinstance(info, str)), default=0)


def _common_folder(config: YoloConfig, split: str, images: list[Path]) -> Path:
    entries = config.splits[split]
    if len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    for folder in (config.root / "images" / split, config.root / "images", config.root):
        if all(name_inside(folder, image.absolute()) for image in images):
            return folder
    return Path(os.path.commonpath([image.absolute().parent for image in images]))


def _report_shared_labels(files: LabelFiles, images: list[Path], problems: Problems) -> None:
    """Report label files that may belong to several images, and images with two label files."""
    owners: dict[Path, dict[Path, None]] = {}
    for image in images:
        found = files.of(image)
        if found.path is None:
            continue
        owners.setdefault(found.path, {})[absolute(image)] = None
        if found.rivals:
            problems.add(
                found.path,
                None,
                f"is the label file of {image}, but so is {found.rivals[0]}, and they differ; "
                f"remove one of them, or use --labels {found.path.parent}",
            )
    for path, shared in owners.items():
        if len(shared) > 1 and path.stat().st_size:
            first, second, *_ = shared
            problems.add(
                path,
                None,
                f"is the label file of both {first} and {second}, so it is not clear whose boxes "
                f"these are; remove one of the images, or move the label file to "
                f"{label_path(first)}"
                if label_path(first) != label_path(second)
                else f"is the label file of both {first} and {second}, so it is not clear whose "
                "boxes these are; remove or rename one of the images",
            )


def _note_images_of_several_splits(
    listed: dict[str, list[ListedImage]], problems: Problems
) -> None:
    splits: dict[str, list[str]] = {}
    for split, images in listed.items():
        for path in {os.path.realpath(i.path) for i in images if is_file(i.path)}:
            splits.setdefault(path, []).append(split)
    for names, count in Counter(tuple(own) for own in splits.values() if len(own) > 1).items():
        problems.note(f"images in both {' and '.join(names)}: AP will be too high", count)


def _report_labels_without_image(
    config: YoloConfig,
    files: LabelFiles,
    images: list[Path],
    unread: list[Path],
    problems: Problems,
    missing_images: str,
) -> list[Path]:
    """Report label files without an image in the label folders; return the others."""
    named = {stem_of(image.name) for image in files.found}
    bare = {stem_of(image.name) for image in images if files.of(image).path is None}
    used = {path.parent for image in images if (path := files.of(image).path) is not None}
    homes = {  # the usual folder of labels -> its folder of images
        label_path(entry / "x").parent: entry
        for entries in config.splits.values()
        for entry in entries
        if entry.is_dir()
    }
    others = []
    kinds: dict[str, Path] | None = None
    for path in unread:
        home = next((home for home in homes if path.is_relative_to(home)), None)
        # If labels are beside images, any text may look like one: predictions of a run, too.
        beside = home is not None and homes[home].absolute() == home
        stem = stem_of(path.name)
        elsewhere = path.parent not in used and (home is None or (beside and stem in named))
        if elsewhere or stem in bare:
            others.append(path)
        elif missing_images in SKIP:
            problems.note("label files without an image: skipped")
        else:
            wanted = path.with_suffix("").name
            if home is not None:
                wanted = str(homes[home] / path.relative_to(home).with_suffix(""))
            if kinds is None:
                folders = [*homes.values(), *(image.parent for image in images)]
                kinds = find_other_files(folders)
            there = kinds.get(path.stem)
            problems.add(
                path,
                None,
                f"there is no image {wanted}{SUFFIXES[0]} (or another suffix) for these labels; "
                + (f"{why_unread(there)}; " if there else "")
                + "--missing-images skip leaves them out",
            )
    return others


def _note_places(
    config: YoloConfig, files: LabelFiles, images: list[Path], problems: Problems
) -> None:
    """Count label files in unusual places, and label files that were not read."""
    places = Counter(
        str(path.parent)
        for image in dict.fromkeys(images)
        if (path := files.of(image).path) is not None
        and path != label_path(image)
        and not (files.given and path.is_relative_to(files.given))
    )
    for place, count in places.most_common(_PLACES):
        problems.note(f"label files read from {place}, which is not YOLO's usual place", count)
    problems.note(
        "label files read from other unusual places",
        sum(places.values()) - sum(count for _, count in places.most_common(_PLACES)),
    )
    problems.note(
        f"label files of images with another label file in {files.given}: not read",
        len(files.passed_over),
    )
    if config.complete:
        problems.note(
            f"label files under {config.root} with an image in no split: not read",
            files.of_no_split(),
        )
