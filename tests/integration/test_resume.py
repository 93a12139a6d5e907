"""users.md RS1: a resumed run equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.config import load_config, override_config
from retinanet.engine import train as engine
from retinanet.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

Cli = Callable[..., Any]
Metrics = Callable[[Path], list[dict[str, Any]]]

HARD_KILL = """
import os, signal, sys
from retinanet.cli import main
from retinanet.engine import run as engine

original = engine.learning_rate

def learning_rate(step, **options):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(step, **options)

engine.learning_rate = learning_rate
main(sys.argv[1:])
"""
"""Ends like a power cut in the fifth step: the newest checkpoint is that of step 3."""


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "checkpoints" / "last.pt")


def flatten(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """List (place, leaf) of nested dicts and lists."""
    if isinstance(value, (dict, list, tuple)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from flatten(part, f"{place}/{key}")
    else:
        yield place, value


def assert_same_state(one: Checkpoint, other: Checkpoint) -> None:
    """Compare weights, optimiser state and progress bit for bit."""
    assert one.progress == other.progress
    for part in ("model", "optimizer", "scaler"):
        a, b = (dict(flatten(getattr(state, part))) for state in (one, other))
        assert a.keys() == b.keys()
        for place, value in a.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, b[place]), f"{part}{place}"
            else:
                assert value == b[place], f"{part}{place}"


def assert_same_run(one: Path, other: Path, metrics_of: Metrics) -> None:
    """Compare everything that a run leaves, but for the clock."""
    assert metrics_of(one) == metrics_of(other)
    for name in ("last.pt", "best.pt"):
        a, b = (load_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        assert_same_state(a, b)
    results = "evaluation/results.json"
    assert (one / results).read_bytes() == (other / results).read_bytes()


def signal_in_evaluation(patch: pytest.MonkeyPatch, number: int) -> None:
    """Send this process a signal at the second batch of its next evaluation."""
    original = engine.evaluate

    def evaluate(*arguments: Any, **options: Any) -> Any:
        if "interrupted" not in options:  # the rehearsal
            return original(*arguments, **options)
        calls = iter(range(100))

        def interrupted() -> None:
            if next(calls) == 1:
                os.kill(os.getpid(), number)
            options["interrupted"]()

        return original(*arguments, **{**options, "interrupted": interrupted})

    patch.setattr(engine, "evaluate", evaluate)


def test_after_a_signal(
    interrupted_copy: Path, finished_run: Path, cli: Cli, metrics_of: Metrics
) -> None:
    assert last(interrupted_copy).progress.step == 4
    assert metrics_of(interrupted_copy) == metrics_of(finished_run)[:4]
    ran = cli("train", "--resume", interrupted_copy)
    assert ran.code == 0
    assert "resuming after step 4" in ran.out
    assert_same_run(interrupted_copy, finished_run, metrics_of)


def test_after_a_hard_kill(
    experiment: Path, finished_run: Path, cli: Cli, metrics_of: Metrics
) -> None:
    """What the lost steps wrote is forgotten: nothing stands twice in metrics.jsonl."""
    command = [sys.executable, "-c", HARD_KILL, "train", str(experiment)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = experiment.parent / "runs" / "small"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last.pt"]
    assert last(folder).progress.step == 3
    assert [line["step"] for line in metrics_of(folder)] == [1, 2, 3, 4]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "val/AP": 0.5}\n')  # recorded, but the state was not saved yet
        file.write('{"step": 5, "loss_tr')  # a line cut by the crash
    assert cli("train", experiment, "--resume").code == 0
    assert_same_run(folder, finished_run, metrics_of)


def test_in_the_middle_of_evaluations(
    experiment: Path,
    finished_run: Path,
    cli: Cli,
    metrics_of: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An evaluation that was cut off is made up for, the one after the last step included."""
    folder = experiment.parent / "runs" / "small"
    with monkeypatch.context() as patch:
        signal_in_evaluation(patch, signal.SIGTERM)
        first = cli("train", experiment)
        assert first.code == 143
        assert "stopped: SIGTERM after step 5 of 6: the state is in " in first.err
        assert [line["step"] for line in metrics_of(folder)] == [1, 2, 3, 4, 5]
        again = cli("train", "--resume", folder)
        assert again.code == 143
        assert [line["step"] for line in metrics_of(folder)] == [1, 2, 3, 4, 5]
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_due", final_evaluation_alone(patch))
        assert cli("train", "--resume", folder).code == 143
    progress = last(folder).progress
    assert (progress.step, progress.evaluated) == (6, 5)
    assert cli("train", "--resume", folder).code == 0
    assert_same_run(folder, finished_run, metrics_of)


