"""The images to predict on: files, folders, patterns, lists, or an annotation file."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retinanet.data.canvas import Size
from retinanet.data.coco.annotations import Annotations
from retinanet.data.images.folders import OTHER_SUFFIXES, find_images, read_head
from retinanet.data.images.identify import explain, identify
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError, plural, some_of

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,9}://")


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """An image to predict on."""

    path: Path
    image_id: int
    size: Size | None = None
    """Height and width, where an annotation file gives them."""


@dataclass(frozen=True, kw_only=True)
class FoundInputs:
    """Images to predict on, numbered from 1, and notes about skipped files."""

    images: list[InputImage]
    remarks: list[str]
    """Lines about files in folders that are not images."""


def find_inputs(inputs: Iterable[str]) -> FoundInputs:
    """Return the images that files, folders, patterns and lists (`.txt`) name.

    In a folder, a file is an image by its suffix or by its content (`data.images.folders`). Other
    files, pictures drawn by an earlier prediction and names that begin with a dot are skipped and
    reported. A file that is given by name is always used.

    Raises:
        UserError: An input that matches nothing, or that is not a file.
    """
    paths: list[Path] = []
    remarks: list[str] = []
    for text in inputs:
        if os.path.isdir(text):  # noqa: PTH112 (pathlib raises at a name that is too long)
            paths += _images_of_folder(Path(text), remarks)
        elif os.path.isfile(text):  # noqa: PTH113
            is_list = text.lower().endswith(".txt")
            paths += _images_of_list(Path(text)) if is_list else [Path(text)]
        else:
            paths += _matches(text)
    paths = list(dict.fromkeys(paths))
    return FoundInputs(
        images=[InputImage(path=path, image_id=i) for i, path in enumerate(paths, start=1)],
        remarks=remarks,
    )


def list_images(annotations: Annotations, images: Path) -> list[InputImage]:
    """Return the images of an annotation file, with their ids."""
    return [
        InputImage(path=images / name, image_id=int(image_id), size=(int(size[0]), int(size[1])))
        for name, image_id, size in zip(
            annotations.file_names, annotations.image_ids, annotations.sizes, strict=True
        )
    ]


def _images_of_folder(folder: Path, remarks: list[str]) -> list[Path]:
    found = find_images(folder)
    paths = [folder / name for name in found.names]
    drawn = {p.parent for p in paths if p.parent != folder and _holds_drawn_pictures(p.parent)}
    kept = sorted(path for path in paths if path.parent not in drawn)
    lines = list(_describe_others(folder, found.others))
    if len(kept) < len(paths):
        lines.append(f"{plural(len(paths) - len(kept), 'file')}: pictures of earlier predictions")
    if found.hidden:
        lines.append(f"{plural(found.hidden, 'file')}: hidden (a name begins with a dot)")
    if not kept:
        also = "\n  ".join([". Other files in it:", *lines]) if lines else ""
        raise UserError(
            f"{folder}: there are no images in this folder ({', '.join(SUFFIXES)}){also}"
        )
    if lines:
        remarks += [f"skipped in {folder}:"]
        remarks += [f"  {line}" for line in lines]
    return kept


def _describe_others(folder: Path, names: list[str]) -> Iterator[str]:
    """Describe the files that are not images, kind by kind, with a remedy where there is one."""
    suffixes: Counter[str] = Counter()
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in names:
        suffix = next((end for end in OTHER_SUFFIXES if name.lower().endswith(end)), None)
        if suffix is None:
            kinds.setdefault(_kind(folder / name), []).append(name)
        else:
            suffixes[suffix] += 1
    for (what, remedy), own in kinds.items():
        line = explain(folder / own[0], what, remedy) if "`" in remedy else what
        yield f"{plural(len(own), 'file')}: {some_of(own, 3)}: {line}"
    for suffix, count in suffixes.most_common():
        yield f"{plural(count, 'file')} named *{suffix}"


def _kind(path: Path) -> tuple[str, str]:
    if not os.path.exists(path):  # noqa: PTH110
        return "a broken link", ""
    if not path.is_file():
        return "a pipe, a socket or a device", ""
    return identify(read_head(path))


def _holds_drawn_pictures(folder: Path) -> bool:
    """Whether a folder holds the pictures of a prediction: its results are beside it."""
    beside = [folder.parent / name for name in ("results.json", "images.json")]
    return folder.name == "pictures" and all(path.is_file() for path in beside)


def _images_of_list(path: Path) -> Iterator[Path]:
    """Yield the files that the lines of a text name, relative to the current folder or to its own.

    Raises:
        UserError: A line does not name a file, or the text names none.
    """
    try:
        with path.open("rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    what, _ = identify(content)
    if what not in ("a text file", "an empty file"):
        yield path  # perhaps an image; reading it will report what it is
        return
    lines = [
        line.strip() for line in os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n")
    ]
    found = 0
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        places = [line, os.path.join(path.parent, line)]  # noqa: PTH118
        place = next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113
        if place is None:
            raise UserError(
                f"{path}:{number}: there is no such file: {line[:200]!r} (a .txt file is read as a "
                "list of image files, one per line)"
            )
        found += 1
        yield Path(place)
    if not found:
        raise UserError(
            f"{path}: the list is empty (a .txt file is read as a list of images, one per line)"
        )


def _matches(text: str) -> list[Path]:
    """Return the files that a pattern matches.

    Raises:
        UserError: There are none, or it is something else. The message has a remedy.
    """
    # Patterns as in a shell. pathlib's glob takes no absolute ones.
    found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if files:
        return files
    shown = text if len(text) <= 300 else f"{text[:300]}..."
    raise UserError(f"{shown}: {_why_nothing(text, found)}")


def _why_nothing(text: str, found: list[Path]) -> str:
    if text == "-":
        return "images are not read from standard input. Name a file"
    if url := _URL.match(text):
        if url[0].lower() in ("http://", "https://"):
            return f"URLs are not downloaded. Download it first: `curl -LO {shlex.quote(text)}`"
        return "streams are not read. Name files"
    if text.isdecimal():
        return "there is no such file, and cameras are not read. Name files"
    if text.startswith("@") and os.path.isfile(text[1:]):  # noqa: PTH113
        return f"there is no such file. For the list write {shlex.quote(text[1:])}, a .txt file"
    if os.path.islink(text):  # noqa: PTH114
        return "is a broken link"
    if os.path.exists(text):  # noqa: PTH110
        return "is a pipe, a socket or a device. Name an image file"
    if found:
        return "this pattern matches only folders. Name them without a pattern"
    return "there is no such file or folder, and as a pattern it matches nothing"
