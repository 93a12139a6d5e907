"""Streams that keep printing from ending, delaying or changing the work of a command.

No error is raised for a reader that goes away (`| head`) or does not read (Ctrl-S), a full disk, a
closed descriptor, or characters that the terminal cannot show: the work continues.
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

from retinanet.errors import plural

_CHUNK = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe accepts at once if it accepts any."""
_HAS_POLL = hasattr(select, "poll") and os.name != "nt"


class GuardedStream(io.TextIOBase):
    """stdout or stderr, written by whole lines, whose `write` raises no error.

    After an error nothing more is written; `failure` has the reason.
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
            inner: Stream to write to; None if it was closed when the process started.
            descriptor: 1 for stdout, 2 for stderr.
            patience: Seconds to wait for a reader that does not read. After that, text is left out
                and the next line does not wait. None waits without a limit.
            warnings: Stream and text (with `{reason}`) of the warning that this stream cannot be
                written. It is not printed if the reader is gone, which then needs no more.
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
        """Print whole lines; the rest waits for the end of its line, or for `flush`."""
        lines, newline, self._line = (self._line + text).rpartition("\n")
        if newline:
            self._send(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Print an unfinished line."""
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
        """Write to the descriptor as much as the reader accepts.

        Raises:
            OSError: The reader is gone, or the disk is full.
        """
        if self._is_stuck:
            if not self._can_write(0.0):
                self._left_out += text.count("\n")
                return
            text = self._note_left_out() + text
        rest = memoryview(self._encoder.encode(text))
        start = time.monotonic()
        while rest:
            patience = self.patience  # a signal handler may shorten it
            left = None if patience is None else max(0.0, start + patience - time.monotonic())
            written = self._write_chunk(rest[:_CHUNK]) if self._can_write(left) else 0
            if written:
                self._is_cut = rest[written - 1 : written] != b"\n"
                rest = rest[written:]
            elif left == 0.0:
                self._is_stuck, self._left_out = True, bytes(rest).count(b"\n")
                return

    def _write_chunk(self, data: memoryview) -> int:
        """Write as much as the reader accepts at once; return the number of bytes."""
        try:
            return os.write(cast(int, self._descriptor), data)
        except BlockingIOError:  # another process was faster, or the terminal has too little space
            time.sleep(0.01)
            return 0

    def _can_write(self, seconds: float | None) -> bool:
        """Wait at most `seconds` until a chunk can be written; None waits without a limit."""
        poll = select.poll()
        poll.register(cast(int, self._descriptor), select.POLLOUT)
        return bool(poll.poll(None if seconds is None else 1000 * seconds))

    def release(self) -> None:
        """Print what is left, and close the reopened terminal."""
        self.flush()
        if self._reopened is not None:
            os.close(self._reopened)
            self._reopened, self._descriptor = None, _own_descriptor(self._inner)

    def _note_left_out(self) -> str:
        """Return the note about lines that were left out."""
        count, self._left_out, self._is_stuck = self._left_out, 0, False
        text = "\n" if self._is_cut else ""
        if count:
            text += f"({plural(count, 'line')} left out, because nothing read them; "
            text += "train.log has all)\n"
        return text


@contextmanager
def guarded_streams(*, patience: float | None, warning: str) -> Iterator[GuardedStream]:
    """Replace stdout and stderr by guarded streams inside the block; yield stdout.

    Args:
        patience: Seconds to wait for a reader that does not read, see `GuardedStream`.
        warning: Text for stderr, with `{reason}`, if stdout cannot be written.
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
    """From now on, wait at most `seconds` for a reader that does not read."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, GuardedStream):
            patience = stream.patience
            stream.patience = seconds if patience is None else min(patience, seconds)


def describe_lost_output() -> str | None:
    """Return why nothing more is printed on stdout; None if it works."""
    stream = sys.stdout
    if not isinstance(stream, GuardedStream) or stream.failure is None:
        return None
    return "its reader is gone" if stream.reader_is_gone else stream.failure


def _open_missing_descriptors() -> None:
    """Open /dev/null as stdin, stdout and stderr if they are closed (`>&-`).

    Otherwise a checkpoint could get the descriptor of stdout, and a library could print into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(opened, True)


def _own_descriptor(stream: TextIO | None) -> int | None:
    """Return the descriptor that a stream writes to; None if it is not a plain file.

    Replacements of sys.stdout (in a notebook or a test) do not write to their descriptor.
    """
    if not _HAS_POLL or type(stream) is not io.TextIOWrapper:
        return None
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _reopen_terminal(descriptor: int) -> int:
    """Open a terminal again, non-blocking for this process only.

    The open descriptor is shared with the shell. A terminal with space does not always have enough
    for a whole line.
    """
    try:
        return os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # of another user
        return os.dup(descriptor)
