"""What is written to stderr in processes of their own is known call by call."""

import os

import pytest

from retinanet.data.images.decoder_lines import map_with_lines
from retinanet.errors import UserError


def test_each_call_has_its_own_lines(capfd: pytest.CaptureFixture[str]) -> None:
    calls = [(2, b"one\n"), (1, b""), (2, b"three")]
    assert list(map_with_lines(os.write, calls)) == [(4, "one\n"), (0, ""), (5, "three")]
    assert capfd.readouterr().err == ""
    assert list(map_with_lines(os.write, [])) == []


def test_a_killed_process_is_said() -> None:
    with pytest.raises(UserError, match="a process that decodes images was killed: is there eno"):
        list(map_with_lines(os._exit, [(9,)]))
