"""Start or resume a run: everything is checked before training begins."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from retinanet.checkpoints.environment import command_line, describe_environment, launcher
from retinanet.checkpoints.format import Checkpoint, Progress
from retinanet.checkpoints.init_from import check_same_network, fingerprint, load_matching
from retinanet.checkpoints.run_folder import RunFolder, run_folder
from retinanet.checkpoints.run_lock import run_lock
from retinanet.config import follow_config, load_config, override_config
from retinanet.distributed.compiler import resolve_compile_loss
from retinanet.distributed.device import has_own_memory
from retinanet.distributed.precision import resolve_precision, set_numerics
from retinanet.distributed.read_once import do_together, read_once, read_once_a_machine, send
from retinanet.distributed.signals import collect_signals, ignored_signals
from retinanet.distributed.world import Device, World, joined_world
from retinanet.engine.find_state import (
    SavedRun,
    find_run,
    has_state,
    new_run_command,
    read_saved_run,
    was_begun_by,
)
from retinanet.engine.logs.log import Log, print_line
from retinanet.engine.preflight.advice import advise
from retinanet.engine.preflight.dry_run import try_first_step
from retinanet.engine.preflight.grid_check import check_training_grids
from retinanet.engine.preflight.loader_limits import check_training_loaders
from retinanet.engine.preflight.micro_batch import fit_micro_batch, resolve_micro_batch
from retinanet.engine.preflight.process_checks import (
    check_every_rank_has_images,
    check_ranks_agree,
    check_sync_bn,
)
from retinanet.engine.preflight.rehearsal import rehearse
from retinanet.engine.preflight.summary import summarize_run
from retinanet.engine.resume import Resume, plan_resume
from retinanet.engine.resume_checks import check_data, check_rates, describe_resume
from retinanet.engine.run import Run, checkpoint_size, start_run, state
from retinanet.engine.schedule import build_schedule
from retinanet.engine.splits import (
    Split,
    build_augment,
    check_places,
    open_training_splits,
)
from retinanet.engine.train import is_finished, train
from retinanet.errors import TrainingError, UserError, plural
from retinanet.interop.to_checkpoint import read_detector
from retinanet.model.detector import Detector, build_detector
from retinanet.schema import Config
from retinanet.schema.no_effect import options_without_effect


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Folder and progress of a run that has ended."""

    folder: RunFolder
    progress: Progress
    is_main: bool
    signal: int = 0
    """Number of a signal that came after the last step; 0 for none."""


def train_experiment(
    config: Config,
    *,
    dry_run: bool = False,
    auto_resume: bool = False,
    allow_changes: bool = False,
    world: World | None = None,
    source: Path | None = None,
    overrides: Sequence[str] = (),
    say: Callable[[str], object] | None = print_line,
) -> Outcome | None:
    """Check everything, rehearse on two images, and train; return None for a dry run.

    If this launch of torchrun began the run itself, the run continues: torchrun has restarted its
    processes.

    Args:
        config: The experiment.
        dry_run: Take one step and evaluate one batch, describe the run, and stop.
        auto_resume: Continue the run in the config's folder, if there is one.
        allow_changes: Continue it even as another experiment.
        world: A world that the caller has joined and will leave; None joins one for this run.
        source: File of the config, for messages.
        overrides: Overrides (`section.key=value`) of the config, for messages.
        say: Called with each line of the log; None prints nothing.

    Raises:
        UserError: The user's input is wrong; nothing was written.
    """
    folder = run_folder(config)
    with joined_world(config.train.device, world) as joined:
        launchers = joined.gather(launcher())
        saved = read_once(
            joined,
            lambda: find_run(folder, launchers=launchers, dry_run=dry_run, auto_resume=auto_resume),
        )
        if saved is not None:
            resume = do_together(
                joined,
                lambda: plan_resume(
                    saved,
                    given=config,
                    source=source,
                    overrides=overrides,
                    allow_changes=allow_changes,
                ),
            )
            return _check_and_train(
                resume.config, resume.folder, joined, resume=resume, finished_is_fine=True, say=say
            )
        weights = None
        if config.model.init_from is not None:
            start = Path(config.model.init_from).expanduser()
            weights = read_once(joined, lambda: read_detector(start))
        return _check_and_train(config, folder, joined, weights=weights, dry_run=dry_run, say=say)


