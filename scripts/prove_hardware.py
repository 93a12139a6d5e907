"""Check that hardware does not change a training: one experiment, split in different ways.

    python scripts/prove_hardware.py --bccd data/bccd

Trains all of a small network from random weights: in one process with whole batches, then with
accumulation, with loader workers, and in two and three processes (torchrun and gloo, on the CPU).
Prints how much the losses and final weights differ from those of the first, in float64 and in
float32. The exit code is 1 if a difference is larger than rounding. Some images have no boxes, and
the number of images is not a multiple of the batch size. So in some steps a process has no boxes or
no images. A second training on the drawn shapes gives every two images of a batch a canvas of their
own (`data.canvas_group`). The last two rows of each training count positives wrongly, per
micro-batch and per process, as other frameworks do. Their large difference shows that the
comparison would detect an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from retinanet import cli
from retinanet.batch import Batch
from retinanet.checkpoints.format import load_checkpoint
from retinanet.config import load_config
from retinanet.data.loader import RankStep
from retinanet.data.sampler import share
from retinanet.data.synthetic import write_synthetic
from retinanet.engine import train as engine
from retinanet.engine.run import Run
from retinanet.engine.splits import open_split, training_plan
from retinanet.structures import Outputs

ROOT = Path(__file__).parents[1]
STEPS, IMAGES, BATCH = 30, 17, 4
"""Size of a run. With 17 images, the last batch of an epoch has only one."""
LOSS_FP64, WEIGHTS_FP64, LOSS_FP32, STEPS_FP32 = 1e-9, 1e-8, 1e-5, 5
"""Tolerances: relative for a loss, absolute for a weight. In float32, rounding errors grow with
every step, because training is chaotic: only the first steps can be compared."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to run the experiment."""

    processes: int = 1
    micro_batch: int = BATCH
    workers: int = 0
    wrong: str = ""
    """Key of `WRONG`: the mistake to make."""


CASES = {
    "one process": Case(),
    "accumulation of 2": Case(micro_batch=2),
    "accumulation of 4": Case(micro_batch=1),
    "3 workers": Case(workers=3),
    "two processes": Case(processes=2),
    "two with accumulation": Case(processes=2, micro_batch=1),
    "two with 3 workers": Case(processes=2, workers=3),
    "three processes": Case(processes=3),
    "three with accumulation": Case(processes=3, micro_batch=1),
    "positives by micro-batch": Case(micro_batch=1, wrong="by_micro_batch"),
    "positives by process": Case(processes=2, wrong="by_process"),
}
FIRST = "one process"

TakeStep = Callable[..., None]


