"""An image file of another size than its record: in which way, and what to do about it."""

from __future__ import annotations

from typing import Literal

from retinanet.data.canvas import Size

Mismatch = Literal["swapped", "off by one", "scaled", "other"]
_FRACTIONS = {0.5: "half of it", 2.0: "twice it"}


def mismatch_of(file: Size, record: Size) -> Mismatch:
    """Return how two different sizes (height, width) differ.

    Swapped: width and height are exchanged. Off by one: neither side differs by more than a pixel,
    as after rounding. Scaled: the same shape, to a pixel.
    """
    if file == record[::-1]:
        return "swapped"
    if max(abs(a - b) for a, b in zip(file, record, strict=True)) <= 1:
        return "off by one"
    return "scaled" if _scale(file, record) is not None else "other"


def meant_size(shown: Size, stored: Size, record: Size) -> Size:
    """Return the size of a turned image, before or after, that a wrong record comes from.

    The one that it misses by a pixel or is a scaled copy of; as shown where that tells nothing.
    """
    for mismatch in ("off by one", "scaled"):
        alike = {size for size in (shown, stored) if mismatch_of(size, record) == mismatch}
        if len(alike) == 1:
            return alike.pop()
    return shown


def describe_mismatch(file: Size, record: Size) -> str:
    """Return words about the difference, to follow the record's size."""
    scale = _scale(file, record)
    match mismatch_of(file, record):
        case "swapped":
            return ": width and height are exchanged"
        case "off by one":
            return ": off by one pixel, as after rounding"
        case "scaled" if scale is not None:
            words = _FRACTIONS.get(round(scale, 2), f"{scale:.3g} times it")
            return f", {words}: are the boxes those of a scaled copy?"
    return ""


def mismatch_remedy(
    mismatch: Mismatch, annotations: str = "ANNOTATIONS.json", images: str = "FOLDER"
) -> str:
    """Return what to do, with the command that shows every such image.

    Args:
        mismatch: how the sizes differ.
        annotations: path of the annotation file, quoted for a shell.
        images: path of the image folder, quoted for a shell.
    """
    check = f"retinanet check {annotations} --images {images}"
    match mismatch:
        case "swapped":
            return f"exchange them: `{check} --fix OUT.json` does, where the boxes then fit"
        case "off by one":
            return f"write the file's size: `{check} --fix OUT.json` does"
        case "scaled":
            return (
                f"take the files that were annotated, or scale the boxes: `{check} --fix OUT.json` "
                "does, or says what it needs to know"
            )
    return f"take the file that was annotated, or write the file's size: `{check}` lists all"


def _scale(file: Size, record: Size) -> float | None:
    """Return record / file if the shapes are the same; None if not, or if a side is 0."""
    if not min(*file, *record):
        return None
    i = 0 if max(file[0], record[0]) > max(file[1], record[1]) else 1  # the longer side tells more
    scale = record[i] / file[i]
    other = 1 - i
    fits = abs(record[other] - scale * file[other]) <= max(1, scale) and scale != 1
    return scale if fits else None
