"""The folder of a run: nothing is ever written over."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from retinanet.checkpoints.environment import describe_environment, git_state
from retinanet.checkpoints.run_folder import RunFolder, free_name, run_folder
from retinanet.config import load_config, override_config
from retinanet.errors import UserError
from retinanet.schema import Config


def test_names_of_the_parts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "first")
    assert folder.config == tmp_path / "first" / "config.yaml"
    assert folder.last == tmp_path / "first" / "checkpoints" / "last.pt"
    assert folder.best == tmp_path / "first" / "checkpoints" / "best.pt"
    assert folder.evaluation == tmp_path / "first" / "evaluation"


@pytest.mark.parametrize("there", ["config.yaml", "checkpoints/last.pt"])
def test_an_existing_run_is_kept(tmp_path: Path, there: str) -> None:
    """The message has the way to resume and a free name."""
    path = tmp_path / "first" / there
    path.parent.mkdir(parents=True)
    path.write_text("")
    (tmp_path / "first-2").mkdir()
    run = re.escape(str(tmp_path / "first"))
    message = (
        rf"^{run}: there is a run here already\. Continue it with --resume {run}, or start another "
        r"with --name first-3$"
    )
    with pytest.raises(UserError, match=message):
        RunFolder(tmp_path / "first").check_free()


def test_other_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    message = "the folder contains other files; choose another output.dir or --name "
    with pytest.raises(UserError, match=message):
        RunFolder(tmp_path).check_free()


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("")
    with pytest.raises(UserError, match=r"first: is a file; choose another output\.dir or --name"):
        RunFolder(tmp_path / "first").check_free()


def test_a_file_in_the_place_of_a_parent(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        UserError, match=r"cannot be created: .*runs is not a folder; choose another out"
    ):
        RunFolder(tmp_path / "runs" / "first").check_free()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"no permission in .*; choose another output\.dir"):
        RunFolder(tmp_path / "runs" / "first").check_free()


def test_a_folder_that_cannot_be_written_according_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the tests run as root."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=r"no permission in .*; choose another output\.dir"):
        RunFolder(tmp_path / "runs" / "first").check_free()


def test_a_full_disk_is_noticed_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for three checkpoints: the last, the best, and the one being written."""
    usage = shutil.disk_usage(tmp_path)._replace(free=2_999_999_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    folder = RunFolder(tmp_path / "runs" / "first")
    folder.check_space(999_999_999)
    message = (
        r"first: the checkpoints need 3\.00 GB, but the disk has 3\.00 GB left; make room, or "
    )
    with pytest.raises(UserError, match=message):
        folder.check_space(1_000_000_000)


def test_free_places(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").check_free()
    RunFolder(tmp_path / "runs" / "deep" / "first").check_free()
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_a_launch_that_died_at_once_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("here 12\n")
    RunFolder(tmp_path).check_free()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="the folder contains other files"):
        RunFolder(tmp_path).check_free()


def test_free_name(tmp_path: Path) -> None:
    assert free_name(tmp_path, "run") == "run"
    (tmp_path / "run").mkdir()
    assert free_name(tmp_path, "run") == "run-2"
    (tmp_path / "run-2").write_text("")
    assert free_name(tmp_path, "run") == "run-3"


def test_a_new_folder_explains_itself(tmp_path: Path) -> None:
    """The resolved config is saved, and loads as it was."""
    config = override_config(Config(), ["train.lr=0.5", "output.name=first"])
    folder = RunFolder(tmp_path / "runs" / "first")
    folder.create(config, {"torch": "2.14", "processes": 2})
    assert load_config(folder.config) == config
    written = json.loads((folder.path / "env.json").read_text())
    assert len(written.pop("config_fingerprint")) == 16
    assert written == {"torch": "2.14", "processes": 2}
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "env.json",
        "evaluation",
        "tensorboard",
    ]
    folder.check_free()  # nothing is lost before the first state is saved
    folder.last.touch()
    with pytest.raises(UserError, match="there is a run here already"):
        folder.check_free()


def test_what_a_killed_attempt_left_is_removed(tmp_path: Path) -> None:
    """Half checkpoints take as much room as whole ones."""
    folder = RunFolder(tmp_path / "first")
    folder.create(Config(), {})
    folder.last.touch()
    folder.last.with_name("step_0000005.pt.tmp").touch()
    folder.create(Config(), {})
    assert list((folder.path / "checkpoints").iterdir()) == [folder.last]


def test_snapshots_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert folder.snapshot(5000) == tmp_path / "checkpoints" / "step_0005000.pt"
    for name in ("step_0000020.pt", "step_10000000.pt", "step_0000003.pt", "step_x.pt", "last.pt"):
        (tmp_path / "checkpoints" / name).touch()
    assert [path.name for path in folder.snapshots()] == [
        "step_0000003.pt",
        "step_0000020.pt",
        "step_10000000.pt",
    ]


def test_room_for_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4_999_999_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    RunFolder(tmp_path).check_space(1_000_000_000, snapshots=1)
    with pytest.raises(UserError, match=r"the checkpoints need 5\.00 GB"):
        RunFolder(tmp_path).check_space(1_000_000_000, snapshots=2)


def test_room_for_what_is_there_is_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on after its disk was full needs room for one more file, not for three."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    folder = RunFolder(tmp_path)
    folder.last.parent.mkdir()
    for path in (folder.last, folder.best):
        path.write_bytes(bytes(1_000))
    folder.check_space(1_000)
    with pytest.raises(UserError, match="the checkpoints need"):
        folder.check_space(1_001)


def test_a_disk_error_is_the_users_to_know(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("")
    with pytest.raises(UserError, match="first: cannot be written: "):
        RunFolder(tmp_path / "first").create(Config(), {})


def test_the_folder_of_a_config() -> None:
    config = override_config(Config(), ["output.dir=somewhere", "output.name=x"])
    assert run_folder(config).path == Path("somewhere/x")
    assert run_folder(Config()).path == Path("runs/run")


def test_the_environment_is_plain_and_complete() -> None:
    environment = describe_environment(3, torch.device("cpu"))
    assert environment["processes"] == 3
    assert environment["device"] == "cpu"
    assert {"git", "python", "torch", "torchvision", "command"} <= environment.keys()
    assert {type(value) for value in environment.values()} <= {str, int}


def test_no_git_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == ""