def by_micro_batch(take_step: TakeStep) -> TakeStep:
    """Return a step whose loss is a mean over micro-batches, each divided by its own positives."""

    def wrong(run: Run, part: RankStep, *, positives: float, images: float) -> None:
        del positives
        criterion = run.criterion

        def divided(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
            own = max(1, sum(batch.assigned.counts))
            return {name: loss / own for name, loss in criterion(outputs, batch).items()}

        run.criterion = divided
        take_step(run, part, positives=len(part.micro_batches) * run.world.size, images=images)
        run.criterion = criterion

    return wrong


def by_process(take_step: TakeStep) -> TakeStep:
    """Return a step whose loss is a mean over processes, each divided by its own positives."""

    def wrong(run: Run, part: RankStep, *, positives: float, images: float) -> None:
        del positives
        own = max(1, part.positives)
        take_step(run, part, positives=own * run.world.size, images=images)

    return wrong


WRONG = {"by_micro_batch": by_micro_batch, "by_process": by_process}
"""How other frameworks divide the loss."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A config file and the options that make it small."""

    name: str
    config: Path
    overrides: list[str]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Results of a run to compare."""

    losses: list[float]
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference between two runs."""

    losses: list[float]
    """Relative difference of the loss in each step."""
    weights: float
    """Largest absolute difference of a weight."""


def thin(source: Path, target: Path) -> None:
    """Write the first images with boxes of a file to another; two in five lose their boxes."""
    content = json.loads(source.read_text())
    boxed = {record["image_id"] for record in content["annotations"]}
    images = [image for image in content["images"] if image["id"] in boxed][:IMAGES]
    full = {image["id"] for i, image in enumerate(images) if i % 5 > 1}
    boxes = [record for record in content["annotations"] if record["image_id"] in full]
    target.write_text(json.dumps({**content, "images": images, "annotations": boxes}))


def small(annotations: Path, images: Path) -> list[str]:
    """Return options that make an experiment small: data, sizes and length, not optimisation."""
    return [
        'data.root=""',
        *(f"data.{split}.annotations={annotations}" for split in ("train", "val")),
        *(f"data.{split}.images={images}" for split in ("train", "val")),
        "data.short_side=[48]",
        "data.long_side=64",
        "model.fpn_channels=32",
        "model.head_convs=1",
        f"train.batch_size={BATCH}",
        f"train.steps={STEPS}",
        "train.epochs=null",
        "train.warmup_steps=2",
        "train.device=cpu",
        "train.log_every=1",
        "eval.every=0",
        "eval.pictures=0",
    ]


def blood_cells(bccd: Path, folder: Path) -> Experiment:
    """Return the shipped recipe for bccd: AdamW with its own learning rate."""
    thin(bccd / "annotations" / "train.json", folder / "bccd.json")
    overrides = small((folder / "bccd.json").absolute(), (bccd / "images").absolute())
    return Experiment(name="bccd", config=ROOT / "configs" / "bccd_r18.yaml", overrides=overrides)


def shapes(folder: Path) -> Experiment:
    """Return the shipped recipe for drawn shapes, with SGD.

    AdamW would hide a gradient of a wrong scale.
    """
    drawn = folder / "shapes"
    write_synthetic(drawn, train_images=2 * IMAGES, val_images=1, seed=3)
    thin(drawn / "annotations" / "train.json", folder / "shapes.json")
    overrides = small((folder / "shapes.json").absolute(), (drawn / "images" / "train").absolute())
    sgd = ["train.optimizer=sgd", "train.lr=0.01", "train.weight_decay=0.0001"]
    return Experiment(
        name="shapes", config=ROOT / "configs" / "demo.yaml", overrides=[*overrides, *sgd]
    )


def grouped(experiment: Experiment) -> Experiment:
    """Return an experiment with two canvases in each batch, for images of different sizes."""
    groups = ["data.canvas=batch_max", "data.canvas_group=2"]
    sizes = ["data.short_side=[48,64]", "data.long_side=96", "data.resize=per_image"]
    overrides = [*experiment.overrides, *groups, *sizes]
    return replace(experiment, name="two canvases", overrides=overrides)


def parts_without(experiment: Experiment, processes: int) -> tuple[int, int]:
    """Return in how many steps a process has images but no boxes, and no images at all."""
    config = load_config(experiment.config, experiment.overrides)
    split = open_split(config, "train")
    plan, counts = training_plan(config, split), split.annotations.offsets
    no_boxes = no_images = 0
    for step in range(STEPS):
        parts = [
            [
                sample.row
                for part in share(plan.step(step), rank=rank, ranks=processes)
                for sample in part.samples
            ]
            for rank in range(processes)
        ]
        boxes = [sum(int(counts[row + 1] - counts[row]) for row in rows) for rows in parts]
        no_images += any(not rows for rows in parts)
        no_boxes += any(rows and not n for rows, n in zip(parts, boxes, strict=True))
    return no_boxes, no_images


def words(experiment: Experiment, case: Case, *, precision: str, folder: Path) -> list[str]:
    """Return the arguments that make this script one process of a case."""
    return [
        "run",
        case.wrong or "right",
        str(experiment.config),
        *experiment.overrides,
        f"train.precision={precision}",
        f"train.micro_batch={case.micro_batch}",
        f"data.workers={case.workers}",
        f"output.dir={folder}",
        "output.name=run",
    ]


def train(arguments: list[str]) -> int:
    """Train as the command line does, with the mistake of the case, if any."""
    wrong, *rest = arguments
    if wrong in WRONG:
        engine.take_step = WRONG[wrong](engine.take_step)
    return cli.main(["train", *rest])


def launch(experiment: Experiment, case: Case, *, precision: str, folder: Path) -> Trace:
    """Run a case in its own processes; return its results.

    Raises:
        SystemExit: The training failed; its output is the message.
    """
    command = [sys.executable]
    if case.processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(case.processes)]
    command += [__file__, *words(experiment, case, precision=precision, folder=folder)]
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    threads = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": search}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads}, check=False
    )
    if done.returncode:
        raise SystemExit(" ".join(command) + "\n" + done.stdout + done.stderr)
    return read_trace(folder / "run")


