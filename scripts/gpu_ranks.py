"""The check of prove_gpu.py with several ranks: `python scripts/gpu_ranks.py over-gloo train ...`.

That line is a rank of a group that shares one GPU. nccl refuses that, but gloo takes its tensors.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gpu_experiment import LIMIT_OF_A_RUN, Setting, experiment, train
from same_run import recorded_metrics
from torch.nn.parallel import DistributedDataParallel

from retinanet import cli
from retinanet.distributed.precision import set_numerics
from retinanet.errors import plural
from retinanet.model.detector import build_detector
from retinanet.schema import Config, TrainConfig

RELATIVE, FIRST = 1e-3, 3
"""How far the losses of the first steps may be apart if only the hardware differs."""


def ranks(setting: Setting) -> int:
    """Train with several ranks, and compare the losses with those of one."""
    is_cuda = setting.device.type == "cuda"
    backend = "nccl" if is_cuda else "gloo"
    one_rank(setting, backend)
    print(f"one rank over {backend}: the gradients of a single process", flush=True)
    config = experiment(setting)
    alone = losses(train(setting, config, "one"))
    cases = {"two ranks on one device over gloo": ("two", [0, 0])}
    if torch.cuda.device_count() > 1 and is_cuda:
        cases["two GPUs over nccl"] = ("two_gpus", [0, 1])
    failed = 0
    for about, (name, local) in cases.items():
        code = together(setting, local, [str(config), "--name", name])
        found = losses(setting.work / "runs" / name) if code == 0 else []
        apart = max(
            (abs(a - b) / abs(b) for a, b in zip(found[:FIRST], alone, strict=False)),
            default=float("inf"),
        )
        failed += apart > RELATIVE
        print(f"{about}: losses differ by {apart:.1e} from those of one rank", flush=True)
    if is_cuda and len(cases) == 1:
        print("two GPUs over nccl: not run: one GPU")
    print(f"{plural(len(cases), 'group')} of two ranks, {failed} with other losses")
    return 1 if failed else 0


def one_rank(setting: Setting, backend: str) -> None:
    """Compare the gradients of a group of one with those of a single process, bit for bit.

    Raises:
        RuntimeError: They differ.
    """
    set_numerics(TrainConfig(), setting.device)  # deterministic
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "weights": "none", "norm": "gn", "freeze": "none"}
    model = build_detector(Config.model_validate({"model": options}), classes=3).to(setting.device)
    device = setting.device if setting.device.type == "cuda" else None
    dist.init_process_group(
        backend, init_method=f"file://{setting.work / 'store'}", rank=0, world_size=1,
        device_id=device,
    )  # fmt: skip
    wrapped = DistributedDataParallel(model, device_ids=[device.index] if device else None)
    images = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8, device=setting.device)
    sizes = torch.tensor([[128, 128]], device=setting.device)
    found = []
    for network in (model, wrapped):
        model.zero_grad()
        outputs = network(images, sizes)
        (outputs.logits.sum() + outputs.deltas.sum()).backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    dist.destroy_process_group()
    if not all(map(torch.equal, *found)):
        raise RuntimeError("a group of one rank has other gradients than a single process")


def together(setting: Setting, local: list[int], words: list[str]) -> int:
    """Run a training in one process for each local rank; return the largest exit code.

    Without torchrun, whose processes would outlive a check that is killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared = {"WORLD_SIZE": str(len(local)), "LOCAL_WORLD_SIZE": str(len(local))}
    shared |= {"GLOO_SOCKET_IFNAME": "lo"}
    shares = len(set(local)) < len(local)
    program = [__file__, "over-gloo"] if shares else ["-m", "retinanet"]
    command = [sys.executable, *program, "train", *words]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **address, **shared, "RANK": str(rank), "LOCAL_RANK": str(device)},
        )
        for rank, device in enumerate(local)
    ]
    try:
        return max(abs(process.wait(LIMIT_OF_A_RUN)) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_over_gloo(words: list[str]) -> int:
    """Run a command as one of the ranks that share a GPU."""
    start = dist.init_process_group

    def over_gloo(backend: str, **options: Any) -> None:
        del backend
        start("gloo", **{**options, "device_id": None})

    dist.init_process_group = over_gloo  # type: ignore[assignment]
    return cli.main(words)


def losses(folder: Path) -> list[float]:
    """Return the loss of each step of a run."""
    lines = recorded_metrics(folder)
    return [
        line["loss_class/train"] + line["loss_box/train"]
        for line in lines
        if "loss_class/train" in line
    ]


if __name__ == "__main__":
    sys.exit(run_over_gloo(sys.argv[2:]))
