"""Read OpenImages: a CSV of normalised boxes, and a CSV of class names."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from retinanet.convert.assemble import OTHER_CLASSES
from retinanet.convert.box_forms import Corners
from retinanet.convert.dataset import FoundBox, FoundImage, FoundImages
from retinanet.convert.image_files import read_image_infos
from retinanet.convert.problems import Problems
from retinanet.convert.tables import parse_number, read_number, read_rows
from retinanet.convert.unread_kinds import find_other_files
from retinanet.data.coco.records import is_name, leads_outside
from retinanet.data.images.folders import find_image_names
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_READ = (*_NEEDED, "IsGroupOf", "Confidence")
_SHARE_AT_MOST = 2.0
"""A larger coordinate is not a share of a side; one a little over 1 is outside the image."""
_LABEL = re.compile(r"/[a-z]/\S+")
_UNITS = {"shares": 1.0, "percent": 100.0, "px": 1.0}
_LARGE, _MANY = 300, 10
"""Ten boxes in px, in images with sides of at least 300 px, have some number over 100."""
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "-1", "")


def read_descriptions(path: Path, problems: Problems) -> dict[str, str]:
    """Return the names of labels (/m/...) from `LabelName,DisplayName` rows, in file order.

    The columns may be swapped, if a header row or all labels show it.
    """
    rows = list(read_rows(path, problems))
    heads = [_key(value) for value in rows[0][1]] if rows else []
    is_reversed = heads == ["displayname", "labelname"]
    if is_reversed or heads == ["labelname", "displayname"]:
        rows = rows[1:]
    else:
        pairs = [row for _, row in rows if len(row) == 2]
        is_reversed = bool(pairs) and all(
            _LABEL.fullmatch(name) and not _LABEL.fullmatch(label) for label, name in pairs
        )
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        if len(row) != 2 or not is_name(row[0 if is_reversed else 1]):
            problems.add(path, line, "expected LabelName,DisplayName, such as /m/0199g,Bicycle")
            continue
        label, name = reversed(row) if is_reversed else row
        if _LABEL.fullmatch(name):
            problems.add(
                path,
                line,
                f"the name {name!r:.60} is a label; expected LabelName,DisplayName, such as "
                "/m/0199g,Bicycle: swap the columns in all rows",
            )
        elif label in names:
            problems.add(path, line, f"duplicate label {label!r:.60}; remove one of the two")
        elif name in lines:
            problems.add(
                path,
                line,
                f"class {name!r:.60} already has a label in line {lines[name]}; use the file of "
                "boxable classes, whose names are unique",
            )
        else:
            names[label], lines[name] = name, line
    if not names:
        problems.add(path, None, "contains no classes")
    return names


def read_openimages(
    path: Path,
    images: Path,
    names: dict[str, str],
    problems: Problems,
    *,
    other_classes: str,
    units: str,
) -> FoundImages:
    """Read a file of boxes; images are in the order of their first rows.

    Args:
        path: Path of the CSV, which has a header row.
        images: Image folder, with ImageID.jpg in it or in a subfolder.
        names: Names of the labels, see `read_descriptions`.
        problems: Collects problems and notes.
        other_classes: `refuse` labels without a name, or `drop` their boxes.
        units: Unit of the coordinates: `shares` or `percent` of the image's sides, or `px`.

    Raises:
        UserError: The header row is not that of a box file, or the coordinates are in other units.
    """
    reader = _BoxReader(path, images, names, problems, other_classes=other_classes, units=units)
    for name in find_image_names(images):
        # The subsets of OpenImages are in separate folders.
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
    if objection := reader.objection():
        raise UserError(f"{path}: {objection}; nothing was written")
    return FoundImages(name="", folder=images, normalized=units != "px", images=found)


def _key(name: str) -> str:
    """Return a name in lower case, with letters and digits only: `x_min` equals `XMin`."""
    return re.sub(r"[^0-9a-z]", "", name.casefold())


def _is_column(text: str) -> bool:
    return _key(text) in map(_key, _READ)


def _column_places(path: Path, line: int, row: list[str]) -> dict[str, int]:
    """Return the index of each column that is read, from the header row."""
    keys = [_key(name) for name in row]
    missing = [name for name in _NEEDED if _key(name) not in keys]
    twice = [name for name in _READ if keys.count(_key(name)) > 1]
    if not missing and not twice:
        return {name: keys.index(_key(name)) for name in _READ if _key(name) in keys}
    what = f"{', '.join(missing)} missing" if missing else f"duplicate column {twice[0]}"
    remedy = "correct the header row"
    if missing == list(_NEEDED[2:]) and set(keys) <= {"imageid", "source", *map(_key, _READ)}:
        what = "it has labels of whole images, not boxes"
        remedy = "name the file of boxes, such as validation-annotations-bbox.csv"
    elif missing and len(missing) < len(_NEEDED):
        remedy = "`retinanet convert csv` reads tables with other columns"
    raise UserError(
        f"{path}:{line}: expected OpenImages' header row, with {', '.join(_NEEDED)}; {what}; "
        f"{remedy}"
    )


@dataclass
class _BoxReader:
    """Adds the box of each row to its image."""

    path: Path
    images: Path
    names: dict[str, str]
    problems: Problems
    other_classes: str = field(kw_only=True)
    units: str = field(kw_only=True)
    found: dict[str, FoundImage] = field(default_factory=dict)
    """Images by ImageID."""
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Image files by their name without suffix."""
    rows: int = 0
    no_shares: int = 0
    """Rows with a coordinate that cannot be a share of a side."""
    largest: float = 0.0
    """The largest coordinate, as written in the file."""
    others: dict[str, Path] | None = None
    """Files without an image suffix, by stem."""
    folded: dict[str, str | None] = field(init=False)
    """Class names by their lower-case form; None if several share it."""

    def __post_init__(self) -> None:
        self.folded = {}
        for name in self.names.values():
            key = name.casefold()
            self.folded[key] = None if key in self.folded else name

    def objection(self) -> str | None:
        """Return why the coordinates are probably in other units; None if they are not."""
        if self.units != "shares" and 0 < self.largest <= 1:
            return f"no coordinate is over 1, so they are not {self.units}; remove --units"
        is_small = self.rows >= _MANY and self.largest <= 100
        if self.units == "shares" and self.no_shares * 2 > self.rows:
            text = (
                f"{self.no_shares:,} of {self.rows:,} boxes are not shares, from 0 to 1: the "
                f"largest coordinate is {self.largest:g}; use --units "
            )
            if self.largest > 100:
                return f"{text}px"
            likely = is_small and self._smallest_side() >= _LARGE
            return text + ("percent" if likely else "percent or --units px, whichever is right")
        if self.units == "px" and is_small and self._smallest_side() >= _LARGE:
            return (
                f"no coordinate of the {self.rows:,} boxes is over 100, though all images are "
                "larger, so they look like percent, not px: use --units percent. If they really "
                "are px, write them as shares of the image's width and height"
            )
        return None

    def _smallest_side(self) -> float:
        infos = read_image_infos([self.images / image.file_name for image in self.found.values()])
        return min((min(info.shown) for info in infos if not isinstance(info, str)), default=0)

    def read(self, line: int, row: dict[str, str]) -> None:
        """Add the box of a row to its image.

        Args:
            line: Line of the row, from 1.
            row: Values by column name.
        """
        image = self._find_image(line, row["ImageID"])
        label = row["LabelName"]
        if image is None:
            return
        name = self.names.get(label)
        if name is None and label in self.names.values():
            name = label  # a name instead of a label
        if name is None and (name := self.folded.get(label.casefold())) is not None:
            self.problems.note("rows with a class name in another case: read")
        if name is None:
            if self.other_classes == "drop":
                self.problems.note(OTHER_CLASSES)
                return
            self.problems.add(
                self.path,
                line,
                f"LabelName {label!r:.60} is not in the file of --class-descriptions; add it "
                "there, or use --other-classes drop",
            )
            return
        confidence = row.get("Confidence", "1")
        if confidence and read_number(confidence) != 1:
            self.problems.add(
                self.path,
                line,
                f"Confidence is {confidence!r:.20}, but labels have 1: this is a prediction, or a "
                "class that is not in the image; remove such rows, or remove the column to keep "
                "them",
            )
            return
        corners = self._read_corners(line, row)
        group = row.get("IsGroupOf", "0").lower()
        if group not in (*_YES, *_NO):
            self.problems.add(
                self.path, line, f"IsGroupOf is {group!r:.60}; expected 0, 1, or -1 (unknown)"
            )
            return
        if corners is None:
            return
        box = FoundBox(line, name, corners, group in _YES)
        if any(own._replace(line=line) == box for own in image.boxes):
            self.problems.note("rows with the same box as an earlier row: kept")
        if box.crowd:
            self.problems.note("IsGroupOf boxes: marked iscrowd 1 (to ignore)")
        image.boxes.append(box)

    def _find_image(self, line: int, identity: str) -> FoundImage | None:
        """Return the image of an ImageID, which may include the suffix."""
        if not identity or "\0" in identity or leads_outside(identity):
            self.problems.add(
                self.path,
                line,
                f"ImageID {identity!r:.60} is not the name of an image; write the file name "
                "without folders and suffix",
            )
            return None
        stem = identity
        if identity not in self.files and identity.lower().endswith(SUFFIXES):
            stem = PurePosixPath(identity).stem
        if stem not in self.found:
            names = self.files.get(stem) or [self._other_kind(stem) or stem + SUFFIXES[0]]
            exact = [name for name in names if PurePosixPath(name).name == identity]
            names = exact if len(exact) == 1 else names
            if len(names) > 1:
                self.problems.add(
                    self.path,
                    line,
                    f"ImageID {identity!r:.60} may be {' or '.join(map(repr, names[:3]))}; remove "
                    "or rename the wrong files, or name one folder with --images",
                )
            self.found[stem] = FoundImage(source=self.path, line=line, file_name=names[0])
        return self.found[stem]

    def _other_kind(self, stem: str) -> str | None:
        """Return the file of an image with an unusual suffix, such as a.jfif."""
        if self.others is None:
            inside = {name.rpartition("/")[0] for own in self.files.values() for name in own}
            self.others = find_other_files(self.images / folder for folder in sorted({"", *inside}))
        path = self.others.get(stem)
        if path is None:
            return None
        self.problems.note(f"images found as {path.suffix or 'names without suffix'}")
        return path.relative_to(self.images).as_posix()

    def _read_corners(self, line: int, row: dict[str, str]) -> Corners | None:
        """Return x1, y1, x2, y2 as shares of the image's sides."""
        texts = [row[name] for name in ("XMin", "YMin", "XMax", "YMax")]
        try:
            x1, y1, x2, y2 = map(parse_number, texts)
        except ValueError:
            pass
        else:
            self.rows += 1
            self.largest = max(self.largest, x1, y1, x2, y2)
            unit = _UNITS[self.units]
            if self.units == "px" or max(map(abs, (x1, y1, x2, y2))) <= _SHARE_AT_MOST * unit:
                return x1 / unit, y1 / unit, x2 / unit, y2 / unit
            self.no_shares += 1
        self.problems.add(
            self.path,
            line,
            f"XMin, YMin, XMax, YMax are {', '.join(texts)[:80]}; expected four numbers from 0 to "
            f"{100 if self.units == 'percent' else 1}; correct the row",
        )
        return None
