"""A data set on its way from one format to another.

Sizes are (height, width) in px; boxes are continuous, with (0, 0) at the image's top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from retinanet.convert.box_forms import Corners, TableReading
from retinanet.data.canvas import Size


class Box(NamedTuple):
    """An object of an image."""

    category: str
    x: float
    y: float
    width: float
    height: float
    crowd: bool = False
    """A region to ignore."""
    polygon: tuple[float, ...] = ()
    """Its outline x1, y1, x2, y2, .., px, if the source has one."""
    area: float | None = None
    """px², if the source says it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image and its boxes."""

    file_name: str
    """Relative to the image folder, with `/`."""
    size: Size
    boxes: list[Box]


@dataclass(frozen=True, kw_only=True)
class ConvertedSplit:
    """A part of a data set that becomes one file."""

    name: str
    """`train`, `val`, ..; empty for the only one."""
    folder: Path
    """Where file_name starts from."""
    images: list[Image]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Splits that share their classes."""

    classes: list[str]
    """In the order of their ids 1..K."""
    splits: list[ConvertedSplit]


class FoundBox(NamedTuple):
    """An object as a source says it, before anything is known of its image's file."""

    line: int | None
    """Line in the source, from 1."""
    category: str
    corners: Corners
    """Px, or shares of width and height (see `FoundImages.normalized`)."""
    crowd: bool = False
    polygon: tuple[float, ...] = ()
    area: float | None = None


@dataclass(kw_only=True, slots=True)
class FoundImage:
    """An image as a source says it."""

    source: Path
    """The file that names it."""
    line: int | None
    """Line of its first mention, from 1."""
    file_name: str
    size: Size | None = None
    """If the source says it."""
    boxes: list[FoundBox] = field(default_factory=list)


@dataclass(kw_only=True)
class FoundImages:
    """A split as a source says it."""

    name: str
    folder: Path
    normalized: bool
    """Coordinates are shares of the image's width and height, not px."""
    are_units_guessed: bool = False
    """Numbers are taken for px, though neither the source nor the user says so (`--units`)."""
    images: list[FoundImage] = field(default_factory=list)
    reading: TableReading | None = None
    """How the numbers of a table were read; None where the format says it."""
