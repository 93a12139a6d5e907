"""What a resume may change, what it refuses, and the messages."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from same_run import run_differences

from retinanet.checkpoints.format import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.config import load_config, override_config, save_config

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
Metrics = Callable[[Path], list[dict[str, Any]]]


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "checkpoints" / "last.pt")


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
    """Here by an edit of its config.yaml, which stays as it was typed."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    config = folder / "config.yaml"
    edited = config.read_text().replace("  steps: 6\n", "  steps: 7  # longer\n")
    config.write_text(edited)
    ran = cli("train", "--resume", folder)
    assert ran.code == 0
    assert (
        f"using the options of {config} (the file was edited), except for those of the" in ran.out
    )
    assert "\n  train.steps: 6 -> 7\n" in ran.out
    assert config.read_text() == edited
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
        "error: --resume continues one experiment, but these options differ from the run's:\n"
        "  loss.gamma: 1.5 here, 2.0 in the run\n"
        "  train.lr: 0.5 here, 0.001 in the run\n"
        "To start a new run with these options, from the weights of this run: retinanet train "
        f"{interrupted_run}/config.yaml output.dir={interrupted_run.parent} train.lr=0.5 "
        f"loss.gamma=1.5 --init-from {interrupted_run}/checkpoints/last.pt --name interrupted-2\n"
        f"To resume anyway: retinanet train --resume {interrupted_run} train.lr=0.5 "
        "loss.gamma=1.5 --allow-changes\n"
    )
    config = cli("train", experiment, "--resume", interrupted_run, "data.hflip=0")
    assert config.code == 2
    assert "  data.hflip: 0.0 here, 0.5 in the run\n" in config.err
    assert {path: path.stat().st_mtime_ns for path in interrupted_run.rglob("*")} == before


def test_the_unit_of_the_length_stays(interrupted_run: Path, cli: Cli) -> None:
    """Milestones and evaluations would silently count in the other unit."""
    ran = cli("train", "--resume", interrupted_run, "train.epochs=9", "train.milestones=null")
    assert ran.code == 2
    ran = cli(
        *("train", "--resume", interrupted_run, "train.epochs=9", "train.milestones=null"),
        "eval.every=1",
    )
    assert ran.code == 2
    assert "this run counts its length, milestones and evaluations in steps" in ran.err


def test_a_run_does_not_go_back(finished_run: Path, cli: Cli, tmp_path: Path) -> None:
    """Later records and checkpoints would be overwritten."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    best = folder / "checkpoints" / "best.pt"
    checkpoint = load_checkpoint(best)
    older = dataclasses.replace(checkpoint.progress, step=5)
    save_checkpoint(dataclasses.replace(checkpoint, progress=older), best)
    ran = cli("train", "--resume", best)
    assert ran.code == 2
    assert (
        f"{best}: is the state after step 5, but {folder}/checkpoints/last.pt is newer (step 6)"
        in ran.err
    )
    assert f"start a new run from this one: retinanet train {folder}/config.yaml" in ran.err
    assert last(folder).progress.step == 6


def rewrite(folder: Path, **parts: Any) -> None:
    """Put other parts into a run's last state."""
    path = folder / "checkpoints" / "last.pt"
    checkpoint = dataclasses.replace(load_checkpoint(path), **parts)
    save_checkpoint(checkpoint, path)
    save_config(checkpoint.config, folder / "config.yaml")


