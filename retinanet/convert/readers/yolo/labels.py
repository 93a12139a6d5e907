"""Find the label files of a YOLO data set, in the usual place and in others that people use.

ultralytics looks in one place: the last `images` folder of an image's path, replaced by `labels`.
An image without a file there has no boxes, so labels in another place are silently lost. Therefore
all text files of the data set are looked at, and folders are compared without the words for images
and labels: `images/train`, `labels/train`, `train/Labels` and `train` are the same.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from retinanet.convert.read_ahead import read_bytes
from retinanet.convert.readers.yolo.rows import looks_like_labels, plain_rows, same_labels
from retinanet.data.images.folders import FoundFiles, find_files, is_hidden
from retinanet.data.images.reading import SUFFIXES

_IMAGE_WORDS = frozenset(
    {
        *("images", "image", "imgs", "img", "jpegimages", "jpgs", "jpg", "jpeg", "pngs", "png"),
        *("pictures", "pics", "photos", "frames"),
    }
)
_LABEL_WORDS = frozenset(
    {
        *("labels", "label", "annotations", "annotation", "annos", "anno", "anns", "ann"),
        *("txts", "txt", "yolo", "darknet", "bboxes", "bbox", "boxes", "targets", "gt"),
        *("labeltxt", "labelstxt"),
    }
)
_SPLIT_WORDS = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
_LEVELS_UP = 2
"""Folders that a flat label folder may leave out: images/train/a.jpg, labels/a.txt."""

Key = tuple[str, ...]


@dataclass
class FoundLabels:
    """The label file of an image."""

    path: Path | None = None
    same: list[Path] = field(default_factory=list)
    """Copies of it."""
    rivals: list[Path] = field(default_factory=list)
    """Other possible label files with different content."""


def label_path(image: Path) -> Path:
    """Return the usual label file of an image: its last `images` folder becomes `labels`."""
    folder, stem = image.absolute().parent, os.path.splitext(image.name)[0]  # noqa: PTH122 (speed)
    return Path(_usual_folder(str(folder)), f"{stem}.txt")


@cache
def _usual_folder(folder: str) -> str:
    parts = list(Path(folder).parts)
    places = [i for i, part in enumerate(parts) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return str(Path(*parts))


class LabelFiles:
    """The text files around the images of a data set, and the image that each belongs to.

    Args:
        images: Images of the splits.
        root: Folder of the data set. Its other images and all its text files count, too.
        given: Folder of label files that come before all others, if the user gives one.
    """

    def __init__(self, images: Iterable[Path], root: Path, given: Path | None) -> None:
        root, self.given = absolute(root), None if given is None else absolute(given)
        self._absolute = {image: absolute(image) for image in images}
        self._chosen = frozenset(self._absolute.values())
        names = find_files(root, SUFFIXES).names
        every = dict.fromkeys([*sorted(self._chosen), *(root / name for name in names)])
        self._texts = _Texts(_places(self._chosen, root), None)
        self._given_texts: _Texts | None = None
        self.hidden = self._texts.hidden
        """Number of text files whose name begins with a dot."""
        self.owners: dict[Path, set[Path]] = {}
        """Images by label file."""
        self.found: dict[Path, FoundLabels] = {}
        """Label file of each image, also of images that are in no split."""
        self.passed_over: set[Path] = set()
        """Label files of images that have another one in the given folder."""
        if self.given:
            self._given_texts = _Texts({self.given: True}, self.given)
            self.found = self._find_all(every, self._given_texts, self._given_texts.folders_by_end)
            self.found = {i: labels for i, labels in self.found.items() if labels.path is not None}
        # The usual place first: a file there belongs to no other image.
        for image in every:
            usual = self._texts.usual(image)
            if usual is not None:
                self.owners.setdefault(usual, set()).add(image)
        for own, also_found in ((self._texts.same_folder, True), (self._texts.near_folders, False)):
            rest = every if also_found else [i for i in every if self.found[i].path is None]
            for image, labels in self._find_all(rest, self._texts, own).items():
                if image in self.found and self.found[image].path is not None:
                    others = [labels.path, *labels.same, *labels.rivals]
                    self.passed_over |= {p for p in others if p and p != self.found[image].path}
                else:
                    self.found[image] = labels

    def of(self, image: Path) -> FoundLabels:
        """Return the label file of an image in a split."""
        return self.found[self._absolute[image]]

    def unread(self) -> Iterator[Path]:
        """Yield the text files that look like labels and belong to no image."""
        given = () if self._given_texts is None else self._given_texts.paths()
        for path in dict.fromkeys((*given, *self._texts.paths())):
            if path not in self.owners and looks_like_labels(read_bytes(path)):
                yield path

    def of_no_split(self) -> int:
        """Return how many label files belong to images that are in no split."""
        return sum(self._chosen.isdisjoint(images) for images in self.owners.values())

    def _find_all(
        self,
        images: Iterable[Path],
        texts: _Texts,
        folders_of: Callable[[Path], Iterable[list[str]]],
    ) -> dict[Path, FoundLabels]:
        """Find the label file of each image, then record its owner."""
        found = {image: self._find(image, texts, folders_of(image)) for image in images}
        for image, labels in found.items():
            for path in (labels.path, *labels.same, *labels.rivals):
                if path is not None:
                    self.owners.setdefault(path, set()).add(image)
        return found

    def _find(self, image: Path, texts: _Texts, choices: Iterable[list[str]]) -> FoundLabels:
        """Return the label file of an image from the first folders that have one of its own."""
        for folders in choices:
            paths = [
                path
                for path in texts.of_name(image, folders)
                if image in self.owners.get(path, (image,))
            ]
            found = _choose(image, paths, usual=label_path(image))
            if found.path is not None:
                return found
        return FoundLabels()


class _Texts:
    """Text files by folder and name.

    Args:
        places: Folders to search, and whether to search their subfolders.
        base: Folder whose own path is ignored when folders are compared.
    """

    def __init__(self, places: dict[Path, bool], base: Path | None) -> None:
        self.hidden = 0
        self._names: dict[str, dict[str, list[str]]] = {}  # folder -> stem -> file names
        for place, deep in places.items():
            found = find_files(place, (".txt",)) if deep else _direct_texts(place)
            self.hidden += found.hidden
            for name in found.names:
                folder, _, file = str(place / name).rpartition(os.sep)
                names = self._names.setdefault(folder, {}).setdefault(stem_of(file), [])
                if file not in names:
                    names.append(file)
        self._by_key: dict[Key, list[str]] = {}
        for folder in self._names:
            key = _key(folder if base is None else str(Path(folder).relative_to(base)))
            self._by_key.setdefault(key, []).append(folder)

    def paths(self) -> Iterator[Path]:
        """Yield all files, sorted."""
        for folder, stems in sorted(self._names.items()):
            yield from (Path(folder, n) for n in sorted(n for own in stems.values() for n in own))

    def usual(self, image: Path) -> Path | None:
        """Return the label file that ultralytics would find for an image."""
        path = label_path(image)
        return path if path.name in self._in_folder(str(path.parent), stem_of(path.name)) else None

    def of_name(self, image: Path, folders: list[str]) -> Iterator[Path]:
        """Yield the files in some folders that are named like an image: a.txt, or a.jpg.txt."""
        for folder in folders:
            for stem in dict.fromkeys((stem_of(image.name), _plain(image.name))):
                yield from (Path(folder, name) for name in self._in_folder(folder, stem))

    def same_folder(self, image: Path) -> Iterator[list[str]]:
        """Yield the folders that match an image's, apart from words for images and labels."""
        yield self._by_key.get(_key(str(image.parent)), [])

    def near_folders(self, image: Path) -> Iterator[list[str]]:
        """Yield folders with fewer or more levels than an image's folder, the likeliest first."""
        key = _key(str(image.parent))
        for end in range(len(key) - 1, max(len(key) - 1 - _LEVELS_UP, 0), -1):
            yield self._by_key.get(key[:end], [])
        splits = sorted(set(_SPLIT_WORDS.values()))
        yield [folder for split in splits for folder in self._by_key.get((*key, split), [])]

    def folders_by_end(self, image: Path) -> Iterator[list[str]]:
        """Yield folders whose path is the end of an image's path, under any name of the base.

        If only one folder has a text file with the image's name, it comes last.
        """
        key = _key(str(image.parent))
        for start in range(len(key) + 1):
            yield self._by_key.get(key[start:], [])
        stem = stem_of(image.name)
        folders = [folder for folder, stems in self._names.items() if stem in stems]
        yield folders if len(folders) == 1 else []

    def _in_folder(self, folder: str, stem: str) -> list[str]:
        return self._names.get(folder, {}).get(stem, [])


