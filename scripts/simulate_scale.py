"""Count what each rank does when many processes train together, on one machine without GPUs.

    python scripts/simulate_scale.py --processes 2 8 32
    python scripts/simulate_scale.py --processes 2 8 32 --code OTHER_CHECKOUT

Trains a small network on drawn images of 64 px with gloo, stops in the middle, and resumes. A
second run of the script with `--code` counts the same for another checkout of this project, such as
`git worktree add OTHER_CHECKOUT COMMIT`. Every 8 processes (`--per-machine`) count as one machine.

For the start, the resume, and each step after it, the table shows of all ranks: the CPU seconds
(`time.process_time`, mean and largest), the collectives of torch.distributed that Python starts and
their bytes (largest), how often image files are looked up or opened and checkpoints are opened (sum
and largest). The exchange of gradients is started by DDP in C++ and is not counted: it needs the
same bytes whatever the code. There are no wall times, because they would measure how the processes
share the cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGES, SIDE = 256, 64
COLLECTIVES = ("all_reduce", "broadcast", "gather", "all_gather", "reduce", "scatter")
ROWS = {
    "cpu": "CPU seconds",
    "collectives": "collectives",
    "bytes": "their bytes",
    "images": "looks at image files",
    "checkpoints": "checkpoints opened",
}


def main() -> None:
    """Train with each number of processes and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--steps", type=int, default=4, help="steps of each of the two launches")
    parser.add_argument("--per-machine", type=int, default=8, help="processes of a machine")
    parser.add_argument("--code", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--json", type=Path, help="also write the counts to a file")
    options = parser.parse_args()
    code = options.code.resolve()
    # For the server that processes are forked from: before any installed version of the project.
    os.environ |= {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    sys.path.insert(0, str(code))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["retinanet.engine.launch", "torch.utils.tensorboard"])
    print(f"code: {code}; {options.images} training images", flush=True)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        config = write_experiment(Path(name), options.images, options.processes)
        for size in options.processes:
            counts = [
                run_group(context, Path(name), config, size, launch, options)
                for launch in ("start", "resume")
            ]
            found[size] = summarize(*counts, steps=options.steps)
            print(table(size, options.per_machine, found[size]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def write_experiment(folder: Path, images: int, processes: list[int]) -> Path:
    """Draw the images and write the config; return its path."""
    import torch
    from torchvision.models import resnet18

    from retinanet.data.synthetic import write_synthetic

    torch.save(resnet18().state_dict(), folder / "backbone.pth")
    write_synthetic(folder / "data", train_images=images, val_images=8, seed=0)
    values = {
        "model": {
            # Frozen, so that 32 processes need little memory.
            **{"backbone": "resnet18", "weights": str(folder / "backbone.pth")},
            "freeze": "backbone",
            **{"fpn_channels": 16, "head_convs": 1, "head_channels": 16},
        },
        "data": {
            "root": str(folder / "data"),
            "train": {"annotations": "annotations/train.json", "images": "images/train"},
            "val": {"annotations": "annotations/val.json", "images": "images/val"},
            **{"workers": 0, "short_side": SIDE, "long_side": SIDE},
        },
        "train": {
            **{"batch_size": max(processes), "steps": 1000, "device": "cpu", "log_every": 1000},
            **{"checkpoint_every": 1000, "warmup_steps": 1, "milestones": [900]},
        },
        "eval": {"every": 1000},
        "output": {"dir": str(folder / "runs")},
    }
    path = folder / "experiment.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def run_group(
    context: Any, folder: Path, config: Path, size: int, launch: str, options: argparse.Namespace
) -> list[list[dict[str, float]]]:
    """Run one launch with several processes; return the counts of each rank, step by step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["train", str(config), "--name", f"run{size}"]
    if launch == "resume":
        words = ["train", "--resume", str(folder / "runs" / f"run{size}")]
    outputs = [folder / f"{launch}-{size}-{rank}" for rank in range(size)]
    processes = []
    for rank, output in enumerate(outputs):
        variables = {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank % options.per_machine)},
            **{"GROUP_RANK": str(rank // options.per_machine), "WORLD_SIZE": str(size)},
            **{"LOCAL_WORLD_SIZE": str(min(size, options.per_machine)), "OMP_NUM_THREADS": "1"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"},
        }
        arguments = (variables, words, options.steps, output)
        processes.append(context.Process(target=run_rank, args=arguments))
        processes[-1].start()
    for process in processes:
        process.join()
    missing = [str(output) for output in outputs if not output.exists()]
    if missing:
        for output in outputs:
            print(output.with_suffix(".err").read_text()[-2000:], file=sys.stderr)
        sys.exit(f"{launch} with {size} processes failed")
    return [json.loads(output.read_text()) for output in outputs]


def run_rank(variables: dict[str, str], words: list[str], steps: int, output: Path) -> None:
    """Be one process of the group: train some steps, save, and write the counts."""
    os.environ.update(variables)
    with output.with_suffix(".err").open("w") as text:
        os.dup2(text.fileno(), 1)
        os.dup2(text.fileno(), 2)
    import torch

    from retinanet import cli

    assert Path(cli.__file__).is_relative_to(os.environ["PYTHONPATH"]), cli.__file__
    torch.set_num_threads(1)
    counts = count_everything()
    start, states = time.process_time(), []
    watch_steps(
        lambda: states.append({**counts, "cpu": time.process_time() - start}), stop_after=steps
    )
    code = cli.main(words)
    if code == 128 + signal.SIGTERM:
        output.write_text(json.dumps(states))


def count_everything() -> Counter[str]:
    """Start to count collectives, looks at image files, and opened checkpoints."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    counts: Counter[str] = Counter()

    def counted(collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensor: Any, *rest: Any, **options: Any) -> Any:
            own = tensor[0] if isinstance(tensor, list) else tensor
            counts["collectives"] += 1
            counts["bytes"] += own.nbytes
            return collective(tensor, *rest, **options)

        return call

    for name in COLLECTIVES:
        wrapped = counted(getattr(distributed_c10d, name))
        for module in (dist, distributed_c10d):
            setattr(module, name, wrapped)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, Path)) and arguments[1] == "r":
            suffix = Path(arguments[0]).suffix
            counts["images"] += suffix == ".jpg"
            counts["checkpoints"] += suffix == ".pt"

    sys.addaudithook(heard)
    look = os.stat

    def stat(path: Any, *rest: Any, **options: Any) -> os.stat_result:
        counts["images"] += str(path).endswith(".jpg")
        return look(path, *rest, **options)

    os.stat = stat
    return counts


