"""A program that dies at a chosen moment: `python dying.py '{"1": ["in_step", 4]}' train ..`.

The first word says for some ranks which of the functions below prepares their death, and with what.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from retinanet.cli import main
from retinanet.engine import detect, schedule
from retinanet.engine import train as loop
from retinanet.engine.logs.log import Log


def die() -> None:
    """End as by a power cut, when the checkpoints that were given to the saver are written."""
    wait_for_saver()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_saver() -> None:
    for thread in threading.enumerate():
        if thread.name == "saver" and thread is not threading.current_thread():
            thread.join()


def in_step(step: int) -> None:
    """Die in the middle of a step (from 0)."""
    original = schedule.learning_rate

    def learning_rate(at: int, **options: Any) -> float:
        if at == step:
            die()
        return original(at, **options)

    schedule.learning_rate = learning_rate


def asked(step: int, number: int) -> None:
    """Be asked to stop in the middle of a step (from 0)."""
    original = schedule.learning_rate

    def learning_rate(at: int, **options: Any) -> float:
        if at == step:
            os.kill(os.getpid(), number)
        return original(at, **options)

    schedule.learning_rate = learning_rate


def launcher_asked(step: int, number: int) -> None:
    """Let the launcher be asked to stop in the middle of a step (from 0)."""
    original = schedule.learning_rate

    def learning_rate(at: int, **options: Any) -> float:
        if at == step:
            os.kill(os.getppid(), number)
        return original(at, **options)

    schedule.learning_rate = learning_rate


def bad_losses(*steps: int) -> None:
    """Have losses that are not finite in some steps (from 0)."""
    original = loop.take_step

    def take_step(run: Any, part: Any, **sums: float) -> None:
        criterion = run.criterion

        def bad(*given: Any) -> dict[str, Any]:
            return {name: loss * math.nan for name, loss in criterion(*given).items()}

        run.criterion = bad if part.step in steps else criterion
        original(run, part, **sums)
        run.criterion = criterion

    loop.take_step = take_step


def in_backward(step: int, kind: str) -> None:
    """Have an error that no other rank has, in the backward pass of a step (from 0)."""
    original = loop.take_step

    def fail(gradient: Any) -> None:
        raise {"bug": ZeroDivisionError, "memory": MemoryError, "stop": KeyboardInterrupt}[kind](
            f"{kind} in the backward pass"
        )

    def take_step(run: Any, part: Any, **sums: float) -> None:
        if part.step == step:
            next(p for p in run.model.parameters() if p.requires_grad).register_hook(fail)
        original(run, part, **sums)

    loop.take_step = take_step


def slow_disk(seconds: float) -> None:
    """Live with a disk that takes its time."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(seconds)
        original(descriptor)

    os.fsync = fsync


def asked_twice(step: int, number: int) -> None:
    """Be asked to stop twice in the middle of a step (from 0)."""
    original = schedule.learning_rate

    def learning_rate(at: int, **options: Any) -> float:
        if at == step:
            wait_for_saver()
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        return original(at, **options)

    schedule.learning_rate = learning_rate


def writing(name: str, call: int) -> None:
    """Die when the `call`-th writing (from 1) of a checkpoint is half done."""
    original, calls = os.fsync, iter(range(1, 1000))

    def fsync(descriptor: int) -> None:
        written = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if written.startswith(name) and next(calls) == call:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        original(descriptor)

    os.fsync = fsync


def before_renaming(name: str, call: int) -> None:
    """Die just before the `call`-th new file (from 1) takes the place of the old one."""
    _renaming(name, call, after=False)


def after_renaming(name: str, call: int) -> None:
    """Die just after that."""
    _renaming(name, call, after=True)


def _renaming(name: str, call: int, *, after: bool) -> None:
    original, calls = Path.replace, iter(range(1, 1000))

    def replace(self: Path, target: Any) -> Path:
        fatal = Path(target).name == name and next(calls) == call
        if fatal and not after:
            die()
        moved = original(self, target)
        if fatal:
            die()
        return moved

    Path.replace = replace  # type: ignore[method-assign]


def evaluating(call: int) -> None:
    """Die after the first batch of the `call`-th evaluation (from 1) of an attempt.

    Where an average of the weights is kept, there are two at a time.
    """
    original, calls = loop.evaluate, iter(range(1, 1000))

    def evaluate(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            detect.raise_together = lambda *_, **__: die()
        return original(*arguments, **options)

    loop.evaluate = evaluate


def recording(step: int) -> None:
    """Die with half a line of metrics.jsonl written."""
    original = Log.record

    def record(self: Log, at: int, values: Any) -> None:
        original(self, at, values)
        if at == step:
            assert self._metrics is not None
            path = self._metrics._path
            os.truncate(path, path.stat().st_size - 20)
            die()

    Log.record = record  # type: ignore[method-assign]


if __name__ == "__main__":
    deaths = json.loads(sys.argv[1])
    death = deaths.get(os.environ.get("RANK", "0"))
    if death and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        globals()[death[0]](*death[1:])
    sys.exit(main(sys.argv[2:]))
