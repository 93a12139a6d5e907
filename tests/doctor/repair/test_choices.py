"""The words after `--fix-as`."""

import pytest

from retinanet.doctor.box_readings import BoxReading
from retinanet.doctor.repair.choices import Choices, parse_choices
from retinanet.errors import UserError


def test_all_choices() -> None:
    words = [
        "boxes=yxyx",
        "unit=shares",
        "sizes=record",
        "negative=sides",
        "names=merged",
        "crowds=objects",
    ]
    assert parse_choices(words) == Choices(
        reading=BoxReading("yxyx", "shares"),
        sizes="record",
        negative="sides",
        merge_names=True,
        crowds_are_objects=True,
    )
    assert parse_choices(["boxes=xywh"]).reading == BoxReading("xywh", "px")
    assert parse_choices([]) == Choices()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["box=xyxy"], "--fix-as box=xyxy: there is no choice 'box'; did you mean boxes?"),
        (["shape=xyxy"], "there is no choice 'shape'; choose from boxes, unit, sizes, negative"),
        (["sizes=xyxy"], "--fix-as sizes=xyxy: choose sizes=file or sizes=record"),
        (["boxes=xyxy", "boxes=xywh"], "--fix-as: boxes is given twice"),
        (["unit=percent"], "--fix-as unit=... also needs boxes=..., for example"),
    ],
)
def test_wrong_words(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_choices(words)
    assert message in str(error.value)
