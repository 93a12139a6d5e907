"""OpenImages: a CSV of normalised boxes, and one that gives names to its labels."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from retinanet.convert.assemble import OTHER_CLASSES
from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import FoundBox, FoundImage, FoundImages
from retinanet.convert.problems import Problems
from retinanet.convert.tables import parse_number, read_rows
from retinanet.data.coco.records import is_name, leads_outside
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_READ = (*_NEEDED, "IsGroupOf", "Confidence")
_SHARE_AT_MOST = 2.0
"""A larger coordinate is no share of a side; one that is a little over 1 leaves the image."""


def read_descriptions(path: Path, problems: Problems) -> dict[str, str]:
    """Return the names of labels (/m/...), in the file's order: `LabelName,DisplayName` rows."""
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in read_rows(path, problems):
        if line == 1 and [_key(value) for value in row] == ["labelname", "displayname"]:
            continue
        if len(row) != 2 or not is_name(row[1]):
            problems.add(path, line, "expected LabelName,DisplayName, such as /m/0199g,Bicycle")
        elif row[0] in names:
            problems.add(path, line, f"duplicate label {row[0]!r:.60}; remove one of the two")
        elif row[1] in lines:
            problems.add(
                path,
                line,
                f"class {row[1]!r:.60} already has a label in line {lines[row[1]]}; the file of "
                "the boxable classes has unique names",
            )
        else:
            names[row[0]], lines[row[1]] = row[1], line
    if not names:
        problems.add(path, None, "holds no class")
    return names


def read_openimages(
    path: Path, images: Path, names: dict[str, str], problems: Problems, *, other_classes: str
) -> FoundImages:
    """Read a file of boxes; images are in the order of their first rows.

    Args:
        path: path of the CSV, with its header row.
        images: image folder, with ImageID.jpg in it or in a folder in it.
        names: names of the labels, see `read_descriptions`.
        problems: collects problems and notes.
        other_classes: `refuse` labels without a name, or `drop` their boxes.

    Raises:
        UserError: the header row is not that of boxes.
    """
    reader = _BoxReader(path, names, problems, other_classes=other_classes)
    for name in find_image_names(images):
        # The subsets of OpenImages lie in folders of their own.
        reader.files[PurePosixPath(name).stem].append(name)
    columns: dict[str, int] = {}
    count = 0
    for line, row in read_rows(path, problems, _is_column):
        if not columns:
            columns, count = _column_places(path, line, row), len(row)
        elif len(row) != count:
            problems.add(
                path, line, f"expected {count} columns, as in the header; found {len(row)}"
            )
        else:
            reader.read(line, {name: row[place] for name, place in columns.items()})
    found = list(reader.found.values())
    return FoundImages(name="", folder=images, normalized=True, images=found)


def _key(name: str) -> str:
    """Return a name without case and signs: `x_min` is `XMin`."""
    return re.sub(r"[^0-9a-z]", "", name.casefold())


def _is_column(text: str) -> bool:
    return _key(text) in map(_key, _READ)


def _column_places(path: Path, line: int, row: list[str]) -> dict[str, int]:
    """Return the place of each column that is read, by the header row."""
    keys = [_key(name) for name in row]
    missing = [name for name in _NEEDED if _key(name) not in keys]
    twice = [name for name in _READ if keys.count(_key(name)) > 1]
    if not missing and not twice:
        return {name: keys.index(_key(name)) for name in _READ if _key(name) in keys}
    what = f"{', '.join(missing)} missing" if missing else f"duplicate column {twice[0]}"
    remedy = "correct the header row"
    if missing == list(_NEEDED[2:]) and set(keys) <= {"imageid", "source", *map(_key, _READ)}:
        what = "it has labels of whole images, which are no boxes"
        remedy = "name the file of boxes, such as validation-annotations-bbox.csv"
    elif missing and len(missing) < len(_NEEDED):
        remedy = "`retinanet convert csv` reads tables with other columns"
    raise UserError(
        f"{path}:{line}: expected OpenImages' header row, with {', '.join(_NEEDED)}; {what}; "
        f"{remedy}"
    )


