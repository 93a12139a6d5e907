"""Loader processes that die, are stopped, or lose a batch: one message, soon, and none is left."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from retinanet.data import loader, loader_processes
from retinanet.data.loader import Loader, evaluation_loader
from retinanet.data.loader_processes import describe_death, start_processes
from retinanet.errors import TrainingError, UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")


class Items(Dataset):
    """Item i is what a function makes of i, in the loader's process."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __getitem__(self, i: int) -> Any:
        return self._make(i)


def load(make: Callable[[int], Any], items: int = 4, workers: int = 1) -> Loader:
    dataset: Any = Items(make)
    plans: Any = range(items)
    return evaluation_loader(dataset, plans, workers=workers, pin_memory=False)


def number(i: int) -> torch.Tensor:
    return torch.tensor(i)


def end_by(sent: int) -> Callable[[int], torch.Tensor]:
    """Return what makes items until the second, which ends the process."""

    def make(i: int) -> torch.Tensor:
        if i == 1:
            time.sleep(0.3)  # the first item is taken meanwhile
            os.kill(os.getpid(), sent)
            time.sleep(60)
        return number(i)

    return make


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_processes, "NOTICE", 0.2)
    monkeypatch.setattr(loader_processes, "PATIENCE", 0.5)
    monkeypatch.setattr(loader_processes, "GLANCE", 0.1)


@pytest.fixture(autouse=True)
def short_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_processes, "_LEAVING", 0.5)
    monkeypatch.setattr(loader, "GLANCE", 0.2)


def test_a_process_says_nothing_of_a_training_that_left(capsys: pytest.CaptureFixture[str]) -> None:
    """A signal may end the training's wait while a descriptor is on its way."""
    for error in (BrokenPipeError("gone"), EOFError()):
        loader_processes._print_unless_left(type(error), error, None)
    assert capsys.readouterr().err == ""
    loader_processes._print_unless_left(ValueError, ValueError("a bug"), None)
    assert capsys.readouterr().err == "ValueError: a bug\n"


def test_a_process_without_descriptors_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """The thread that sends a batch would print a traceback again and again."""

    def lower_the_limit(item: int) -> torch.Tensor:
        free = os.dup(2)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))  # for its block alone
        return torch.tensor(item)

    with pytest.raises(TrainingError, match=r"could not send a batch: too many open files"):
        list(load(lower_the_limit))
    assert capfd.readouterr().err == ""


def test_items_come_in_order() -> None:
    assert [int(item) for item in load(number, 7, workers=2)] == [0, 1, 2, 3, 4, 5, 6]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGBUS])
def test_a_process_that_dies(sent: signal.Signals) -> None:
    with pytest.raises(TrainingError, match=rf"is gone: pid \d+ was ended by {sent.name}"):
        list(load(end_by(sent)))
    assert multiprocessing.active_children() == []


def test_a_process_that_is_stopped(no_patience: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        TrainingError, match=r"no batch for 0 minutes: loader process \d+ \(stopped\)\. Does the"
    ):
        list(load(end_by(signal.SIGSTOP)))
    assert "no batch for 0 s: waiting for loader process" in capfd.readouterr().err
    assert multiprocessing.active_children() == []


def test_a_stopped_process_does_not_outlive_a_closed_iterator() -> None:
    items = iter(load(end_by(signal.SIGSTOP)))
    assert int(next(items)) == 0
    started = time.monotonic()
    items.close()
    assert time.monotonic() - started < 10
    assert multiprocessing.active_children() == []


def test_an_exception_in_the_wait_ends_the_processes() -> None:
    """As the handler of a signal raises it."""

    class StopError(BaseException):
        pass

    def stop(number: int, frame: object) -> None:
        raise StopError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        items = iter(load(end_by(signal.SIGSTOP)))
        next(items)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(StopError):
            next(items)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert multiprocessing.active_children() == []


def test_a_batch_that_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By default torch prints a traceback, loses the batch and waits forever."""

    def pack(item: object) -> object:
        return lambda: item  # no pickle takes it

    monkeypatch.setattr(loader, "pack", pack)
    with pytest.raises(TrainingError, match=r"pid \d+\) could not send a batch: too many"):
        list(load(number))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [UserError, TrainingError])
def test_an_expected_error_arrives_as_it_is(kind: type[Exception]) -> None:
    def fail(i: int) -> None:
        raise kind(f"item {i} is wrong")

    with pytest.raises(kind, match=r"^item 0 is wrong$"):
        list(load(fail))


def test_a_process_without_memory() -> None:
    def fail(i: int) -> None:
        raise MemoryError

    with pytest.raises(TrainingError, match=r"ran out of memory: lower data\.workers"):
        list(load(fail))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EMFILE, r"Allow more open files \(ulimit -n 4096\), or lower data\.workers"),
        (errno.EAGAIN, r"ulimit -u"),
        (errno.ENOSPC, r"/dev/shm is full"),
        (errno.EACCES, r"Set data\.workers=0"),
    ],
)
def test_processes_that_cannot_be_started(code: int, message: str) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(TrainingError, match=f"could not be started: .*{message}"):
        start_processes(fail)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, "pid 7 was ended by SIGKILL. If the machine ran out of memory, lower data.workers"),
        (-11, "pid 7 was ended by SIGSEGV. A library crashed"),
        (-63, "pid 7 was ended by "),
        (71, "(pid 7) could not send a batch"),
        (3, "pid 7 ended with exit code 3. data.workers=0 loads"),
    ],
)
def test_how_a_process_ended(code: int, message: str) -> None:
    assert message in describe_death(7, code)


def test_an_iterator_that_is_never_closed() -> None:
    """At the end of a script; multiprocessing would wait for the grace of 300 s."""
    items = iter(load(end_by(signal.SIGSTOP)))
    assert int(next(items)) == 0
    started = time.monotonic()
    loader_processes._end_all()  # as Python calls it before it joins its children
    for process in multiprocessing.active_children():
        process.join(10)
    assert time.monotonic() - started < 10
    assert multiprocessing.active_children() == []
    items.close()
