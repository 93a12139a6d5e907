"""What a command says of words that it does not know."""

import argparse

import pytest

from retinanet.commands.arguments import command_parser


def said_of(
    unknown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return the last line of the message where argparse leaves these words over."""
    left = argparse.Namespace(), unknown
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", lambda *_: left)
    parser = command_parser("train", "", "")
    parser.add_argument("overrides", nargs="*")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_an_option_with_dashes_is_told_how_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said_of(["--lr", "0.1"], monkeypatch, capsys).endswith(
        "unrecognized arguments: --lr 0.1 (options of the config have no dashes: train.lr=0.1)"
    )


def test_an_option_that_is_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command_parser("train", "", "")
    parser.add_argument("--name")
    parser.add_argument("--quiet", action="store_true")
    assert parser.parse_args(["--name", "a", "--quiet", "--quiet"]).name == "a"
    for words in (["--name", "a", "--name", "b"], ["--name=a", "--name=b"]):
        assert parser.parse_args(words).name == "b"
        assert (
            capsys.readouterr().err == "note: --name is given 2 times; the last value is used: b\n"
        )


@pytest.mark.parametrize("unknown", ["--", "-", "-x", "word"])
def test_other_words_get_no_such_hint(
    unknown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What argparse makes of a second `--` is another thing in each Python."""
    assert said_of([unknown], monkeypatch, capsys).endswith(f"unrecognized arguments: {unknown}")
