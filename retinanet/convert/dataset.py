"""A data set during conversion.

Sizes are (height, width) in px; boxes are continuous, with (0, 0) at the image's top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from retinanet.convert.box_forms import Corners, TableReading
from retinanet.data.canvas import Size


class Box(NamedTuple):
    """An object in an image."""

    category: str
    x: float
    y: float
    width: float
    height: float
    crowd: bool = False
    """A region to ignore."""
    polygon: tuple[float, ...] = ()
    """Its outline x1, y1, x2, y2, ..., px, if the source has one."""
    area: float | None = None
    """Area in px², if the source gives it."""


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
    """`train`, `val`, ...; empty for a single split."""
    folder: Path
    """Image folder, which file_name is relative to."""
    images: list[Image]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Splits that share their classes."""

    classes: list[str]
    """In the order of their ids 1..K."""
    splits: list[ConvertedSplit]


class FoundBox(NamedTuple):
    """An object as read from the source, before its image file is opened."""

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
    """An image as read from the source."""

    source: Path
    """The file that lists it."""
    line: int | None
    """Line of its first mention, from 1."""
    file_name: str
    size: Size | None = None
    """Height and width, px, if the source gives them."""
    boxes: list[FoundBox] = field(default_factory=list)


@dataclass(kw_only=True)
class FoundImages:
    """A split as read from the source."""

    name: str
    folder: Path
    normalized: bool
    """Coordinates are shares of the image's width and height, not px."""
    are_units_guessed: bool = False
    """Coordinates are taken as px, but neither the source nor the user (`--units`) confirms it."""
    images: list[FoundImage] = field(default_factory=list)
    reading: TableReading | None = None
    """How the numbers of a table were read; None if the format defines it."""