def final_evaluation_alone(patch: pytest.MonkeyPatch) -> Callable[[Any, int], bool]:
    """Let the evaluation at step 5 pass, and send SIGTERM in that after the last step."""
    original = engine._due

    def due(run: Any, step: int) -> bool:
        if step == run.steps:
            signal_in_evaluation(patch, signal.SIGTERM)
        return original(run, step)

    return due


def test_a_terminal_interrupts_the_whole_group(experiment: Path) -> None:
    """Ctrl-C reaches loader processes, too: the step ends, the state is saved, 130."""
    overrides = ["train.steps=500", "eval.every=0", "data.workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "retinanet", "train", str(experiment), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith("step 1/500") for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    folder = experiment.parent / "runs" / "small"
    step = last(folder).progress.step
    assert err == (
        f"stopped: SIGINT after step {step} of 500: the state is in {folder}/checkpoints/last.pt; "
        f"continue with: retinanet train --resume {folder}\n"
    )
    recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in recorded] == list(range(1, step + 1))


def test_a_finished_run_says_so(finished_run: Path, cli: Cli) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    ran = cli("train", "--resume", finished_run)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {finished_run}: the run has already finished: 6 of 6 steps")
    assert "give a longer train.steps" in ran.err
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


def test_a_finished_run_may_be_made_longer(
    finished_run: Path, cli: Cli, metrics_of: Metrics, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    assert cli("train", "--resume", folder, "train.steps=7").code == 0
    assert last(folder).progress.step == 7
    metrics = metrics_of(folder)
    assert metrics[:8] == metrics_of(finished_run)
    assert [line["step"] for line in metrics[8:]] == [7, 7]
    assert load_config(folder / "config.yaml").train.steps == 7


def test_another_experiment_is_refused(interrupted_run: Path, cli: Cli, experiment: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in interrupted_run.rglob("*")}
    ran = cli("train", "--resume", interrupted_run, "train.lr=0.5", "loss.gamma=1.5")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: --resume continues one experiment, but these options differ from the run's "
        "config.yaml:\n"
        "  loss.gamma: 1.5 here, 2.0 in the run\n"
        "  train.lr: 0.5 here, 0.001 in the run\n"
        "Start a new run with --name, from its weights with --init-from\n"
    )
    config = cli("train", experiment, "--resume", interrupted_run, "data.hflip=0")
    assert config.code == 2
    assert "  data.hflip: 0.0 here, 0.5 in the run\n" in config.err
    assert {path: path.stat().st_mtime_ns for path in interrupted_run.rglob("*")} == before


def test_the_unit_of_the_length_stays(interrupted_run: Path, cli: Cli) -> None:
    """users.md RS1: milestones and evaluations would silently count in the other unit."""
    ran = cli("train", "--resume", interrupted_run, "train.epochs=9", "train.milestones=null")
    assert ran.code == 2
    ran = cli(
        *("train", "--resume", interrupted_run, "train.epochs=9", "train.milestones=null"),
        "eval.every=1",
    )
    assert ran.code == 2
    assert "the length of this run is in steps, and so are its milestones" in ran.err


