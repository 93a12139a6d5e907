"""Time a training step: ours in several modes, with torchvision's RetinaNet beside it.

    python scripts/benchmark_step.py
    python scripts/benchmark_step.py --modes bf16 fast --batches 16 --json table.json
    python scripts/benchmark_step.py --device cpu --canvas 128x160 --backbone resnet18 --batches 2

Both have the same backbone (random weights, frozen batch norm, the stem and the first stage
frozen), the same pyramid and the same images with seven boxes each. They take turns, and the ratio
compares medians over the rounds. Ours is a real run on drawn files: `engine.step.take_step` on a
step of the package's own loader. Torchvision's is its model as its reference trains it: SGD, with
its own resizing and normalising on the device. It has the precision of the mode, and the settings
that suit it best (cudnn.benchmark, not deterministic). The loader is not timed: images lie on the
device.

Columns: milliseconds of a step and images/s with the device kept busy; the time after which the
host has queued a step; memory at the peak, GB; and from torch.profiler, on a GPU, the kernels of a
step and the share of time in which one runs. On a CPU the memory cannot be told apart: "-".
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from step_networks import LeftOutError, Setting, Training, draw_data, ours, torchvisions
from torch.profiler import ProfilerActivity, profile

from retinanet.distributed.device import find_device, forget_peak, wait_for
from retinanet.errors import UserError

MODES = {
    "tf32": ["train.precision=fp32"],
    "bf16": ["train.precision=bf16"],
    "fp16": ["train.precision=fp16"],
    "fast": ["train.speed=fast", "train.compile_loss=false"],
    "fast, compiled loss": ["train.speed=fast", "train.compile_loss=true"],
    "fast, compiled network": ["train.speed=fast", "train.compile=true"],
}
"""Options of each mode of ours; `fast` alone is without its compiled loss, to tell them apart."""
PROFILED = 3
"""Steps under the profiler."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a step costs."""

    ms: float
    """Milliseconds, the device never waiting for the host to ask for the result."""
    images_per_second: float
    host_ms: float
    """Milliseconds in which the host queues a step."""
    gigabytes: float | None
    """Memory at the peak; None where it cannot be told."""
    first_seconds: float
    """Seconds of the first step, which loads and compiles."""
    kernels: float | None
    """Kernels of a step; None without a GPU."""
    busy: float | None
    """Share of the time in which a kernel runs."""


class Stepper:
    """A network in training: its step, its numeric switches, and what was measured."""

    def __init__(self, setting: Setting, training: Training) -> None:
        """Take the first steps, which load and compile, and measure the memory."""
        self._setting, self._step, self._switch = setting, training.step, training.switch
        self._ms: list[float] = []
        self._host_ms: list[float] = []
        device = setting.device
        is_cuda = device.type == "cuda"
        started = time.perf_counter()
        self._take(1)
        self._first = time.perf_counter() - started
        self._take(2)  # the allocator and cudnn settle
        forget_peak(device)
        self._take(1)
        self._peak = torch.cuda.max_memory_allocated(device) if is_cuda else None

    def _take(self, steps: int) -> None:
        self._switch()
        for _ in range(steps):
            self._step()
        wait_for(self._setting.device)

    def time(self, steps: int) -> None:
        """Time a round of steps."""
        self._take(1)  # what other networks have changed
        started = time.perf_counter()
        for _ in range(steps):
            self._step()
        queued = time.perf_counter()
        wait_for(self._setting.device)
        self._ms.append(1e3 * (time.perf_counter() - started) / steps)
        self._host_ms.append(1e3 * (queued - started) / steps)

    def result(self, others: int) -> Timed:
        """Return what was measured.

        Args:
            others: Bytes on the device that belong to other networks.
        """
        ms = statistics.median(self._ms)
        kernels, busy = self._look()
        return Timed(
            ms=ms,
            images_per_second=1e3 * self._setting.batch / ms,
            host_ms=statistics.median(self._host_ms),
            gigabytes=None if self._peak is None else (self._peak - others) / 1e9,
            first_seconds=self._first,
            kernels=kernels,
            busy=busy,
        )

    def _look(self) -> tuple[float | None, float | None]:
        """Return the kernels of a step and the share of time in which one runs."""
        if self._setting.device.type != "cuda":
            return None, None
        self._switch()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            for _ in range(PROFILED):
                self._step()
            wait_for(self._setting.device)
        spans = [
            (event.time_range.start, event.time_range.end, event.name)
            for event in seen.events() or []
            if event.device_type == torch.autograd.DeviceType.CUDA
            and not event.is_user_annotation  # "Optimizer.step" spans its kernels and the gaps
        ]
        if not spans:
            return None, None  # the profiler may not look at the device (some containers)
        kernels = sum(not name.startswith(("Memcpy", "Memset")) for _, _, name in spans)
        return kernels / PROFILED, busy_share([(start, end) for start, end, _ in spans])


def busy_share(spans: list[tuple[float, float]]) -> float:
    """Return the share of the time between the first start and the last end that spans cover."""
    spans = sorted(spans)
    covered, reached = 0.0, spans[0][0]
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered / (reached - spans[0][0])


