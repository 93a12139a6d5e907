"""What a resume may change, however the change is requested. Without training."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from retinanet.categories import Categories
from retinanet.checkpoints.format import Checkpoint, Progress, load_checkpoint, save_checkpoint
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import load_config, override_config, save_config
from retinanet.engine.find_state import find_state, read_saved_run
from retinanet.engine.resume import Resume, plan_resume
from retinanet.engine.resume_checks import check_rates, describe_resume
from retinanet.engine.schedule import build_schedule
from retinanet.errors import UserError
from retinanet.schema import Config

STEPS = ["train.steps=6", "train.warmup_steps=1", "train.milestones=[4]", "train.micro_batch=2"]


def state(config: Config, step: int, **parts: Any) -> Checkpoint:
    """Return a state without weights, which none of this looks at."""
    return Checkpoint(
        config=config,
        categories=Categories(ids=(1,), names=("thing",)),
        model={},
        progress=Progress(step=step),
        optimizer=parts.pop("optimizer", {}),
        **parts,
    )


@pytest.fixture
def folder(tmp_path: Path, small_config: Config, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return the folder of a run that has taken 3 of 6 steps; it is runs/first from here."""
    monkeypatch.chdir(tmp_path)
    place = ["output.dir=runs", "output.name=first"]
    config = override_config(small_config, [*STEPS, *place])
    folder = RunFolder(Path("runs/first"))
    folder.create(config, {})
    save_checkpoint(state(config, 3), folder.last)
    (folder.path / "metrics.jsonl").write_text("")
    return folder


def edit(folder: RunFolder, *words: str) -> None:
    """Edit the run's config.yaml."""
    save_config(override_config(load_config(folder.config), list(words)), folder.config)


def resume(folder: RunFolder, *words: str, is_restart: bool = False, **options: Any) -> Resume:
    saved = read_saved_run(folder.path, is_restart=is_restart)
    return plan_resume(saved, given=None, overrides=words, **options)


def changes(plan: Resume) -> list[str]:
    return list(map(str, plan.changes))


def test_nothing_was_edited(folder: RunFolder) -> None:
    plan = resume(folder)
    assert (changes(plan), plan.broken, plan.remarks) == ([], (), ())


def test_a_free_edit_counts_and_is_said(folder: RunFolder) -> None:
    edit(folder, "train.steps=9", "data.workers=1")
    plan = resume(folder)
    assert changes(plan) == ["data.workers: 0 -> 1", "train.steps: 6 -> 9"]
    assert (plan.config.train.steps, plan.config.data.workers) == (9, 1)
    assert plan.remarks == (
        "using the options of runs/first/config.yaml (the file was edited), except for those of "
        "the command line",
    )


def test_the_command_line_wins_over_an_edit(folder: RunFolder) -> None:
    edit(folder, "train.steps=9", "train.lr=1.0")
    plan = resume(folder, "train.steps=8", "train.lr=0.01")
    assert changes(plan) == ["train.steps: 6 -> 8"]
    assert plan.remarks[-1] == (
        "rewriting runs/first/config.yaml without its comments, to add the options of the command "
        "line"
    )


def test_another_experiment_by_an_edit(folder: RunFolder) -> None:
    edit(folder, "train.lr=0.5")
    with pytest.raises(UserError) as caught:
        resume(folder, "loss.gamma=1.5", "data.workers=1")
    assert str(caught.value).splitlines() == [
        "--resume continues one experiment, but these options differ from the run's:",
        "  loss.gamma: 1.5 here, 2.0 in the run",
        "  train.lr: 0.5 in runs/first/config.yaml, 0.01 in the run",
        "To drop the edit of runs/first/config.yaml: undo it, or remove the file; it will be "
        "recreated",
        "To start a new run with these options, from the weights of this run: retinanet train "
        "runs/first/config.yaml output.dir=runs loss.gamma=1.5 data.workers=1 --init-from "
        "runs/first/checkpoints/last.pt --name first-2",
        "To resume anyway: retinanet train --resume runs/first loss.gamma=1.5 data.workers=1 "
        "--allow-changes",
    ]
    plan = resume(folder, "loss.gamma=1.5", allow_changes=True)
    assert [change.key for change in plan.broken] == ["loss.gamma", "train.lr"]


