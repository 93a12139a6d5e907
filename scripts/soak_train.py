"""Train for a long time, and check that memory, open files and processes do not grow.

    python scripts/soak_train.py     # 5,000 steps, half an hour on two cores

Trains the demo's ResNet-18 on drawn images of 256 px with two loader workers, and evaluates and
saves every 250 steps. Halfway between evaluations, it measures memory, open files and threads of
the processes from outside. Then it kills a training three times with kill -9 (the training process
in a step, one of its workers, the training process in an evaluation) and checks what is left
behind. The exit code is 1 if something grew, or a process outlived its run. Memory settles within
about a thousand steps, so a short run (--steps 800 --every 100) only tests the kills.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean

from processes import birth, descendants, handles, memory, threads

from retinanet.data.synthetic import write_synthetic
from retinanet.errors import plural
from retinanet.schema import TrainConfig

ROOT = Path(__file__).parents[1]
GROWTH = 0.03
"""Growth of memory from the second quarter to the last one that still counts as noise."""
MOST_SAVING = 0.01
"""Share of the time that checkpoints may take at the default interval."""
GRACE = 15.0
"""Seconds until all processes of a killed run must be gone; torch's workers poll every 5 s."""


@dataclass(frozen=True)
class Look:
    """Measurement of the processes of a training."""

    step: int
    training_mb: float
    workers_mb: float
    """Memory of all loader workers."""
    training_files: int
    worker_files: int
    """Open files of the worker with the most."""
    threads: int
    """Threads of the training process."""
    processes: int


