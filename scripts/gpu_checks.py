"""The checks of prove_gpu.py, each a process: `python scripts/gpu_checks.py NAME --work FOLDER`.

The exit code is 0 if the check passed, 1 if it failed, and 77 if this machine cannot run it. The
last line says what was found, or why it was not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch
import torchvision
from gpu_experiment import Setting, experiment, not_run, train
from gpu_parts import ROOT
from gpu_ranks import ranks
from same_run import run_differences

import retinanet
from retinanet import cli
from retinanet.config import load_config
from retinanet.distributed.compiler import missing_compiler
from retinanet.errors import plural

SMALL_GPU = 6.0
"""Memory of the small GPU, GiB."""
AP_APART = 0.02
"""How far the AP of one checkpoint may be apart in two precisions."""


def machine(setting: Setting) -> int:
    """Print what the machine is."""
    cores, shared = os.cpu_count() or 0, Path("/dev/shm")  # noqa: S108 (only its size is asked for)
    size = f", /dev/shm {shutil.disk_usage(shared).total / 1e9:.1f} GB" if shared.exists() else ""
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, cuDNN {torch.backends.cudnn.version()}, "
        f"retinanet {retinanet.__version__}",
        f"{plural(cores, 'core')}{size}",
    ]
    missing = missing_compiler(setting.device)
    lines.append(f"torch.compile: needs {missing}" if missing else "torch.compile: can run")
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
        asked = ["nvidia-smi", f"--query-gpu={query}", "--format=csv"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=15, check=False)
        lines.append(found.stdout.strip() or found.stderr.strip())
    if setting.device.type == "cuda":
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        lines.append(f"{', '.join(names)}; CUDA {torch.version.cuda}, torch {torch.__version__}")
    else:
        lines.append(f"{plural(cores, 'core')}, torch {torch.__version__}")
    print("\n".join(lines))
    return 0


def run_tests(words: list[str]) -> int:
    """Run pytest, if it is there."""
    for name in ("pytest", "hypothesis"):
        if importlib.util.find_spec(name) is None:
            not_run(f"the package {name} is not installed")
    if importlib.util.find_spec("xdist") is not None and "--collect-only" not in words:
        words = [*words, "-n", str(max(1, min(4, (os.cpu_count() or 1) // 2)))]
    return subprocess.run([sys.executable, "-m", "pytest", *words], check=False).returncode


MODES = {
    # Few canvases, because each may be compiled anew.
    "compiled network": ["train.compile=true", "train.precision=bf16", "data.short_side=[256]"],
    "compiled loss": ["train.compile_loss=true", "train.precision=bf16"],
    "tf32": [],
    "bf16": ["train.precision=bf16"],
    "fp16 + EMA": ["train.precision=fp16", "train.ema_decay=0.9"],
    "accumulation": ["train.micro_batch=1"],
    "AdamW": ["train.optimizer=adamw", "train.lr=0.0001", "train.precision=bf16"],
}
"""Options of each mode whose runs must be the same; the slowest ones first."""
SMALL_MODES = ("tf32",)


def bits(setting: Setting) -> int:
    """Train twice in every mode, and compare all bits."""
    config = experiment(setting)
    modes = {name: MODES[name] for name in SMALL_MODES} if setting.small else MODES
    missing, failed, same = missing_compiler(setting.device), 0, 0

    def twice(name: str) -> str:
        if name.startswith("compiled") and missing:
            return f"not run: torch.compile needs {missing}"
        if setting.device.type == "cpu" and "fp16" in name:
            return "not run: fp16 needs a GPU"
        try:
            runs = [
                train(setting, config, f"{name} {i}".replace(" ", "_"), *modes[name])
                for i in (1, 2)
            ]
            return "; ".join(run_differences(*runs)) or "the same bits"
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return f"FAILED: {error}"

    together = max(1, min(len(modes), (os.cpu_count() or 1) // 2))
    with ThreadPoolExecutor(together) as pool:
        names = {pool.submit(twice, name): name for name in modes}
        for future in as_completed(names):
            found = future.result()
            print(f"{names[future]}: {found}", flush=True)
            same += found == "the same bits"
            failed += not found.startswith(("the same", "not run"))
    print(f"the same bits in {same} of {plural(len(modes), 'mode')}, {failed} failed")
    return 1 if failed else 0


def memory(setting: Setting) -> int:
    """Train on a share of the GPU: the micro-batch that was chosen must survive accumulation."""
    if setting.device.type != "cuda":
        not_run("a CPU has no memory of its own")
    total = torch.cuda.get_device_properties(setting.device).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(min(0.9, SMALL_GPU / total), setting.device)
    batch = 32
    code = cli.main(
        [
            *("train", str(experiment(setting)), "--name", "little", "train.precision=bf16"),
            *("data.short_side=[800]", "data.long_side=1088", f"train.batch_size={batch}"),
            *("train.steps=4", "eval.every=0"),
        ]
    )
    if code:
        return code
    chosen = load_config(setting.work / "runs" / "little" / "config.yaml").train.micro_batch
    peak = torch.cuda.max_memory_allocated(setting.device) / 1e9
    print(f"{SMALL_GPU:g} GiB: micro-batches of {chosen} of {batch} images, {peak:.2f} GB at most")
    return 0 if chosen != batch else 1


def training(setting: Setting) -> int:
    """Train on real images, and print what the run's own log says."""
    assert setting.data is not None
    words = [f"data.root={setting.data / 'bccd'}", f"train.device={setting.device.type}"]
    words += [f"output.dir={setting.training.parent}"]
    if setting.small:
        words += ["train.steps=2", "eval.every=0", "data.short_side=[64]", "data.long_side=107"]
        words += ["train.log_every=1", "data.workers=0", "train.warmup_steps=0"]
    else:
        words += ["train.max_minutes=1", f"data.workers={min(8, os.cpu_count() or 1)}"]
    config = ROOT / "configs" / "bccd_r18.yaml"
    code = cli.main(["train", str(config), "--name", "bccd", *words])
    lines = recorded_speeds(setting.training) if code == 0 else []
    if not lines:
        return code or 1
    speed, waiting = (
        statistics.median(line[f"train/{name}"] for line in lines)
        for name in ("images_per_second", "data_share")
    )
    print(f"{speed:.1f} images/s (median), {waiting:.0%} of the time waiting for data")
    return 0


