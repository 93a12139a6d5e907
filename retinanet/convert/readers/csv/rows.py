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

_FOLDERS = ("folder", "dir", "directory", "subfolder", "folder_name")


@dataclass(frozen=True, slots=True)
class Row:
    """A box as its row says it."""

    line: int
    image: FoundImage
    numbers: Numbers
    """In the order of the table's form."""
    label: str
    crowd: bool


class Table:
    """Reads rows one by one; what only all of them tell is looked at by `finish`."""

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
        """Begin a table without rows.

        Args:
            path: path of the CSV, for messages.
            columns: what its columns are.
            finder: finds its images.
            problems: collects problems and notes.
            label: the class of all boxes, if no column has it.
            class_names: the class list, if there is one.
            unlabelled: `refuse` a class without a box, or take its image as `empty`.
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
        """Add what a row says of its image, and its box."""
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
            label = ""  # pandas writes NaN where there is none
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
        """Set the sizes of the images, and refuse what is no label of an upright box."""
        self._set_sizes()
        self._check_commas()
        columns = self._columns
        command = f'--columns "{",".join(columns.reading.columns)}"'
        scores = [(line, text) for line, text in self._scores if read_number(text) not in (1, 100)]
        angles = [(line, text) for line, text in self._angles if read_number(text) != 0]
        for found, place, what, remedy in (
            (scores, columns.score, "predictions, not labels", "takes them as labels"),
            (angles, columns.angle, "rotated boxes, which are not read", "takes them unrotated"),
        ):
            if found and place is not None:
                line, text = found[0]
                self._problems.add(
                    self._path,
                    line,
                    f"{columns.names[place]} is {text!r:.20}, and {len(found):,} rows have such "
                    f"values: {what}; {command} {remedy}",
                )

    def _whole_row(self, line: int, values: list[str]) -> list[str] | None:
        """Return a row with all its columns; a path alone may stand for an image without boxes."""
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
                'a value has a line break in it: a quote (") that is not closed takes in the rows '
                "after it; remove the quote",
            )
            return None
        if len(values) == count:
            return values
        command = one_box_a_row(self._path, values)
        remedy = f"this gives each box a row: {command}" if command else "correct the row"
        self._problems.add(
            self._path,
            line,
            f"expected {count} columns {','.join(columns.names)}; found {len(values)}; {remedy}",
        )
        return None

    def _has_rows_inside(self, place: int, value: str) -> bool:
        """Whether a value has line breaks and is an image, a class, or several rows."""
        lines = value.splitlines()
        if len(lines) < 2:
            return False
        if place in (self._columns.image, self._columns.label):
            return True
        marks = max(len(self._columns.names) - 2, 1)
        return any(line.count(mark) >= marks for line in lines for mark in DELIMITERS)

    def _check_no_box(self, line: int, label: str) -> None:
        """A row without numbers stands for an image without boxes, if it has no class either."""
        if label and self._unlabelled == "empty":
            self._problems.note("rows with a class but no box: taken as images without boxes")
        elif label:
            self._problems.add(
                self._path,
                line,
                f"has the class {label!r:.60}, but no box; --unlabelled empty takes such rows as "
                "images without boxes",
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
                f"{', '.join(wrong)}; expected four numbers and a class, or nothing but the "
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
                    f"{columns.names[place]} is {values[place]!r:.40}; expected 0 or 1; --columns "
                    "with _ in its place leaves the column out",
                )
            elif flag:
                crowd = True
        if crowd:
            marks = "/".join(columns.names[place] for place in columns.ignore)
            self._problems.note(f"boxes with {marks}: iscrowd 1, regions to ignore")
        return crowd

    def _check_commas(self) -> None:
        if self._with_comma and all(is_ambiguous(text) for _, text in self._with_comma):
            line, text = self._with_comma[0]
            self._problems.add(
                self._path,
                line,
                f"{text!r:.20} may be {text.replace(',', '.')} or {text.replace(',', '')}; write "
                "decimal points, and no commas between thousands",
            )

    def _set_sizes(self) -> None:
        """Give the images the sizes of their rows, unless those are the boxes'."""
        columns = self._columns
        if columns.size is None:
            return
        if not columns.is_size_sure and self._are_box_sizes():
            names = ", ".join(columns.names[place] for place in reversed(columns.size))
            self._problems.note(f"tables whose {names} are the boxes', not the images': not read")
            return
        for line, image, texts in self._sizes:
            self._set_size(line, image, texts)

    def _are_box_sizes(self) -> bool:
        """Whether width and height beside corners are those of the boxes, in every row."""
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
        """Give an image the height and width (px) of a row; all rows must give the same."""
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
                f"says that {image.file_name!r} is {size[1]}x{size[0]} px, but an earlier row says "
                f"{image.size[1]}x{image.size[0]}; correct one of them, or leave both columns out "
                "by --columns with _ in their place",
            )
