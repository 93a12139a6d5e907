"""`--fix-as`: the user's choices where the data leaves a question open."""

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
    """Facts that the user states; None leaves the decision to the data."""

    reading: BoxReading | None = None
    """Layout and unit of all boxes."""
    from_outlines: bool = False
    """Whether annotations with an outline get the box around it, whatever their bbox is."""
    sizes: str | None = None
    """Whether the boxes refer to the size of the `file` or of the `record`, if these differ."""
    negative: str | None = None
    """Cause of a negative side: `corners` in the wrong order, or a wrong sign of the `sides`."""
    merge_names: bool = False
    """Whether categories with the same name are one class."""
    crowds_are_objects: bool = False
    """Whether regions to ignore (iscrowd 1) are objects like the others."""


def parse_choices(words: Sequence[str]) -> Choices:
    """Parse `boxes=xyxy unit=percent sizes=record ...`.

    Raises:
        UserError: A name or value is unknown, or given twice.
    """
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _WORDS:
            hint = nearest(key, list(_WORDS)) or f"; choose from {', '.join(_WORDS)}"
            raise UserError(f"--fix-as {word}: there is no choice {key!r}{hint}")
        if value not in _WORDS[key]:
            raise UserError(f"--fix-as {word}: choose {key}={f' or {key}='.join(_WORDS[key])}")
        if key in given:
            raise UserError(f"--fix-as: {key} is given twice")
        given[key] = value
    if "unit" in given and "boxes" not in given:
        raise UserError(
            "--fix-as unit=... also needs boxes=..., for example boxes=xyxy unit=percent"
        )
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