def recorded_speeds(folder: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl that have a speed."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "train/images_per_second" in line]


def trained(setting: Setting) -> Path:
    """Return the checkpoint of the check `training`."""
    path = setting.training / "checkpoints" / "last.pt"
    if not path.exists():
        not_run("the part training left no checkpoint")
    return path


def ap(setting: Setting) -> int:
    """Evaluate one checkpoint in fp32 and bf16."""
    checkpoint, found = trained(setting), {}
    for precision in ("fp32", "bf16"):
        words = [f"train.device={setting.device.type}", f"train.precision={precision}"]
        output = setting.work / precision
        code = cli.main(["evaluate", str(checkpoint), "--output", str(output), *words])
        if code:
            return code
        found[precision] = json.loads((output / "metrics.json").read_text())["AP"]
    apart = abs(found["fp32"] - found["bf16"])
    print(f"AP {found['fp32']:.4f} in fp32, {found['bf16']:.4f} in bf16: {apart:.4f} apart")
    return 1 if apart > AP_APART else 0


def predict(setting: Setting) -> int:
    """Time the way from files to detections."""
    assert setting.data is not None
    batch = 2 if setting.small else 16
    detector = retinanet.load(
        trained(setting), device=setting.device.type, overrides=[f"eval.batch_size={batch}"]
    )
    files = sorted((setting.data / "bccd" / "images").glob("*.jpg"))
    files = files[:4] if setting.small else files
    list(detector(iter(files[:batch])))  # loads and chooses kernels
    started = time.perf_counter()
    boxes = sum(len(result) for result in detector(iter(files)))
    speed = len(files) / (time.perf_counter() - started)
    print(
        f"{speed:.1f} images/s in {detector.precision}, batches of {batch}, from "
        f"{plural(len(files), 'file')} to {plural(boxes, 'box')}"
    )
    return 0


def data(setting: Setting) -> int:
    """Time the data path with many numbers of loader processes."""
    assert setting.data is not None
    cores = os.cpu_count() or 1
    workers = ["0"]
    if not setting.small:
        workers = [str(number) for number in sorted({0, cores // 4, cores // 2, cores})]
    words = [f"data.root={setting.data / 'tiny_coco'}", "data.train.images=images/train2017"]
    words += ["data.short_side=[64]", "train.batch_size=2"] if setting.small else []
    words += ["--images", "4" if setting.small else "64", "--workers", *workers]
    config = ROOT / "configs" / "retinanet_r50_fpn_1x_coco.yaml"
    return cli.main(["benchmark", "data", str(config), *words])


CHECKS: dict[str, Callable[[Setting], int]] = {
    "machine": machine,
    "bits": bits,
    "ranks": ranks,
    "memory": memory,
    "training": training,
    "ap": ap,
    "predict": predict,
    "data": data,
}


def main() -> int:
    """Run one check."""
    name, words = sys.argv[1], sys.argv[2:]
    if name == "pytest":
        return run_tests(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=CHECKS, help="check")
    parser.add_argument("--work", type=Path, required=True, help="folder for its files")
    parser.add_argument("--data", type=Path, help="folder with bccd/ and tiny_coco/")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="device (cuda)")
    parser.add_argument("--small", action="store_true", help="tiny networks and few steps")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        not_run("there is no CUDA device")
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    options.work.mkdir(parents=True, exist_ok=True)
    setting = Setting(device=device, work=options.work, data=options.data, small=options.small)
    return CHECKS[options.name](setting)


if __name__ == "__main__":
    sys.exit(main())
