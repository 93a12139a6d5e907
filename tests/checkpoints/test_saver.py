"""Checkpoints are written beside the training: as they were, in order, and what fails is said."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.categories import Categories
from retinanet.checkpoints import saver as saver_module
from retinanet.checkpoints.format import Checkpoint, Progress, load_checkpoint, save_checkpoint
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.checkpoints.saver import Saver
from retinanet.errors import InterruptedRunError, TrainingError
from retinanet.schema import Config


def state(step: int = 1) -> Checkpoint:
    value = float(step)
    return Checkpoint(
        config=Config(),
        categories=Categories(ids=(1,), names=("cat",)),
        model={"weight": torch.full((3,), value), "count": torch.tensor(step)},
        averaged={"weight": torch.full((3,), value / 2)},
        optimizer={
            "state": {0: {"momentum_buffer": torch.full((3,), -value), "step": value}},
            "param_groups": [{"lr": value, "params": [0], "betas": (0.9, 0.99)}],
        },
        scaler={"scale": value},
        progress=Progress(step=step),
    )


def leaves(checkpoint: Checkpoint) -> tuple[Any, ...]:
    assert checkpoint.optimizer is not None and checkpoint.averaged is not None
    return (
        checkpoint.model["weight"].tolist(),
        int(checkpoint.model["count"]),
        checkpoint.averaged["weight"].tolist(),
        checkpoint.optimizer["state"][0]["momentum_buffer"].tolist(),
        checkpoint.optimizer["state"][0]["step"],
        checkpoint.optimizer["param_groups"],
        checkpoint.scaler,
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "checkpoints").mkdir()
    return RunFolder(tmp_path)


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in (folder.path / "checkpoints").iterdir())


class Gate:
    """Holds the writing thread back until it is opened, and notes what it writes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.written: list[str] = []
        self.error: Exception | None = None
        patch.setattr(saver_module, "save_checkpoint", self._save)

    def _save(self, checkpoint: Checkpoint, path: Path, **options: Any) -> None:
        assert self.opened.wait(20)
        if self.error is not None:
            raise self.error
        save_checkpoint(checkpoint, path, **options)
        self.written.append(path.name)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def test_what_is_written_is_the_state_at_the_time_of_the_call(
    folder: RunFolder, gate: Gate
) -> None:
    """Training goes on, in place, before a byte is written."""
    given = state(5)
    saver = Saver(folder, active=True)
    saver.save(given, folder.last)
    assert given.optimizer is not None and given.averaged is not None
    momentum = given.optimizer["state"][0]["momentum_buffer"]
    for tensor in (*given.model.values(), given.averaged["weight"], momentum):
        tensor.fill_(99)
    given.optimizer["param_groups"][0]["lr"] = 99.0
    given.optimizer["state"][0]["step"] = 99
    given.scaler["scale"] = 99.0  # type: ignore[index]
    gate.opened.set()
    saver.finish()
    assert leaves(load_checkpoint(folder.last)) == leaves(state(5))
    assert leaves(given) != leaves(state(5))


def test_they_are_written_in_order_and_two_wait_at_most(folder: RunFolder, gate: Gate) -> None:
    saver = Saver(folder, active=True)
    saver.save(state(1), folder.best)
    saver.save(state(1), folder.last)
    third = threading.Thread(target=saver.save, args=(state(2), folder.snapshot(2)))
    third.start()
    third.join(0.2)
    assert third.is_alive(), "a third copy would take more memory"
    assert gate.written == []
    gate.opened.set()
    third.join(20)
    saver.finish()
    assert gate.written == ["best.pt", "last.pt", "step_0000002.pt"]
    assert load_checkpoint(folder.snapshot(2)).progress.step == 2


