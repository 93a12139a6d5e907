"""Rows of text: delimiters, encodings, and lines as an editor counts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.convert.problems import Problems
from retinanet.convert.tables import (
    find_delimiter,
    is_number,
    read_class_ids,
    read_classes,
    read_rows,
    read_text,
)
from retinanet.errors import UserError


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        ("a.jpg,1,2,3,4,dog", ","),
        ("a.jpg;1;2;3;4;dog", ";"),
        ("a.jpg;1,5;2,5;3,5;4,5;dog", ";"),
        ('"a.jpg";"1,5";"2";"3";"4";"dog"', ";"),
        ("a;b|c.jpg,1,2,3,4,dog", ","),
        ("a, b.jpg\t1\t2\t3\t4\tdog", "\t"),
        ("a.jpg|1|2|3|4|dog", "|"),
        ("a.jpg;;;;;", ";"),
        ("a.jpg,,,,,", ","),
        ("dog; big", ","),
        ("", ","),
    ],
)
def test_delimiters(line: str, mark: str) -> None:
    assert find_delimiter(line) == mark


def test_the_delimiter_of_names() -> None:
    assert find_delimiter("image;x;label", lambda text: text == "x") == ";"
    assert find_delimiter("image;x;label", lambda text: text == "image;x;label") == ","


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a;1\n\nb;2\n", [(1, ["a", "1"]), (3, ["b", "2"])]),
        ("sep=;\na;1\nb;2\n", [(2, ["a", "1"]), (3, ["b", "2"])]),
        ("\n# made by me, 2024\na;1\n", [(2, ["# made by me, 2024"]), (3, ["a", "1"])]),
        ('a;1\n"b\nc";2\nd;3\n', [(1, ["a", "1"]), (2, ["b\nc", "2"]), (4, ["d", "3"])]),
    ],
)
def test_lines(tmp_path: Path, text: str, expected: list[tuple[int, list[str]]]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert list(read_rows(path, Problems())) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("Köter,1\r\n".encode(encoding))
    assert read_text(path) == "Köter,1\n"
    assert list(read_rows(path, Problems())) == [(1, ["Köter", "1"])]


@pytest.mark.parametrize("content", [b"k\xf6ter", "köter,1".encode("utf-16-le"), b"PK\3\4..."])
def test_texts_that_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    for read in (read_text, lambda p: list(read_rows(p, Problems()))):
        with pytest.raises(UserError, match=r"t\.txt: (not a text file in UTF-8; save|is a ZIP)"):
            read(path)


def test_numbers() -> None:
    assert all(map(is_number, ("1", "-1.5", "1,5", "1e3", ".5")))
    assert not any(map(is_number, ("", "x", "nan", "inf", "1_0", "1,2,3", "1 2")))


def test_class_ids(tmp_path: Path) -> None:
    counted, given = tmp_path / "a.txt", tmp_path / "a.csv"
    counted.write_text("zebra\nant\n")
    given.write_text("zebra;7\nant;3\n")
    problems = Problems()
    assert read_class_ids(counted, problems) == ({0: "zebra", 1: "ant"}, True)
    assert read_class_ids(given, problems) == ({3: "ant", 7: "zebra"}, False)
    assert read_classes(given, problems) == ["ant", "zebra"]
    problems.stop_on_problems(tmp_path)
