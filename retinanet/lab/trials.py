"""The trainings of the lab: one experiment with several losses and seeds.

Each training is a separate run with its own folder. Finished trainings are kept, and interrupted
ones continue from their last saved state.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from retinanet.checkpoints.format import load_checkpoint
from retinanet.checkpoints.init_from import fingerprint
from retinanet.checkpoints.run_folder import RunFolder, run_folder
from retinanet.checkpoints.run_lock import RunLockedError, run_lock
from retinanet.checkpoints.strip import write_weights
from retinanet.config import load_config, override_config, save_config
from retinanet.distributed.raise_together import agree_on_signal, raise_together
from retinanet.distributed.world import World, joined_world
from retinanet.engine.launch import train_experiment
from retinanet.engine.resume import experiment
from retinanet.engine.splits import build_augment, open_training_splits
from retinanet.errors import DivergedError, InterruptedRunError, UserError
from retinanet.files import replacing
from retinanet.interop.to_checkpoint import read_detector
from retinanet.lab.variants import Variant
from retinanet.schema import Config


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One variant with one seed."""

    variant: Variant
    seed: int
    config: Config

    @property
    def folder(self) -> RunFolder:
        """Its run folder."""
        return run_folder(self.config)

    @property
    def outcome(self) -> Path:
        """Path of the file with its outcome, written when it has finished."""
        return self.folder.path / "outcome.json"

    @property
    def weights(self) -> Path:
        """Path of its final weights."""
        return self.folder.path / "checkpoints" / "final.pt"

    @property
    def lock(self) -> Path:
        """Folder that a process holds locked until the trial has finished."""
        return self.folder.path.with_name(f".{self.folder.path.name}")

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


def plan_trials(base: Config, variants: list[Variant], *, seeds: int, output: Path) -> list[Trial]:
    """Return the trials, seed by seed, so that an early stop leaves all variants with as many.

    Raises:
        UserError: An option could end the trainings early, each at a different step.
    """
    for name in ("patience", "max_minutes"):
        if getattr(base.train, name):
            raise UserError(
                f"train.{name}: {getattr(base.train, name)} could end each training at a different "
                "step, but they are compared at the same one; leave it out, or set "
                f"train.{name}={'0' if name == 'patience' else 'null'}"
            )
    first = base.train.seed
    return [
        Trial(variant=variant, seed=seed, config=_config_of_trial(base, variant, seed, output))
        for seed in range(first, first + seeds)
        for variant in variants
    ]


def _config_of_trial(base: Config, variant: Variant, seed: int, output: Path) -> Config:
    own = [f"train.seed={seed}", f"output.name=seed_{seed}", "train.snapshot_every=0"]
    own += [f"output.dir={output / 'runs' / variant.name}"]
    return override_config(base, [*variant.options, *own])


def run_trials(
    base: Config, trials: list[Trial], output: Path, *, report: Callable[[], None]
) -> list[Trial] | None:
    """Train all trials that have not finished; return those that another process is training.

    With several processes, all but the main one return None.

    Args:
        base: Experiment that the trials share.
        trials: Trials from `plan_trials`.
        output: Folder of the lab.
        report: Function that the main process calls after each trial.

    Raises:
        UserError: The folder belongs to another experiment, or this experiment is invalid.
        TrainingError: A trial failed for a reason other than divergence.
        InterruptedRunError: A signal arrived; the same command continues.
    """
    busy = []
    with joined_world(base.train.device) as world:
        _record_base(base, output, world)
        for number, trial in enumerate(trials, start=1):
            try:
                with ExitStack() as locks:
                    _lock_trial(trial, world, locks)
                    if world.broadcast(trial.outcome.exists()):
                        if world.is_main:
                            _remove_training_states(trial)
                        continue
                    if world.is_main:
                        print(f"\n== trial {number} of {len(trials)}: {trial} ==", flush=True)
                    _train(trial, world, report)
            except RunLockedError as error:
                if world.is_main:
                    print(f"left to another process: {error}", flush=True)
                busy.append(trial)
    return busy if world.is_main else None


