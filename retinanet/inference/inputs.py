"""What to look at: images that files, folders, patterns, lists and annotation files name."""

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
from retinanet.errors import UserError, some_of

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,9}://")


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """An image to look at."""

    path: Path
    image_id: int
    size: Size | None = None
    """Height and width, where an annotation file gives them."""


@dataclass(frozen=True, kw_only=True)
class FoundInputs:
    """Images to look at, numbered from 1, and what was passed over."""

    images: list[InputImage]
    remarks: list[str]
    """Lines about files of folders that are no images."""


def find_inputs(inputs: Iterable[str]) -> FoundInputs:
    """Return the images that files, folders, patterns and lists (`.txt`) name.

    Files of a folder are images by their suffix or their content (`data.images.folders`); the
    others, pictures that an earlier prediction drew, and names that begin with a dot are passed
    over, and said. A file that is named is taken as it is.

    Raises:
        UserError: an input that matches nothing, or that is no file.
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
    """Return the images of an annotation file, with its ids."""
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
        lines.append(f"{_count(len(paths) - len(kept))}: pictures of earlier predictions")
    if found.hidden:
        lines.append(f"{_count(found.hidden)}: the name, or a folder's, begins with a dot")
    if not kept:
        also = "\n  ".join(["; there is, but is not read:", *lines]) if lines else ""
        raise UserError(f"{folder}: no image in this folder ({', '.join(SUFFIXES)}){also}")
    if lines:
        remarks += [f"passed over in {folder}, as no images that are read:"]
        remarks += [f"  {line}" for line in lines]
    return kept


def _describe_others(folder: Path, names: list[str]) -> Iterator[str]:
    """Say what files are that are no images, kind by kind, with a remedy where there is one."""
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
        yield f"{_count(len(own))}: {some_of(own, 3)}: {line}"
    for suffix, count in suffixes.most_common():
        yield f"{_count(count)} named *{suffix}"


def _kind(path: Path) -> tuple[str, str]:
    if not os.path.exists(path):  # noqa: PTH110
        return "a link to a file that is not there", ""
    if not path.is_file():
        return "a pipe, a socket or a device", ""
    return identify(read_head(path))


def _count(number: int) -> str:
    return f"{number:,} file{'s' if number > 1 else ''}"


def _holds_drawn_pictures(folder: Path) -> bool:
    """Whether a prediction drew into a folder: its results are then beside it."""
    beside = [folder.parent / name for name in ("results.json", "images.json")]
    return folder.name == "pictures" and all(path.is_file() for path in beside)


def _images_of_list(path: Path) -> Iterator[Path]:
    """Yield the files that the lines of a text name, from where we are, or from its folder.

    Raises:
        UserError: a line that names no file, or no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    what, _ = identify(content)
    if what not in ("a text file", "an empty file"):
        yield path  # an image, or what it is will be said
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
                "list of image files, one a line)"
            )
        found += 1
        yield Path(place)
    if not found:
        raise UserError(f"{path}: names no image (a .txt file is read as a list, one file a line)")


def _matches(text: str) -> list[Path]:
    """Return the files that a pattern matches.

    Raises:
        UserError: there are none, or it is something else; with what helps.
    """
    # The shell's patterns, absolute ones too, which pathlib's glob does not take.
    found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if files:
        return files
    shown = text if len(text) <= 300 else f"{text[:300]}.."
    raise UserError(f"{shown}: {_why_nothing(text, found)}")


def _why_nothing(text: str, found: list[Path]) -> str:
    if text == "-":
        return "images are not read from the standard input; name a file"
    if url := _URL.match(text):
        if url[0].lower() in ("http://", "https://"):
            return f"is not downloaded; do that first: `curl -LO {shlex.quote(text)}`"
        return "streams are not read; name files"
    if text.isdecimal():
        return "there is no such file (cameras are not read; name files)"
    if text.startswith("@") and os.path.isfile(text[1:]):  # noqa: PTH113
        return f"there is no such file; for the list write {shlex.quote(text[1:])}, a .txt file"
    if os.path.islink(text):  # noqa: PTH114
        return "is a link to a file that is not there"
    if os.path.exists(text):  # noqa: PTH110
        return "is a pipe, a socket or a device, not a file: name the image itself"
    if found:
        return "this pattern matches folders alone; name them, without a pattern"
    return "there is no such file or folder, and as a pattern it matches nothing"
