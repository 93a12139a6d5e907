"""Trainings of the laboratory: one experiment under several losses and seeds.

Each is a run of its own, in a folder of its own. What was finished is kept, what was interrupted
goes on where its last state was saved.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from retinanet.config import load_config, override_config, save_config
from retinanet.engine.agreement import agree
from retinanet.engine.checkpoint import load_checkpoint
from retinanet.engine.distributed import World, join_world
from retinanet.engine.holding import HeldError
from retinanet.engine.launch import train_experiment
from retinanet.engine.resume import experiment
from retinanet.engine.run_folder import RunFolder, run_folder
from retinanet.engine.strip import drop_optimizer
from retinanet.errors import DivergedError, InterruptedRunError, UserError
from retinanet.files import replacing
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
        """Of its run."""
        return run_folder(self.config)

    @property
    def outcome(self) -> Path:
        """What came of it, once it has finished."""
        return self.folder.path / "outcome.json"

    @property
    def weights(self) -> Path:
        """Its final weights."""
        return self.folder.path / "checkpoints" / "final.pt"

    def __str__(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"


def plan_trials(base: Config, variants: list[Variant], *, seeds: int, output: Path) -> list[Trial]:
    """Return the trials, seed by seed: an early end leaves every variant with as many."""
    return [
        Trial(variant=variant, seed=seed, config=_config(base, variant, seed, output))
        for seed in range(seeds)
        for variant in variants
    ]


def _config(base: Config, variant: Variant, seed: int, output: Path) -> Config:
    own = [f"train.seed={seed}", f"output.name=seed_{seed}", "train.snapshot_every=0"]
    own += [f"output.dir={output / 'runs' / variant.name}"]
    return override_config(base, [*variant.options, *own])


def run_trials(base: Config, trials: list[Trial], output: Path) -> list[Trial] | None:
    """Train what has not been trained; return the trials that another process is at.

    With several processes, all but the main one return None.

    Raises:
        UserError: the folder is another experiment's, or this one is wrong.
        TrainingError: a trial failed by more than divergence.
        InterruptedRunError: a signal came; the same command goes on.
    """
    world = join_world(base.train.device)
    busy = []
    try:
        _keep_base(base, output, world)
        for number, trial in enumerate(trials, start=1):
            if world.broadcast(trial.outcome.exists()):
                continue
            if world.is_main:
                print(f"\n== trial {number} of {len(trials)}: {trial} ==", flush=True)
            try:
                _train(trial, world)
            except HeldError as error:
                if world.size > 1:  # this process alone knows
                    raise
                print(f"left to another process: {error}", flush=True)
                busy.append(trial)
    finally:
        world.close()
    return busy if world.is_main else None


def _keep_base(base: Config, output: Path, world: World) -> None:
    """Note the experiment in the laboratory's folder: all its trials are of this one.

    Raises:
        UserError: the folder holds trials of another one, or cannot be written.
    """
    error = None
    if world.is_main:
        try:
            _check_base(base, output)
        except UserError as caught:
            error = caught
        except OSError as caught:
            error = UserError(f"{output}: cannot be written: {caught.strerror}")
    agree(world, error=error, signals=())


def _check_base(base: Config, output: Path) -> None:
    path = output / "config.yaml"
    if (output / "checkpoints").exists():
        raise UserError(f"{output}: is the folder of a run; give another --output")
    begun = any((output / "runs").glob("*/seed_*/checkpoints/*.pt"))
    if not path.exists() or not begun:  # a first try may have ended by a mistake in the options
        output.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_config(base, temporary)
        return
    before, now = experiment(load_config(path)), experiment(base)
    changed = [key for key in now if now[key] != before[key]]
    if changed:
        listed = "\n".join(f"  {key}: {now[key]} here, {before[key]} there" for key in changed)
        raise UserError(
            f"{output}: holds trials of another experiment; give another --output:\n{listed}"
        )


def _train(trial: Trial, world: World) -> None:
    """Train to the end; a loss that diverges is an outcome, too."""
    diverged = None
    try:
        train_experiment(trial.config, world=world, auto_resume=True)
    except DivergedError as error:
        diverged = str(error).partition("\n")[0]  # empty but on rank 0
        if world.is_main:
            print(f"diverged: {diverged}", flush=True)
    except InterruptedRunError as error:
        raise InterruptedRunError(
            error.number, f"{trial}: its state is saved; the same command goes on"
        ) from None
    if world.is_main:
        _finish(trial, diverged)
    world.broadcast(None)  # nobody begins the next one before this one is written


def _finish(trial: Trial, diverged: str | None) -> None:
    """Note the outcome, and drop what only a resume needs: there will be none."""
    checkpoint = load_checkpoint(trial.folder.last)
    drop_optimizer(checkpoint, trial.weights)
    outcome = {
        "variant": trial.variant.name,
        "seed": trial.seed,
        "steps": checkpoint.progress.step,
        "diverged": diverged,
    }
    with replacing(trial.outcome) as temporary:
        temporary.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    trial.folder.last.unlink()
    trial.folder.best.unlink(missing_ok=True)