def watch_steps(note: Callable[[], object], *, stop_after: int) -> None:
    """Call a function before the first step and after each, and stop the run after some."""
    from retinanet.engine import train as loop

    original, steps = loop.take_step, 0

    def take_step(*given: Any, **options: Any) -> Any:
        nonlocal steps
        if steps == 0:
            note()
        result = original(*given, **options)
        steps += 1
        note()
        if steps == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    loop.take_step = take_step


def summarize(
    start: list[list[dict[str, float]]], resume: list[list[dict[str, float]]], *, steps: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean, sum and largest count of the ranks: start, resume, and a step of both."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in ROWS:
        ends = [[rank[i].get(name, 0) for rank in run] for run in (start, resume) for i in (0, -1)]
        columns = {
            "start": ends[0],
            "resume": ends[2],
            "step": [(b - a + d - c) / (2 * steps) for a, b, c, d in zip(*ends, strict=True)],
        }
        found[name] = {
            column: {"mean": sum(v) / len(v), "sum": sum(v), "largest": max(v)}
            for column, v in columns.items()
        }
    return found


def table(size: int, per_machine: int, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the counts as lines of text."""
    machines = -(-size // per_machine)
    lines = [
        f"\n{size} processes, as on {machines} machine{'s' * (machines > 1)}",
        f"{'':22}{'at start':>24}{'at a resume':>24}{'each step':>24}",
    ]
    for name, label in ROWS.items():
        which = "mean" if name == "cpu" else "sum"
        if name in ("collectives", "bytes"):
            which = "mean"
        cells = "".join(
            f"{number(c[which]):>13}{number(c['largest']):>11}" for c in found[name].values()
        )
        lines.append(f"{label:22}{cells}")
    return "\n".join(
        [
            *lines,
            "CPU seconds, collectives and bytes: mean and largest; else sum and "
            "largest of the ranks",
        ]
    )


def number(value: float) -> str:
    """Return a short form of a number."""
    return f"{value:,.0f}" if value == round(value) or value >= 1000 else f"{value:.2f}"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