@pytest.fixture
def drops_follow(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run whose lr drops at 2/3 and 8/9 of its length: at 4 and 5."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "drops"))
    rewrite(folder, config=override_config(last(folder).config, ["train.milestones=null"]))
    return folder


def test_a_longer_schedule_is_announced(interrupted_copy: Path, cli: Cli) -> None:
    """Drops at 2/3 and 8/9 of the length move with it, but none of them was used."""
    config = override_config(last(interrupted_copy).config, ["train.milestones=null"])
    rewrite(interrupted_copy, config=config)
    ran = cli("train", "--resume", interrupted_copy, "train.steps=8")
    assert ran.code == 0
    assert "\n  train.steps: 6 -> 8\n" in ran.out
    assert "the new length changes the schedule: lr at step 5 is 0.001, not 0.0001" in ran.out


def test_a_length_that_moves_used_rates_is_refused(drops_follow: Path, cli: Cli) -> None:
    """The first step that would have been another is named, with both rates."""
    before = (drops_follow / "checkpoints" / "last.pt").read_bytes()
    ran = cli("train", "--resume", drops_follow, "train.steps=12")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: --resume: train.steps: 6 -> 12 would change the learning rate of past steps: "
        "step 5 was trained at 0.0001, but would now have 0.001. Add 'train.milestones=[4, 5]' to "
        "keep its drops, or start a new run from its weights: retinanet train "
        f"{drops_follow}/config.yaml output.dir={drops_follow.parent} train.steps=12 --init-from "
        f"{drops_follow}/checkpoints/last.pt --name drops-2; or resume anyway: retinanet train "
        f"--resume {drops_follow} train.steps=12 --allow-changes\n"
    )
    assert (drops_follow / "checkpoints" / "last.pt").read_bytes() == before
    kept = cli("train", "--resume", drops_follow, "train.steps=7", "train.milestones=[4, 5]")
    assert kept.code == 0
    assert "\n  train.milestones: null -> [4, 5]\n  train.steps: 6 -> 7\n" in kept.out
    assert "changed experiment" not in kept.out


def test_milestones_alone_do_not_change(interrupted_copy: Path, cli: Cli) -> None:
    ran = cli("train", "--resume", interrupted_copy, "train.milestones=[5]")
    assert ran.code == 2
    assert "\n  train.milestones: [5] here, [4] in the run\n" in ran.err


def test_a_cosine_has_no_drops_to_keep(drops_follow: Path, cli: Cli) -> None:
    config = override_config(last(drops_follow).config, ["train.schedule=cosine"])
    rewrite(drops_follow, config=config)
    ran = cli("train", "--resume", drops_follow, "train.steps=12")
    assert ran.code == 2
    assert "step 2 was trained at 0.000467, but would now have 0.000492. Start a new run" in ran.err


def test_a_broken_promise_is_kept_in_the_run(drops_follow: Path, cli: Cli) -> None:
    words = ["train.steps=7", "train.lr=0.0005", "--allow-changes"]
    ran = cli("train", "--resume", drops_follow, *words)
    assert ran.code == 0
    broken = [
        "changed experiment (--allow-changes): train.lr: 0.001 -> 0.0005\n",
        "changed experiment (--allow-changes): train.steps: 6 -> 7\n",
    ]
    log = (drops_follow / "train.log").read_text()
    assert all(line in ran.out and line in log for line in broken)
    assert load_config(drops_follow / "config.yaml").train.lr == 0.0005
    kept = ["after step 6: train.lr: 0.001 -> 0.0005", "after step 6: train.steps: 6 -> 7"]
    assert json.loads((drops_follow / "env.json").read_text())["changed"] == kept
    assert cli("train", "--resume", drops_follow, "train.steps=8", "--allow-changes").code == 0
    assert last(drops_follow).environment["changed"] == [*kept, "after step 7: train.steps: 7 -> 8"]


def test_another_optimiser_starts_without_momenta(
    interrupted_copy: Path, cli: Cli, losses_of: Callable[[Path], list[float]]
) -> None:
    """Those of AdamW mean nothing to SGD."""
    words = ["train.optimizer=sgd", "train.channels_last=false", "--allow-changes"]
    ran = cli("train", "--resume", interrupted_copy, *words)
    assert ran.code == 0, ran.err
    assert "changed experiment (--allow-changes): train.optimizer: adamw -> sgd\n" in ran.out
    assert len(losses_of(interrupted_copy)) == 6


