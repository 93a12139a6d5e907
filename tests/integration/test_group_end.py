"""An error of one rank ends all of them, and is the last thing that is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
DYING = Path(__file__).with_name("dying.py")


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("bug", 1, "ZeroDivisionError: bug in the backward pass\n"),
        ("memory", 1, "error: the machine has too little memory: memory in the backward pass\n"),
        ("stop", 130, "stopped: SIGINT before the command was done\n"),
    ],
)
def test_an_error_in_one_backward_pass_ends_all_ranks(
    shared_experiment: Path,
    start: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    code: int,
    words: str,
) -> None:
    """The other rank waits for the gradients then. It ends, too, without burying the reason."""
    (tmp_path / "attempt_0").mkdir()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / "0" / "error.json"))
    options = [f"output.dir={tmp_path}", "--name", "one", "data.workers=1"]
    deaths = json.dumps({1: ("in_backward", 2, kind)})
    started = start(DYING, deaths, "train", shared_experiment, *options, processes=2)
    other, failed = started.wait()
    assert (other.code, failed.code) == (1, code)
    assert words in failed.err
    if kind == "bug":
        assert failed.err.endswith(words)
    assert "Traceback" not in other.err and "error:" not in other.err
    written = [path.name for path in (tmp_path / "one" / "checkpoints").iterdir()]
    assert written == ["last.pt"]