def resume_experiment(
    config: Path | None,
    path: Path | None,
    overrides: list[str],
    *,
    allow_changes: bool = False,
    say: Callable[[str], object] | None = print_line,
) -> Outcome:
    """Continue a run from its own checkpoint; a config given with it must be the same experiment.

    Args:
        config: YAML file; None uses the checkpoint's own config.
        path: Run folder or checkpoint; None uses the folder that the config names.
        overrides: Changes that a resume allows (length, paths, hardware).
        allow_changes: Continue even as another experiment.
        say: Called with each line of the log; None prints nothing.

    Raises:
        UserError: There is nothing to resume, it is another experiment, or the run has finished.
    """
    given = load_config(config, overrides) if config else None
    saved: SavedRun | None = None

    def plan(run: SavedRun) -> Resume:
        return plan_resume(
            run, given=given, source=config, overrides=overrides, allow_changes=allow_changes
        )

    def read_device() -> Device:
        """Return what only the run's files say: the device that the processes join with."""
        nonlocal saved
        place = path or _folder_to_resume(given).path
        is_restart = was_begun_by([launcher()], RunFolder(place))
        saved = read_saved_run(place, is_restart=is_restart)
        return plan(saved).config.train.device

    with joined_world(read_device) as world:
        run = send(world, saved)
        assert run is not None
        resume = do_together(world, lambda: plan(run))
        outcome = _check_and_train(resume.config, resume.folder, world, resume=resume, say=say)
    assert outcome is not None
    return outcome


def _folder_to_resume(given: Config | None) -> RunFolder:
    """Return the folder that a config names.

    Raises:
        UserError: There is no config, or no run in the folder.
    """
    if given is None:
        raise UserError("--resume needs a run folder, a checkpoint, or a config file")
    folder = run_folder(given)
    if not has_state(folder):
        raise UserError(
            f"{folder.path}: there is no run to resume; leave --resume out to start one"
        )
    return folder


def _check_and_train(
    config: Config,
    folder: RunFolder,
    world: World,
    *,
    say: Callable[[str], object] | None,
    resume: Resume | None = None,
    weights: tuple[Checkpoint, list[str]] | None = None,
    dry_run: bool = False,
    finished_is_fine: bool = False,
) -> Outcome | None:
    """Check everything, rehearse, and train; or try only the first step."""
    started = time.monotonic()
    restore_numerics = set_numerics(config.train, world.device)
    log = Log(active=world.is_main, say=say)
    try:
        run, remarks = _prepare(config, folder, world, log, resume=resume, weights=weights)
        if resume is not None:
            before = build_schedule(
                resume.checkpoint.config, steps_per_epoch=run.plan.steps_per_epoch
            )
            resume = check_rates(resume, before, run.schedule)
            run.environment["changed"] = resume.all_broken
            run.environment["options_changed"] = resume.all_options
            remarks += describe_resume(resume, before, run.schedule, run.environment)
        if is_finished(run):
            _say_finished(run, is_fine=finished_is_fine)
            return Outcome(folder=folder, progress=run.progress, is_main=world.is_main)
        intro = "\n".join([*summarize_run(run), *options_without_effect(run.config), *remarks])
        rehearse(run)
        if dry_run:
            lines = [intro, *try_first_step(run)]
            if has_state(folder):  # what a launch would refuse
                lines.append(
                    f"there is already a run in {folder.path}: use another --name to start a new "
                    "one, or --resume to continue it"
                )
            log.say("\n".join(lines))
            return None
        with run_lock(folder.path, active=world.is_main):
            _begin_run(
                run,
                "\n".join([intro, *_describe_ignored_signals()]),
                keep_config=resume is not None and resume.keeps_config,
            )
            with collect_signals() as signals, world.leaving_together(), run.saver:
                progress = train(run, signals, started=started)
        return Outcome(
            folder=folder, progress=progress, is_main=world.is_main, signal=signals.number
        )
    except (TrainingError, UserError) as error:
        log.keep(f"error: {error}")
        raise
    finally:
        log.close()
        restore_numerics()