def test_a_run_does_not_go_back(finished_run: Path, cli: Cli, tmp_path: Path) -> None:
    """What lies after an older state would be overwritten."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    best = folder / "checkpoints" / "best.pt"
    checkpoint = load_checkpoint(best)
    older = dataclasses.replace(checkpoint.progress, step=5)
    save_checkpoint(dataclasses.replace(checkpoint, progress=older), best)
    ran = cli("train", "--resume", best)
    assert ran.code == 2
    assert f"{best}: is the state after step 5, but {folder}/checkpoints/last.pt has 6" in ran.err
    assert last(folder).progress.step == 6


def test_a_longer_schedule_is_announced(interrupted_copy: Path, cli: Cli) -> None:
    """Drops at 2/3 and 8/9 of the length move with it, and the learning rate jumps."""
    words = ["train.steps=30", "train.milestones=null"]
    assert cli("train", "--resume", interrupted_copy, *words).code == 2  # another experiment
    checkpoint = last(interrupted_copy)
    config = override_config(checkpoint.config, ["train.milestones=null"])
    path = interrupted_copy / "checkpoints" / "last.pt"
    save_checkpoint(dataclasses.replace(checkpoint, config=config), path)
    ran = cli("train", "--resume", interrupted_copy, "train.steps=8")
    assert ran.code == 0
    assert "another length moves the schedule: lr is 0.001 from here on, not 0.0001" in ran.out


@pytest.mark.parametrize("part", ["weights", "optimizer", "names"])
def test_a_checkpoint_edited_by_hand(interrupted_copy: Path, cli: Cli, part: str) -> None:
    path = interrupted_copy / "checkpoints" / "last.pt"
    content = torch.load(path, weights_only=True)
    if part == "weights":
        content["model"]["fpn.p7.bias"] = torch.zeros(3)
    elif part == "optimizer":
        content["optimizer"]["param_groups"][0]["params"].pop()
    else:
        content["categories"]["names"].pop()
    torch.save(content, path)
    ran = cli("train", "--resume", interrupted_copy)
    assert ran.code == 2
    assert re.search("do(es)? not fit its own config|a damaged checkpoint", ran.err)


def test_hardware_may_change(
    interrupted_copy: Path,
    finished_run: Path,
    cli: Cli,
    losses_of: Callable[[Path], list[float]],
) -> None:
    """The promise: hardware options change how long it takes, not the losses."""
    hardware = ["data.workers=1", "train.micro_batch=3", "eval.batch_size=3", "eval.every=6"]
    ran = cli("train", "--resume", interrupted_copy, *hardware)
    assert ran.code == 0
    assert losses_of(interrupted_copy) == pytest.approx(losses_of(finished_run), rel=1e-4)
    saved = load_config(interrupted_copy / "config.yaml")
    assert (saved.data.workers, saved.train.micro_batch, saved.eval.every) == (1, 3, 6)


def test_other_annotations_are_refused(
    interrupted_run: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    path = data / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] += 1
    path.write_text(json.dumps(content))
    ran = cli("train", "--resume", interrupted_run, f"data.root={data}")
    assert ran.code == 2
    assert ran.err == (
        f"error: {path}: its images or boxes differ from those that the run was trained on; start "
        "a new run with --init-from instead of --resume\n"
    )


def test_data_may_have_moved(
    interrupted_copy: Path,
    finished_run: Path,
    synthetic: Path,
    cli: Cli,
    metrics_of: Metrics,
    tmp_path: Path,
) -> None:
    """A run is continued by its checkpoint, on data that lies elsewhere now."""
    data = Path(shutil.copytree(synthetic, tmp_path / "moved"))
    checkpoint = interrupted_copy / "checkpoints" / "last.pt"
    assert cli("train", "--resume", checkpoint, f"data.root={data}", "train.steps=5").code == 0
    assert metrics_of(interrupted_copy) == metrics_of(finished_run)[:6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CONFIG", "--resume"], "{runs}/small: there is no run to resume; leave --resume out"),
        (["--resume"], "--resume needs a run folder, a checkpoint, or a config file"),
        (["--resume", "{runs}/gone"], "{runs}/gone: there is no such checkpoint"),
        (["--resume", "{tmp}"], "{tmp}/checkpoints/last.pt: there is no such checkpoint"),
        (["CONFIG", "--resume", "--init-from", "x.pt"], "--resume goes with neither --init-from"),
        (["CONFIG", "--resume", "--dry-run"], "--resume goes with neither --init-from nor --dry"),
    ],
)
def test_nothing_to_resume(experiment: Path, cli: Cli, words: list[str], message: str) -> None:
    places = {"tmp": experiment.parent, "runs": experiment.parent / "runs"}
    resolved = [str(experiment) if w == "CONFIG" else w.format(**places) for w in words]
    ran = cli("train", *resolved)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: " + message.format(**places))
    assert sorted(experiment.parent.iterdir()) == [experiment]


def test_a_checkpoint_outside_a_run_folder_is_not_resumed(
    interrupted_run: Path, cli: Cli, tmp_path: Path
) -> None:
    """It would make a run folder of whatever lies two levels above it."""
    path = tmp_path / "a" / "b" / "state.pt"
    path.parent.mkdir(parents=True)
    path.symlink_to(interrupted_run / "checkpoints" / "last.pt")
    ran = cli("train", "--resume", path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {path}: does not lie in a run folder")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "state.pt"]
