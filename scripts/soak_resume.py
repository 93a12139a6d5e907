"""Kill a training at random times, again and again, and check that the result is the same.

    python scripts/soak_resume.py --kills 30
    python scripts/soak_resume.py --kills 10 --processes 3

Trains a tiny network on the synthetic set without interruption. Then trains it again with kill -9
at random times (uniformly distributed), each time of a random process of the run: also loader
workers and processes of torchrun's group. Each time, --auto-resume continues the run. At the end,
all bits are compared. The exit code is 1 if any differs, or if a process outlives its run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from processes import birth, descendants, stat
from same_run import run_differences

from retinanet.checkpoints.format import load_checkpoint
from retinanet.data.synthetic import write_synthetic
from retinanet.errors import plural
from retinanet.yaml_reader import write_yaml

ROOT = Path(__file__).parents[1]
GRACE = 15.0
"""Seconds until all processes of a killed run must be gone; torch's workers poll every 5 s."""


@dataclass(frozen=True)
class Kill:
    """One kill and its effect."""

    after: float
    """Seconds since the start of the attempt."""
    victim: str
    step: int | None
    """Step of the last saved state; None before the first one."""
    writing: bool
    """Whether a checkpoint was being written."""
    gone_after: float | None
    """Seconds until all processes were gone; None if some outlived the grace period."""


def main() -> int:
    """Run the soak; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=30, help="number of kills (30)")
    parser.add_argument("--processes", type=int, default=1, help="training processes (1)")
    parser.add_argument("--workers", type=int, default=1, help="loader workers per process (1)")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="device to train on (cpu)"
    )
    parser.add_argument("--steps", type=int, default=60, help="steps of the training (60)")
    parser.add_argument("--seed", type=int, default=0, help="seed for the times of the kills (0)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak_resume_"))
    try:
        return soak(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def soak(options: argparse.Namespace, folder: Path) -> int:
    """Train without and with kills, and compare the results."""
    write_synthetic(folder / "data", train_images=12, val_images=6, seed=3)
    write_yaml(experiment(folder, options), folder / "soak.yaml")
    started = time.perf_counter()
    code = start(folder, options, "undisturbed").wait()
    whole = time.perf_counter() - started
    print(f"undisturbed: {whole:.0f} s, exit code {code}", flush=True)
    if code:
        print((folder / "undisturbed.txt").read_text())
        return 1
    chance = random.Random(options.seed)  # noqa: S311 (moments to kill at)
    kills: list[Kill] = []
    print("kill  after s  state after step  writing  gone after s  victim", flush=True)
    while len(kills) < options.kills:
        started = time.perf_counter()
        kill = disturb(folder, options, chance, whole)
        if kill is None:  # it finished before the kill: start another one
            whole = min(whole, time.perf_counter() - started)  # the first run fills caches
            failed = compare(folder)
            if failed:
                return failed
            shutil.rmtree(folder / "runs" / "disturbed")
            continue
        kills.append(kill)
        gone = "never" if kill.gone_after is None else f"{kill.gone_after:.1f}"
        step = "-" if kill.step is None else kill.step
        print(
            f"{len(kills):4}  {kill.after:7.1f}  {step:>16}  {'yes' if kill.writing else 'no':>7}  "
            f"{gone:>12}  {kill.victim}",
            flush=True,
        )
    code = start(folder, options, "disturbed").wait()
    if code:
        print((folder / "disturbed.txt").read_text()[-4000:])
        return 1
    left = sum(kill.gone_after is None for kill in kills)
    writing = sum(kill.writing for kill in kills)
    print(
        f"{plural(len(kills), 'kill')}, {writing} while a checkpoint was written, {left} with "
        "processes left behind"
    )
    return compare(folder) or (1 if left else 0)


def compare(folder: Path) -> int:
    """Print whether the finished runs are the same; return 1 if they differ."""
    differences = run_differences(folder / "runs" / "undisturbed", folder / "runs" / "disturbed")
    print("\n".join(["DIFFERENT:", *differences]) if differences else "the same bits", flush=True)
    return 1 if differences else 0


def experiment(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Return a tiny experiment that uses everything with a state."""
    splits = {
        split: {"annotations": f"annotations/{split}.json", "images": f"images/{split}"}
        for split in ("train", "val")
    }
    return {
        "model": {
            **{"backbone": "resnet18", "weights": "none", "norm": "gn", "freeze": "none"},
            **{"fpn_channels": 32, "head_convs": 1, "head_channels": 32},
        },
        "data": {
            **{"root": str(folder / "data"), **splits, "workers": options.workers},
            **{"short_side": [48, 64], "long_side": 128},
        },
        "train": {
            **{"batch_size": 4, "micro_batch": 1, "steps": options.steps},
            "device": options.device,
            **{"optimizer": "adamw", "lr": 0.001, "warmup_steps": 2, "ema_decay": 0.9},
            **{"log_every": 3, "checkpoint_every": 2, "snapshot_every": 7},
        },
        "eval": {"every": 10, "batch_size": 2, "pictures": 1},
        "postprocess": {"score_threshold": 0.005},
        "output": {"dir": str(folder / "runs")},
    }


def start(folder: Path, options: argparse.Namespace, name: str) -> subprocess.Popen[bytes]:
    """Start or continue a run, in one process or under torchrun."""
    words = [str(folder / "soak.yaml"), "--name", name, "--auto-resume"]
    command = [sys.executable, "-m", "retinanet", "train", *words]
    if options.processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={options.processes}", str(ROOT / "tools" / "train.py")]
        command += words
    threads = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    with (folder / f"{name}.txt").open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **threads}
        )


def disturb(
    folder: Path, options: argparse.Namespace, chance: random.Random, whole: float
) -> Kill | None:
    """Run an attempt and kill one of its processes; return None if it ended before that."""
    process = start(folder, options, "disturbed")
    after = chance.uniform(0, whole)
    try:
        process.wait(timeout=after)
        if process.returncode:
            raise SystemExit((folder / "disturbed.txt").read_text()[-4000:])
        return None
    except subprocess.TimeoutExpired:
        pass
    group = descendants(process.pid)
    own = [pid for pid in group if options.processes == 1 or pid != process.pid]
    victim = chance.choice(own or group)
    name = describe(victim, process.pid, options.processes)
    checkpoints = folder / "runs" / "disturbed" / "checkpoints"
    writing = any(checkpoints.glob("*.tmp"))
    born = {pid: birth(pid) for pid in group}
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        name += " (had just ended)"
    died = time.perf_counter()
    process.wait(timeout=120)
    while any(birth(pid) == when is not None for pid, when in born.items()):
        if time.perf_counter() - died > GRACE + 30 * (options.processes > 1):
            gone = None
            break
        time.sleep(0.1)
    else:
        gone = time.perf_counter() - died
    last = checkpoints / "last.pt"
    step = load_checkpoint(last).progress.step if last.exists() else None
    return Kill(after=after, victim=name, step=step, writing=writing, gone_after=gone)


def describe(pid: int, root: int, processes: int) -> str:
    """Return the role of a process in the run."""
    parent = stat(pid)[1] if stat(pid) else ""
    if pid == root or (processes > 1 and parent == str(root)):
        return "training process"
    return "its child (loader worker)"


if __name__ == "__main__":
    sys.exit(main())
