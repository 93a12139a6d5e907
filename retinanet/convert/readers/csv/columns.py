"""Find the columns of a table of boxes by their names, in a header row or in --columns.

Names are compared by their letters and digits, without case and without a prefix such as `bbox`:
`x_min`, `XMin` and `bbox.xmin` are the same. Ambiguous names are refused, because a box that was
read in the wrong way still looks like a box.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from retinanet.convert.box_forms import CENTRE, CORNERS, TOP_LEFT, WHOLE, Form, TableReading
from retinanet.data.coco.resolve import FLAGS
from retinanet.errors import nearest, some_of

LEFT_OUT = ("_", "-")
"""Names in `--columns` for a column that is not read; `_` does not look like an option."""
NAMES = (
    *("image", "label", *CORNERS, "x", "y", "w", "h", "cx", "cy", *WHOLE),
    *("image_width", "image_height", "ignore"),
)
"""The names that `--columns` accepts."""
_CANONICAL = {
    "image": "filename file imagefile imagefilename imagename imgfile imgname imgfilename fname "
    "imagefilepath filenames",
    "image:2": "image images img path filepath imagepath imgpath picture photo imageurl uri url",
    "image:3": "imageid imgid fileid frame framename pic",
    "label": "label labels class classes classname labelname category categoryname categories cls "
    "clsname objectclass classlabel objectname objectcategory classtext",
    "label:2": "object objects obj type tag objecttype species target annotationtag",
    "label:3": "classid labelid categoryid clsid catid classindex labelindex classnumber",
    "x1": "x1 xmin minx mincol colmin firstcol left tlx xtl topleftx xtopleft lefttopx "
    "upperleftx xupperleft ulx xul ltx xlt leftx xleft startx xstart xfrom blx bottomleftx "
    "lowerleftx",
    "y1": "y1 ymin miny minrow rowmin firstrow top tly ytl toplefty ytopleft lefttopy "
    "upperlefty yupperleft uly yul lty ylt topy ytop starty ystart yfrom try toprighty "
    "upperrighty",
    "x2": "x2 xmax maxx maxcol colmax lastcol right brx xbr bottomrightx xbottomright "
    "rightbottomx lowerrightx xlowerright lrx xlr rbx xrb rightx xright endx xend xto trx "
    "toprightx upperrightx",
    "y2": "y2 ymax maxy maxrow rowmax lastrow bottom bry ybr bottomrighty ybottomright "
    "rightbottomy lowerrighty ylowerright lry ylr rby yrb bottomy ybottom endy yend yto bly "
    "bottomlefty lowerlefty",
    "x0": "x0",
    "y0": "y0",
    "x": "x bx colx xcol xpos posx xcoord xcoordinate xorigin originx",
    "y": "y by rowy yrow ypos posy ycoord ycoordinate yorigin originy",
    "cx": "cx xc xcenter xcentre centerx centrex xctr ctrx xmid midx",
    "cy": "cy yc ycenter ycentre centery centrey yctr ctry ymid midy",
    "w": "w width bw",
    "h": "h height bh",
    "image_width": "imagewidth imgwidth imagew imgw imwidth imw originalwidth framewidth "
    "originalimagewidth widthimage imagesizex",
    "image_height": "imageheight imgheight imageh imgh imheight imh originalheight frameheight "
    "originalimageheight heightimage imagesizey",
    "ignore": "iscrowd crowd isgroup",
    "score": "score scores confidence conf probability prob confidencescore detectionscore",
    "angle": "angle rotation theta rot rotationangle rotationdegrees angledegrees rotationdeg",
    "corner points": "x3 y3 x4 y4",
    "xyxy": "xyxy x1y1x2y2 xminyminxmaxymax",
    "xywh": "xywh",
    "cxcywh": "cxcywh",
    "yxyx": "yxyx y1x1y2x2 yminxminymaxxmax",
    "whole box": "bbox box boundingbox bndbox bboxes boxes rect rectangle region coordinates "
    "coords coord",
    "name": "name",
    "row": "row",
    "col": "col column",
}
_KEYS = {re.sub("[^a-z]", "", flag.lower()): "ignore" for flag in FLAGS}
_KEYS |= {key: meaning for meaning, keys in _CANONICAL.items() for key in keys.split()}
"""The meaning of each name; `:2` and `:3` rank after others with the same meaning."""
_OF_A_BOX = re.compile("^(boundingbox|bndbox|bbox|box|bb|rect|roi|region|annotation|object|obj|gt)")
_UNITS = {
    "shares": "normalized normalised norm relative rel ratio fraction frac",
    "percent": "percentage percent pct",
    "px": "pixels pixel px absolute abs",
}
_UNIT_KEYS = [(word, unit) for unit, words in _UNITS.items() for word in words.split()]
_COORDINATES = frozenset((*CORNERS, "x0", "y0", *TOP_LEFT, *CENTRE))


class UnclearColumnsError(Exception):
    """The meaning of a column is not clear; the message explains why."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table."""

    names: tuple[str, ...]
    """Names as in the header row or `--columns`."""
    image: int
    label: int | None
    box: tuple[int, ...]
    """Columns of the four numbers, or the one that holds them all."""
    reading: TableReading
    units: str | None
    """`px`, `shares` or `percent`, if the names show it."""
    size: tuple[int, int] | None
    """Columns of the image's height and width."""
    ignore: tuple[int, ...]
    """Columns that mark a region to ignore."""
    score: int | None
    angle: int | None
    is_size_sure: bool
    """Whether the names show that the size is the image's; else it may be the box's."""

    @property
    def left_out(self) -> list[str]:
        """The names of the columns that are not read."""
        read = {self.image, self.label, *self.box, *(self.size or ()), *self.ignore}
        read |= {self.score, self.angle}
        return [
            repr(name) if name else "one without a name"
            for place, name in enumerate(self.names)
            if place not in read and name not in LEFT_OUT
        ]


