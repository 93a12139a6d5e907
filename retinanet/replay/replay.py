"""Repeat one step of a run, given only its number, and report everything that happens in it.

Training is reproducible bit for bit. So any state can be reached from the newest checkpoint before
it, by repeating the steps in between. The run folder is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from retinanet.checkpoints.environment import describe_environment
from retinanet.checkpoints.format import Checkpoint, load_checkpoint
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import override_config
from retinanet.data.loader import RankStep
from retinanet.distributed.compiler import has_compiler
from retinanet.distributed.precision import inference_precision, set_numerics
from retinanet.distributed.world import World, joined_world
from retinanet.doctor.pictures import draw_step
from retinanet.engine.logs.log import Log
from retinanet.engine.preflight.loader_limits import check_training_loaders
from retinanet.engine.preflight.micro_batch import resolve_micro_batch
from retinanet.engine.run import Run, load_steps, start_run, state
from retinanet.engine.splits import Split, check_places, open_split
from retinanet.engine.step import take_step
from retinanet.errors import TrainingError, UserError, plural
from retinanet.model.detector import build_detector
from retinanet.replay.step_probe import StepProbe, probe_step
from retinanet.replay.step_report import describe_step
from retinanet.schema import Config

CHANGEABLE = (
    *("data.root", "data.train.annotations", "data.train.images", "data.find_images"),
    *("data.workers", "train.device", "train.micro_batch"),
)
"""Options that a replay may change: the location of the data, and the device."""


def replay(
    path: Path, step: int, overrides: Sequence[str], *, pictures: Path | None
) -> Iterator[str]:
    """Repeat a step of a run; yield lines of the report as they become known.

    Args:
        path: Path of the run folder.
        step: Number of the step, from 1.
        overrides: Options `section.key=value`; see `CHANGEABLE`.
        pictures: Folder for pictures of the step's images.

    Raises:
        UserError: There is no such run or step, no checkpoint before the step, the data differ, or
            an option is invalid.
    """
    folder = RunFolder(path)
    if step < 1:
        raise UserError(f"--step {step}: steps count from 1, as in the log")
    start, checkpoint, newest, damaged = _find_start(folder, step)
    config = _override_config(checkpoint.config, overrides)
    turns = _turns_between(checkpoint, newest, step)
    with joined_world(config.train.device) as world:
        if world.size > 1:
            raise UserError(
                "replay runs in one process, even if the run uses several: start it without "
                "torchrun"
            )
        run = _rebuild(config, checkpoint, folder, world)
        turned = [f"resumed after step {after} with {' '.join(words)}" for after, words in turns]
        for after, words in turns:
            if after > run.progress.step:
                _take_steps(run, after)
                run.progress = replace(run.progress, step=after)
            config = override_config(config, words)
            run = _rebuild(config, state(run), folder, world)
        if step > run.schedule.steps:
            raise UserError(f"--step {step}: the run has only {plural(run.schedule.steps, 'step')}")
        yield f"step {step} of {run.schedule.steps} of {folder.path}"
        yield from check_training_loaders(run.config, run.train, None, world)
        yield from (f"{name}: damaged; skipped" for name in damaged)
        yield from _describe_start(run, checkpoint, start, step, newest.progress.step)
        yield from (f"the run was {text}" for text in turned)
        probe, rank_step = _take_steps(run, step)
        yield from describe_step(run, probe, rank_step)
        if pictures is not None:
            names = run.train.annotations.categories.names
            failures: list[str] = []
            for written in draw_step(config, probe.batches, step, names, pictures, failures):
                yield f"wrote {written}"
            yield from failures


def _turns_between(start: Checkpoint, newest: Checkpoint, step: int) -> list[tuple[int, list[str]]]:
    """Return the resumes between a state and a step that changed the run's options.

    Returns:
        The step after which each happened, and the options as `section.key=value`.
    """
    known = len(start.environment.get("options_changed", []))
    later = newest.environment.get("options_changed", [])[known:]
    return [
        (int(turn["after_step"]), [str(word) for word in turn["options"]])
        for turn in later
        if turn["after_step"] < step
    ]


def _find_start(folder: RunFolder, step: int) -> tuple[Path, Checkpoint, Checkpoint, list[str]]:
    """Return the newest intact checkpoint before a step.

    Returns:
        Path and content of that checkpoint, the newest checkpoint of all, and the names of
        damaged files.

    Raises:
        UserError: There is no such checkpoint.
    """
    if not folder.last.parent.is_dir():
        raise UserError(f"{folder.path}: is not a run folder; give one, such as runs/first")
    best: tuple[Path, Checkpoint] | None = None
    newest: Checkpoint | None = None
    damaged: list[str] = []
    states: dict[int, str] = {}
    for path in sorted(folder.last.parent.glob("*.pt"), key=lambda p: (p != folder.last, p.name)):
        try:
            checkpoint = load_checkpoint(path)
        except UserError:
            damaged.append(path.name)
            continue
        reached = checkpoint.progress.step
        if checkpoint.optimizer is None:  # stripped
            continue
        states.setdefault(reached, path.name)
        if newest is None or reached > newest.progress.step:
            newest = checkpoint
        if reached < step and (best is None or reached > best[1].progress.step):
            best = path, checkpoint
    if best is None or newest is None:
        raise UserError(_describe_missing_start(folder, step, states, damaged))
    return *best, newest, damaged


def _describe_missing_start(
    folder: RunFolder, step: int, states: dict[int, str], damaged: list[str]
) -> str:
    """Explain why a step cannot be replayed, and which ones can."""
    if not states:
        hint = f" ({', '.join(damaged)}: damaged)" if damaged else ""
        return f"{folder.last.parent}: there is no checkpoint to start from{hint}"
    oldest = min(states)
    return (
        f"--step {step}: the oldest saved state is the one after step {oldest} ({states[oldest]}); "
        "only later steps can be replayed. Train with train.snapshot_every and "
        "train.keep_snapshots=0 to keep earlier states"
    )


def _override_config(config: Config, overrides: Sequence[str]) -> Config:
    for text in overrides:
        if text.partition("=")[0].strip() not in CHANGEABLE:
            raise UserError(
                f"{text}: a replay uses the run's own options; only these can be changed: "
                f"{', '.join(CHANGEABLE)}"
            )
    # Compiled code cannot be inspected.
    return override_config(config, [*overrides, "train.compile=false"])


def _rebuild(config: Config, checkpoint: Checkpoint, folder: RunFolder, world: World) -> Run:
    """Return the run as it was when a checkpoint was written."""
    set_numerics(config.train, world.device)
    check_places(config, ["train"])
    split = open_split(config, "train")
    _check_data(split, checkpoint)
    precision = inference_precision(config.train.precision, world.device)
    micro_batch = resolve_micro_batch(config, split, world)
    compile_loss = config.train.compile_loss is True and has_compiler(world.device)
    resolved = [
        f"train.micro_batch={micro_batch}",
        f"train.compile_loss={str(compile_loss).lower()}",
    ]
    config = override_config(config, resolved)
    run = start_run(
        config,
        folder=folder,
        train=split,
        val=split,  # nothing is evaluated
        model=build_detector(config, classes=len(checkpoint.categories), pretrained=False),
        world=world,
        precision=precision,
        log=Log(active=False),
        environment=describe_environment(world.size, world.device),
        checkpoint=checkpoint,
    )
    run.model.train()
    return run


def _check_data(split: Split, checkpoint: Checkpoint) -> None:
    if (split.annotations.categories, split.annotations.fingerprint) != (
        checkpoint.categories,
        checkpoint.fingerprint,
    ):
        raise UserError(
            f"{split.annotations.path}: its classes, images or boxes differ from those that the "
            "run was trained on; the step cannot be replayed"
        )


def _describe_start(
    run: Run, checkpoint: Checkpoint, start: Path, step: int, newest_step: int
) -> Iterator[str]:
    before = step - 1 - checkpoint.progress.step
    yield f"from {start}, the state after step {checkpoint.progress.step}" + (
        f"; {plural(before, 'step')} repeated in between" if before else ""
    )
    if step > newest_step:
        yield f"no checkpoint has come this far yet (the newest is from after step {newest_step})"
    options, saved = run.config.train, checkpoint.config.train
    here = run.environment | {"precision": run.precision}
    there = checkpoint.environment | {"precision": saved.precision}
    here |= {"compile": options.compile, "compile_loss": options.compile_loss}
    there |= {"compile": saved.compile, "compile_loss": saved.compile_loss}
    keys = ("device", "processes", "threads", "torch", "precision", "compile", "compile_loss")
    differing = [
        f"{key} {there.get(key)}, here {here[key]}" for key in keys if there.get(key) != here[key]
    ]
    if differing:
        yield (
            f"the run used different hardware or settings ({'; '.join(differing)}): results may "
            "differ slightly"
        )


def _take_steps(run: Run, step: int) -> tuple[StepProbe, RankStep]:
    """Take the steps up to `step`, and probe that one."""
    for rank_step in load_steps(run, stop=step, workers=run.config.data.workers):
        if not rank_step.images:
            raise TrainingError(f"step {rank_step.step + 1}: none of its images could be read")
        if rank_step.step + 1 < step:
            take_step(run, rank_step, positives=rank_step.positives, images=rank_step.images)
            run.progress = replace(run.progress, step=rank_step.step + 1)
            continue
        bad = run.guard.read().step
        if bad is not None:
            raise UserError(
                f"--step {step}: a loss or gradient is not finite at step {bad + 1}, and no update "
                f"follows it; replay that one: --step {bad + 1}"
            )
        with probe_step(run) as probe:
            take_step(run, rank_step, positives=rank_step.positives, images=rank_step.images)
    return probe, rank_step
