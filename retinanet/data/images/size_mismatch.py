"""An image file whose size differs from its record: how it differs, and what to do."""

from __future__ import annotations

from typing import Literal

from retinanet.data.canvas import Size

Mismatch = Literal["swapped", "off by one", "scaled", "other"]
_FRACTIONS = {0.5: "half that size", 2.0: "twice that size"}


def mismatch_of(file: Size, record: Size) -> Mismatch:
    """Return how two different sizes (height, width) differ.

    Swapped: width and height are in the wrong order. Off by one: neither side differs by more
    than a pixel, as after rounding. Scaled: the same aspect ratio, to a pixel.
    """
    if file == record[::-1]:
        return "swapped"
    if max(abs(a - b) for a, b in zip(file, record, strict=True)) <= 1:
        return "off by one"
    return "scaled" if _scale(file, record) is not None else "other"


def meant_size(shown: Size, stored: Size, record: Size) -> Size:
    """Return the size that a wrong record of a rotated image comes from: as shown or as stored.

    It differs from that size by a pixel, or is a scaled copy of it. The size as shown if unclear.
    """
    for mismatch in ("off by one", "scaled"):
        alike = {size for size in (shown, stored) if mismatch_of(size, record) == mismatch}
        if len(alike) == 1:
            return alike.pop()
    return shown


def describe_mismatch(file: Size, record: Size) -> str:
    """Return a description of the difference, to be put after the record's size."""
    scale = _scale(file, record)
    match mismatch_of(file, record):
        case "swapped":
            return ": width and height are swapped"
        case "off by one":
            return ": off by one pixel, as after rounding"
        case "scaled" if scale is not None:
            words = _FRACTIONS.get(round(scale, 2), f"{scale:.3g} times that size")
            return f", {words}: the boxes may belong to a scaled copy"
    return ""


def mismatch_remedy(
    mismatch: Mismatch, annotations: str = "ANNOTATIONS.json", images: str = "FOLDER"
) -> str:
    """Return what to do, with the command that lists every such image.

    Args:
        mismatch: How the sizes differ.
        annotations: Path of the annotation file, quoted for a shell.
        images: Path of the image folder, quoted for a shell.
    """
    check = f"retinanet check {annotations} --images {images}"
    match mismatch:
        case "swapped":
            return f"swap them: `{check} --fix OUT.json` does so if the boxes then fit"
        case "off by one":
            return f"write the file's size: `{check} --fix OUT.json` does so"
        case "scaled":
            return (
                f"use the files that were annotated, or scale the boxes: `{check} --fix OUT.json` "
                "does so, or says what it needs to know"
            )
    return f"use the file that was annotated, or write the file's size: `{check}` lists all"


def _scale(file: Size, record: Size) -> float | None:
    """Return record / file if the aspect ratio is the same; None if not, or if a side is 0."""
    if not min(*file, *record):
        return None
    # The longer side is more exact.
    i = 0 if max(file[0], record[0]) > max(file[1], record[1]) else 1
    scale = record[i] / file[i]
    other = 1 - i
    fits = abs(record[other] - scale * file[other]) <= max(1, scale) and scale != 1
    return scale if fits else None