def _record_base(base: Config, output: Path, world: World) -> None:
    """Record the experiment in the lab folder, which holds trials of only one experiment.

    Raises:
        UserError: The folder has trials of another experiment, or cannot be written.
    """
    error = None
    if world.is_main:
        try:
            _write_or_compare_base(base, _fingerprints(base), output)
        except UserError as caught:
            error = caught
        except OSError as caught:
            error = UserError(f"{output}: cannot be written: {caught.strerror}")
    raise_together(world, error=error)


def _fingerprints(base: Config) -> dict[str, str]:
    """Return the fingerprints of the data and of the first weights, after checking all of them."""
    build_augment(base)  # only to check that it can be built
    splits = zip(("train", "val"), open_training_splits(base), strict=True)
    found = {name: split.annotations.fingerprint for name, split in splits}
    if base.model.init_from is not None:
        start, _ = read_detector(Path(base.model.init_from).expanduser())
        found["init_from"] = fingerprint(start.weights)
    return found


def _write_or_compare_base(base: Config, data: dict[str, str], output: Path) -> None:
    """Write the experiment to a new folder, or compare it with the one in the folder."""
    path, data_path = output / "config.yaml", output / "data.json"
    if not (output / "runs").exists():
        if output.exists() and any(output.iterdir()):
            raise UserError(f"{output}: the folder contains other files; choose another --output")
        (output / "runs").mkdir(parents=True)
    for file, write in (
        (path, partial(save_config, base)),
        (data_path, partial(_write_json, data)),
    ):
        if not file.exists():
            with replacing(file, unique=True) as temporary:
                write(temporary)
    before, now = experiment(load_config(path)), experiment(base)
    changed = [key for key in now if now[key] != before[key]]
    lines = [f"  {key}: {now[key]} here, {before[key]} there" for key in changed]
    if _read_data_file(data_path) != data:
        lines.append("  different images, boxes or weights to start from")
    if lines:
        raise UserError(
            f"{output}: has trials of another experiment; choose another --output:\n"
            + "\n".join(lines)
        )


def _read_data_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(
            f"{path}: is damaged; remove it if the data are the same as for the trials beside it"
        ) from None


def _write_json(values: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _lock_trial(trial: Trial, world: World, locks: ExitStack) -> None:
    """Keep other processes away from a trial while `locks` are held.

    Raises:
        RunLockedError: Another process is training it.
        UserError: The folder cannot be written.
    """
    error = None
    try:
        locks.enter_context(run_lock(trial.lock, active=world.is_main))
    except UserError as caught:
        error = caught
    raise_together(world, error=error)


def _train(trial: Trial, world: World, report: Callable[[], None]) -> None:
    """Train to the end; a loss that diverges also counts as an outcome."""
    if trial.config.train.compile or trial.config.train.compile_loss:
        torch.compiler.reset()  # it keeps only a few versions of a function, then gives up
    diverged, number = None, 0
    try:
        outcome = train_experiment(trial.config, world=world, auto_resume=True)
        assert outcome is not None
        number = outcome.signal
    except DivergedError as error:
        diverged = str(error).partition("\n")[0]  # empty except on rank 0
        if world.is_main:
            print(f"diverged: {diverged}", flush=True)
    except InterruptedRunError as error:
        raise InterruptedRunError(
            error.number,
            f"{signal.Signals(error.number).name} in {trial}: its state is saved; run the same "
            "command again to continue",
        ) from None
    if world.is_main:
        _record_outcome(trial, diverged)
        report()
    # No process starts the next one before this one is written.
    if number := agree_on_signal(world, number):
        raise InterruptedRunError(
            number,
            f"{signal.Signals(number).name} after {trial}; run the same command again to continue",
        )


def _record_outcome(trial: Trial, diverged: str | None) -> None:
    """Write the outcome; keep only the final weights beside it."""
    checkpoint = load_checkpoint(trial.folder.last)
    write_weights(checkpoint, trial.weights)
    # After a divergence this is the step of the last good state.
    steps = checkpoint.progress.step
    with replacing(trial.outcome) as temporary:
        _write_json({"seed": trial.seed, "steps": steps, "diverged": diverged}, temporary)
    _remove_training_states(trial)


def _remove_training_states(trial: Trial) -> None:
    """Remove the checkpoints for a resume; an earlier process may have been killed before this."""
    for path in (trial.folder.best, trial.folder.last):
        path.unlink(missing_ok=True)
