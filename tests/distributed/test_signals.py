"""Signals end a run in order, and at once where they are repeated."""

from __future__ import annotations

import signal
import time

import pytest

from retinanet.distributed.signals import collect_signals, ignored_signals


def test_the_first_is_noted_and_the_second_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with collect_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_one_may_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with collect_signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGTERM]


def test_a_signal_that_torchrun_repeats_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may signal torchrun and its processes, and torchrun then its processes."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with collect_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGINT]
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 3)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals == [signal.SIGINT]


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with collect_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert ignored_signals() == [signal.SIGINT]
        with collect_signals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals == []
            signal.raise_signal(signal.SIGTERM)
            assert signals == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert ignored_signals() == []
