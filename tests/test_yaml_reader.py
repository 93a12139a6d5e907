"""YAML as people mean it, and as nobody can misuse it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.errors import UserError
from retinanet.yaml_reader import parse_yaml, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("010", 10),
        ("-7", -7),
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ('"1e-4"', "1e-4"),
        ("[1, 2.0, a]", [1, 2.0, "a"]),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: Any) -> None:
    read = parse_yaml(f"key: {text}", "x")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "^x, line 3: duplicate key a$"),
        ("a: {b: 1, b: 2}", "^x, line 1: duplicate key b$"),
        ("1: 2", "^x, line 1: the key 1 is not a word$"),
        ("? [1]\n: 2", "^x, line 1: the key \\[1\\] is not a word$"),
        ("a: [1,\nb: 2", "^x, line 2: "),
        ("a: *b", "^x, line 1: "),
        ("a: \x07", "^x: not YAML$"),
        ("a: " + "9" * 5000, "^x: not valid YAML$"),
    ],
)
def test_wrong_yaml_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_yaml(text, "x")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.x", "!own"])
def test_tags_are_refused(tag: str) -> None:
    with pytest.raises(UserError, match=r"^x, line 2: YAML tags are not allowed"):
        parse_yaml(f"a: 1\nb: {tag} [exit]", "x")


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^x"):
        parse_yaml(text, "x")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: there is no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="directory"):
        read_yaml(tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("train: {device: größer}".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.yaml: not a text file in UTF-8"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["- train\n- model\n", "just words", "3"])
def test_a_file_without_sections(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml: should contain sections such as `train:`, not"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert read_yaml(path) == {}


@pytest.mark.parametrize("text", ["1e-4", "09", "1:30", "on", "null", "", "0x10", "1_000", "a: b"])
def test_a_string_that_looks_like_something_else_stays_a_string(text: str) -> None:
    assert parse_yaml(write_yaml({"key": text}), "x") == {"key": text}


# PyYAML itself writes NEL as a line break; surrogates are not text.
words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x85"))
numberlike = st.from_regex(r"[-+.:_0-9a-fxoe]{1,8}", fullmatch=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | words
    | numberlike
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(words, plain, max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    assert parse_yaml(write_yaml(values), "x") == values


def test_write_yaml_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = write_yaml({"train": {"milestones": [3, 5], "lr": 0.01}}, path)
    assert text == "train:\n  milestones: [3, 5]\n  lr: 0.01\n"
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["!!float 1", "{a: !!str 1}", "!!int '1'", "!x 1", "[!!float 2]"])
def test_no_tag_is_allowed_whatever_it_builds(text: str) -> None:
    with pytest.raises(UserError, match="YAML tags are not allowed"):
        parse_yaml(text, "x")


def test_texts_in_every_style() -> None:
    assert parse_yaml("a: |\n  1\nb: >\n  2\nc: '3'\nd: \"4\"\ne: 5", "x") == {
        "a": "1\n",
        "b": "2\n",
        "c": "3",
        "d": "4",
        "e": 5,
    }


def test_numbers_as_keys_where_they_are_wanted() -> None:
    text = "names: {0: person, 1: no}"
    assert parse_yaml(text, "x", number_keys=True) == {"names": {0: "person", 1: "no"}}
    with pytest.raises(UserError, match=r"^x, line 1: the key 0 is not a word$"):
        parse_yaml(text, "x")
    for key in ("true", "1.5", "null"):
        with pytest.raises(UserError, match="is not a word"):
            parse_yaml(f"{key}: 1", "x", number_keys=True)