class Meaning(NamedTuple):
    """The meaning of a column name."""

    what: str = ""
    """Empty for an unknown name."""
    unit: str | None = None
    is_of_a_box: bool = False
    """Whether the name shows that it belongs to a box: `bbox_width`."""
    is_short: bool = False
    """`w`, not `width`."""


def meaning_of(name: str) -> Meaning:
    """Return the meaning of a column name."""
    key, of_a_box = re.sub(r"[^0-9a-z]", "", name.casefold()), False
    if key not in _KEYS and (bare := key.replace("corner", "")) in _KEYS:
        key = bare  # `Upper left corner X`
    while key and key not in _KEYS:
        for word, unit in _UNIT_KEYS:
            for rest in (key.removesuffix(word), key.removeprefix(word)):
                bare = _OF_A_BOX.sub("", rest)
                if rest != key and (rest in _KEYS or bare in _KEYS):
                    is_of_a_box = of_a_box or rest not in _KEYS
                    short = rest if rest in _KEYS else bare
                    return Meaning(_KEYS[short], unit, is_of_a_box, len(short) == 1)
        rest = _OF_A_BOX.sub("", key)
        if rest == key:
            return Meaning()
        key, of_a_box = rest, True
    what = _KEYS.get(key, "")
    if of_a_box and what == "label:2":
        return Meaning()  # `box_type` is not a class
    return Meaning(what, None, of_a_box, len(key) == 1)


def is_column_name(text: str) -> bool:
    """Whether a text is a known column name."""
    return bool(meaning_of(text).what)