def test_data_never_change(
    interrupted_run: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    """Not even with --allow-changes: the steps so far would be of other images."""
    data = Path(shutil.copytree(synthetic, tmp_path / "data"))
    words = ["train", "--resume", interrupted_run, f"data.root={data}", "--allow-changes"]
    for split, use in (("val", "validated"), ("train", "trained")):
        path = data / "annotations" / f"{split}.json"
        before = path.read_text()
        content = json.loads(before)
        content["annotations"][0]["bbox"][2] += 1
        path.write_text(json.dumps(content))
        ran = cli(*words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            f"error: {path}: its images or boxes differ from those the run was {use} on; "
            "start a new run with --init-from instead of --resume\n"
        )
        content = json.loads(before)
        image = content["images"][0]  # another name, and no box is another
        renamed = data / "images" / split / f"other_{image['file_name']}"
        shutil.copy(renamed.with_name(image["file_name"]), renamed)
        image["file_name"] = renamed.name
        path.write_text(json.dumps(content))
        ran = cli(*words)
        assert ran.code == 2
        assert f"error: {path}: its images or boxes differ" in ran.err
        path.write_text(before)
    for split in ("val", "train"):
        path = data / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = "other"
        path.write_text(json.dumps(content))
    ran = cli(*words)
    assert ran.code == 2
    assert f"error: {path}: its categories differ from the run's: other, " in ran.err


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
    environment = {**last(interrupted_copy).environment, "processes": 2, "threads": 8}
    rewrite(interrupted_copy, environment=environment)
    ran = cli("train", "--resume", interrupted_copy, *hardware)
    assert ran.code == 0
    assert (
        "  data.workers: 0 -> 1\n  eval.batch_size: 2 -> 3\n  eval.every: 5 -> 6\n"
        "  train.micro_batch: 4 -> 3\n  processes: 2 -> 1\n  threads: 8 -> 1\n"
    ) in ran.out
    assert losses_of(interrupted_copy) == pytest.approx(losses_of(finished_run), rel=1e-4)
    saved = load_config(interrupted_copy / "config.yaml")
    assert (saved.data.workers, saved.train.micro_batch, saved.eval.every) == (1, 3, 6)


def test_data_may_have_moved(
    interrupted_copy: Path,
    finished_run: Path,
    synthetic: Path,
    cli: Cli,
    metrics_of: Metrics,
    tmp_path: Path,
) -> None:
    """A run is resumed from its checkpoint, on data that have moved."""
    data = Path(shutil.copytree(synthetic, tmp_path / "moved"))
    shutil.move(data / "annotations" / "val.json", tmp_path / "val.json")
    checkpoint = interrupted_copy / "checkpoints" / "last.pt"
    moved = [f"data.root={data}", f"data.val.annotations={tmp_path}/val.json"]
    ran = cli("train", "--resume", checkpoint, *moved, "train.steps=5")
    assert ran.code == 0
    assert f"\n  data.root: {synthetic} -> {data}\n" in ran.out
    assert f"\n  data.val.annotations: annotations/val.json -> {tmp_path}/val.json\n" in ran.out
    assert metrics_of(interrupted_copy) == metrics_of(finished_run)[:6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CONFIG", "--resume"], "{runs}/small: there is no run to resume; leave --resume out"),
        (["--resume"], "--resume needs a run folder, a checkpoint, or a config file"),
        (["--resume", "{runs}/gone"], "{runs}/gone: there is no such checkpoint or run folder"),
        (
            ["--resume", "{tmp}"],
            "{tmp}: there is no checkpoint to resume from; if the run ended before its first ",
        ),
        (["CONFIG", "--allow-changes"], "--allow-changes needs --resume or --auto-resume"),
        (["CONFIG", "--resume", "--dry-run"], "--resume cannot be combined with --dry-run or"),
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
    """It would turn whatever folder is two levels up into a run folder."""
    path = tmp_path / "a" / "b" / "state.pt"
    path.parent.mkdir(parents=True)
    path.symlink_to(interrupted_run / "checkpoints" / "last.pt")
    ran = cli("train", "--resume", path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {path}: is not in a run folder")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "state.pt"]


def test_auto_resume_starts_goes_on_and_is_done(
    experiment: Path, interrupted_run: Path, finished_run: Path, cli: Cli
) -> None:
    """One command for preemptible machines, whatever the state of the run."""
    folder = experiment.parent / "runs" / "small"
    command = ["train", experiment, "--auto-resume"]
    first = cli(*command, "train.steps=2", "train.warmup_steps=1", "eval.every=0")
    assert first.code == 0
    assert "resuming" not in first.out
    done = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = cli(*command, "train.steps=2", "train.warmup_steps=1", "eval.every=0")
    assert (again.code, again.err) == (0, "")
    assert f"{folder}: the run has already finished: 2 of 2 steps" in again.out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == done
    other = cli(*command)
    assert other.code == 2
    assert "\n  train.warmup_steps: 2 here, 1 in the run\n" in other.err
    shutil.rmtree(folder)
    shutil.copytree(interrupted_run, folder)
    ran = cli(*command)
    assert ran.code == 0
    assert "resuming after step" in ran.out
    assert run_differences(folder, finished_run) == []


def test_a_run_that_died_before_its_first_state_begins_again(experiment: Path, cli: Cli) -> None:
    folder = experiment.parent / "runs" / "small"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("half a con")
    (folder / "checkpoints" / "last.pt.tmp").write_text("half a state")
    assert cli("train", experiment, "train.steps=1", "eval.every=0").code == 0
    assert last(folder).progress.step == 1


def test_a_damaged_state_gives_way_to_the_newest_whole_one(
    finished_run: Path, cli: Cli, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    newest = folder / "checkpoints" / "last.pt"
    best = folder / "checkpoints" / "best.pt"
    shutil.copy(best, folder / "checkpoints" / "step_0000006.pt")
    newest.write_bytes(newest.read_bytes()[:10_000])
    ran = cli("train", "--resume", newest, "train.steps=7")
    assert ran.code == 0
    step = load_checkpoint(best).progress.step
    assert f"{newest}: is damaged or cut off: its content does not match its" in ran.out
    assert f"instead, the state after step {step}\nresuming after step {step}\n" in ran.out
    assert last(folder).progress.step == 7


def test_weights_alone_are_not_resumed(interrupted_copy: Path, cli: Cli) -> None:
    rewrite(interrupted_copy, optimizer=None)
    ran = cli("train", "--resume", interrupted_copy)
    assert (ran.code, ran.out) == (2, "")
    assert "contains no optimiser state" in ran.err
    assert "to start a new run from its weights: retinanet train CONFIG --init-from" in ran.err


def test_a_restarted_worker_group_goes_on_with_its_own_run_alone(
    experiment: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun --max-restarts repeats the command, also after one that was refused."""
    command = ["train", experiment, "train.steps=2", "train.warmup_steps=1", "eval.every=0"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert cli(*command).code == 0
    again = cli(*command)
    assert again.code == 0
    assert "the run has already finished: 2 of 2 steps" in again.out
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another launch")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    foreign = cli(*command)
    assert foreign.code == 2
    assert "there is a run here already. Continue it with --resume" in foreign.err


def test_what_is_no_config_is_for_resume(interrupted_run: Path, cli: Cli) -> None:
    """What one forgets to say first."""
    last = interrupted_run / "checkpoints" / "last.pt"
    for path, what in ((interrupted_run, "a run folder"), (last, "a checkpoint")):
        ran = cli("train", path, "train.steps=9")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error: {path}: is {what}, not a config; to continue ")
        assert f": retinanet train --resume {path}" in ran.err


def test_no_whole_state_at_all(interrupted_copy: Path, cli: Cli) -> None:
    """The remedy is named; otherwise the scheduler's command would end here each time."""
    path = interrupted_copy / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:10_000])
    ran = cli("train", "--resume", interrupted_copy)
    assert ran.code == 2
    assert ran.err.endswith(
        "Use another copy of it, or another checkpoint\nStart again under another --name, or "
        f"remove the folder {interrupted_copy} first\n"
    )


def test_options_as_other_tools_write_them(experiment: Path, cli: Cli) -> None:
    for words, meant in (
        (["--lr", "0.1"], "options of the config have no dashes: train.lr=0.1"),
        (["--batch-size=4"], "options of the config have no dashes: train.batch_size=4"),
        (["--imgsz", "--eval-only"], "options of the config have no dashes: data.short_side=..."),
        (["--eval.batch_size", "4"], "options of the config have no dashes: eval.batch_size=4"),
        (["--eval-only"], "here: retinanet evaluate CHECKPOINT"),
        (["--qqq"], "options of the config have no dashes: train.lr=0.005"),  # an example
    ):
        ran = cli("train", experiment, *words)
        assert ran.code == 2
        assert f"({meant})\n" in ran.err


def test_a_command_without_options_of_an_experiment_names_none(cli: Cli) -> None:
    ran = cli("strip", "a.pt", "b.pt", "--weights", "x")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].endswith("--weights x")
