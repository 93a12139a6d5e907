"""Read tables of boxes: CSV with a header row, or keras-retinanet's `path,x1,y1,x2,y2,class_name`.

With a header row, columns are found by their names (see `columns`); `--columns` names them if that
is not enough. A row with only an image has no boxes. Paths are relative to the folder of the CSV,
or else to the image folder.
"""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from retinanet.convert.box_forms import CORNERS, UNIT_SCALES, to_corners
from retinanet.convert.dataset import FoundBox, FoundImages
from retinanet.convert.problems import Problems
from retinanet.convert.readers.csv.classes import name_classes
from retinanet.convert.readers.csv.columns import (
    NAMES,
    Columns,
    UnclearColumnsError,
    find_columns,
    is_column_name,
)
from retinanet.convert.readers.csv.images import ImageFinder
from retinanet.convert.readers.csv.rows import Row, Table
from retinanet.convert.readers.csv.suggest import (
    describe_values,
    one_box_a_row,
    suggest_columns,
)
from retinanet.convert.readers.csv.values import Numbers, choose_units
from retinanet.convert.tables import ClassIds, is_number, read_rows
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError
from retinanet.files import check_regular

_KERAS = ("path", *CORNERS, "class_name")
_LOOKED_AT = 200
"""Number of rows that are examined to find the columns."""


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """The user's options for a table."""

    columns: str | None = None
    """Comma-separated names of all columns, which replace the header row."""
    units: str | None = None
    """`px`, or a key of `UNIT_SCALES`."""
    label: str | None = None
    """Class of all boxes, if the table has no column for it."""
    class_ids: ClassIds | None = None
    """The class names of ids in the label column."""
    unlabelled: str = "refuse"
    """`refuse` rows with a class but no box, or keep their image without boxes (`empty`)."""


def read_csv(path: Path, images: Path, options: CsvOptions, problems: Problems) -> FoundImages:
    """Read a CSV; images are in the order of their first rows.

    Args:
        path: Path of the CSV.
        images: Image folder, which file_name is relative to.
        options: The user's options for the table.
        problems: Collects problems and notes.

    Raises:
        UserError: The columns are not clear; the message has the `--columns` to type.
    """
    _refuse_other_formats(path)
    rows = _without_comments(read_rows(path, problems, is_column_name), problems)
    finder = ImageFinder(path, images, problems)
    part = FoundImages(name="", folder=images, normalized=False)
    first = next(rows, None)
    if first is None:
        return part
    columns, header = _find_columns(path, first, rows, options, problems)
    if options.label is not None and columns.label is not None:
        raise UserError(
            f"{path}: column {columns.names[columns.label]} has the class; remove --label, or call "
            f"the column _ in --columns {columns.reading.columns_as(columns.reading.form)}"
        )
    if header is None:
        rows = chain([first], rows)
    class_names = () if options.class_ids is None else options.class_ids.names.values()
    table = Table(
        path,
        columns,
        finder,
        problems,
        label=options.label,
        class_names=frozenset(class_names),
        unlabelled=options.unlabelled,
    )
    for line, values in rows:
        if values == header:
            problems.note("repeated header rows: skipped")
            continue
        table.read(line, values)
    table.finish()
    if header is None and options.columns is None:
        _check_order(path, table.rows, options.class_ids)
    part.images, part.reading = finder.images, columns.reading
    labels = [(row.line, row.label) for row in table.rows]
    names = name_classes(path, labels, options.class_ids, problems)
    numbers = [(row.line, row.numbers) for row in table.rows]
    units = choose_units(path, numbers, columns.units, options.units, problems)
    if units is None or names is None:
        return part
    part.normalized = units != "px"
    part.are_units_guessed = options.units is None and columns.units is None
    scale = UNIT_SCALES.get(units, 1)
    seen: set[tuple[str, Numbers, str]] = set()
    for row, name in zip(table.rows, names, strict=True):
        # Multiplied only if needed, so that px keep their exact values.
        box = [number * scale for number in row.numbers] if scale != 1 else row.numbers
        corners = to_corners(box, columns.reading.form)
        row.image.boxes.append(FoundBox(row.line, name, corners, row.crowd))
        key = (row.image.file_name, row.numbers, name)
        if key in seen:
            problems.note("rows with the same box as an earlier row: kept")
        seen.add(key)
    return part


def _refuse_other_formats(path: Path) -> None:
    """Refuse JSON and XML, which also contain commas."""
    try:
        with check_regular(path).open("rb") as file:
            start = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    except OSError:
        return  # reported when the file is read
    if start.startswith((b'{"', b"[{", b"<?xml", b"<annotation", b"<!doctype", b"<html")):
        raise UserError(
            f"{path}: is not a table; for Pascal VOC XML use `retinanet convert voc`, for COCO "
            "JSON `retinanet check`"
        )


def _without_comments(
    rows: Iterator[tuple[int, list[str]]], problems: Problems
) -> Iterator[tuple[int, list[str]]]:
    """Skip lines before the first row that begin with `#`, unless they name columns."""
    has_begun = False
    for line, values in rows:
        if not has_begun and values[0].startswith("#"):
            named = [values[0].lstrip("# "), *values[1:]]
            if sum(map(is_column_name, named)) > 1:
                values = named
            elif not _is_keras(values) and sum(map(is_number, values)) < 2:
                problems.note("lines with a comment (#): skipped")
                continue
        has_begun = True
        yield line, values