def read_trace(run: Path) -> Trace:
    """Return the results of a run."""
    recorded = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in recorded if "loss_class/train" in line]
    return Trace(
        losses=[line["loss_class/train"] + line["loss_box/train"] for line in steps],
        weights=load_checkpoint(run / "checkpoints" / "last.pt").model,
    )


def compare(one: Trace, other: Trace) -> Difference:
    """Return the difference between two runs."""
    pairs = zip(one.losses, other.losses, strict=True)
    weights = [
        float((one.weights[name].double() - weight.double()).abs().max())
        for name, weight in other.weights.items()
    ]
    return Difference(losses=[abs(a - b) / abs(b) for a, b in pairs], weights=max(weights))


def is_same(difference: Difference, precision: str) -> bool:
    """Return whether a difference is only rounding."""
    if precision == "fp64":
        return max(difference.losses) <= LOSS_FP64 and difference.weights <= WEIGHTS_FP64
    return max(difference.losses[:STEPS_FP32]) <= LOSS_FP32


def prove(experiment: Experiment, folder: Path) -> bool:
    """Print the table of an experiment; return whether every case is as expected."""
    traces: dict[str, Trace] = {}
    right = True
    for name, case in CASES.items():
        cells = []
        for precision in ("fp64", "fp32"):
            place = folder / experiment.name / name / precision
            trace = launch(experiment, case, precision=precision, folder=place)
            first = traces.setdefault(precision, trace)
            found = compare(trace, first)
            right &= is_same(found, precision) is not bool(case.wrong)
            cells += [f"{max(found.losses):.1e}", f"{found.weights:.1e}"]
            if precision == "fp32":
                cells.insert(2, f"{max(found.losses[:STEPS_FP32]):.1e}")
        print(f"| {experiment.name} | {name} | " + " | ".join(cells) + " |", flush=True)
    losses = traces["fp64"].losses
    fall = 1 - sum(losses[-5:]) / sum(losses[:5])
    for processes in (2, 3):
        no_boxes, no_images = parts_without(experiment, processes)
        print(
            f"{processes} processes: in {no_boxes} of {STEPS} steps a process has images without "
            f"boxes, in {no_images} steps no images"
        )
    print(f"the loss falls by {fall:.0%} from the first five steps to the last five\n")
    return right and fall >= 0.2


def main() -> int:
    """Print the tables; return 1 if a case is not as expected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bccd", type=Path, help="folder of bccd; default: only drawn shapes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiments = [drawn := shapes(folder), grouped(drawn)]
        if options.bccd:
            experiments.append(blood_cells(options.bccd, folder))
        print("Largest relative difference of a loss, and largest difference of a final weight:\n")
        print(
            f"| data | case | loss, fp64 | weight, fp64 | first {STEPS_FP32} losses, fp32 | "
            f"loss, fp32 | weight, fp32 |\n|---|---|---|---|---|---|---|"
        )
        done = [prove(experiment, folder) for experiment in experiments]
    print("the same everywhere" if all(done) else "NOT the same everywhere")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(train(sys.argv[2:]) if sys.argv[1:2] == ["run"] else main())