def main() -> int:
    """Train, kill, and print the findings; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=5000, help="steps of the training (5000)")
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations (250)")
    parser.add_argument("--batch", type=int, default=4, help="images per step (4)")
    options = parser.parse_args()
    if options.every < 10 or options.every % 10 or options.steps < 8 * options.every:
        parser.error("--every must be a multiple of 10, and --steps at least eight times --every")
    folder = Path(tempfile.mkdtemp(prefix="soak_train_"))
    try:
        write_synthetic(folder / "data", train_images=400, val_images=40, seed=5)
        looks = watch(folder, options)
        grown = growth(looks)
        print("\n".join(grown) or "nothing grows from the second quarter to the last", flush=True)
        return 1 if grown + left_by_kills(folder, options) else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, options: argparse.Namespace, name: str) -> subprocess.Popen[bytes]:
    """Start or continue a training."""
    words = [
        *("demo", "--auto-resume", "--name", name, f"data.root={folder / 'data'}"),
        *("data.short_side=[256]", "data.long_side=256", "data.workers=2"),
        *(f"train.batch_size={options.batch}", "train.epochs=null", f"train.steps={options.steps}"),
        *("train.lr=0.0005", f"train.log_every={options.every // 10}", "train.device=cpu"),
        *(f"eval.every={options.every}", f"train.checkpoint_every={options.every}"),
        f"output.dir={folder / 'runs'}",
    ]
    with (folder / f"{name}.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "retinanet", "train", *words],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def watch(folder: Path, options: argparse.Namespace) -> list[Look]:
    """Train to the end; return the measurements from halfway between evaluations.

    Raises:
        SystemExit: The training failed (its output is the message), or checkpoints took too long.
    """
    print("   step  training MB  workers MB  files  worker files  threads  processes", flush=True)
    started = time.perf_counter()
    process, looks = start(folder, options, "soak"), list[Look]()
    while process.poll() is None:
        step = newest_step(folder / "runs" / "soak")
        half = step % options.every == options.every // 10 * 5
        if half and (not looks or looks[-1].step != step):
            looks.append(look(process.pid, step))
            _, training, workers, *counts = astuple(looks[-1])
            print(
                f"{step:7}{training:13.1f}{workers:12.1f}"
                + "".join(f"{n:{w}}" for n, w in zip(counts, (7, 14, 9, 11), strict=True)),
                flush=True,
            )
        time.sleep(0.2)
    output = (folder / "soak.txt").read_text()
    if process.returncode:
        raise SystemExit(output[-4000:])
    print(output.splitlines()[-1])
    seconds, saving = time.perf_counter() - started, pause(folder / "runs" / "soak")
    share = saving / seconds * options.every / TrainConfig().checkpoint_every
    print(
        f"{options.steps} steps in {seconds:.0f} s; training waited {saving:.2f} s for checkpoints "
        f"({saving / seconds:.2%}; {share:.2%} at the default interval)",
        flush=True,
    )
    if share > MOST_SAVING:
        raise SystemExit("checkpoints take too long")
    return looks


def recorded(run: Path) -> list[dict[str, float]]:
    """Return the complete lines of a run's metrics.jsonl."""
    try:
        text = (run / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def newest_step(run: Path) -> int:
    """Return the last step that a run has recorded; 0 before the first one."""
    lines = recorded(run)
    return int(lines[-1]["step"]) if lines else 0


def pause(run: Path) -> float:
    """Return the seconds that a run waited for checkpoints."""
    return sum(line.get("train/checkpoint_seconds", 0.0) for line in recorded(run))


def look(pid: int, step: int) -> Look:
    """Measure a training process and its workers."""
    others = [child for child in descendants(pid) if child != pid]
    return Look(
        step=step,
        training_mb=memory(pid),
        workers_mb=sum(map(memory, others)),
        training_files=handles(pid),
        worker_files=max(map(handles, others), default=0),
        threads=threads(pid),
        processes=1 + len(others),
    )


def growth(looks: list[Look]) -> list[str]:
    """Return what grew from the second quarter of a run to the last one."""
    quarter = len(looks) // 4
    early, late = looks[quarter : 2 * quarter], looks[-quarter:]
    grown = []
    for name in ("training_mb", "workers_mb"):
        before, after = (mean(getattr(one, name) for one in part) for part in (early, late))
        print(f"{name}: {before:.1f} in the second quarter, {after:.1f} in the last")
        if after > before * (1 + GROWTH):
            grown.append(f"{name} grew from {before:.1f} to {after:.1f}")
    for name in ("training_files", "worker_files", "threads", "processes"):
        before, after = (max(getattr(one, name) for one in part) for part in (early, late))
        if after > before:
            grown.append(f"{name} grew from {before} to {after}")
    return grown


def left_by_kills(folder: Path, options: argparse.Namespace) -> list[str]:
    """Kill a training in three ways; return processes and files that are left."""
    run, left = folder / "runs" / "killed", []
    text = folder / "killed.txt"
    for what, is_time, of_worker in (
        ("the training process in a step", lambda: newest_step(run) >= options.every // 5, False),
        ("a loader worker", lambda: newest_step(run) >= options.every // 5, True),
        ("the training process in an evaluation", lambda: is_evaluating(run, options), False),
    ):
        shutil.rmtree(run, ignore_errors=True)
        before = shared_memory()
        process = start(folder, options, "killed")
        wait(process, is_time, text)
        time.sleep(0.3)  # well inside the step or evaluation that has just started
        group = descendants(process.pid)
        born = {pid: birth(pid) for pid in group}
        os.kill(group[1] if of_worker else process.pid, signal.SIGKILL)
        killed = time.perf_counter()
        process.wait(timeout=120)
        while alive(born) and time.perf_counter() - killed < GRACE:
            time.sleep(0.1)
        rest, files = alive(born), shared_memory() - before
        print(
            f"kill -9 of {what}: exit code {process.returncode}, "
            f"{plural(len(group), 'process')} {'gone' if not rest else 'NOT gone'} after "
            f"{time.perf_counter() - killed:.1f} s, {plural(len(files), 'file')} left in /dev/shm",
            flush=True,
        )
        left += [f"process {pid} outlived its run" for pid in rest] + sorted(files)
    return left


def wait(process: subprocess.Popen[bytes], until: Callable[[], bool], text: Path) -> None:
    """Wait until a training reaches some point.

    Raises:
        SystemExit: It ended before that; its output is the message.
    """
    while not until():
        if process.poll() is not None:
            raise SystemExit(text.read_text()[-4000:])
        time.sleep(0.02)


def is_evaluating(run: Path, options: argparse.Namespace) -> bool:
    """Return whether the first evaluation is running: its step is recorded, its metrics are not."""
    lines = recorded(run)
    return bool(lines) and lines[-1]["step"] == options.every and "val/AP" not in lines[-1]


def alive(born: dict[int, str | None]) -> list[int]:
    """Return the processes that are still running, identified by their start times."""
    return [pid for pid, when in born.items() if birth(pid) == when is not None]


def shared_memory() -> set[str]:
    """Return the files in shared memory."""
    folder = Path("/dev/shm")  # noqa: S108 (looked at, not written to)
    return {str(path) for path in folder.iterdir()} if folder.is_dir() else set()


if __name__ == "__main__":
    sys.exit(main())