def _places(images: Iterable[Path], root: Path) -> dict[Path, bool]:
    """Return the root, and the folders where labels of images outside of it may be.

    Subfolders of a folder that happens to hold an image, such as a home folder, are not searched.
    """
    folders = {image.parent for image in images if not image.is_relative_to(root)}
    places = {root: True}
    for folder in sorted(folders):
        for path in (folder, label_path(folder / "x").parent):
            places.setdefault(path, False)
        for above in [folder, *folder.parents][: _LEVELS_UP + 1]:
            try:
                inside = sorted(path for path in above.iterdir() if path.is_dir())
            except OSError:
                continue
            for path in inside:
                if is_label_folder(path) and not is_hidden(path.name):
                    places[path] = True
    return places


def _direct_texts(folder: Path) -> FoundFiles:
    try:
        names = [path.name for path in folder.iterdir() if path.suffix.lower() == ".txt"]
    except OSError:  # not a folder, or not readable
        return FoundFiles([], 0)
    return FoundFiles(sorted(name for name in names if not is_hidden(name)), 0)


def _choose(image: Path, paths: list[Path], usual: Path) -> FoundLabels:
    """Choose a text file: the usual place first, then the same spelling."""
    if len(paths) > 1 or paths != [usual]:
        paths = [path for path in paths if path == usual or _may_be_labels(path)]
    if not paths:
        return FoundLabels()
    exact = [path for path in paths if path.stem in (image.stem, image.name)]
    first, *others = sorted(exact or paths, key=lambda path: path != usual)
    found = FoundLabels(first)
    content = read_bytes(first) if others else b""
    for path in others:
        other = read_bytes(path)
        if same_labels(content, other):
            found.same.append(path)
        elif plain_rows(other) is not None:
            found.rivals.append(path)
    return found