def test_the_config_of_a_later_launch_is_no_edit(folder: RunFolder) -> None:
    """It was killed before its first state; or the newest states were lost since."""
    later = override_config(load_config(folder.config), ["train.lr=0.5", "train.steps=9"])
    folder.create(later, {})
    plan = resume(folder)
    assert changes(plan) == ["train.steps: 6 -> 9"]
    assert list(map(str, plan.broken)) == ["train.lr: 0.01 -> 0.5"]
    assert plan.remarks[0] == (
        "using the options of runs/first/config.yaml (the last launch wrote them), except for "
        "those of the command line"
    )
    with pytest.raises(UserError, match=r"train\.lr: 0\.7 here, 0\.01 in the run"):
        resume(folder, "train.lr=0.7")


@pytest.mark.parametrize("auto", [True, False])
def test_an_edit_and_another_config(folder: RunFolder, auto: bool) -> None:
    """Neither is dropped silently."""
    given = load_config(folder.config)
    edit(folder, "train.steps=9")
    source = Path("small.yaml")
    with pytest.raises(UserError) as caught:
        plan_resume(read_saved_run(folder.path), given=given, source=source, allow_changes=auto)
    assert str(caught.value).splitlines() == [
        "runs/first/config.yaml was edited, but another config is given. They disagree:",
        "  train.steps: 9 there, 6 in small.yaml",
        "To resume with the edit: retinanet train --resume runs/first. To drop the edit, remove "
        "runs/first/config.yaml; it will be recreated",
    ]
    agreeing = override_config(given, ["train.steps=9"])
    plan = plan_resume(read_saved_run(folder.path), given=agreeing, source=source)
    assert changes(plan) == ["train.steps: 6 -> 9"]
    same = plan_resume(
        read_saved_run(folder.path), given=load_config(folder.config), source=folder.config
    )
    assert changes(same) == ["train.steps: 6 -> 9"]


def test_an_edit_waits_while_torchrun_restarts_a_launch(folder: RunFolder) -> None:
    given = load_config(folder.config)
    edit(folder, "train.lr=0.5")
    plan = plan_resume(read_saved_run(folder.path, is_restart=True), given=given)
    assert (changes(plan), plan.broken, plan.keeps_config) == ([], (), True)
    assert plan.remarks == (
        "runs/first/config.yaml was edited (train.lr: 0.01 -> 0.5). This launch continues with the "
        "options that it began with; the edit takes effect at the next --resume",
    )
    folder.config.write_text("train: [")
    plan = resume(folder, is_restart=True)
    assert plan.keeps_config
    assert plan.remarks[0].endswith("\nThis launch continues with the options that it began with")


def test_a_missing_config_is_written_again(folder: RunFolder) -> None:
    folder.config.unlink()
    (folder.path / "metrics.jsonl").unlink()
    assert resume(folder).remarks == (
        "runs/first/config.yaml was missing; it is recreated from the checkpoint",
        "runs/first has no metrics.jsonl of the steps so far: recording starts after step 3",
    )


@pytest.mark.parametrize("word", ["output.name=second", "output.dir=elsewhere"])
@pytest.mark.parametrize("by_edit", [True, False])
def test_a_run_stays_in_its_folder(folder: RunFolder, word: str, by_edit: bool) -> None:
    if by_edit:
        edit(folder, word)
    plan = resume(folder, *([] if by_edit else [word]))
    key, value = word.split("=")
    assert plan.remarks[-1].startswith(
        f"{key}: {value} has no effect on a resume: the run stays in its folder, runs/first. "
    )
    assert changes(plan) == []


def test_a_folder_that_was_moved(folder: RunFolder, tmp_path: Path) -> None:
    moved = tmp_path / "archive" / "renamed"
    moved.parent.mkdir()
    folder.path.rename(moved)
    assert changes(resume(RunFolder(moved))) == []
    plan = resume(RunFolder(moved), f"output.dir={moved.parent}", "output.name=renamed")
    assert changes(plan) == [
        f"output.dir: runs -> {moved.parent}",
        "output.name: first -> renamed",
    ]