@contextmanager
def cleaned(device: torch.device) -> Iterator[None]:
    """Give back what a mode held on the device."""
    try:
        yield
    finally:
        torch._dynamo.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def compare(
    setting: Setting, mode: str, *, steps: int, rounds: int, with_peer: bool
) -> dict[str, Timed]:
    """Time both networks in a mode, in turns.

    Raises:
        LeftOutError: This machine does not have the mode.
    """
    is_cuda = setting.device.type == "cuda"

    def held() -> int:
        return torch.cuda.memory_allocated(setting.device) if is_cuda else 0

    with tempfile.TemporaryDirectory(prefix="benchmark_step_") as temporary:
        experiment = draw_data(Path(temporary), setting)
        steppers, others = {}, {}
        for name, build in (("ours", ours), ("torchvision", torchvisions))[: 1 + with_peer]:
            others[name] = held()
            steppers[name] = Stepper(setting, build(setting, experiment, MODES[mode]))
        for _ in range(rounds):
            for stepper in steppers.values():
                stepper.time(steps)
        return {name: stepper.result(others[name]) for name, stepper in steppers.items()}


HEADER = (
    f"{'':36}{'batch':>5}{'ms/step':>10}{'images/s':>10}{'host ms':>9}{'GB':>7}{'kernels':>9}"
    f"{'busy':>6}{'first s':>9}"
)


def row(name: str, batch: int, timed: Timed) -> str:
    """Return a line of the table."""
    memory = "-" if timed.gigabytes is None else f"{timed.gigabytes:.2f}"
    kernels = "-" if timed.kernels is None else f"{timed.kernels:.0f}"
    busy = "-" if timed.busy is None else f"{timed.busy:.0%}"
    return (
        f"{name:36}{batch:5}{timed.ms:10.1f}{timed.images_per_second:10.1f}{timed.host_ms:9.1f}"
        f"{memory:>7}{kernels:>9}{busy:>6}{timed.first_seconds:9.1f}"
    )


def ratios(found: dict[str, Timed]) -> str:
    """Return how ours compares with torchvision's."""
    us, peer = found["ours"], found["torchvision"]
    text = f"{peer.ms / us.ms:.2f} times as fast"
    if us.gigabytes is not None and peer.gigabytes:
        text += f", {us.gigabytes / peer.gigabytes:.2f} of the memory"
    return text


def canvas(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    height, width = map(int, text.split("x"))
    if min(height, width) < 64 or height % 32 or width % 32:
        raise ValueError
    return height, width


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda", help="device (cuda)")
    add("--modes", nargs="+", choices=MODES, default=list(MODES), metavar="MODE",
        help=f"modes of ours: {', '.join(map(repr, MODES))}; default: all")  # fmt: skip
    add("--batches", nargs="+", type=int, default=[2, 16], help="images of a step (2 16)")
    add("--canvas", type=canvas, default=(800, 1088), metavar="HEIGHTxWIDTH",
        help="px, multiples of 32 (800x1088)")  # fmt: skip
    add("--backbone", default="resnet50", help="network of torchvision (resnet50)")
    add("--classes", type=int, default=80, help="number of classes (80)")
    add("--steps", type=int, default=10, help="steps of a round (10)")
    add("--rounds", type=int, default=3, help="rounds in turns (3)")
    add("--no-peer", action="store_true", help="leave torchvision out")
    add("--published", metavar="TEXT", help="a number of others, printed above the table")
    add("--json", type=Path, metavar="FILE", help="write the numbers to a file, too")
    return parser.parse_args()


def main() -> int:
    """Print the table; the exit code is 1 if a mode failed."""
    options = parse()
    try:
        device = find_device(options.device, 0)
    except UserError as error:
        print(f"error: --device {options.device}: {error}", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    height, width = options.canvas
    print(
        f"{name}, torch {torch.__version__}; {options.backbone}, {height}x{width}, "
        f"{options.classes} classes"
    )
    if options.published:
        print(f"published by others, not measured here: {options.published}")
    print(HEADER, flush=True)
    rows: list[dict[str, Any]] = []
    failed = 0
    for mode, batch in itertools.product(options.modes, options.batches):
        setting = Setting(
            device=device,
            backbone=options.backbone,
            classes=options.classes,
            canvas=options.canvas,
            batch=batch,
        )
        try:
            with cleaned(device):
                found = compare(
                    setting,
                    mode,
                    steps=options.steps,
                    rounds=options.rounds,
                    with_peer=not options.no_peer,
                )
        except LeftOutError as reason:
            print(f"{'ours, ' + mode:36}{batch:5}  not run: {reason}", flush=True)
            continue
        except (RuntimeError, ValueError) as error:  # out of memory, say; others go on
            failed += 1
            print(f"{'ours, ' + mode:36}{batch:5}  FAILED: {error!r}"[:200], flush=True)
            continue
        for network, timed in found.items():
            print(row(f"{network}, {mode}", batch, timed), flush=True)
            rows.append({"network": network, "mode": mode, "batch": batch, **asdict(timed)})
        if len(found) == 2:
            print(f"  {mode}, batch {batch}: {ratios(found)}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"device": name, "rows": rows}, indent=1))
    print(closing(rows, failed))
    return 1 if failed else 0


def closing(rows: list[dict[str, Any]], failed: int) -> str:
    """Return one line about all rows: the fastest mode of ours, and what failed."""
    ours = [row for row in rows if row["network"] == "ours"]
    if not ours:
        return f"no mode was timed, {failed} failed"
    best = max(ours, key=lambda row: row["images_per_second"])
    text = f"ours is fastest in {best['mode']}, batch {best['batch']}: "
    text += f"{best['images_per_second']:.1f} images/s"
    peers = [row["images_per_second"] for row in rows if row["network"] == "torchvision"]
    if peers:
        text += f" (torchvision's at best {max(peers):.1f})"
    return text + (f"; {failed} failed" if failed else "")


if __name__ == "__main__":
    sys.exit(main())
