"""Images without a label file: are they empty, or are their labels somewhere unread?

Who takes them for empty would teach a detector that its objects are background. So they are
refused where any file could hold their labels: texts elsewhere, other formats, odd names.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import read_bytes
from retinanet.convert.readers.yolo.config import YoloConfig
from retinanet.convert.readers.yolo.labels import (
    LabelFiles,
    is_label_name,
    label_path,
    other_labels,
    stem_of,
)
from retinanet.convert.readers.yolo.rows import decode_labels, looks_like_labels, split_row
from retinanet.data.images.folders import find_files
from retinanet.data.images.reading import SUFFIXES

_NO_LABELS = (
    *(".heic", ".heif", ".avif", ".jfif", ".gif", ".svg", ".webp", ".psd", ".pdf", ".raw", ".dng"),
    *(".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".xmp", ".thm", ".aae", ".mp4", ".mov"),
    *(".avi", ".npy", ".npz", ".pt", ".pth", ".pkl", ".tfw", ".jgw", ".pgw", ".wld", ".prj"),
    *(".ovr", ".md5", ".db", ".ini", ".cache", ".py"),
)
"""Suffixes of files that lie beside images and hold no boxes."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
_TRIED = 20
"""Images that are compared with all label files for a rule of their names."""


def report_unlabelled(
    config: YoloConfig,
    splits: dict[str, list[Path]],
    files: LabelFiles,
    unread: list[Path],
    unlabelled: str,
    problems: Problems,
) -> None:
    """Refuse images without labels where labels may have been overlooked.

    Args:
        config: where the data set is.
        splits: the images of each split that are there.
        files: their label files.
        unread: text files that look like labels, but are no image's.
        unlabelled: `refuse` such images, or take them as `empty`.
        problems: collects problems and notes.
    """
    missing = {
        split: own
        for split, images in splits.items()
        if (own := [image for image in images if files.of(image).path is None])
    }
    if unlabelled == "empty" or not missing:
        count = sum(map(len, missing.values()))
        problems.note("images without a label file: taken as images without boxes", count)
        return
    stems = {stem_of(path.name): path for path in unread}
    elsewhere = [
        stems[stem]
        for own in missing.values()
        for image in own
        if (stem := stem_of(image.name)) in stems
    ]
    folder = _common_top(elsewhere, config.root)
    others = _files_of_name([i for own in missing.values() for i in own], files, config.root)
    for split, bare in missing.items():
        of_split = f" of {split}" if split else ""
        empty = "--unlabelled empty takes images without a label file as empty"
        overlooked = [image for image in bare if stem_of(image.name) in stems]
        named = [image for image in bare if image in others]
        if overlooked:
            other = stems[stem_of(overlooked[0].name)]
            reads = f"--labels {folder or _top(other, config.root)} reads those"
            if len(_first_row(other)) == 6:
                reads = (
                    "those have 6 columns, so they are likely predictions, with a confidence: if "
                    "they are labels, remove the 6th column, and give --labels "
                    f"{folder or _top(other, config.root)}"
                )
            what = (
                f"{_count(overlooked)}{of_split} without a label file in the usual place, but with "
                f"labels of the same name elsewhere: {overlooked[0]} and {other}; {reads}; {empty}"
            )
        elif len(bare) == len(splits[split]):
            first = others[named[0]] if named else None
            what = (
                f"{_count(bare)}{of_split}, and none has a label file; the first should be "
                f"{label_path(bare[0])}; {_hint(config.root, unread, first, bare[0])}; {empty}"
            )
        elif named:
            other = others[named[0]]
            what = (
                f"{_count(named)}{of_split} without a label file, but with a file of the same name "
                f"that is not read: {named[0]} and {other}; {_remedy(other, named[0], config.root)}"
                f"; {empty}"
            )
        elif archive := _find_archive(config.root):
            what = (
                f"{_count(bare)}{of_split} without a label file, and there is {archive}: if labels "
                f"are in it, unpack it; {empty}"
            )
        else:
            problems.note("images without a label file: taken as images without boxes", len(bare))
            continue
        problems.add(config.path, None, what)


def _hint(root: Path, unread: list[Path], named: Path | None, image: Path) -> str:
    """Say what may be the labels of a split without any."""
    if unread:
        return (
            f"{len(unread):,} text files that look like labels belong to no image, such as "
            f"{unread[0]}: name them as the images are, and give --labels {_top(unread[0], root)}"
        )
    found = other_labels(root)
    if not found and named is not None:
        found = f"there is {named}: {_remedy(named, image, root)}"
    return found or "--labels D names the folder of the label files"


def _files_of_name(images: list[Path], files: LabelFiles, root: Path) -> dict[Path, Path]:
    """Return a file of the name of each image that has one and could hold its labels."""
    found: dict[str, Path] = {}
    for name in find_files(root, ("",)).names:
        suffix = Path(name).suffix.lower()
        if suffix in (*SUFFIXES, *_NO_LABELS):
            continue
        path = root / name
        if path.absolute() not in files.owners and path.stat().st_size:
            stem = stem_of(path.name)
            if stem.endswith((*SUFFIXES, ".txt")):  # a.jpg.json, a.txt.txt
                stem = stem_of(stem)
            found.setdefault(stem, path)
    others = {image: found[stem] for image in images if (stem := stem_of(image.name)) in found}
    return others | {image: place for image in images if (place := label_path(image)).is_dir()}