def _may_be_labels(path: Path) -> bool:
    """Whether a file in an unusual place has labels, or is empty (an image without objects)."""
    content = read_bytes(path)
    return looks_like_labels(content) or (isinstance(content, bytes) and not content.strip())


def absolute(path: Path) -> Path:
    """Return an absolute path; `..` is resolved, links are kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (`resolve` follows links)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def stem_of(file: str) -> str:
    """Return the name of a file without suffix, in a form for comparisons."""
    return _plain(os.path.splitext(file)[0])  # noqa: PTH122 (a path object for each would be slow)


@cache
def _key(folder: str) -> Key:
    """Return the parts of a path without the words for images and labels."""
    parts = []
    for part in Path(folder).parts:
        words = [word for word in _tokens(part) if word not in _IMAGE_WORDS | _LABEL_WORDS]
        if words:
            parts.append("_".join(_SPLIT_WORDS.get(word, word) for word in words))
    return tuple(parts)


def _tokens(name: str) -> list[str]:
    return [word for word in re.split(r"[\s_.\-]+", _plain(name)) if word]


def is_label_folder(folder: Path) -> bool:
    """Whether the name of a folder suggests labels."""
    return is_label_name(folder.name)


def is_label_name(name: str) -> bool:
    """Whether a name suggests labels."""
    return bool(set(_tokens(name)) & _LABEL_WORDS)


def other_labels(root: Path) -> str:
    """Return what is in a folder instead of label files; empty if nothing is."""
    for suffix, meaning in (
        (".xml", "if it is Pascal VOC, type: retinanet convert voc {0} OUT"),
        (".json", "if it is COCO JSON, it needs no conversion: retinanet check {1}"),
        (".zip", "if the labels are in it, unpack it: unzip {1}"),
        (
            ".cache",
            "this is an ultralytics cache, which cannot be read: the .txt files are needed",
        ),
    ):
        for name in find_files(root, (suffix,)).names[:1]:
            return f"there is {root / name}: {meaning.format(root, root / name)}"
    return ""
