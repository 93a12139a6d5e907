"""Classes for foreign logits, given by the user."""

from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.interop.classes import read_categories


def read(text: str, folder: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    path = folder / "classes.json"
    path.write_text(text)
    found = read_categories(path)
    return found.ids, found.names


def test_a_list_of_names(tmp_path: Path) -> None:
    assert read('["RBC", "WBC"]', tmp_path) == ((1, 2), ("RBC", "WBC"))


@pytest.mark.parametrize("annotations", ["[]", '[{"bbox": [1, 2, 3, NaN]}]', "7"])
def test_a_coco_file(annotations: str, tmp_path: Path) -> None:
    """Its annotations are not read; classes are in the order of their ids."""
    text = '{"annotations": %s, "categories": [{"id": 7, "name": "b"}, {"id": 3, "name": "a"}]}'
    assert read(text % annotations, tmp_path) == ((3, 7), ("a", "b"))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "3",
        '"abc"',
        "[1]",
        '["a", ""]',
        '{"categories": 3}',
        '{"categories": [{"id": 1.7, "name": "a"}]}',
        '{"categories": [{"id": Infinity, "name": "a"}]}',
        '{"categories": [{"id": true, "name": "a"}]}',
        '{"categories": [{"name": "a"}]}',
        '[{"id": 1, "name": ["a"]}]',
        "[" * 100_000,
        "not JSON",
    ],
)
def test_files_that_do_not_list_classes(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is neither a COCO file with categories nor a list of nam"):
        read(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["a", "a"]', "duplicate name 'a'"),
        ('[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "duplicate id 1"),
        ("[]", "contains no class"),
    ],
)
def test_invalid_sets_of_classes(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(text, tmp_path)