def _remedy(other: Path, image: Path, root: Path) -> str:
    """Say how a file of an image's name becomes its label file."""
    usual = label_path(image)
    if other.is_dir():
        return f"that is a folder: move the label file out of it, and remove it, for {usual}"
    if other.suffix.lower() == ".xml":
        return (
            f"if those are Pascal VOC's, type: retinanet convert voc {shlex.quote(str(root))} OUT"
        )
    if looks_like_labels(read_bytes(other)):
        places = " ".join(shlex.quote(str(path)) for path in (other, usual))
        return f"if it has labels, rename it, and others like it: mv {places}"
    if other.suffix.lower() == ".txt":
        return (
            f"its first row, {' '.join(_first_row(other))!r:.60}, is no label: if labels follow, "
            f"remove it, and move the file to {usual}"
        )
    return f"export its boxes as YOLO's text files, {usual}"


def _first_row(path: Path) -> list[str]:
    content = read_bytes(path)
    try:
        rows = decode_labels(content).split("\n") if isinstance(content, bytes) else []
    except ValueError:
        rows = []
    return split_row(next((row for row in rows if row.strip() and not row.startswith("#")), ""))


def _find_archive(root: Path) -> Path | None:
    """Return an archive whose name says that it holds labels."""
    for name in find_files(root, _ARCHIVES).names:
        if is_label_name(Path(name).stem):
            return root / name
    return None


def _count(images: Sequence[Path]) -> str:
    return f"{len(images):,} image{'s' if len(images) > 1 else ''}"


def _top(path: Path, root: Path) -> Path:
    """Return the folder to name for a label file."""
    folder = path.parent
    while folder.parent not in (folder, root) and folder.name in ("train", "val", "valid", "test"):
        folder = folder.parent
    return folder


def _common_top(paths: list[Path], root: Path) -> Path | None:
    """Return the folder of all label files of several folders; None if that is the data set's."""
    folders = {_top(path, root) for path in paths}
    if not folders:
        return None
    shared = Path(os.path.commonpath(folders))
    return shared if shared != root.absolute() and shared.is_relative_to(root.absolute()) else None


def report_name_rule(bare: list[Path], unread: list[Path], problems: Problems) -> bool:
    """Name the rule by which the names of labels differ from those of images, if there is one.

    Args:
        bare: images without a label file.
        unread: text files that look like labels, but are no image's.
        problems: gets one problem.

    Returns:
        whether there is a rule that most label files follow.
    """
    rules: Counter[tuple[str, str]] = Counter()
    for image in bare[:_TRIED]:
        for path in unread:
            own, other = image.stem, path.stem
            if other != own and own.isascii() and min(len(own), len(other)):
                rules.update(_rules_between(own, other))
    if not rules:
        return False
    (kind, part), _ = rules.most_common(1)[0]
    stems = {image.stem for image in bare}
    fitting = [path for path in unread if _renamed(path.stem, kind, part) in stems]
    if len(fitting) < 2 or 2 * len(fitting) < len(unread):
        return False
    how, pattern, renamed = {
        "behind": (
            f"with {part!r} behind",
            f"*{shlex.quote(f'{part}.txt')}",
            f"${{f%{part}.txt}}.txt",
        ),
        "before": (f"with {part!r} before", f"{shlex.quote(part)}*.txt", f"${{f#{part}}}"),
        "not behind": (f"without {part!r} behind", "*.txt", f"${{f%.txt}}{part}.txt"),
        "not before": (f"without {part!r} before", "*.txt", f"{part}$f"),
    }[kind]
    command = ""
    if re.fullmatch(r"[\w .()\-]+", part):  # no sign that a shell understands in its own way
        folder = shlex.quote(str(fitting[0].parent))
        loop = f'for f in {pattern}; do mv -- "$f" "{renamed}"; done'
        command = f"; in each folder, type: (cd {folder} && {loop})"
    problems.add(
        fitting[0],
        None,
        f"{len(fitting):,} of {len(unread):,} label files without an image are called as "
        f"{_count(bare)} without labels, but {how}: rename them{command}",
    )
    return True


def _rules_between(own: str, other: str) -> list[tuple[str, str]]:
    """Return how the name of a label file differs from an image's at one end."""
    found = []
    if other.startswith(own):
        found.append(("behind", other[len(own) :]))
    if other.endswith(own):
        found.append(("before", other[: -len(own)]))
    if own.startswith(other):
        found.append(("not behind", own[len(other) :]))
    if own.endswith(other):
        found.append(("not before", own[: -len(other)]))
    return [(kind, part) for kind, part in found if not part.isdecimal()]


def _renamed(stem: str, kind: str, part: str) -> str | None:
    if kind == "behind":
        return stem.removesuffix(part) if stem.endswith(part) else None
    if kind == "before":
        return stem.removeprefix(part) if stem.startswith(part) else None
    return stem + part if kind == "not behind" else part + stem
