"""Notes of a conversion: numbers and their nouns."""

from __future__ import annotations

import pytest

from retinanet.convert.problems import Problems, counted, split_count


@pytest.mark.parametrize(
    ("count", "text", "expected"),
    [
        (1, "boxes of two classes: kept", "1 box of two classes: kept"),
        (2, "boxes of two classes: kept", "2 boxes of two classes: kept"),
        (1, "image files without boxes", "1 image file without boxes"),
        (1, "classes without a name", "1 class without a name"),
        (2000, "hidden image files: not read", "2,000 hidden image files: not read"),
        (0, "rows: skipped", "0 rows: skipped"),
    ],
)
def test_only_the_first_noun_follows_the_number(count: int, text: str, expected: str) -> None:
    assert counted(count, text) == expected
    assert split_count(expected) == (count, text)


def test_lines_of_notes() -> None:
    problems = Problems()
    problems.note("rows: skipped")
    problems.note("no header row", None)
    problems.note("boxes: kept", 0)
    problems.note("no header row", None)
    assert problems.note_lines() == ["  1 row: skipped", "  no header row"]
    problems.note("rows: skipped", 2)
    assert problems.note_lines() == ["  3 rows: skipped", "  no header row"]