def find_columns(names: Sequence[str], *, told: bool, has_label: bool) -> Columns:
    """Find the meaning of the columns.

    Args:
        names: Names of all columns, in their order.
        told: Whether the names are the user's (`--columns`); x, y is then surely a corner.
        has_label: Whether the class of all boxes is given, so that no column is needed for it.

    Raises:
        UnclearColumnsError: A column is missing, or may mean two things.
    """
    found: dict[str, list[int]] = {}
    meanings: dict[int, Meaning] = {}
    for place, name in enumerate(names):
        if name in LEFT_OUT and told:
            continue
        meaning = meaning_of(name)
        if told and not meaning.what:
            raise UnclearColumnsError(
                f"there is no column {name!r:.40}{nearest(name, list(NAMES))}; the names are "
                f"{', '.join(NAMES)}, and _ for a column to leave out"
            )
        if meaning.what:
            found.setdefault(meaning.what, []).append(place)
            meanings[place] = meaning
    _settle_sides(found, meanings)
    _rename_from_zero(found)
    _settle_name(found)
    _settle_row_and_col(found)
    _refuse_repeated(found, names)
    image = _first(found, ("image", "image:2", "image:3"))
    label = _first(found, ("label", "label:2", "label:3"))
    of_boxes = {place for place, meaning in meanings.items() if meaning.is_of_a_box}
    form, box, size = _find_box(found, names, of_boxes)
    if image is None:
        raise UnclearColumnsError("no column names the image")
    if label is None and not has_label:
        raise UnclearColumnsError(
            "no column has the class; to give all boxes the same class, use --label NAME"
            if not told
            else "no column is named label; name one, or give all boxes a class with --label NAME"
        )
    kinds = {meanings[place].unit for place in box}
    if len(kinds) > 1:
        raise UnclearColumnsError("the column names do not show the same unit for all coordinates")
    canonical = ["_"] * len(names)
    canonical[image] = "image"
    if label is not None:
        canonical[label] = "label"
    for place, part in zip(size or (), ("image_height", "image_width"), strict=False):
        canonical[place] = part
    for place in found.get("ignore", []):
        canonical[place] = "ignore"
    if len(box) == 1:
        canonical[box[0]] = next(name for name, own in WHOLE.items() if own == form)
    else:
        for place, part in zip(box, form, strict=True):
            canonical[place] = part
    is_bare = form == TOP_LEFT and len(box) > 1 and box[0] in found.get("x", [])
    a, b, c, d = box * 4 if len(box) == 1 else box
    return Columns(
        names=tuple(names),
        image=image,
        label=label,
        box=box,
        reading=TableReading(
            form=form,
            columns=tuple(canonical),
            places=(a, b, c, d),
            evidence="told" if told else "custom" if is_bare else "names",
        ),
        units=kinds.pop() if kinds else None,
        size=size,
        ignore=tuple(found.get("ignore", ())),
        score=_first(found, ("score",)),
        angle=_first(found, ("angle",)),
        is_size_sure="image_width" in found,
    )


def _settle_sides(found: dict[str, list[int]], meanings: dict[int, Meaning]) -> None:
    """With `w` and `width`, or `box_width` and `width`, the second is the image's."""
    for side, whole in (("w", "image_width"), ("h", "image_height")):
        places = found.get(side, [])
        own = [p for p in places if meanings[p].is_of_a_box or meanings[p].is_short]
        if len(places) == 2 and len(own) == 1 and whole not in found:
            found[whole] = [place for place in places if place not in own]
            found[side] = own


def _rename_from_zero(found: dict[str, list[int]]) -> None:
    """Rename corners that are numbered from 0: x0, y0, x1, y1."""
    if "x0" not in found and "y0" not in found:
        return
    if not ("x0" in found and "y0" in found) or "x2" in found or "y2" in found:
        raise UnclearColumnsError("x0 and y0 make a box only with x1 and y1")
    if "x1" in found and "y1" in found:
        found["x2"], found["y2"] = found.pop("x1"), found.pop("y1")
    found["x1"], found["y1"] = found.pop("x0"), found.pop("y0")


def _settle_name(found: dict[str, list[int]]) -> None:
    """`name` is the class if another column is the image; else it is the image."""
    places = found.pop("name", None)
    if places is None:
        return
    has_image = any(meaning.startswith("image") for meaning in found if "_" not in meaning)
    if not has_image:
        found["image:3"] = places
    elif "label" not in found and "label:2" not in found:
        found["label"] = places