def test_weights_to_start_from_have_no_place_in_a_resume(folder: RunFolder) -> None:
    with pytest.raises(
        UserError, match=r"continues with its own weights, not with those of x\.pt; "
    ):
        resume(folder, "model.init_from=x.pt", allow_changes=True)
    plan = resume(folder, "model.prior=0.05", "train.lr=1.0", allow_changes=True)
    assert [change.key for change in plan.broken] == ["train.lr"]
    assert plan.config.model.prior == 0.2
    assert plan.remarks[-1] == "model.prior has no effect after step 0: it stays 0.2"


@pytest.mark.parametrize(
    ("word", "weights"),
    [
        ("model.fpn_channels=64", True),
        ("anchors.ratios=[1.0]", True),
        ("data.classes=[cat]", True),
        ("data.train.limit=3", True),
        ("model.backbone=resnet101", False),
    ],
)
def test_a_state_that_cannot_follow(folder: RunFolder, word: str, weights: bool) -> None:
    """No remedy is named that would end in another error: not even --allow-changes helps."""
    with pytest.raises(UserError) as caught:
        resume(folder, word, allow_changes=True)
    *_, start, last = str(caught.value).splitlines()
    assert last == f"This run cannot be resumed with another {word.split('=')[0]}"
    assert ("--init-from runs/first/checkpoints/last.pt" in start) == weights
    assert ("model.init_from=null" in start) != weights


def test_an_optimizer_with_other_groups_begins_anew(folder: RunFolder) -> None:
    _, lines = rates(folder, "train.decay_exempt=norms", allow_changes=True)
    assert lines[-1] == "  the optimiser changed: it starts without momentum"
    _, lines = rates(folder, "train.weight_decay=0.5", allow_changes=True)
    assert "moments" not in lines[-1]


def test_an_edit_to_another_unit(folder: RunFolder) -> None:
    edit(folder, "train.epochs=2", "train.milestones=null", "eval.every=null")
    with pytest.raises(UserError, match=r"; undo the edit of runs/first/config\.yaml, or remove"):
        resume(folder)


def test_other_files_in_a_run_folder(folder: RunFolder) -> None:
    folder.config.unlink()
    folder.metrics.unlink()
    (folder.path / "train.log").touch()
    (folder.path / "nohup.out").touch()
    assert resume(folder).remarks[0].startswith("runs/first/config.yaml was missing; ")


def test_a_config_that_names_no_place(folder: RunFolder) -> None:
    text = folder.config.read_text()
    folder.config.write_text(text[: text.index("output:")])
    assert resume(folder).remarks == ()


def test_changes_are_kept_for_a_replay(folder: RunFolder) -> None:
    plan = resume(folder, "train.steps=9", "data.workers=1", "train.lr=1.0", allow_changes=True)
    assert plan.all_options == [{"after_step": 3, "options": ["train.steps=9", "train.lr=1.0"]}]
    assert resume(folder, "data.workers=1").all_options == []


def rates(folder: RunFolder, *words: str, **options: Any) -> tuple[Resume, list[str]]:
    """Resume; return the plan and the lines about it."""
    plan = resume(folder, *words, **options)
    schedules = [
        build_schedule(config, steps_per_epoch=1)
        for config in (plan.checkpoint.config, plan.config)
    ]
    plan = check_rates(plan, *schedules)
    return plan, describe_resume(plan, *schedules, {})


def cosine(folder: RunFolder, *words: str, step: int = 0) -> None:
    """Make the run one with a cosine that has not begun, or has taken some steps."""
    config = override_config(
        load_config(folder.config), ["train.schedule=cosine", "train.lr=0.005", *words]
    )
    folder.create(config, {})
    save_checkpoint(state(config, step), folder.last)


def test_rates_are_told_apart(folder: RunFolder) -> None:
    """Of 4 digits both were 0.005."""
    cosine(folder, "train.steps=40000", "train.warmup_steps=0", step=0)
    _, lines = rates(folder, "train.steps=50000")
    assert lines[-1] == (
        "  the new length changes the schedule: lr at step 2 is 0.005, not 0.00499999999"
    )