@dataclass
class _BoxReader:
    """Gives the boxes of rows to their images."""

    path: Path
    names: dict[str, str]
    problems: Problems
    other_classes: str = field(kw_only=True)
    found: dict[str, FoundImage] = field(default_factory=dict)
    """Of each ImageID."""
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The image files of each name without suffix."""

    def read(self, line: int, row: dict[str, str]) -> None:
        """Add the box of a row to its image.

        Args:
            line: line of the row, from 1.
            row: values by the names of their columns.
        """
        image = self._find_image(line, row["ImageID"])
        label = row["LabelName"]
        if image is None:
            return
        name = self.names.get(label)
        if name is None and label in self.names.values():
            name = label  # a name in place of its label
        if name is None:
            if self.other_classes == "drop":
                self.problems.note(OTHER_CLASSES)
                return
            self.problems.add(
                self.path,
                line,
                f"LabelName {label!r:.60} is not in the file of --class-descriptions; add it "
                "there, or give --other-classes drop",
            )
            return
        confidence = row.get("Confidence", "1")
        if confidence not in ("1", "1.0", ""):
            self.problems.add(
                self.path,
                line,
                f"Confidence is {confidence!r:.20}, but that of a label is 1: a prediction, or a "
                "class that is not in the image; remove such rows, or the column to keep them",
            )
            return
        corners = self._read_corners(line, row)
        group = row.get("IsGroupOf", "0")
        if group not in ("0", "1", "-1", ""):
            self.problems.add(
                self.path, line, f"IsGroupOf is {group!r:.60}; expected 0, 1, or -1 (unknown)"
            )
            return
        if corners is None:
            return
        if group == "1":
            self.problems.note("IsGroupOf boxes: iscrowd 1, regions to ignore")
        image.boxes.append(FoundBox(line, name, corners, group == "1"))

    def _find_image(self, line: int, identity: str) -> FoundImage | None:
        """Return the image of an ImageID, which may have its suffix."""
        if not identity or "\0" in identity or leads_outside(identity):
            self.problems.add(
                self.path,
                line,
                f"ImageID {identity!r:.60} is not the name of an image; write its file's name "
                "without folders and suffix",
            )
            return None
        stem = identity
        if identity not in self.files and identity.lower().endswith(SUFFIXES):
            stem = PurePosixPath(identity).stem
        if stem not in self.found:
            names = self.files.get(stem) or [stem + SUFFIXES[0]]
            exact = [name for name in names if PurePosixPath(name).name == identity]
            names = exact if len(exact) == 1 else names
            if len(names) > 1:
                self.problems.add(
                    self.path,
                    line,
                    f"ImageID {identity!r:.60} may be {' or '.join(map(repr, names[:3]))}; remove "
                    "or rename the files that are not meant, or name one folder with --images",
                )
            self.found[stem] = FoundImage(source=self.path, line=line, file_name=names[0])
        return self.found[stem]

    def _read_corners(self, line: int, row: dict[str, str]) -> Corners | None:
        """Return x1, y1, x2, y2 as shares of the image's sides."""
        texts = [row[name] for name in ("XMin", "YMin", "XMax", "YMax")]
        try:
            x1, y1, x2, y2 = map(parse_number, texts)
        except ValueError:
            remedy = "correct the row"
        else:
            if max(map(abs, (x1, y1, x2, y2))) <= _SHARE_AT_MOST:
                return x1, y1, x2, y2
            remedy = (
                f"if they are px: retinanet convert csv {self.path} OUT --units px --images D "
                "--missing-images find"
            )
        self.problems.add(
            self.path,
            line,
            f"XMin, YMin, XMax, YMax are {', '.join(texts)[:80]}; expected four numbers from 0 to "
            f"1; {remedy}",
        )
        return None