def _settle_row_and_col(found: dict[str, list[int]]) -> None:
    """Row and column are y and x, if both exist and nothing else is x or y."""
    rows, cols = found.pop("row", None), found.pop("col", None)
    if rows and cols and "x" not in found and "y" not in found:
        found["y"], found["x"] = rows, cols


def _refuse_repeated(found: dict[str, list[int]], names: Sequence[str]) -> None:
    settled = set()
    for meaning, places in found.items():
        base, _, rank = meaning.partition(":")
        is_needed = not rank or not {base, f"{base}:2"} & (set(found) - {meaning})
        if len(places) > 1 and is_needed and meaning not in ("ignore", "corner points"):
            settled.add((base, tuple(places)))
    if settled:
        base, repeated = sorted(settled)[0]
        what = "has the class" if base == "label" else "names the image" if base == "image" else ""
        shown = " and ".join(repr(names[place]) for place in repeated)
        raise UnclearColumnsError(
            f"there are {shown}, and only one can be {base}"
            if not what
            else f"there are {shown}, and it is not clear which one {what}"
        )


def _first(found: dict[str, list[int]], meanings: Sequence[str]) -> int | None:
    return next((found[meaning][0] for meaning in meanings if meaning in found), None)


def _find_box(
    found: dict[str, list[int]], names: Sequence[str], of_boxes: set[int]
) -> tuple[Form, tuple[int, ...], tuple[int, int] | None]:
    """Return the form of the boxes, their columns, and the columns of the image's size."""
    if "corner points" in found:
        points = some_of([repr(names[place]) for place in found["corner points"]])
        raise UnclearColumnsError(
            f"there are {points}: boxes with four corner points, which may be rotated; write the "
            "box around them as x1,y1,x2,y2"
        )
    forms = {
        form: tuple(found[part][0] for part in form)
        for form in (CORNERS, TOP_LEFT, CENTRE, ("x1", "y1", "w", "h"))
        if all(part in found for part in form)
    }
    size = _both(found, ("image_height", "image_width"))
    sides = _both(found, ("h", "w"))
    whole = [(form, name) for name, form in WHOLE.items() if name in found]
    if CORNERS in forms:
        del forms[CORNERS]
        forms.pop(("x1", "y1", "w", "h"), None)
        if not forms and not whole:
            is_size = sides and not of_boxes & set(sides) and size is None
            place = tuple(found[part][0] for part in CORNERS)
            return CORNERS, place, sides if is_size else size
        forms = {CORNERS: (), **forms}
    own = [form for form, places in forms.items() if places and of_boxes >= set(places)]
    if len(own) == 1 and not whole:
        forms = {own[0]: forms[own[0]]}  # `bb_left`, ... beside the x, y, z of a 3D world
    if len(forms) + len(whole) > 1:
        shown = [",".join(form) for form in (*forms, *(form for form, _ in whole))]
        raise UnclearColumnsError(f"the box has several forms: {' and '.join(shown)}")
    if forms:
        form, box = forms.popitem()
        return (TOP_LEFT if form == ("x1", "y1", "w", "h") else form), box, size
    if size is None and sides and not of_boxes & set(sides):
        size = sides  # with the box in one column, width and height are the image's
    if whole:
        form, name = whole[0]
        return form, (found[name][0],), size
    if "whole box" in found:
        raise UnclearColumnsError(
            f"{names[found['whole box'][0]]!r} does not show the form of the box: xyxy (corners), "
            "xywh (top left corner, width, height), cxcywh (centre, width, height) or yxyx (y "
            "first)"
        )
    there = [names[place] for part in _COORDINATES for place in found.get(part, [])]
    listed = some_of([repr(name) for name in names if name in there])
    raise UnclearColumnsError(
        (f"{listed} do not make a box" if there else "no column has the box")
        + "; a box is x1,y1,x2,y2 or x,y,w,h (top left corner) or cx,cy,w,h (centre)"
    )


def _both(found: dict[str, list[int]], parts: tuple[str, str]) -> tuple[int, int] | None:
    if not all(part in found for part in parts):
        return None
    return found[parts[0]][0], found[parts[1]][0]