def test_rates_that_were_used_are_told_apart(folder: RunFolder) -> None:
    cosine(folder, "train.steps=40000", "train.warmup_steps=0", step=5)
    with pytest.raises(
        UserError, match=r"step 2 was trained at 0\.00499999999, but would now have 0\.005\. "
    ) as caught:
        rates(folder, "train.steps=50000")
    assert str(caught.value).endswith(
        "Start a new run from its weights: retinanet train runs/first/config.yaml output.dir=runs "
        "train.steps=50000 --init-from runs/first/checkpoints/last.pt --name first-2; or resume "
        "anyway: retinanet train --resume runs/first train.steps=50000 --allow-changes"
    )
    plan, _ = rates(folder, "train.steps=50000", allow_changes=True)
    assert [change.key for change in plan.broken] == ["train.steps"]


def test_a_run_of_two_thousand_million_steps_is_compared_at_once(folder: RunFolder) -> None:
    _, lines = rates(folder, "train.steps=2000000000")
    assert lines == ["resuming after step 3", "  train.steps: 6 -> 2000000000"]


# What is named to be resumed.


def test_ways_to_name_a_run(folder: RunFolder) -> None:
    for path in ("runs/first", "runs/first/checkpoints", "runs/first/checkpoints/last.pt"):
        found, checkpoint, remarks = find_state(Path(path))
        assert found.path.resolve() == folder.path.resolve()
        assert (checkpoint.progress.step, remarks) == (3, [])


def typed(message: str, start: str) -> Sequence[str]:
    """Return the words of a command in a message."""
    return shlex.split(message[message.index(start) :])


@pytest.mark.parametrize("name", ["be st.pt", "it's $HOME ü.pt", "-x.pt", "a=b.pt"])
def test_a_lone_checkpoint_gets_a_folder_of_its_own(
    folder: RunFolder, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command in the message works when it is typed."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    folder.last.rename(elsewhere / name)
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UserError, match="is not in a run folder") as caught:
        find_state(Path(name))
    words = typed(str(caught.value), "mkdir -p")
    assert words[:4] == ["mkdir", "-p", "runs/first/checkpoints", "&&"]
    assert words[4] == "cp"
    Path(words[2]).mkdir(parents=True)
    Path(words[6]).write_bytes(Path(words[5]).read_bytes())
    assert words[7:] == ["&&", "retinanet", "train", "--resume", "runs/first"]
    assert find_state(Path(words[-1]))[1].progress.step == 3


def test_a_folder_of_checkpoints_alone(folder: RunFolder, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    folder.last.parent.rename(backup / "checkpoints")
    found, checkpoint, remarks = find_state(backup)
    assert (found.path, checkpoint.progress.step) == (backup, 3)
    assert remarks == [
        f"{backup}/config.yaml was missing; it is recreated from the checkpoint",
        f"{backup} has no metrics.jsonl and no tensorboard of the steps so far: recording starts "
        "after step 3",
    ]
    (backup / "thesis.txt").write_text("")
    with pytest.raises(
        UserError, match=r"has no config\.yaml, but other files \(thesis\.txt\)\. Make"
    ):
        find_state(backup)
    (backup / "checkpoints").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"kept: contains checkpoints, but is not a run folder"):
        find_state(tmp_path / "kept")


def test_weights_alone_start_a_new_run(folder: RunFolder) -> None:
    save_checkpoint(state(load_checkpoint(folder.last).config, 3, optimizer=None), Path("s.pt"))
    with pytest.raises(UserError, match=r"retinanet train CONFIG --init-from s\.pt$"):
        find_state(Path("s.pt"))


def test_commands_are_quoted(folder: RunFolder) -> None:
    odd = folder.path.rename(folder.path.with_name("it's $x ü"))
    with pytest.raises(UserError) as caught:
        resume(RunFolder(odd), "train.lr=7")
    *_, new, broken = str(caught.value).splitlines()
    assert typed(new, "retinanet train") == [
        *("retinanet", "train", "runs/it's $x ü/config.yaml", "output.dir=runs", "train.lr=7"),
        *("--init-from", "runs/it's $x ü/checkpoints/last.pt", "--name", "it's $x ü-2"),
    ]
    assert typed(broken, "retinanet train")[2:4] == ["--resume", "runs/it's $x ü"]
