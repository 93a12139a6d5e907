"""Two launches do not write into one folder."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retinanet.checkpoints.run_lock import run_lock
from retinanet.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no POSIX locks")
ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys
from pathlib import Path
from retinanet.checkpoints.run_lock import run_lock
with run_lock(Path(sys.argv[1]), active=True):
    if os.fork() == 0:  # a loader's process, which outlives the training
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    with another(folder) as process:
        message = f"first: process {process.pid} is training there; wait until it ends, or stop it"
        with pytest.raises(UserError, match=message), run_lock(folder, active=True):
            pytest.fail("held by two")
        with run_lock(folder, active=False):
            pass
        process.kill()  # -9: what it had forked lives on, and holds nothing
        process.wait()
        with run_lock(folder, active=True):
            assert (folder / ".lock").read_text() == f"{platform.node()} {os.getpid()}\n"
    with run_lock(folder, active=True):
        pass


def test_another_machine_may_be_gone(tmp_path: Path) -> None:
    with another(tmp_path):
        (tmp_path / ".lock").write_text("elsewhere 12\n")
        with run_lock(tmp_path, active=True):
            assert (tmp_path / ".lock").read_text() == "elsewhere 12\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="run: cannot be written: Not a directory"),
        run_lock(tmp_path / "file" / "run", active=True),
    ):
        pass
