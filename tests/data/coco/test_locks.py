"""A lock spares work, and never holds anybody up for good."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.coco import locks
from retinanet.data.coco.locks import alone

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="the system has no such locks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text("{}")
    return path


def _hold(path: Path, event: Any) -> None:
    with alone(path):
        event.set()
        time.sleep(60)


@pytest.fixture
def holder(path: Path) -> Any:
    """Return another process that has the lock and keeps it for a minute."""
    context = multiprocessing.get_context("fork")
    event = context.Event()
    process = context.Process(target=_hold, args=(path, event))
    process.start()
    assert event.wait(20)
    yield process
    process.kill()
    process.join()


def test_one_after_the_other(path: Path) -> None:
    for _ in range(2):
        with alone(path, patience=0) as got:
            assert got


def test_patience_ends(path: Path, holder: Any) -> None:
    start = time.monotonic()
    with alone(path, patience=0.3) as got:
        assert not got
    assert 0.3 <= time.monotonic() - start < 10


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_lock_of_a_dead_process_is_free(path: Path, holder: Any, end: int) -> None:
    os.kill(holder.pid, end)
    with alone(path, patience=30) as got:
        assert got


def test_an_error_inside_frees_it(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone(path):
        raise ZeroDivisionError
    with alone(path, patience=0) as got:
        assert got


def test_without_locks_one_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    with monkeypatch.context() as patch:
        patch.setattr(locks.fcntl, "flock", refuse)
        with alone(path) as got:
            assert not got
    monkeypatch.setattr(locks, "fcntl", None)
    with alone(path) as got:
        assert not got


def test_a_file_that_cannot_be_read_is_no_reason_to_stop(tmp_path: Path) -> None:
    with alone(tmp_path / "none.json") as got:
        assert not got
