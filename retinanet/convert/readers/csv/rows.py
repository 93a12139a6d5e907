"""The rows of a table of boxes whose columns are known."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from retinanet.convert.box_forms import CORNERS
from retinanet.convert.dataset import FoundImage
from retinanet.convert.problems import Problems
from retinanet.convert.readers.csv.columns import Columns
from retinanet.convert.readers.csv.images import ImageFinder
from retinanet.convert.readers.csv.suggest import one_box_a_row
from retinanet.convert.readers.csv.values import (
    Numbers,
    is_blank,
    read_flag,
    read_size,
    split_numbers,
)
from retinanet.convert.tables import DELIMITERS, is_ambiguous, read_number
from retinanet.errors import plural

_FOLDERS = ("folder", "dir", "directory", "subfolder", "folder_name")


@dataclass(frozen=True, slots=True)
class Row:
    """A box as read from its row."""

    line: int
    image: FoundImage
    numbers: Numbers
    """In the order of the table's form."""
    label: str
    crowd: bool


class Table:
    """Reads rows one by one; `finish` makes the checks that need all of them."""

    def __init__(
        self,
        path: Path,
        columns: Columns,
        finder: ImageFinder,
        problems: Problems,
        *,
        label: str | None,
        class_names: Collection[str],
        unlabelled: str,
    ) -> None:
        """Start with an empty table.

        Args:
            path: Path of the CSV, for messages.
            columns: Meaning of the columns.
            finder: Finds the images.
            problems: Collects problems and notes.
            label: Class of all boxes, if no column has it.
            class_names: The class list, if there is one.
            unlabelled: `refuse` rows with a class but no box, or keep their image (`empty`).
        """
        self.rows: list[Row] = []
        self._path = path
        self._columns = columns
        self._finder = finder
        self._problems = problems
        self._label = label
        self._class_names = class_names
        self._unlabelled = unlabelled
        names = [name.lower() for name in columns.names]
        self._folder = next((i for i, name in enumerate(names) if name in _FOLDERS), None)
        self._sizes: list[tuple[int, FoundImage, tuple[str, str]]] = []
        self._scores: list[tuple[int, str]] = []
        self._angles: list[tuple[int, str]] = []
        self._with_comma: list[tuple[int, str]] = []

    def read(self, line: int, values: list[str]) -> None:
        """Add the image and the box of a row."""
        columns = self._columns
        whole = self._whole_row(line, values)
        if whole is None:
            return
        folder = None if self._folder is None else whole[self._folder]
        image = self._finder.find(line, whole[columns.image], folder)
        if image is not None and columns.size is not None:
            height, width = (whole[place] for place in columns.size)
            self._sizes.append((line, image, (height, width)))
        label = "" if columns.label is None else whole[columns.label]
        if label.lower() == "nan" and label not in self._class_names:
            label = ""  # pandas writes NaN for a missing value
        texts = [whole[place] for place in columns.box]
        if all(map(is_blank, texts)):
            self._check_no_box(line, label)
            return
        if columns.label is None:
            label = self._label or ""
        numbers = self._read_numbers(line, texts, label)
        crowd = self._read_flags(line, whole)
        for seen, place in ((self._scores, columns.score), (self._angles, columns.angle)):
            if place is not None and not is_blank(whole[place]):
                seen.append((line, whole[place]))
        if image is not None and numbers is not None:
            self.rows.append(Row(line, image, numbers, label, crowd))

    def finish(self) -> None:
        """Set the sizes of the images, and refuse predictions and rotated boxes."""
        self._set_sizes()
        self._check_commas()
        columns = self._columns
        command = f'--columns "{",".join(columns.reading.columns)}"'
        scores = [(line, text) for line, text in self._scores if read_number(text) not in (1, 100)]
        angles = [(line, text) for line, text in self._angles if read_number(text) != 0]
        for found, place, what, remedy in (
            (scores, columns.score, "these are predictions, not labels", "reads them as labels"),
            (angles, columns.angle, "rotated boxes are not supported", "reads them unrotated"),
        ):
            if found and place is not None:
                line, text = found[0]
                self._problems.add(
                    self._path,
                    line,
                    f"{columns.names[place]} is {text!r:.20}, and {plural(len(found), 'row')} "
                    f"{'has' if len(found) == 1 else 'have'} such a value: {what}; {command} "
                    f"{remedy}",
                )

    def _whole_row(self, line: int, values: list[str]) -> list[str] | None:
        """Return a row with all its columns; a row with only a path is an image without boxes."""
        columns = self._columns
        count = len(columns.names)
        while len(values) > count and not values[-1]:
            values = values[:-1]
        others = [value for place, value in enumerate(values) if place != columns.image]
        if len(values) < count and not any(others):
            values = values + [""] * (count - len(values))
        if any(map(self._has_rows_inside, range(len(values)), values)):
            self._problems.add(
                self._path,
                line,
                'a value contains a line break: an unclosed quote (") swallows the rows after it; '
                "remove the quote",
            )
            return None
        if len(values) == count:
            return values
        command = one_box_a_row(self._path, values)
        remedy = f"to give each box its own row: {command}" if command else "correct the row"
        self._problems.add(
            self._path,
            line,
            f"expected {count} columns {','.join(columns.names)}; found {len(values)}; {remedy}",
        )
        return None

    def _has_rows_inside(self, place: int, value: str) -> bool:
        """Whether a value with line breaks is an image, a class, or several rows."""
        lines = value.splitlines()
        if len(lines) < 2:
            return False
        if place in (self._columns.image, self._columns.label):
            return True
        marks = max(len(self._columns.names) - 2, 1)
        return any(line.count(mark) >= marks for line in lines for mark in DELIMITERS)

    def _check_no_box(self, line: int, label: str) -> None:
        """Refuse a row with a class but no numbers; without both, it is an image without boxes."""
        if label and self._unlabelled == "empty":
            self._problems.note("rows with a class but no box: only the image is kept")
        elif label:
            self._problems.add(
                self._path,
                line,
                f"has the class {label!r:.60}, but no box; --unlabelled empty keeps only the image "
                "of such rows",
            )

    def _read_numbers(self, line: int, texts: list[str], label: str) -> Numbers | None:
        columns = self._columns
        names = [columns.names[place] for place in columns.box]
        if len(texts) == 1:
            numbers = [read_number(text) for text in split_numbers(texts[0])]
            is_box = len(numbers) == 4 and None not in numbers
            wrong = [] if is_box else [f"{names[0]} is {texts[0]!r:.60}, not one box"]
        else:
            numbers = [read_number(text) for text in texts]
            self._with_comma += [(line, text) for text in texts if "," in text]
            pairs = zip(names, texts, numbers, strict=True)
            wrong = [f"{name} is {text!r:.40}" for name, text, number in pairs if number is None]
        if not label and columns.label is not None:
            wrong.append(f"{columns.names[columns.label]} is empty")
        if wrong:
            self._problems.add(
                self._path,
                line,
                f"{', '.join(wrong)}; expected four numbers and a class, or only the "
                f"{columns.names[columns.image]} for an image without boxes",
            )
            return None
        a, b, c, d = (number for number in numbers if number is not None)
        return a, b, c, d

    def _read_flags(self, line: int, values: list[str]) -> bool:
        """Whether a row's box is a region to ignore."""
        columns, crowd = self._columns, False
        for place in columns.ignore:
            flag = read_flag(values[place])
            if flag is None:
                self._problems.add(
                    self._path,
                    line,
                    f"{columns.names[place]} is {values[place]!r:.40}; expected 0 or 1; to leave "
                    "the column out, use --columns with _ in its place",
                )
            elif flag:
                crowd = True
        if crowd:
            marks = "/".join(columns.names[place] for place in columns.ignore)
            self._problems.note(f"boxes with {marks}: marked iscrowd 1 (to ignore)")
        return crowd

    def _check_commas(self) -> None:
        if self._with_comma and all(is_ambiguous(text) for _, text in self._with_comma):
            line, text = self._with_comma[0]
            self._problems.add(
                self._path,
                line,
                f"{text!r:.20} may be {text.replace(',', '.')} or {text.replace(',', '')}; write "
                "decimal points, and no thousands separators",
            )

    def _set_sizes(self) -> None:
        """Set the image sizes from the rows, unless they are the sizes of the boxes."""
        columns = self._columns
        if columns.size is None:
            return
        if not columns.is_size_sure and self._are_box_sizes():
            names = ", ".join(columns.names[place] for place in reversed(columns.size))
            self._problems.note(
                f"columns {names} are the sizes of the boxes, not of the images: not read", None
            )
            return
        for line, image, texts in self._sizes:
            self._set_size(line, image, texts)

    def _are_box_sizes(self) -> bool:
        """Whether width and height beside corners are the sizes of the boxes, in every row."""
        if not self.rows or self._columns.reading.form != CORNERS:
            return False
        texts = {line: text for line, _, text in self._sizes}
        for row in self.rows:
            size = read_size(texts[row.line])
            x1, y1, x2, y2 = row.numbers
            if size is None or abs(x2 - x1 - size[1]) > 1 or abs(y2 - y1 - size[0]) > 1:
                return False
        return True

    def _set_size(self, line: int, image: FoundImage, texts: tuple[str, str]) -> None:
        """Set the height and width (px) of an image from a row; all rows must agree."""
        if all(map(is_blank, texts)):
            return
        size = read_size(texts)
        if size is None:
            self._problems.add(
                self._path,
                line,
                f"width is {texts[1]!r:.20}, height {texts[0]!r:.20}; expected whole numbers (px)",
            )
        elif image.size is None:
            image.size = size
        elif image.size != size:
            self._problems.add(
                self._path,
                line,
                f"gives the size of {image.file_name!r} as {size[1]}x{size[0]} px, but an earlier "
                f"row as {image.size[1]}x{image.size[0]}; correct one of them, or leave out both "
                "columns with --columns and _ in their place",
            )
