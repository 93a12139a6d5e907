"""Exit codes, and one message however many processes fail alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.errors import InterruptedRunError, TrainingError, UserError
from retinanet.exit_codes import is_lost_peer, run_guarded

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
        (KeyboardInterrupt(), 130, "stopped\n"),
        (
            OutOfMemoryError("8 GiB"),
            1,
            "error: the device has too little memory: 8 GiB\nLower train.micro_batch (the batch "
            "and the results stay the same), or eval.batch_size\n",
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
