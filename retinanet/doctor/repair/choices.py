"""`--fix-as`: what the user knows, where the data does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retinanet.doctor.box_readings import LAYOUTS, UNITS, BoxReading
from retinanet.errors import UserError, nearest

_WORDS = {
    "boxes": (*LAYOUTS, "outline"),
    "unit": tuple(UNITS),
    "sizes": ("file", "record"),
    "negative": ("corners", "sides"),
    "names": ("merged",),
    "crowds": ("objects",),
}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to take as given; None leaves it to the evidence."""

    reading: BoxReading | None = None
    """Layout and unit of all boxes."""
    from_outlines: bool = False
    """An annotation with an outline has the box around it, whatever its bbox says."""
    sizes: str | None = None
    """Where a record's size is not the file's, the boxes are px of the `file` or of the `record`'s
    size."""
    negative: str | None = None
    """A negative width or height: `corners` in the wrong order, or a wrong sign of the `sides`."""
    merge_names: bool = False
    """Categories of one name are one class."""
    crowds_are_objects: bool = False
    """What is marked as a region to ignore (iscrowd 1) is an object like others."""


def parse_choices(words: Sequence[str]) -> Choices:
    """Parse `boxes=xyxy unit=percent sizes=record ..`.

    Raises:
        UserError: an unknown name or value, or one given twice.
    """
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _WORDS:
            hint = nearest(key, list(_WORDS)) or f"; there are: {', '.join(_WORDS)}"
            raise UserError(f"--fix-as {word}: there is no choice {key!r}{hint}")
        if value not in _WORDS[key]:
            raise UserError(f"--fix-as {word}: choose {key}={f' or {key}='.join(_WORDS[key])}")
        if key in given:
            raise UserError(f"--fix-as: {key} is given twice")
        given[key] = value
    if "unit" in given and "boxes" not in given:
        raise UserError("--fix-as unit=.. needs boxes=.., too, such as boxes=xyxy unit=percent")
    reading = None
    from_outlines = given.get("boxes") == "outline"
    if "boxes" in given and not from_outlines:
        reading = BoxReading(given["boxes"], given.get("unit", "px"))
    return Choices(
        reading=reading,
        from_outlines=from_outlines,
        sizes=given.get("sizes"),
        negative=given.get("negative"),
        merge_names="names" in given,
        crowds_are_objects="crowds" in given,
    )
