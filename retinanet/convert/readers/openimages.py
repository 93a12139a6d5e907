"""OpenImages: a CSV of normalised boxes, and one that gives names to its labels."""

from __future__ import annotations

from pathlib import Path

from retinanet.convert.dataset import FoundBox, FoundImage, FoundImages
from retinanet.convert.image_files import find_image_names
from retinanet.convert.problems import Problems
from retinanet.convert.tables import parse_number, read_rows
from retinanet.data.coco.records import is_name, leads_outside
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_SLACK = 1e-3
"""How far rounding may take a share of a side out of 0..1."""


def read_descriptions(path: Path, problems: Problems) -> dict[str, str]:
    """Return the names of labels (/m/...), in the file's order: `LabelName,DisplayName` rows."""
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in read_rows(path, problems):
        if line == 1 and row == ["LabelName", "DisplayName"]:
            continue
        if len(row) != 2 or not is_name(row[1]):
            problems.add(path, line, "expected LabelName,DisplayName, such as /m/0199g,Bicycle")
        elif row[0] in names:
            problems.add(path, line, f"label {row[0]!r:.60} stands twice")
        elif row[1] in lines:
            problems.add(
                path,
                line,
                f"class {row[1]!r:.60} already stands in line {lines[row[1]]}; the "
                "file of the boxable classes has unique names",
            )
        else:
            names[row[0]], lines[row[1]] = row[1], line
    if not names:
        problems.add(path, None, "holds no class")
    return names


def read_openimages(
    path: Path, images: Path, names: dict[str, str], problems: Problems
) -> FoundImages:
    """Read a file of boxes; images are in the order of their first rows.

    Args:
        path: path of the CSV, with its header row.
        images: image folder, with ImageID.jpg in it or in a folder in it.
        names: names of the labels, see `read_descriptions`.
        problems: collects problems and notes.
    """
    found: dict[str, FoundImage] = {}
    # The file of each ImageID: the subsets of OpenImages lie in folders of their own.
    files = {Path(name).stem: name for name in reversed(find_image_names(images))}
    columns: dict[str, int] = {}
    for line, row in read_rows(path, problems):
        if not columns:
            columns = _column_places(path, row)
        elif len(row) != len(columns):
            problems.add(
                path, line, f"expected {len(columns)} columns, as in the header; found {len(row)}"
            )
        else:
            _read_box(path, line, row, columns, found, files, names, problems)
    return FoundImages(name="", folder=images, normalized=True, images=list(found.values()))


def _column_places(path: Path, row: list[str]) -> dict[str, int]:
    """Return the place of each column by the header row."""
    missing = [name for name in _NEEDED if name not in row]
    if missing or len(set(row)) < len(row):
        raise UserError(
            f"{path}:1: expected OpenImages' header row, with {', '.join(_NEEDED)}; "
            + (f"{', '.join(missing)} missing" if missing else "a column stands twice")
        )
    return {name: place for place, name in enumerate(row)}


def _read_box(
    path: Path,
    line: int,
    row: list[str],
    columns: dict[str, int],
    found: dict[str, FoundImage],
    files: dict[str, str],
    names: dict[str, str],
    problems: Problems,
) -> None:
    """Add the box of a row to its image."""
    identity, label = row[columns["ImageID"]], row[columns["LabelName"]]
    if not identity or "\0" in identity or leads_outside(identity):
        problems.add(path, line, f"ImageID {identity!r:.60} is not the name of an image")
        return
    image = found.get(identity)
    if image is None:
        name = files.get(identity, identity + SUFFIXES[0])
        image = found[identity] = FoundImage(source=path, line=line, file_name=name)
    if label not in names:
        problems.add(
            path, line, f"LabelName {label!r:.60} is not in the file of --class-descriptions"
        )
        return
    texts = [row[columns[name]] for name in ("XMin", "YMin", "XMax", "YMax")]
    try:
        x1, y1, x2, y2 = map(parse_number, texts)
        is_valid = all(-_SLACK <= value <= 1 + _SLACK for value in (x1, y1, x2, y2))
    except ValueError:
        is_valid = False
    if not is_valid:
        problems.add(
            path,
            line,
            f"XMin, YMin, XMax, YMax are {', '.join(texts)[:80]}; expected four "
            "numbers from 0 to 1",
        )
        return
    group = row[columns["IsGroupOf"]] if "IsGroupOf" in columns else "0"
    if group not in ("0", "1", "-1"):
        problems.add(path, line, f"IsGroupOf is {group!r:.60}; expected 0, 1, or -1 (unknown)")
        return
    if group == "1":
        problems.note("IsGroupOf boxes: iscrowd 1, regions to ignore")
    image.boxes.append(FoundBox(line, names[label], (x1, y1, x2, y2), group == "1"))
