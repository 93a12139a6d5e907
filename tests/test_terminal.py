"""What is printed neither ends nor holds up nor changes the work."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.terminal import (
    GuardedStream,
    describe_lost_output,
    guarded_streams,
    limit_patience,
)

Opener = Callable[..., TextIO]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Return a function that opens a descriptor as Python opens stdout."""
    files: list[TextIO] = []

    def open_text(descriptor: int, encoding: str = "utf-8") -> TextIO:
        files.append(os.fdopen(descriptor, "w", encoding=encoding))
        return files[-1]

    yield open_text
    for file in files:
        if not file.closed:
            file.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe; the writing one is closed by whoever takes it."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    with suppress(OSError):  # the test has closed it
        os.close(reading)


def stream(inner: TextIO, *, patience: float | None = None) -> GuardedStream:
    return GuardedStream(inner, 1, patience=patience)


def read(descriptor: int) -> bytes:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except BlockingIOError:
            return found
        if not piece:
            return found
        found += piece


def test_lines_are_printed_whole(pipe: tuple[int, int], opened: Opener) -> None:
    printed = stream(opened(pipe[1]))
    print("half", end="", file=cast(TextIO, printed))
    assert read(pipe[0]) == b""
    print(" a line\nand", end="", file=cast(TextIO, printed))
    assert read(pipe[0]) == b"half a line\n"
    printed.flush()
    assert read(pipe[0]) == b"and"
    assert printed.failure is None


def test_a_reader_that_goes_away(pipe: tuple[int, int], opened: Opener) -> None:
    printed = stream(opened(pipe[1]))
    os.close(pipe[0])
    for _ in range(3):
        assert printed.write("a line\n") == 7
    assert printed.failure == "Broken pipe" and printed.reader_is_gone


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_disk(opened: Opener) -> None:
    errors = io.StringIO()
    printed = GuardedStream(
        opened(os.open("/dev/full", os.O_WRONLY)),
        1,
        patience=None,
        warnings=(stream(errors), "stdout: {reason}"),
    )
    for _ in range(3):
        printed.write("a line\n")
    assert printed.failure == "No space left on device" and not printed.reader_is_gone
    assert errors.getvalue() == "stdout: No space left on device\n"  # once


def test_a_stream_that_python_has_closed(pipe: tuple[int, int], opened: Opener) -> None:
    inner = opened(pipe[1])
    inner.close()
    printed = stream(inner)
    printed.write("a line\n")
    assert printed.failure and not printed.isatty()


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "größe 人😀 \\ud800\n".encode()),
        ("cp1252", "größe \\u4eba\\U0001f600 \\ud800\n".encode("cp1252")),
        ("ascii", b"gr\\xf6\\xdfe \\u4eba\\U0001f600 \\ud800\n"),
    ],
)
def test_characters_that_a_terminal_lacks(
    pipe: tuple[int, int], opened: Opener, encoding: str, found: bytes
) -> None:
    printed = stream(opened(pipe[1], encoding))
    printed.write("größe 人😀 \ud800\n")
    assert read(pipe[0]) == found
    assert printed.failure is None


def test_the_replacement_that_the_user_chose(pipe: tuple[int, int]) -> None:
    """PYTHONIOENCODING=ascii:replace."""
    with os.fdopen(pipe[1], "w", encoding="ascii", errors="replace") as inner:
        stream(inner).write("größe\n")
        assert read(pipe[0]) == b"gr??e\n"


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=[]))))
def test_any_text_in_any_pieces(pieces: list[str]) -> None:
    inner = io.StringIO()
    printed = stream(inner)
    for piece in pieces:
        printed.write(piece)
    printed.flush()
    whole = "".join(pieces)
    assert inner.getvalue() == whole.encode(errors="backslashreplace").decode()
    assert printed.failure is None