def _find_columns(
    path: Path,
    first: tuple[int, list[str]],
    rows: Iterator[tuple[int, list[str]]],
    options: CsvOptions,
    problems: Problems,
) -> tuple[Columns, list[str] | None]:
    """Return the columns, and the header row if the first row is one."""
    line, values = first
    place, has_label = f"{path}:{line}", options.label is not None
    if options.columns is not None:
        names = [name.strip() for name in options.columns.split(",")]
        if len(names) != len(values):
            raise UserError(
                f"{place}: has {len(values)} columns, but --columns names {len(names)}; name all "
                f"of them in order, with _ for a column to leave out: "
                f"{suggest_columns(*((values, []) if _is_header(values) else ([], [values])))}"
            )
        try:
            columns = find_columns(names, told=True, has_label=has_label)
        except UnclearColumnsError as error:
            raise UserError(f'--columns "{options.columns}": {error}') from None
        if not _is_header(values):
            return columns, None
        problems.note(f"header row {','.join(values):.100}: skipped, as --columns is given", None)
        return columns, values
    if _is_header(values):
        try:
            columns = find_columns(values, told=False, has_label=has_label)
        except UnclearColumnsError as error:
            raise UserError(f"{place}: {_ask(path, values, rows, str(error))}") from None
        _describe(columns, problems)
        return columns, values
    if not _is_keras(values):
        command = one_box_a_row(path, values)
        if command is not None:
            raise UserError(
                f"{place}: has several boxes in a row; to give each its own row: {command}"
            )
        if len(values) == 1:
            raise UserError(f"{place}: {_describe_one_column(path, values[0])}")
        what = f"has {len(values)} columns without a header row; expected {','.join(_KERAS)}"
        raise UserError(f"{place}: {what}. {_choices([], [values, *_first_rows(rows)])}")
    problems.note(f"no header row: read as {','.join(_KERAS)}", None)
    return find_columns(_KERAS, told=False, has_label=has_label), None


def _first_rows(rows: Iterator[tuple[int, list[str]]]) -> list[list[str]]:
    return [values for _, values in islice(rows, _LOOKED_AT)]


def _ask(path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]], fault: str) -> str:
    """Return what is not clear in a header row, and what to type."""
    first = _first_rows(rows)
    fault = f"the header row {','.join(header)!r:.300} is not clear: {fault}"
    text = describe_values(path, header, first[0]) if first else None
    return text or f"{fault}. {_choices(header, first)}"


def _choices(header: list[str], rows: list[list[str]]) -> str:
    example = suggest_columns(header, rows)
    if not example:
        return (
            "Each row needs the file name of its image, the four numbers of a box, and a class; "
            "add the missing columns"
        )
    return (
        f"Name the columns in their order, for example {example} (names: {', '.join(NAMES)}; _ for "
        "a column to leave out)"
    )


def _describe_one_column(path: Path, value: str) -> str:
    """Return what to do about a table whose first row is a single value."""
    old = shlex.quote(str(path))
    if "," in value:
        new = shlex.quote(str(path.with_stem(f"{path.stem}-unquoted")))
        return (
            f"{value!r:.100}: the whole row is in quotes; to remove them: "
            f"""sed -E 's/^"//; s/"\\r?$//; s/""/"/g' {old} > {new}"""
        )
    new = shlex.quote(str(path.with_stem(f"{path.stem}-commas")))
    return (
        f"{value!r:.100} has no commas, semicolons, tabs or | between values; if the values are "
        f"separated by spaces: tr -s ' ' ',' < {old} > {new}"
    )


def _is_header(row: list[str]) -> bool:
    """Whether a row is a header row: it has several values, and none is a number."""
    named = [value for value in row if value]
    if any(map(is_number, named)):
        return False
    return sum(map(is_column_name, named)) > 1 or len(named) > 4


def _is_keras(row: list[str]) -> bool:
    """Whether a row of a table without header looks like path,x1,y1,x2,y2,class_name."""
    if len(row) != 6 or (_is_file(row[5]) and not _is_file(row[0])):
        return False
    if not any(row[1:]):
        return True
    first, middle, last = (sum(map(is_number, row[i : i + 4])) for i in range(3))
    return middle > 0 and middle >= max(first, last)


def _is_file(text: str) -> bool:
    return text.lower().endswith(SUFFIXES)


def _check_order(path: Path, rows: list[Row], class_ids: ClassIds | None) -> None:
    """Refuse a last column whose numbers are hardly classes, if the second column may have them.

    Raises:
        UserError: The rows may be path,class,x1,y1,x2,y2.
    """
    labels = {row.label for row in rows}
    if not rows or not all(label.isdecimal() for label in labels):
        return
    if class_ids is not None:
        known = {*class_ids.names.values(), *map(str, class_ids.names)}
        if labels <= known:
            return
    firsts = {row.numbers[0] for row in rows}
    if (len(firsts), max(firsts)) < (len(labels), max(map(int, labels))):
        raise UserError(
            f"{path}: has six columns without a header row, and no class names. Show which column "
            'is the class: --columns "image,x1,y1,x2,y2,label" for the last one, --columns '
            '"image,label,x1,y1,x2,y2" for the second'
        )


def _describe(columns: Columns, problems: Problems) -> None:
    """Note how a header row was understood."""
    names, box = columns.names, columns.box
    shown = ",".join(names[place] for place in box)
    form = ",".join(columns.reading.form)
    text = f"header row: image {names[columns.image]}, box {shown} ({form})"
    if columns.label is not None:
        text += f", class {names[columns.label]}"
    problems.note(text, None)
    if columns.left_out:
        problems.note(f"columns not read: {', '.join(columns.left_out)}", len(columns.left_out))