def test_no_thread_is_left(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that frees tensors while the interpreter ends aborts it: exit code -6 for a good run."""
    work = Saver._work

    def lingering(saver: Saver) -> None:
        work(saver)
        time.sleep(0.2)

    monkeypatch.setattr(Saver, "_work", lingering)
    with Saver(folder, active=True) as saver:
        for _ in range(2):
            saver.save(state(), folder.last)
            saver.finish()
            assert all(thread.name != "saver" for thread in threading.enumerate())
        saver.save(state(), folder.last)
    assert all(thread.name != "saver" for thread in threading.enumerate())


def test_pauses_are_added_up(folder: RunFolder) -> None:
    saver = Saver(folder, active=True)
    seconds = [saver.save(state(step), folder.last) for step in (1, 2, 3)]
    saver.finish()
    assert saver.pauses.count == 3
    assert saver.pauses.seconds == pytest.approx(sum(seconds)) and min(seconds) > 0
    assert load_checkpoint(folder.last).progress.step == 3


def test_waiting_counts_as_a_pause(folder: RunFolder, gate: Gate) -> None:
    saver = Saver(folder, active=True)
    for path in (folder.best, folder.last):
        assert saver.save(state(), path) < 0.2
    threading.Timer(0.3, gate.opened.set).start()
    assert saver.save(state(), folder.last) > 0.2
    saver.finish()


def test_other_processes_write_nothing(folder: RunFolder) -> None:
    with Saver(folder, active=False) as saver:
        assert saver.save(state(), folder.last) == 0
        assert saver.snapshot(state(), 5, 1) == 0
        saver.check()
    saver.finish()
    assert names(folder) == []
    assert saver.pauses.count == 0


@pytest.mark.parametrize("ask", ["save", "check", "finish", "leave"])
def test_a_failed_write_is_raised_where_the_run_asks_next(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    save_checkpoint(state(1), folder.last)

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saver = Saver(folder, active=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        saver.save(state(2), folder.last)
        saver._wait()
    calls = {
        "save": lambda: saver.save(state(3), folder.last),
        "check": saver.check,
        "finish": saver.finish,
        "leave": lambda: saver.__exit__(None, None, None),
    }
    message = r"last\.pt: could not be written: No space left on device: it needs 44 bytes, .* are "
    with pytest.raises(TrainingError, match=message):
        calls[ask]()
    saver.finish()  # it is said once
    assert load_checkpoint(folder.last).progress.step == 1
    assert names(folder) == ["last.pt"]


def test_after_a_failure_nothing_more_is_written(folder: RunFolder, gate: Gate) -> None:
    """A last.pt that knows of a best.pt which is not there would not belong to it."""
    for path in (folder.best, folder.last):
        save_checkpoint(state(1), path)
    gate.error = TrainingError("best.pt: full")
    saver = Saver(folder, active=True)
    saver.save(state(2), folder.best)
    saver.save(state(2), folder.last)
    gate.opened.set()
    with pytest.raises(TrainingError, match=r"best\.pt: full"):
        saver.finish()
    assert load_checkpoint(folder.last).progress.step == 1
    gate.error = None
    saver.save(state(3), folder.last)
    saver.finish()
    assert load_checkpoint(folder.last).progress.step == 1


def test_a_bug_in_the_thread_ends_the_run_instead_of_hanging_it(
    folder: RunFolder, gate: Gate
) -> None:
    gate.error = ZeroDivisionError("oh")
    gate.opened.set()
    saver = Saver(folder, active=True)
    saver.save(state(), folder.last)
    with pytest.raises(TrainingError, match=r"last\.pt: could not be written: ZeroDivisionError"):
        saver.finish()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (1, ["last.pt", "step_0000010.pt", "step_best.pt"]),
        (2, ["last.pt", "step_0000005.pt", "step_0000010.pt", "step_best.pt"]),
        (0, ["last.pt", "step_0000005.pt", "step_0000009.pt", "step_0000010.pt", "step_best.pt"]),
    ],
)
def test_the_newest_snapshots_stay(folder: RunFolder, keep: int, expected: list[str]) -> None:
    """By step; files of other names are not ours. 9 was of a run that was taken back to 5."""
    for name in ("last.pt", "step_best.pt", *expected[1:-2]):
        (folder.path / "checkpoints" / name).touch()
    folder.snapshot(9).touch() if keep == 0 else folder.snapshot(3).touch()
    saver = Saver(folder, active=True)
    saver.snapshot(state(10), 10, keep)
    saver.finish()
    assert names(folder) == expected
    assert load_checkpoint(folder.snapshot(10)).progress.step == 10


def test_snapshots_past_the_step_go(folder: RunFolder) -> None:
    """A run that fell back to an earlier state makes them again."""
    for step in (5, 10, 15):
        folder.snapshot(step).touch()
    saver = Saver(folder, active=True)
    saver.snapshot(state(10), 10, 2)
    saver.finish()
    assert names(folder) == ["step_0000005.pt", "step_0000010.pt"]


def test_old_snapshots_stay_until_the_new_one_is_whole(folder: RunFolder, gate: Gate) -> None:
    folder.snapshot(5).touch()
    gate.error = TrainingError("full")
    gate.opened.set()
    saver = Saver(folder, active=True)
    saver.snapshot(state(10), 10, 1)
    with pytest.raises(TrainingError, match="full"):
        saver.finish()
    assert names(folder) == ["step_0000005.pt"]


def test_the_records_are_on_the_disk_before_the_state(
    folder: RunFolder, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a checkpoint never knows more than metrics.jsonl and TensorBoard."""
    (folder.path / "tensorboard").mkdir()
    for name in ("metrics.jsonl", "train.log", "tensorboard/events.out.tfevents.1"):
        (folder.path / name).touch()
    monkeypatch.setattr(saver_module, "sync", lambda path: gate.written.append(path.name))
    gate.opened.set()
    with Saver(folder, active=True) as saver:
        saver.save(state(), folder.last)
    assert gate.written == ["train.log", "metrics.jsonl", "events.out.tfevents.1", "last.pt"]


def test_leaving_waits_for_the_disk(folder: RunFolder, gate: Gate) -> None:
    """Also after an error and after a signal, whose message says that the state is saved."""
    for error in (None, TrainingError("loss"), InterruptedRunError(15, "saved")):
        gate.opened.clear()
        threading.Timer(0.1, gate.opened.set).start()
        try:
            with Saver(folder, active=True) as saver:
                saver.save(state(), folder.last)
                if error is not None:
                    raise error
        except (TrainingError, InterruptedRunError) as raised:
            assert raised is error
        assert gate.written.pop() == "last.pt"


def test_a_signal_whose_state_could_not_be_saved_is_a_failure(
    folder: RunFolder, gate: Gate
) -> None:
    gate.error = TrainingError("full")
    gate.opened.set()
    with pytest.raises(TrainingError, match="full"), Saver(folder, active=True) as saver:
        saver.save(state(), folder.last)
        raise InterruptedRunError(15, "saved")


def test_another_error_is_not_replaced(folder: RunFolder, gate: Gate) -> None:
    gate.error = TrainingError("full")
    gate.opened.set()
    with pytest.raises(TrainingError, match="loss"), Saver(folder, active=True) as saver:
        saver.save(state(), folder.last)
        raise TrainingError("loss")


SECOND_SIGNAL = """
import sys, time, torch
from dataclasses import replace
from pathlib import Path
from retinanet.checkpoints import saver
from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.run_folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
state = load_checkpoint(folder.last)
state = replace(state, model={f"{i}": torch.ones(1_000_000) for i in range(100)})
torch.rand(1)
saver = saver.Saver(folder, active=True)
for path in (folder.last, folder.best, folder.last):
    saver.save(state, path)
    print("saving", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 128 + signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_final_signal_ends_a_write_at_once(folder: RunFolder, number: int, code: int) -> None:
    """Torch's writer must not be running when the interpreter ends: it would abort (134)."""
    save_checkpoint(state(1), folder.last)
    command = [sys.executable, "-c", SECOND_SIGNAL, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        started = time.perf_counter()
        _, errors = process.communicate(timeout=60)
    took = time.perf_counter() - started
    assert process.returncode in (code, -number), errors
    assert b"terminate" not in errors
    assert took < 5
    load_checkpoint(folder.last)  # the old one or a new one, but whole
    if number == signal.SIGINT:
        assert not any(name.endswith(".tmp") for name in names(folder))


def test_a_copy_keeps_the_layout_of_a_tensor(folder: RunFolder) -> None:
    """And a slice of a large tensor is saved as the slice alone."""
    image = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    given = replace(state(), model={"image": image, "slice": torch.zeros(100_000)[:2]})
    saver = Saver(folder, active=True)
    saver.save(given, folder.last)
    saver.finish()
    assert load_checkpoint(folder.last).model["image"].stride() == (48, 1, 12, 3)
    assert folder.last.stat().st_size < 50_000


def test_a_disk_that_does_not_answer(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that hangs ends the run; the thread may hang on."""
    release = threading.Event()
    monkeypatch.setattr(saver_module, "_PATIENCE", 0.1)
    monkeypatch.setattr(saver_module, "save_checkpoint", lambda *_, **__: release.wait(20))
    saver = Saver(folder, active=True)
    message = r"last\.pt: was not written within 0 minutes\. Does the disk or network drive"
    try:
        saver.save(state(), folder.last)
        with pytest.raises(TrainingError, match=message):
            saver.finish()
    finally:
        release.set()
