"""Check whether the boxes of a table contradict the form in which they were read.

`100,80,150,120` may mean corners, a corner and a size, or a centre and a size. Read in the wrong
form, most boxes still look valid. But in a whole data set, some are outside their image or have
swapped corners.
"""

from __future__ import annotations

from collections.abc import Sequence

from retinanet.convert.box_forms import (
    CENTRE,
    CORNERS,
    FORMS,
    PAIRS,
    TOP_LEFT,
    Y_FIRST,
    Form,
    TableReading,
    from_corners,
    to_corners,
)
from retinanet.convert.dataset import FoundImages
from retinanet.convert.problems import Problems
from retinanet.convert.rules import Rules
from retinanet.convert.unit_evidence import check_units
from retinanet.data.canvas import Size
from retinanet.errors import plural

_OUTSIDE = 2.0
"""How far a box may be outside its image before it counts against a form, in px."""
_FEW = 10
"""A form is contradicted if at least one box in ten does not fit it, and another form has at most
a tenth as many misfits."""

Row = tuple[tuple[float, ...], Size | None]
"""Four numbers of a form, and the height and width of the image, if known."""


def check_reading(
    part: FoundImages, sizes: Sequence[Size | None], rules: Rules, problems: Problems
) -> bool:
    """Check whether the boxes of a split fit their images in the form in which they were read.

    The form of `--columns` is checked, too. If `--bad-boxes` or `--swapped-corners` is also given,
    a contradiction is only noted.

    Args:
        part: A split, with how its table was read.
        sizes: Height and width of each image, px; None if unknown.
        rules: `swapped_corners` decides whether corners may be swapped.
        problems: Gets one problem if the boxes do not fit, with the columns that would.

    Returns:
        Whether the boxes can be used as read.
    """
    reading = part.reading
    if reading is None:
        if not (rules.swapped_corners == "order" or _check_corners(part, sizes, problems)):
            return False
    elif not _check_form(part, reading, sizes, rules, problems):
        return False
    return check_units(part, sizes, problems)


def _check_form(
    part: FoundImages,
    reading: TableReading,
    sizes: Sequence[Size | None],
    rules: Rules,
    problems: Problems,
) -> bool:
    rows = [
        (from_corners(box.corners, reading.form), size)
        for image, size in zip(part.images, sizes, strict=True)
        for box in image.boxes
    ]
    if part.normalized:
        rows = [(values, (1, 1)) for values, _ in rows]
    misfits = _count_misfits(rows, reading.form, part.normalized)
    if _have_sizes_of_corners(rows, reading.form):
        corners = reading.columns_as(CORNERS)
        problems.note(
            "boxes whose w and h are larger than x and y, in every row of the table: if the four "
            f"are corners, use --columns {corners}",
            len(rows),
        )
    if reading.evidence == "custom" and rows:
        return _check_custom(part, reading, rows, misfits, problems)
    if misfits * _FEW < len(rows) or misfits < min(2, len(rows)):
        return True
    others = {
        form: count
        for form in FORMS
        if form != reading.form
        and reading.can_be(form)
        and (count := _count_misfits(rows, form, part.normalized)) * _FEW <= misfits
    }
    exchanged = _exchanged_axis(rows, reading.form)
    if not misfits or not (others or exchanged):
        return True
    is_told = reading.evidence == "told"
    if is_told and (rules.bad_boxes, rules.swapped_corners) != ("refuse", "refuse"):
        fitting = "; ".join(_choice(reading, form, 0, 0) for form in others)
        problems.note(
            f"boxes in conflict with --columns ({','.join(reading.form)}); another form would "
            f"fit: {fitting}",
            misfits,
        )
        return True
    choices = [
        _choice(reading, form, len(rows) - count, len(rows)) for form, count in others.items()
    ]
    if exchanged:
        if exchanged[1] == "y2":
            choices.append(
                "if y counts from the bottom of the image, which is not supported, write height - y"
            )
        choices.append(
            f"--columns {reading.columns_as(exchanged)} only if the names of two columns are "
            "swapped"
        )
    choices.append(
        "if they are right as given, add --swapped-corners order or --bad-boxes drop"
        if is_told
        else f"--columns {reading.columns_as(reading.form)} if that is right"
    )
    problems.add(
        part.images[0].source,
        part.images[0].line,
        f"read as {','.join(reading.form)}, {misfits:,} of {len(rows):,} boxes do not fit their "
        f"image or have x2 < x1 or y2 < y1. Give the columns: {'; or '.join(choices)}",
    )
    return False


