"""keras-retinanet's CSV: `path,x1,y1,x2,y2,class_name`, and `path,,,,,` for an image without boxes.

And TensorFlow's, with a header row: `filename,width,height,class,xmin,ymin,xmax,ymax` in any order.
Corners are continuous px. Paths start from the CSV's folder, or else from the image folder.
"""

from __future__ import annotations

from pathlib import Path

from retinanet.convert.dataset import Corners, FoundBox, FoundImage, FoundImages
from retinanet.convert.image_files import name_inside
from retinanet.convert.problems import Problems
from retinanet.convert.tables import parse_number, read_rows

_COLUMNS = ("path", "x1", "y1", "x2", "y2", "class_name")
_TENSORFLOW = ("filename", "xmin", "ymin", "xmax", "ymax", "class")
"""The names of the same columns in TensorFlow's header row; it has width and height, too."""


def read_csv(path: Path, images: Path, problems: Problems) -> FoundImages:
    """Read a CSV; images are in the order of their first rows.

    Args:
        path: path of the CSV.
        images: image folder, which file_name starts from.
        problems: collects problems and notes.
    """
    by_path: dict[str, FoundImage | None] = {}
    by_name: dict[str, FoundImage] = {}
    columns, header = _COLUMNS, list(_COLUMNS)
    for line, values in read_rows(path, problems):
        if line == 1 and set(_TENSORFLOW) <= set(values):
            columns, header = _TENSORFLOW, values
            problems.note("header row: TensorFlow's columns")
            continue
        if len(values) != len(header):
            problems.add(path, line, _column_problem(header, values))
            continue
        row = [values[header.index(name)] for name in columns]
        if line == 1 and _is_header(row):
            problems.note("header row: skipped")
            continue
        if row[0] not in by_path:
            by_path[row[0]] = _find_image(path, line, row[0], images, by_name, problems)
        image = by_path[row[0]]
        if image is not None and "width" in header and "height" in header:
            texts = (values[header.index("height")], values[header.index("width")])
            _set_size(image, texts, line, problems)
        box = _read_box(path, line, row, columns, problems)
        if image is not None and box is not None:
            image.boxes.append(box)
    return FoundImages(name="", folder=images, normalized=False, images=list(by_name.values()))


def _column_problem(header: list[str], values: list[str]) -> str:
    """Describe a row with another number of values than the header."""
    text = f"expected {len(header)} columns {','.join(header)}; found {len(values)}"
    if header == list(_COLUMNS) and len(values) == len(_TENSORFLOW) + 2:
        text += "; TensorFlow's columns need their header row, filename,width,height,class,xmin,.."
    return text


def _set_size(image: FoundImage, texts: tuple[str, str], line: int, problems: Problems) -> None:
    """Give an image the height and width (px) of a row, if given; all rows must give the same."""
    if not any(texts):
        return
    height, width = map(_number_or_none, texts)
    if height is None or width is None or min(height, width) < 1 or {height % 1, width % 1} != {0}:
        problem = f"width is {texts[1]!r:.20}, height {texts[0]!r:.20}; expected whole numbers (px)"
        problems.add(image.source, line, problem)
    elif image.size is None:
        image.size = (int(height), int(width))
    elif image.size != (height, width):
        problems.add(
            image.source,
            line,
            f"says that {image.file_name!r} is {width:g}x{height:g} px, but an earlier row says "
            f"{image.size[1]}x{image.size[0]}; correct one of them",
        )


def _is_header(row: list[str]) -> bool:
    """Whether the first row names its columns: none of its four coordinates is a number."""
    return all(value and _number_or_none(value) is None for value in row[1:5])


def _find_image(
    path: Path,
    line: int,
    written: str,
    images: Path,
    by_name: dict[str, FoundImage],
    problems: Problems,
) -> FoundImage | None:
    """Return the image of a path, which another spelling may have named before."""
    if not written or "\0" in written:
        problems.add(path, line, f"path {written!r:.60} is not the name of an image")
        return None
    beside = path.parent / written
    name = name_inside(images, beside.absolute())
    if name is None or not beside.exists():
        name = name_inside(images, Path(written)) or name
    if name is None:
        problems.add(
            path,
            line,
            f"path {written!r:.200} leads outside the image folder {images}; name a folder that "
            "holds all images with --images",
        )
        return None
    return by_name.setdefault(name, FoundImage(source=path, line=line, file_name=name))


def _read_box(
    path: Path, line: int, row: list[str], columns: tuple[str, ...], problems: Problems
) -> FoundBox | None:
    """Return the box of a row; None for an image without boxes, and for a row with a problem."""
    if not any(row[1:]):
        return None
    corners = [_number_or_none(value) for value in row[1:5]]
    if not row[5] or None in corners:
        wrong = [
            f"{name} is {value!r:.40}"
            for name, value, corner in zip(columns[1:5], row[1:5], corners, strict=True)
            if corner is None
        ]
        wrong += [] if row[5] else [f"{columns[5]} is empty"]
        problems.add(
            path,
            line,
            f"{', '.join(wrong)}; expected four numbers (px) and a class, or nothing but the path "
            "for an image without boxes",
        )
        return None
    given: Corners = tuple(c for c in corners if c is not None)  # type: ignore[assignment]
    return FoundBox(line, row[5], given)


def _number_or_none(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None
