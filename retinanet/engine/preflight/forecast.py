"""The forecast of `train --dry-run`: schedule, parameters, memory and time of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from retinanet.engine.flops import Work
from retinanet.engine.logs.log import duration
from retinanet.engine.run import Run, checkpoint_size
from retinanet.engine.schedule import Schedule
from retinanet.errors import plural
from retinanet.model.backbone import ResNet
from retinanet.model.detector import Detector


@dataclass(frozen=True, kw_only=True)
class DryRunTimes:
    """Time and memory of one step and one evaluation batch in this process."""

    images: int
    """Images in this rank's share of the step."""
    pixels: int
    """Pixels of their canvases."""
    load_seconds: float
    """Seconds that one process took to load them."""
    step_seconds: float
    step_memory: float
    """Peak memory of the device or of the process, in GB."""
    evaluated: int
    """Images in the evaluation batch."""
    evaluation_seconds: float
    """Seconds of the evaluation, including loading by one process."""
    evaluation_memory: float
    """Peak memory in GB."""


def forecast(run: Run, trial: DryRunTimes) -> list[str]:
    """Return the lines that a dry run prints."""
    parts = (
        (
            "schedule",
            [*describe_schedule(run.schedule, run.plan.steps_per_epoch), *describe_events(run)],
        ),
        ("parameters", describe_parameters(run.model, run.optimizer)),
        ("memory", describe_memory(run, trial)),
        ("time", describe_time(run, trial)),
    )
    return [line for name, lines in parts for line in (name, *(f"  {line}" for line in lines))]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines: the first column is left-aligned, the others are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]


def describe_schedule(schedule: Schedule, steps_per_epoch: int) -> list[str]:
    """Return a table of the learning rate at the steps where the schedule changes."""
    rows = [("", "step", "epoch", "learning rate")]
    rows += [
        (name, f"{step:,}", f"{step / steps_per_epoch:.2f}", f"{schedule.learning_rate(step):.4g}")
        for step, name in _turns(schedule)
    ]
    return aligned(rows)


