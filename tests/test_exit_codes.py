"""Exit codes, and one message however many processes fail alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

import pytest

from retinanet import stop_signals
from retinanet.errors import InterruptedRunError, TrainingError, UserError
from retinanet.exit_codes import is_lost_peer, run_guarded
from retinanet.files import replacing
from retinanet.terminal import guarded_streams

CLOSED = "[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:3"
LOADER = "DataLoader worker (pid 812) is killed by signal: Killed. "


class DistBackendError(RuntimeError):
    """Named as torch's."""


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Return a function that makes this process one of a group, by its number on this machine."""

    def become(local_rank: int) -> None:
        folder = tmp_path / "attempt_0" / str(local_rank)
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "error.json"))
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        monkeypatch.setenv("RANK", str(local_rank))
        monkeypatch.setenv("WORLD_SIZE", "2")

    return become


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("no such file"), 2, "error: no such file\n"),
        (TrainingError("it diverged"), 1, "error: it diverged\n"),
        (TrainingError(""), 1, ""),
        (InterruptedRunError(15, "after step 3"), 143, "stopped: after step 3\n"),
        (InterruptedRunError(2, "after step 3"), 130, "stopped: after step 3\n"),
        (KeyboardInterrupt(), 130, "stopped: SIGINT before the command was done\n"),
        (
            BrokenPipeError(32, "Broken pipe"),
            1,
            "error: a process of the command has ended unexpectedly: [Errno 32] Broken pipe\n",
        ),
        (
            OSError(24, "Too many open files", "a.json"),
            1,
            "error: a.json: cannot be opened: this process has too many files open: allow more "
            "(ulimit -n 4096)\n",
        ),
        (PermissionError(13, "Permission denied", "a"), 1, "error: a: Permission denied\n"),
        (
            RuntimeError("can't start new thread"),
            1,
            "error: the system allows no more threads or processes. Raise its limit (ulimit -u, "
            "docker run --pids-limit), or lower data.workers (the results stay the same)\n",
        ),
        (
            OutOfMemoryError("8 GiB"),
            1,
            "error: the device has too little memory: 8 GiB\nLower train.micro_batch (the batch "
            "and the results stay the same), eval.batch_size, or the size of the images: "
            "data.short_side, data.eval_short_side, data.long_side\n",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8"),
            1,
            "error: the device has too little memory: DefaultCPUAllocator: can't allocate memory: "
            "you tried 8\nLower train.micro_batch (the batch and the results stay the same), "
            "eval.batch_size, or the size of the images: data.short_side, data.eval_short_side, "
            "data.long_side\n",
        ),
        (
            MemoryError("8 GiB"),
            1,
            "error: the machine has too little memory: 8 GiB\nLower train.micro_batch (the batch "
            "and the results stay the same), eval.batch_size, or the size of the images: "
            "data.short_side, data.eval_short_side, data.long_side\n",
        ),
        (
            RuntimeError(LOADER + "\nIt is possible that ..."),
            1,
            "error: a loader process is gone: DataLoader worker (pid 812) is killed by signal: "
            "Killed. If the machine ran out of memory, lower data.workers (the results stay the "
            "same)\n",
        ),
    ],
)
def test_how_a_command_ends(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    assert run_guarded(raising(error)) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_is_shown_as_one() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        run_guarded(raising(RuntimeError("shape (3,) and (4,)")))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_signal_ends_a_command_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """What is half written is removed; `except Exception` does not stop it."""
    number = signal.Signals[name]
    before = signal.getsignal(number)

    def command() -> int:
        with suppress(Exception), replacing(tmp_path / "out") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)
        return 0

    assert run_guarded(command) == 128 + number
    assert capsys.readouterr() == ("", f"stopped: {name} before the command was done\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == before


def test_a_signal_ends_a_wait_for_a_reader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pager that nobody turns; what cleans up may print, too."""
    monkeypatch.setattr(stop_signals, "_LAST_WORDS_SECONDS", 0.1)
    reading, writing = os.pipe()

    def command() -> int:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            print("x" * 100_000)
        finally:
            print("cleaned up")
        return 0

    started = time.monotonic()
    with (
        os.fdopen(writing, "w") as stuck,
        redirect_stdout(stuck),
        guarded_streams(patience=None, warning=""),
    ):
        assert run_guarded(command) == 143
    assert time.monotonic() - started < 10
    assert capsys.readouterr().err == "stopped: SIGTERM before the command was done\n"
    os.close(reading)


def test_a_signal_that_a_library_turns_into_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ValueError("no callback") from None
        return 0

    assert run_guarded(command) == 143
    said = "stopped: SIGTERM before the command was done (ValueError: no callback)\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", ["SIGTERM", "SIGXCPU"])
def test_a_signal_waits_for_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """numpy and torch would go on with half of what they need."""
    (tmp_path / f"slow_{name}.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{name})\nfor i in range(1000): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done: list[str] = []

    def command() -> int:
        done.append(import_module(f"slow_{name}").__name__)
        time.sleep(10)
        return 0

    assert run_guarded(command) == 128 + signal.Signals[name]
    assert done == [f"slow_{name}"]
    assert f"stopped: {name}" in capsys.readouterr().err


def test_a_second_signal_is_final() -> None:
    """The command's end may hang, in a library that waits for its threads."""
    program = (
        "import os, signal, sys, threading, time\n"
        "from retinanet.exit_codes import run_guarded\n"
        "def hang(*_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "sys.stderr.write = hang\n"
        "run_guarded(lambda: hang())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30)
    assert done.returncode == -signal.SIGTERM


def test_ranks_that_fail_alike_say_it_once(
    torchrun: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake of one rank's own is said, too, whichever it is."""
    said = []
    for rank, text in [(1, "no such file"), (0, "no such file"), (1, "8 processes, 1 device")]:
        torchrun(rank)
        assert run_guarded(raising(UserError(text))) == 2
        said.append(capsys.readouterr().err)
    assert said == ["error: no such file\n", "", "error: 8 processes, 1 device\n"]


def test_without_a_folder_of_the_launch_the_first_rank_speaks(
    torchrun: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = []
    for rank in (0, 1):
        torchrun(rank)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/nowhere/attempt_0/0/error.json")
        run_guarded(raising(UserError("no such file")))
        said.append(capsys.readouterr().err)
    assert said == ["error: no such file\n", ""]


def test_a_lost_process_is_one_line_a_machine(
    torchrun: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for rank in (0, 1):
        torchrun(rank)
        assert run_guarded(raising(RuntimeError(f"{CLOSED}{rank}"))) == 1
        said.append(capsys.readouterr().err)
    assert said == [f"error: another process of the run is gone: {CLOSED}0\n", ""]


def test_what_a_lost_process_looks_like(torchrun: Callable[[int], None]) -> None:
    assert not is_lost_peer(RuntimeError(CLOSED))  # a single process has no other
    torchrun(0)
    assert is_lost_peer(RuntimeError(CLOSED))
    assert is_lost_peer(DistBackendError("NCCL error in: .."))
    assert not is_lost_peer(RuntimeError("shape (3,) and (4,)"))
    assert not is_lost_peer(RuntimeError(LOADER))