def test_a_reader_that_does_not_read(pipe: tuple[int, int], opened: Opener) -> None:
    """The first line that finds no room waits, the others do not; what it missed is counted."""
    printed = stream(opened(pipe[1]), patience=0.3)
    started = time.monotonic()
    for i in range(3000):
        printed.write(f"{i:99}\n")
    assert 0.3 <= time.monotonic() - started < 3
    taken = read(pipe[0])
    assert taken.endswith(b"\n")
    count = len(taken) // 100
    assert 600 <= count < 1000
    printed.write("again\n")
    assert read(pipe[0]).decode() == (
        f"({3000 - count:,} lines left out, because nothing read them; train.log has all)\nagain\n"
    )
    printed.write("as usual\n")
    assert read(pipe[0]) == b"as usual\n"


def test_a_line_that_was_cut_is_ended(pipe: tuple[int, int], opened: Opener) -> None:
    printed = stream(opened(pipe[1]), patience=0.0)
    printed.write("x" * 100_000 + "\n")
    assert set(read(pipe[0])) == {ord("x")}
    printed.write("again\n")
    assert read(pipe[0]) == (
        b"\n(1 line left out, because nothing read them; train.log has all)\nagain\n"
    )


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="a terminal that can be opened anew")
def test_a_terminal_that_does_not_read(opened: Opener) -> None:
    """Also where it has room for less than a line."""
    reading, writing = pty.openpty()
    printed = stream(opened(writing), patience=0.3)
    started = time.monotonic()
    for i in range(3000):
        printed.write(f"{i:70}\n")
    assert time.monotonic() - started < 5
    assert os.get_blocking(writing)  # it is shared with the shell
    os.set_blocking(reading, False)
    assert read(reading).startswith(b" " * 69 + b"0\r\n")
    printed.write("again\n")
    time.sleep(0.1)
    assert read(reading).endswith(b" train.log has all)\r\nagain\r\n")
    printed.release()
    os.close(reading)


def test_a_pager_is_waited_for(pipe: tuple[int, int], opened: Opener) -> None:
    printed = stream(opened(pipe[1]))
    text = "".join(f"{i:99}\n" for i in range(2000))
    found: list[bytes] = []

    def page() -> None:
        time.sleep(0.2)
        while sum(map(len, found)) < 200_000:
            found.append(read(pipe[0]))
            time.sleep(0.01)

    reader = threading.Thread(target=page)
    reader.start()
    printed.write(text)
    reader.join()
    assert b"".join(found).decode() == text


def test_a_descriptor_that_does_not_block(pipe: tuple[int, int], opened: Opener) -> None:
    """As some parents leave it: Python's own stdout raises BlockingIOError."""
    os.set_blocking(pipe[1], False)
    printed = stream(opened(pipe[1]), patience=0.1)
    printed.write("x" * 200_000 + "\n")
    assert printed.failure is None
    assert len(read(pipe[0])) > 60_000


def test_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with guarded_streams(patience=None, warning="") as output:
        assert sys.stdout is cast(TextIO, output)
        print("to stdout")
        print("to stderr", file=sys.stderr)
        print("no line end", end="")
        assert describe_lost_output() is None
        limit_patience(3.0)
        limit_patience(7.0)
        assert output.patience == 3.0
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("to stdout\nno line end", "to stderr\n")


def test_why_nothing_is_printed(monkeypatch: pytest.MonkeyPatch, opened: Opener) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", opened(writing))
    with guarded_streams(patience=None, warning=""):
        os.close(reading)
        print("a line")
        assert describe_lost_output() == "its reader is gone"
    monkeypatch.setattr(sys, "stdout", None)
    with guarded_streams(patience=None, warning=""):
        print("a line")
        assert describe_lost_output() == "it is closed"


def test_closed_descriptors_do_not_go_to_files() -> None:
    """A file that is opened next would get the number of stdout, and every print of a library."""
    program = (
        "import os\n"
        "from retinanet.terminal import guarded_streams\n"
        "with guarded_streams(patience=None, warning='{reason}'):\n"
        "    new = os.open('/dev/null', os.O_RDONLY)\n"
        "    print('lost')\n"
        "    os._exit(10 * new + sum(os.get_inheritable(n) for n in (0, 1, 2)))\n"
    )
    shell = 'exec "$0" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, sys.executable, program], timeout=60)
    assert done.returncode == 33