def _turns(schedule: Schedule) -> list[tuple[int, str]]:
    """Return the steps (from 0) at which the schedule changes, with a name for each change."""
    config, steps = schedule.train, schedule.steps
    turns = {0: "first step"}
    if 0 < config.warmup_steps < steps:
        turns[config.warmup_steps] = "end of warm-up"
    if config.schedule == "multistep":
        drops = [step for step in schedule.milestones if step < steps]
        turns |= dict.fromkeys(drops, f"times {config.lr_drop:g}")
    else:
        quarters = {steps * i // 4: f"cosine, {i} of 4" for i in (1, 2, 3)}
        turns |= {step: name for step, name in quarters.items() if step > config.warmup_steps}
    turns.setdefault(steps - 1, "last step")
    return sorted(turns.items())


def describe_events(run: Run) -> list[str]:
    """Return how often a run is evaluated and saved, and the disk space of its checkpoints."""
    config, schedule, per_epoch = run.config.train, run.schedule, run.plan.steps_per_epoch
    interval = schedule.evaluation_interval
    evaluations = count_evaluations(schedule.steps, interval)
    every = f"every {interval:,} steps and " if 0 < interval < schedule.steps else ""
    both = ", of the weights and of their average" if run.ema is not None else ""
    snapshots = schedule.steps // config.snapshot_every if config.snapshot_every else 0
    kept = min(snapshots, config.keep_snapshots or snapshots)
    newest = f", the newest {kept} of {snapshots} step_*.pt" if snapshots else ""
    size = checkpoint_size(run) / 1e6
    return [
        f"{plural(schedule.steps, 'step')} of {plural(config.batch_size, 'image')}, "
        f"{schedule.steps / per_epoch:.2f} epochs of {plural(per_epoch, 'step')}",
        f"{plural(evaluations, 'evaluation')} of {plural(len(run.val.annotations), 'image')}: "
        f"{every}at the end{both}",
        f"checkpoints: last.pt every {config.checkpoint_every:,} steps and at evaluations, best.pt"
        f"{newest}: {2 + kept} files of {size:,.1f} MB, {(2 + kept) * size:,.1f} MB in all",
    ]


def count_evaluations(steps: int, interval: int) -> int:
    """Return the number of evaluations: every `interval` steps (0: never), and at the end."""
    return -(-steps // interval) if interval else 1


def describe_parameters(model: Detector, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return a table of the parameters of each part of the network, and how they are trained."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    rows = [("", "parameters", "frozen", "trainable", "lr factor", "weight decay")]
    for name, modules in [*_network_parts(model), ("all", (model,))]:
        parameters = [p for module in modules for p in module.parameters()]
        own = [groups[id(p)] for p in parameters if id(p) in groups]
        trainable = sum(p.numel() for p in parameters if id(p) in groups)
        total = sum(p.numel() for p in parameters)
        rows.append(
            (
                name,
                f"{total:,}",
                f"{total - trainable:,}",
                f"{trainable:,}",
                _distinct_values(own, "factor"),
                _distinct_values(own, "weight_decay"),
            )
        )
    return aligned(rows)


def _network_parts(model: Detector) -> list[tuple[str, tuple[nn.Module, ...]]]:
    """Return the name and modules of each part of the network; a ResNet is listed by stage."""
    backbone = model.backbone
    parts: list[tuple[str, tuple[nn.Module, ...]]] = [("backbone", (backbone,))]
    if isinstance(backbone, ResNet):
        names = [f"backbone {stage}" for stage in ResNet.STAGES]
        parts = list(zip(names, backbone.stages(), strict=True))
    return [
        *parts,
        ("fpn", (model.fpn,)),
        ("class subnet", (model.class_subnet,)),
        ("box subnet", (model.box_subnet,)),
    ]


def _distinct_values(groups: Iterable[dict[str, Any]], key: str) -> str:
    """Return the distinct values of an option, largest first."""
    values = sorted({group[key] for group in groups}, reverse=True)
    return ", ".join(f"{value:g}" for value in values) or "-"


def describe_memory(run: Run, trial: DryRunTimes) -> list[str]:
    """Return the memory that training keeps, and the peaks of a step and an evaluation."""
    trainable = sum(p.nbytes for p in run.model.parameters() if p.requires_grad)
    moments = [x for state in run.optimizer.state.values() for x in state.values()]
    held = {
        "weights": _tensor_bytes(run.model),
        "gradients": trainable,
        "optimiser": sum(x.nbytes for x in moments if isinstance(x, torch.Tensor)),
        "average of the weights": 0 if run.ema is None else _tensor_bytes(run.ema.model),
    }
    text = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in held.items() if size)
    whose, then = "this process without its loaders", "with the evaluation after it"
    if run.world.device.type == "cuda":
        whose, then = "the device", "in the evaluation"
    return [
        text,
        f"peak of {whose}: {trial.step_memory:.2f} GB in the step, "
        f"{trial.evaluation_memory:.2f} GB {then}",
    ]


def _tensor_bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def describe_time(run: Run, trial: DryRunTimes) -> list[str]:
    """Return the time of a step and an evaluation, and an estimate for the whole run."""
    workers, ranks = run.config.data.workers, run.world.size
    period, waiting = step_period(trial.step_seconds, trial.load_seconds, workers)
    per_image = trial.evaluation_seconds / trial.evaluated
    passes = 2 if run.ema is not None else 1
    images = len(run.val.annotations)
    evaluation = passes * per_image * images / ranks
    left = run.schedule.steps - run.progress.step
    training = period * left
    evaluations = count_evaluations(run.schedule.steps, run.schedule.evaluation_interval)
    speed = min(run.config.train.batch_size, run.plan.entries) / period
    where = "" if ranks == 1 else f", the share of one of {ranks} processes"
    return [
        f"step {trial.step_seconds:.3f} s for {plural(trial.images, 'image')}{where}"
        f"{_describe_utilisation(run.work, trial)}",
        f"loading {trial.load_seconds:.3f} s in one process; with data.workers {workers}, training "
        f"waits {waiting:.0%} of its time for data: {speed:.1f} images/s",
        f"evaluation {per_image:.3f} s per image, including loading and scoring",
        f"whole run about {duration(training + evaluations * evaluation)}: {plural(left, 'step')} "
        f"{duration(training)}, {plural(evaluations, 'evaluation')} "
        f"{duration(evaluations * evaluation)}",
    ]


def _describe_utilisation(work: Work | None, trial: DryRunTimes) -> str:
    """Return the step's FLOP/s, and their share of what the device can reach."""
    if work is None:
        return ""
    rate = work.flops_per_pixel * trial.pixels / trial.step_seconds
    return (
        f": {rate / 1e12:.3g} TFLOP/s, {rate / work.attainable:.0%} of the speed of a large matrix "
        "product here"
    )


def step_period(step: float, load: float, workers: int) -> tuple[float, float]:
    """Return the seconds from step to step, and the share of them spent waiting for data.

    Args:
        step: Seconds of computing per step.
        load: Seconds that one process takes to load a step.
        workers: Number of loader processes; with 0, training stops while it loads.
    """
    period = max(step, load / workers) if workers else step + load
    return period, 1 - step / period
