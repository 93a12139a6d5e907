"""Names of classes in tables: one line, aligned, and no two that look the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.categories import columns_of, pad, shown_name, shown_names

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def test_plain_names_are_shown_as_they_are() -> None:
    names = ["cat", "Cat", "traffic light", "Fußgänger", "猫"]
    assert shown_names(names) == names


def test_names_that_would_break_a_table() -> None:
    assert shown_name("a\nb\tc\x1b[0m") == r"a\nb\tc\x1b[0m"
    assert shown_name("\u202egnp.exe") == r"\u202egnp.exe"
    assert shown_name(" cat") == "' cat'"
    assert shown_name("x" * 300) == "x" * 37 + "..."
    assert shown_name("猫" * 300) == "猫" * 18 + "..."
    assert shown_name("x" * 40) == "x" * 40


def test_names_that_shorten_to_one_text_are_numbered() -> None:
    long = "x" * 300
    assert shown_names(["cat", long + "a", long + "b"], 20) == [
        "cat",
        "x" * 14 + "...(2)",
        "x" * 14 + "...(3)",
    ]
    # One that is written as the other looks, and one in another Unicode form.
    assert shown_names(["a\nb", r"a\nb"]) == [r"a\nb...(1)", r"a\nb...(2)"]
    assert shown_names(["\u00e9", "e\u0301"]) == ["\u00e9...(1)", "\u00e9...(2)"]


def test_columns_of_a_terminal() -> None:
    assert [columns_of(text) for text in ("cat", "猫", "e\u0301", "")] == [3, 2, 1, 0]
    assert pad("猫", 5) + "|" == "猫   |"


@given(st.lists(st.text(max_size=60), max_size=6, unique=True))
@settings(max_examples=60, deadline=None)
def test_any_names(names: list[str]) -> None:
    """In one line of at most 40 columns, each another."""
    shown = shown_names(names)
    assert len(set(shown)) == len(names)
    for text in shown:
        assert columns_of(text) <= 40 + len("...(1)") and not set(text) & set(LINE_ENDS)
