"""From a config or a checkpoint to a run: everything is checked before it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retinanet.config import dump_config, load_config, override_config
from retinanet.engine.checkpoint import Checkpoint, Progress, load_checkpoint
from retinanet.engine.distributed import World, join_world
from retinanet.engine.introduction import describe_resume, introduce
from retinanet.engine.logging import Log
from retinanet.engine.precision import resolve_precision
from retinanet.engine.run import (
    Run,
    checkpoint_size,
    resolve_micro_batch,
    save_last,
    start_run,
)
from retinanet.engine.run_folder import RunFolder, describe_environment, run_folder
from retinanet.engine.splits import (
    Split,
    build_augment,
    open_training_splits,
)
from retinanet.engine.train import is_finished, rehearse, train
from retinanet.engine.transfer import load_matching
from retinanet.errors import TrainingError, UserError
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config

# What a resume may change: where things lie and what they run on, not what is computed.
_HARDWARE = ("data.root", "data.workers", "train.device", "train.micro_batch", "output.")
_LENGTH = ("train.steps", "train.epochs", "train.patience")
_REPORTING = ("train.log_every", "train.checkpoint_every", "eval.")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a finished run lies and how it went."""

    folder: RunFolder
    progress: Progress
    is_main: bool


def train_experiment(
    config: Config,
    *,
    resume: Checkpoint | None = None,
    folder: RunFolder | None = None,
    init_from: Path | None = None,
    dry_run: bool = False,
) -> Outcome | None:
    """Check everything, rehearse on two images, train; return None for a dry run.

    Args:
        config: the experiment; on a resume, the checkpoint's with allowed changes.
        resume: the state to go on from.
        folder: of the run; by default the config's.
        init_from: a checkpoint to take weights from.
        dry_run: stop before the run folder is made.

    Raises:
        UserError: the user's input is wrong; nothing was written.
    """
    folder = folder or run_folder(config)
    if resume is None and not dry_run:
        folder.check_free()
    world = join_world(config.train.device)
    log = Log(active=world.is_main)
    try:
        run, remarks = _prepare(config, folder, world, log, resume=resume, init_from=init_from)
        intro = "\n".join([*introduce(run), *remarks, *describe_resume(run, resume)])
        rehearse(run)
        if dry_run:
            log.say(intro + "\ndry run: training and evaluation of two images went well")
            return None
        if world.is_main:
            folder.create(run.config, run.environment)
            save_last(run)  # from here on there is always a state to resume from
        world.broadcast(None)  # nobody goes on before the folder is there
        log.open(folder.path, step=run.progress.step, evaluated=run.progress.evaluated)
        log.say(intro)
        return Outcome(folder=folder, progress=train(run), is_main=world.is_main)
    except (TrainingError, UserError) as error:
        log.keep(f"error: {error}")
        raise
    finally:
        log.close()
        world.close()


def _prepare(
    config: Config,
    folder: RunFolder,
    world: World,
    log: Log,
    *,
    resume: Checkpoint | None,
    init_from: Path | None,
) -> tuple[Run, list[str]]:
    """Check everything and build the run; return it and what to say about its weights."""
    precision = resolve_precision(config.train.precision, world.device)
    train_split, val_split = open_training_splits(config)
    micro_batch = resolve_micro_batch(config, train_split, world)
    resolved = [f"train.precision={precision}", f"train.micro_batch={micro_batch}"]
    config = override_config(config, resolved)
    build_augment(config)  # a wrong name is the user's mistake: before step 0
    weights = load_checkpoint(init_from) if init_from else None
    model, remarks = _build_model(config, train_split, resume, weights)
    run = start_run(
        config,
        folder=folder,
        train=train_split,
        val=val_split,
        model=model,
        world=world,
        precision=precision,
        log=log,
        environment=describe_environment(world.size, world.device),
        checkpoint=resume,
    )
    if is_finished(run):
        raise UserError(
            f"{folder.path}: the run has already finished: {run.progress.step} of {run.steps} "
            f"steps, {run.progress.stale} evaluations without a better AP. To train on, give a "
            "longer train.steps, train.epochs or train.patience beside --resume"
        )
    if world.is_main:
        folder.check_space(checkpoint_size(run))
    return run, remarks


