"""Signals end a run in order, and at once where they are repeated."""

from __future__ import annotations

import signal
import time

import pytest

from retinanet.distributed.signals import WaitInterruptedError, collect_signals, ignored_signals
from retinanet.stop_signals import STOP_SIGNALS


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_is_noted_and_the_second_is_final(number: signal.Signals) -> None:
    with collect_signals() as signals:
        signal.raise_signal(number)
        assert signals.number == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.number == number


def test_a_limit_of_cpu_time_is_repeated_every_second() -> None:
    """Only a second signal of another kind is final."""
    with collect_signals() as signals:
        for _ in range(3):
            signal.raise_signal(signal.SIGXCPU)
        assert signals.number == signal.SIGXCPU


def test_a_signal_that_torchrun_repeats_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may signal torchrun and its processes, and torchrun then its processes."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with collect_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signals.number == signal.SIGINT
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 3)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.number == signal.SIGINT


def test_a_signal_ends_a_wait() -> None:
    with collect_signals() as signals:
        with signals.waiting():
            pass
        with pytest.raises(WaitInterruptedError), signals.waiting():
            signal.raise_signal(signal.SIGHUP)
            time.sleep(10)
        assert signals.number == signal.SIGHUP
        with pytest.raises(WaitInterruptedError), signals.waiting():  # one that came before it
            time.sleep(10)


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with collect_signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_the_parent_ignores_stays_ignored(ignored: signal.Signals) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        assert ignored_signals() == [ignored]
        with collect_signals() as signals:
            signal.raise_signal(ignored)
            assert signals.number == 0
            signal.raise_signal(signal.SIGTERM)
            assert signals.number == signal.SIGTERM
        assert signal.getsignal(ignored) == signal.SIG_IGN
    finally:
        signal.signal(ignored, before)
    assert ignored_signals() == []
