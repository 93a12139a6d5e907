"""The doctor's summary of the data: a table of the classes."""

from collections.abc import Callable
from typing import Any

from retinanet.data.coco.index import read_annotations
from retinanet.doctor.data_summary import NamedSplit, describe_data

Pair = Callable[[], tuple[Any, Any]]


def test_the_table_shows_the_class_names_of_all_splits(both: Pair) -> None:
    train, val = both()
    val.content["categories"][1]["name"] = "wolf"
    splits = [
        NamedSplit(name=d.path.stem, annotations=read_annotations(d.write())) for d in (train, val)
    ]
    lines = describe_data(splits)[0].lines
    assert lines[1:4] == [
        " 1      0  cat                  27         27",
        " 2      1  dog | wolf           27         27",
        " 3      2  cow                  26         26",
    ]


def test_how_classes_compare(data: Any) -> None:
    """The classes with the most and the fewest boxes are compared."""

    def last_line() -> str:
        return describe_data([NamedSplit(name="", annotations=read_annotations(data.write()))])[
            0
        ].lines[-1]

    assert last_line() == "'cat' has 1.04 times as many boxes as 'cow'"
    data.content["annotations"] = data.content["annotations"][:6]
    assert last_line() == "all classes have the same number of boxes"
    data.content["categories"].append({"id": 4, "name": "owl"})
    assert last_line() == "all classes with boxes have the same number of boxes"
    data.content["annotations"] = data.content["annotations"][:1]
    assert last_line() == "only 'cat' has boxes"