def _build_model(
    config: Config, split: Split, resume: Checkpoint | None, weights: Checkpoint | None
) -> tuple[Detector, list[str]]:
    """Build the network with its initial weights; return it and what to say about them."""
    torch.manual_seed(config.train.seed)
    categories = split.annotations.categories
    if resume is not None:
        if resume.categories != categories:
            raise UserError(
                f"{split.annotations.path}: its categories differ from the run's: "
                f"{_some(categories.names)} against {_some(resume.categories.names)}"
            )
        if resume.fingerprint != split.annotations.fingerprint:
            raise UserError(
                f"{split.annotations.path}: its images or boxes differ from those that the run was "
                "trained on; start a new run with --init-from instead of --resume"
            )
    if weights is not None:
        _check_same_backbone(config, weights)
    fresh = resume is None and weights is None
    model = build_detector(config, classes=len(categories), pretrained=fresh)
    return model, [] if weights is None else load_matching(model, weights, categories)


def _check_same_backbone(config: Config, weights: Checkpoint) -> None:
    """Refuse weights whose backbone, or what it was fed, is another: they would be noise."""
    ours, theirs = config.model, weights.config.model
    for key in ("backbone", "norm", "stride_in_1x1", "channel_order", "pixel_mean", "pixel_std"):
        if getattr(ours, key) != getattr(theirs, key):
            raise UserError(
                f"--init-from: model.{key} is {getattr(theirs, key)} in the checkpoint but "
                f"{getattr(ours, key)} here; its weights need it as it was: set model.{key}"
            )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", .." if len(names) > 8 else "")


def _check_is_last(path: Path, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Refuse to go back: a run has one history, and what follows a state would be overwritten."""
    if path.absolute() == folder.last or not folder.last.exists():
        return
    further = load_checkpoint(folder.last).progress.step
    if further > checkpoint.progress.step:
        raise UserError(
            f"{path}: is the state after step {checkpoint.progress.step}, but {folder.last} has "
            f"{further}: resume that one, or start a new run from this one with --init-from"
        )


def check_resume(asked: Config, saved: Config) -> None:
    """Refuse a resume whose config is another experiment than the saved one.

    Raises:
        UserError: the options that differ.
    """
    if (asked.train.epochs is None) != (saved.train.epochs is None):
        unit = "epochs" if saved.train.epochs else "steps"
        raise UserError(
            f"--resume: the length of this run is in {unit}, and so are its milestones and "
            f"evaluations; give train.{unit}"
        )
    a, b = _flatten(dump_config(asked)), _flatten(dump_config(saved))
    free = (*_HARDWARE, *_LENGTH, *_REPORTING)
    differing = [
        f"{key}: {a.get(key)} here, {b.get(key)} in the run"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) and not key.startswith(free) and a.get(key) != "auto"
    ]
    if differing:
        raise UserError(
            "--resume continues one experiment, but these options differ from the run's "
            "config.yaml:\n  " + "\n  ".join(differing) + "\nStart a new run with --name, from its "
            "weights with --init-from"
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def resume_experiment(config: Path | None, path: Path | None, overrides: list[str]) -> Outcome:
    """Continue a run from its own checkpoint; a config given beside it must be the same experiment.

    Args:
        config: YAML file, or None: the checkpoint's own config then counts.
        path: run folder or checkpoint, or None: the folder that the config names.
        overrides: changes that a resume allows (longer, elsewhere, other hardware).

    Raises:
        UserError: nothing to resume, another experiment, or a finished run.
    """
    if path is None:
        if config is None:
            raise UserError("--resume needs a run folder, a checkpoint, or a config file")
        path = run_folder(load_config(config, overrides)).path
        if not RunFolder(path).last.exists():
            raise UserError(f"{path}: there is no run to resume; leave --resume out to start one")
    if path.is_dir():
        path = RunFolder(path).last
    checkpoint = load_checkpoint(path)
    folder = RunFolder(path.absolute().parent.parent)
    _check_is_last(path, checkpoint, folder)
    if not folder.config.exists():
        raise UserError(
            f"{path}: does not lie in a run folder, as RUN/checkpoints/last.pt does; to start a "
            "new run from its weights, use --init-from"
        )
    if config is None:
        asked = override_config(checkpoint.config, overrides)
    else:
        asked = load_config(config, overrides)
    check_resume(asked, checkpoint.config)
    # What `auto` was resolved to stays, wherever the run goes on.
    saved = checkpoint.config.train
    kept = [f"train.precision={saved.precision}"]
    if asked.train.micro_batch == "auto":
        kept.append(f"train.micro_batch={saved.micro_batch}")
    outcome = train_experiment(override_config(asked, kept), resume=checkpoint, folder=folder)
    assert outcome is not None
    return outcome
