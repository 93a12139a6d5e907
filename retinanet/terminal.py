"""What a command prints can neither end its work, nor hold it up, nor change it.

A reader that goes away (`| head`), one that does not read (Ctrl-S), a full disk, a closed
descriptor and characters that the terminal lacks raise nothing: the work goes on.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_CHUNK = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe with room for any takes at once."""
_HAS_POLL = hasattr(select, "poll") and os.name != "nt"


class GuardedStream(io.TextIOBase):
    """stdout or stderr, by whole lines, whose `write` raises no error.

    After an error nothing more is written; `failure` says what it was.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(
        self,
        inner: TextIO | None,
        descriptor: int,
        *,
        patience: float | None,
        warnings: tuple[GuardedStream, str] | None = None,
    ) -> None:
        """Wrap a stream.

        Args:
            inner: the stream, None where the process was started with it closed.
            descriptor: 1 of stdout, 2 of stderr.
            patience: seconds to wait for a reader that does not read; what it does not take is then
                left out, and the next line does not wait. None waits as long as it takes.
            warnings: where to say, and in which words (with `{reason}`), that this stream cannot
                be written, unless its reader is gone: that one has read what it wants.
        """
        super().__init__()
        self.patience = patience
        self.failure: str | None = None
        self.reader_is_gone = False
        self._inner = inner
        self._number = descriptor
        self._descriptor = _own_descriptor(inner)
        self._reopened: int | None = None
        self._warnings = warnings
        self._line = ""
        self._is_stuck = False
        self._left_out = 0
        self._is_cut = False
        if inner is not None:
            self.encoding = getattr(inner, "encoding", None) or "utf-8"
            lenient = getattr(inner, "errors", None)
            if lenient not in (None, "strict", "surrogateescape"):
                self.errors = lenient
        self._encoder = codecs.getincrementalencoder(self.encoding)(self.errors)
        if self._descriptor is not None and self.isatty():
            self._descriptor = self._reopened = _reopen_terminal(self._descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return self._inner is not None and self._inner.isatty()
        except ValueError:  # it is closed
            return False

    def fileno(self) -> int:
        return self._number if self._inner is None else self._inner.fileno()

    def write(self, text: str) -> int:
        """Print the lines that are whole; the rest waits for its end, or for `flush`."""
        lines, newline, self._line = (self._line + text).rpartition("\n")
        if newline:
            self._send(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Print what there is of a line."""
        text, self._line = self._line, ""
        if text:
            self._send(text)

    def _send(self, text: str) -> None:
        if self.failure is not None:
            return
        try:
            if self._descriptor is not None:
                self._write_lines(text)
            elif self._inner is not None:
                self._inner.write(text.encode(self.encoding, self.errors).decode(self.encoding))
                self._inner.flush()
            else:
                self._fail("it is closed")
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.reader_is_gone = isinstance(error, ConnectionError)
            self._fail(getattr(error, "strerror", None) or str(error))

    def _fail(self, reason: str) -> None:
        self.failure = reason
        if self._warnings is not None and not self.reader_is_gone:
            stream, message = self._warnings
            stream.write(message.format(reason=reason) + "\n")

    def _write_lines(self, text: str) -> None:
        """Write to the descriptor, as far as the reader takes it.

        Raises:
            OSError: the reader is gone, the disk is full.
        """
        if self._is_stuck:
            if not self._can_write(0.0):
                self._left_out += text.count("\n")
                return
            text = self._note_left_out() + text
        rest = memoryview(self._encoder.encode(text))
        start = time.monotonic()
        while rest:
            patience = self.patience  # a signal may shorten it meanwhile
            left = None if patience is None else max(0.0, start + patience - time.monotonic())
            written = self._write_chunk(rest[:_CHUNK]) if self._can_write(left) else 0
            if written:
                self._is_cut = rest[written - 1 : written] != b"\n"
                rest = rest[written:]
            elif left == 0.0:
                self._is_stuck, self._left_out = True, bytes(rest).count(b"\n")
                return

    def _write_chunk(self, data: memoryview) -> int:
        """Write what the reader takes at once; return how many bytes."""
        try:
            return os.write(cast(int, self._descriptor), data)
        except BlockingIOError:  # another process was faster, or a terminal has too little room
            time.sleep(0.01)
            return 0

    def _can_write(self, seconds: float | None) -> bool:
        """Wait until a chunk can be written without waiting, or for so many seconds."""
        poll = select.poll()
        poll.register(cast(int, self._descriptor), select.POLLOUT)
        return bool(poll.poll(None if seconds is None else 1000 * seconds))

    def release(self) -> None:
        """Print what is left, and leave the terminal."""
        self.flush()
        if self._reopened is not None:
            os.close(self._reopened)
            self._reopened, self._descriptor = None, _own_descriptor(self._inner)

    def _note_left_out(self) -> str:
        """Return what is printed where lines were left out."""
        count, self._left_out, self._is_stuck = self._left_out, 0, False
        text = "\n" if self._is_cut else ""
        if count:
            lines = "1 line was" if count == 1 else f"{count} lines were"
            text += f"({lines} left out, because nothing read them; train.log has all)\n"
        return text


@contextmanager
def guarded_streams(*, patience: float | None, warning: str) -> Iterator[GuardedStream]:
    """Guard stdout and stderr, whose place the guarded ones take meanwhile; yield stdout.

    Args:
        patience: seconds to wait for a reader that does not read, see `GuardedStream`.
        warning: what stderr says, with `{reason}`, where stdout cannot be written.
    """
    _open_missing_descriptors()
    before = sys.stdout, sys.stderr
    errors = GuardedStream(sys.stderr, 2, patience=patience)
    output = GuardedStream(sys.stdout, 1, patience=patience, warnings=(errors, warning))
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before
        output.release()
        errors.release()


def limit_patience(seconds: float) -> None:
    """Wait no longer than that from now on for those who do not read what is printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, GuardedStream):
            patience = stream.patience
            stream.patience = seconds if patience is None else min(patience, seconds)


def describe_lost_output() -> str | None:
    """Return why nothing more is printed on stdout; None where all is well."""
    stream = sys.stdout
    if not isinstance(stream, GuardedStream) or stream.failure is None:
        return None
    return "its reader is gone" if stream.reader_is_gone else stream.failure


def _open_missing_descriptors() -> None:
    """Open /dev/null as stdin, stdout, stderr where they are closed (`>&-`).

    A checkpoint could get the number of stdout otherwise, and a library's print go into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(opened, True)


def _own_descriptor(stream: TextIO | None) -> int | None:
    """Return the descriptor that a stream writes to; None where it is not a plain file's.

    Replacements of sys.stdout (a notebook's, a test's) write elsewhere than to their descriptor.
    """
    if not _HAS_POLL or type(stream) is not io.TextIOWrapper:
        return None
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _reopen_terminal(descriptor: int) -> int:
    """Open a terminal anew, so that a write does not wait, for this process alone.

    What is open already is shared with the shell. That a terminal has room does not say that it
    has enough for a line.
    """
    try:
        return os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # of another user
        return os.dup(descriptor)