def _check_corners(part: FoundImages, sizes: Sequence[Size | None], problems: Problems) -> bool:
    """Whether boxes of a corner format are corners, and not a corner and a size."""
    boxes = [
        (image, box, None if part.normalized else size)
        for image, size in zip(part.images, sizes, strict=True)
        for box in image.boxes
    ]
    swapped = [
        (image, box)
        for image, box, _ in boxes
        if box.corners[0] > box.corners[2] or box.corners[1] > box.corners[3]
    ]
    if len(swapped) * _FEW < len(boxes) or len(swapped) < min(2, len(boxes)) or not swapped:
        return True
    rows: list[Row] = [(box.corners, (1, 1) if part.normalized else size) for _, box, size in boxes]
    misfits = _count_misfits(rows, TOP_LEFT, part.normalized)
    if misfits * _FEW > len(swapped):
        return True
    image, box = swapped[0]
    problems.add(
        image.source,
        box.line,
        f"{len(swapped):,} of {len(boxes):,} boxes have swapped corners, but "
        f"{len(boxes) - misfits:,} fit their image as x, y, width, height. Is the last corner a "
        "size? Correct the source, or use --swapped-corners order if they are corners",
    )
    return False


def _choice(reading: TableReading, form: Form, fitting: int, count: int) -> str:
    text = f"--columns {reading.columns_as(form)}"
    return f"{text}, which fits {fitting:,} of {count:,}" if count else text


def _check_custom(
    part: FoundImages,
    reading: TableReading,
    rows: list[Row],
    misfits: int,
    problems: Problems,
) -> bool:
    """Whether x, y is surely the top left corner, as usual, and not the centre."""
    as_centre = _count_misfits(rows, CENTRE, part.normalized)
    if misfits * _FEW <= as_centre and as_centre:
        problems.note(
            f"x, y is the top left corner: as centres, {plural(as_centre, 'box')} would be outside "
            "the image",
            None,
        )
        return True
    choices = [
        f"--columns {reading.columns_as(form)} if it is the {what} ({len(rows) - bad:,} of "
        f"{len(rows):,} boxes fit their image)"
        for form, what, bad in (
            (TOP_LEFT, "top left corner", misfits),
            (CENTRE, "centre", as_centre),
        )
    ]
    others = {
        form: _count_misfits(rows, form, part.normalized) for form in (CORNERS, Y_FIRST, PAIRS)
    }
    choices += [
        _choice(reading, form, len(rows) - bad, len(rows))
        for form, bad in others.items()
        if bad * _FEW <= min(misfits, as_centre) and bad < min(misfits, as_centre)
    ]
    problems.add(
        part.images[0].source,
        part.images[0].line,
        "the column names do not show whether x, y is the corner or the centre of a box. Use "
        f"{'; or '.join(choices)}",
    )
    return False


def _count_misfits(rows: list[Row], form: Form, normalized: bool) -> int:
    """Count boxes that, in this form, have no area or are outside their image."""
    slack = 0.01 if normalized else _OUTSIDE
    count = 0
    for values, size in rows:
        x1, y1, x2, y2 = to_corners(values, form)
        height, width = size or (float("inf"), float("inf"))
        over = max(-x1, -y1, x2 - width, y2 - height)
        count += x2 <= x1 or y2 <= y1 or over > slack
    return count


def _have_sizes_of_corners(rows: list[Row], form: Form) -> bool:
    """Whether the sizes could be second corners in every row."""
    pairs = [values for values, _ in rows]
    is_odd = all(values[0] < values[2] and values[1] < values[3] for values in pairs)
    return form in (TOP_LEFT, CENTRE) and len(rows) >= _FEW and is_odd


def _exchanged_axis(rows: list[Row], form: Form) -> Form | None:
    """Return the form with two corners swapped, if (nearly) all boxes need the same swap."""
    if "x2" not in form:
        return None
    boxes = [to_corners(values, form) for values, _ in rows]
    swaps = {
        axis: sum(box[axis] > box[axis + 2] for box in boxes) * _FEW > len(boxes) * (_FEW - 1)
        for axis in (0, 1)
    }
    names = {"x1": "x2", "x2": "x1"} if swaps[0] else {}
    names |= {"y1": "y2", "y2": "y1"} if swaps[1] else {}
    if not names:
        return None
    a, b, c, d = (names.get(name, name) for name in form)
    return a, b, c, d
