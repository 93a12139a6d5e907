"""Images without a label file: do they have no objects, or are their labels somewhere else?

Taking them as empty by mistake teaches a detector that objects are background. So they are refused
if any file could hold their labels: texts in other places, other formats, unusual names.
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
from retinanet.errors import plural

_NO_LABELS = (
    *(".heic", ".heif", ".avif", ".jfif", ".gif", ".svg", ".webp", ".psd", ".pdf", ".raw", ".dng"),
    *(".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".xmp", ".thm", ".aae", ".mp4", ".mov"),
    *(".avi", ".npy", ".npz", ".pt", ".pth", ".pkl", ".tfw", ".jgw", ".pgw", ".wld", ".prj"),
    *(".ovr", ".md5", ".db", ".ini", ".cache", ".py"),
)
"""Suffixes of files beside images that contain no boxes."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
_TRIED = 20
"""Number of images whose names are compared with all label files."""


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
        config: Where the data set is.
        splits: Existing images of each split.
        files: Label files of the images.
        unread: Text files that look like labels, but belong to no image.
        unlabelled: `refuse` such images, or take them as images without boxes (`empty`).
        problems: Collects problems and notes.
    """
    missing = {
        split: own
        for split, images in splits.items()
        if (own := [image for image in images if files.of(image).path is None])
    }
    if unlabelled == "empty" or not missing:
        count = sum(map(len, missing.values()))
        problems.note("images without a label file: kept without boxes", count)
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
        empty = "--unlabelled empty keeps images without a label file, without boxes"
        overlooked = [image for image in bare if stem_of(image.name) in stems]
        named = [image for image in bare if image in others]
        if overlooked:
            other = stems[stem_of(overlooked[0].name)]
            reads = f"--labels {folder or _top(other, config.root)} reads them"
            if len(_first_row(other)) == 6:
                reads = (
                    "these have 6 columns, so they are probably predictions, with a confidence: if "
                    "they are labels, remove the 6th column, and use --labels "
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
                f"{_count(named)}{of_split} without a label file, but with another file of the "
                f"same name: {named[0]} and {other}; {_remedy(other, named[0], config.root)}; "
                f"{empty}"
            )
        elif archive := _find_archive(config.root):
            what = (
                f"{_count(bare)}{of_split} without a label file, and there is {archive}: if it "
                f"contains labels, unpack it; {empty}"
            )
        else:
            problems.note("images without a label file: kept without boxes", len(bare))
            continue
        problems.add(config.path, None, what)


def _hint(root: Path, unread: list[Path], named: Path | None, image: Path) -> str:
    """Suggest where the labels of a split without any may be."""
    if unread:
        return (
            f"{plural(len(unread), 'text file')} with labels, but without an image, such as "
            f"{unread[0]}: name label files like the images, and use --labels "
            f"{_top(unread[0], root)}"
        )
    found = other_labels(root)
    if not found and named is not None:
        found = f"there is {named}: {_remedy(named, image, root)}"
    return found or "to give the folder of the label files, use --labels D"


def _files_of_name(images: list[Path], files: LabelFiles, root: Path) -> dict[Path, Path]:
    """Return, for each image that has one, a file of its name that could hold its labels."""
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
    """Return how to turn a file with an image's name into its label file."""
    usual = label_path(image)
    if other.is_dir():
        return f"that is a folder: move the label file to {usual}, and remove the folder"
    if other.suffix.lower() == ".xml":
        return f"if it is Pascal VOC, type: retinanet convert voc {shlex.quote(str(root))} OUT"
    if looks_like_labels(read_bytes(other)):
        places = " ".join(shlex.quote(str(path)) for path in (other, usual))
        return f"if it contains labels, rename it, and others like it: mv {places}"
    if other.suffix.lower() == ".txt":
        return (
            f"its first row, {' '.join(_first_row(other))!r:.60}, is not a label: if labels "
            f"follow, remove that row, and move the file to {usual}"
        )
    return f"export its boxes as a YOLO text file, {usual}"


def _first_row(path: Path) -> list[str]:
    content = read_bytes(path)
    try:
        rows = decode_labels(content).split("\n") if isinstance(content, bytes) else []
    except ValueError:
        rows = []
    return split_row(next((row for row in rows if row.strip() and not row.startswith("#")), ""))


def _find_archive(root: Path) -> Path | None:
    """Return an archive whose name suggests labels."""
    for name in find_files(root, _ARCHIVES).names:
        if is_label_name(Path(name).stem):
            return root / name
    return None


def _count(images: Sequence[Path]) -> str:
    return plural(len(images), "image")


def _top(path: Path, root: Path) -> Path:
    """Return the folder to give with --labels for a label file."""
    folder = path.parent
    while folder.parent not in (folder, root) and folder.name in ("train", "val", "valid", "test"):
        folder = folder.parent
    return folder


def _common_top(paths: list[Path], root: Path) -> Path | None:
    """Return the common folder of label files; None if it is the folder of the data set."""
    folders = {_top(path, root) for path in paths}
    if not folders:
        return None
    shared = Path(os.path.commonpath(folders))
    return shared if shared != root.absolute() and shared.is_relative_to(root.absolute()) else None


def report_name_rule(bare: list[Path], unread: list[Path], problems: Problems) -> bool:
    """Report how the names of label files differ from those of images, if there is a rule.

    Args:
        bare: Images without a label file.
        unread: Text files that look like labels, but belong to no image.
        problems: Gets one problem.

    Returns:
        Whether there is a rule that most label files follow.
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
            f"with {part!r} at the end",
            f"*{shlex.quote(f'{part}.txt')}",
            f"${{f%{part}.txt}}.txt",
        ),
        "before": (f"with {part!r} at the start", f"{shlex.quote(part)}*.txt", f"${{f#{part}}}"),
        "not behind": (f"without {part!r} at the end", "*.txt", f"${{f%.txt}}{part}.txt"),
        "not before": (f"without {part!r} at the start", "*.txt", f"{part}$f"),
    }[kind]
    command = ""
    if re.fullmatch(r"[\w .()\-]+", part):  # no characters that are special in a shell
        folder = shlex.quote(str(fitting[0].parent))
        loop = f'for f in {pattern}; do mv -- "$f" "{renamed}"; done'
        command = f"; in each folder, type: (cd {folder} && {loop})"
    problems.add(
        fitting[0],
        None,
        f"{len(fitting):,} of {len(unread):,} label files without an image are named like "
        f"{_count(bare)} without labels, but {how}: rename them{command}",
    )
    return True


def _rules_between(own: str, other: str) -> list[tuple[str, str]]:
    """Return how the names of a label file and an image differ at one end."""
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