def _prepare(
    config: Config,
    folder: RunFolder,
    world: World,
    log: Log,
    *,
    resume: Resume | None,
    weights: tuple[Checkpoint, list[str]] | None,
) -> tuple[Run, list[str]]:
    """Check everything and build the run; return it and notes about its weights."""
    start, remarks = weights or (None, [])
    if start is not None:
        config, adopted = follow_config(config, start.config, source="--init-from")
        remarks = [f"start from {config.model.init_from}", *remarks]
        remarks += [f"  options taken from it: {' '.join(adopted)}"] if adopted else []
        check_same_network(config, start)
    check_every_rank_has_images(config, world)
    precision = resolve_precision(config.train.precision, world.device)
    train_split, val_split = read_once_a_machine(
        world, lambda: _open_splits(config, is_resume=resume is not None)
    )
    asked = config.train.micro_batch
    micro_batch = resolve_micro_batch(config, train_split, world)
    compile_loss = resolve_compile_loss(config.train, world.device)
    resolved = [
        f"train.precision={precision}",
        f"train.compile_loss={json.dumps(compile_loss)}",
        f"train.micro_batch={micro_batch}",
    ]
    config = override_config(config, resolved)
    build_augment(config)  # so that a wrong name is refused before step 0
    check_training_grids(config, train_split, val_split)
    if resume is not None:
        check_data(resume, train_split, val_split)
    check_ranks_agree(world, config, train_split, val_split)
    model, matched = _build_model(config, train_split, start, fresh=resume is None)
    remarks += matched
    run = start_run(
        config,
        folder=folder,
        train=train_split,
        val=val_split,
        model=model,
        world=world,
        precision=precision,
        log=log,
        environment={
            **describe_environment(world.size, world.device),
            "launchers": sorted({*world.gather(launcher())} - {None}),
            "val_fingerprint": val_split.annotations.fingerprint,
            "init_from": _fingerprint_of_start(start, resume),
        },
        checkpoint=resume.checkpoint if resume else None,
    )
    if resume is None:
        remarks.append(advise(config, run.plan.entries, start))
    if world.is_main:
        folder.check_space(
            checkpoint_size(run),
            snapshots=config.train.keep_snapshots if config.train.snapshot_every else 0,
        )
    if has_own_memory(world.device):
        remarks += fit_micro_batch(run, asked=asked)
    check_sync_bn(run.config, world)
    remarks += check_training_loaders(run.config, train_split, val_split, world)
    return run, remarks


def _open_splits(config: Config, *, is_resume: bool) -> tuple[Split, Split]:
    if is_resume:
        check_places(config, ("train", "val"))
    return open_training_splits(config)


def _fingerprint_of_start(start: Checkpoint | None, resume: Resume | None) -> object:
    """Return the fingerprint of the weights that a run started from; None if it named none."""
    if resume is not None:
        return resume.checkpoint.environment.get("init_from")
    return fingerprint(start.weights) if start is not None else None


def _build_model(
    config: Config, split: Split, weights: Checkpoint | None, *, fresh: bool
) -> tuple[Detector, list[str]]:
    """Build the network with its initial weights; return it and notes about them."""
    torch.manual_seed(config.train.seed)
    categories = split.annotations.categories
    pretrained = fresh and weights is None
    model = build_detector(config, classes=len(categories), pretrained=pretrained)
    if weights is None:
        return model, []
    return model, load_matching(model, weights, categories, config.anchors)


def _say_finished(run: Run, *, is_fine: bool) -> None:
    """Report that the run has finished: fine for a scheduler that restarts jobs, else an error.

    Raises:
        UserError: Not `is_fine`: the user asked for more training.
    """
    step, steps = run.progress.step, run.schedule.steps
    stale = f", {plural(run.progress.stale, 'evaluation')} without a better AP"
    train = run.config.train
    unit, length = ("epochs", train.epochs) if train.epochs else ("steps", train.steps)
    resume = ("train", "--resume", run.folder.path)
    longer = [f"train.{unit}={2 * (length or 1)}"]
    keeps_drops = run.schedule.option_that_keeps_drops()
    if train.milestones is None and keeps_drops:  # the drops would move with the length
        longer.append(keeps_drops)
    remedy = f"give a longer train.{unit}: {command_line(*resume, *longer)}"
    if step < steps:
        remedy = (
            f"give a larger train.patience, or none: {command_line(*resume, 'train.patience=0')}"
        )
    elif keeps_drops is None:  # another length would change the rates of the first steps
        remedy = f"start a new run from its weights: {new_run_command(run.folder, run.folder.best)}"
    text = (
        f"{run.folder.path}: the run has already finished: {step} of {steps} "
        f"steps{stale if run.config.train.patience else ''}. To continue training, {remedy}"
    )
    if not is_fine:
        raise UserError(text)
    run.log.say(text)


def _describe_ignored_signals() -> list[str]:
    """Return a note about signals that do not reach a run started in the background."""
    ignored = ignored_signals()
    if signal.SIGINT not in ignored:
        return []
    text = "Ctrl-C will not reach this run, which was started in the background"
    if signal.SIGTERM not in ignored:
        text += f"; to stop it with its state saved: kill {os.getpid()}"
    return [text]


def _begin_run(run: Run, intro: str, *, keep_config: bool) -> None:
    """Create the folder and write the first checkpoint, so that a run can always be resumed."""
    if run.world.is_main:
        run.folder.create(run.config, run.environment, keep_config=keep_config)
        run.saver.save(state(run), run.folder.last)
        run.saver.finish()
    run.world.broadcast(None)  # no process continues before the folder exists
    run.log.open(run.folder.path, step=run.progress.step, evaluated=run.progress.evaluated)
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    run.log.keep(f"--- {now}: {run.environment['command']}")
    run.log.say(intro)
