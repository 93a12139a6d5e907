"""Which signals stop a command, and what comes of its launcher's death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from retinanet.stop_signals import STOP_SIGNALS, StopSignal, heeded_signals

CHILD = """
import sys, time
from retinanet.exit_codes import run_guarded
from retinanet.stop_signals import stop_with_torchrun

def command():
    stop_with_torchrun()
    print("ready", flush=True)
    time.sleep(60)

sys.exit(run_guarded(command))
"""
LAUNCHER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", os.environ["CHILD"]])
time.sleep(60)
"""


def test_its_numbers() -> None:
    assert [number.value for number in STOP_SIGNALS] == [2, 15, 1, 10, 12, 24]
    assert isinstance(StopSignal(15), KeyboardInterrupt)
    assert (str(StopSignal(15)), StopSignal(15).number) == ("SIGTERM", 15)


def test_another_thread_sets_no_handlers() -> None:
    found = [heeded_signals()]
    thread = threading.Thread(target=lambda: found.append(heeded_signals()))
    thread.start()
    thread.join()
    assert list(found[0]) == list(STOP_SIGNALS) and found[1] == {}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of a parent's death")
def test_a_process_of_torchrun_stops_when_that_is_gone() -> None:
    """A signal that torchrun does not know kills it."""
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none", "CHILD": CHILD}
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "ready\n"
    launcher.send_signal(signal.SIGUSR1)
    _, said = launcher.communicate(timeout=30)  # until the child has closed it, too
    assert launcher.returncode == -signal.SIGUSR1
    assert said == "stopped: SIGTERM before the command was done\n"
