"""The config.yaml of a run folder: as it was written, edited, broken, or gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinanet.checkpoints.changes import Change, compare_configs
from retinanet.checkpoints.folder_config import (
    as_override,
    describe_ignored_edit,
    read_folder_config,
)
from retinanet.checkpoints.run_folder import RunFolder
from retinanet.config import override_config
from retinanet.errors import UserError
from retinanet.schema import Config


@pytest.fixture
def config(small_config: Config) -> Config:
    words = ["train.steps=4", "train.precision=fp32", "train.micro_batch=2", "output.name=run"]
    return override_config(small_config, [*words, "train.compile_loss=true"])


@pytest.fixture
def folder(tmp_path: Path, config: Config) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "run")
    folder.create(config, {"torch": "2.14"})
    return folder


def edit(folder: RunFolder, before: str, after: str) -> None:
    text = folder.config.read_text()
    assert before in text
    folder.config.write_text(text.replace(before, after))


def test_as_it_was_written(folder: RunFolder, config: Config) -> None:
    found = read_folder_config(folder, config)
    assert found is not None
    assert (found.is_own, compare_configs(found.config, config)) == (True, [])


def test_comments_are_no_change(folder: RunFolder, config: Config) -> None:
    edit(folder, "  steps: 4\n", "  steps:   4  # four\n")
    found = read_folder_config(folder, config)
    assert found is not None
    assert compare_configs(found.config, config) == []
    folder.create(config, {"torch": "2.15"})
    assert "  # four\n" in folder.config.read_text()
    assert folder.is_config_as_written()


def test_an_edit_is_found(folder: RunFolder, config: Config) -> None:
    edit(folder, "  steps: 4\n", "  steps: 9\n")
    found = read_folder_config(folder, config)
    assert found is not None
    assert not found.is_own
    assert list(map(str, compare_configs(found.config, config))) == ["train.steps: 4 -> 9"]


def test_what_auto_became_stays(folder: RunFolder, config: Config) -> None:
    edit(folder, "precision: fp32", "precision: auto")
    edit(folder, "micro_batch: 2", "micro_batch: auto")
    edit(folder, "compile_loss: true", "compile_loss: auto")
    found = read_folder_config(folder, config)
    assert found is not None
    assert compare_configs(found.config, config) == []


def test_a_launch_that_keeps_an_edit_does_not_take_it_for_its_own(
    folder: RunFolder, config: Config
) -> None:
    edit(folder, "  steps: 4\n", "  steps: 9\n")
    folder.create(config, {}, keep_config=True)
    assert "  steps: 9\n" in folder.config.read_text()
    assert not folder.is_config_as_written()
    folder.create(config, {})
    assert "  steps: 4\n" in folder.config.read_text()
    assert folder.is_config_as_written()


@pytest.mark.parametrize("record", [None, "{", "[]", "{}"])
def test_without_its_record_a_file_counts_as_edited(
    folder: RunFolder, config: Config, record: str | None
) -> None:
    folder.environment.unlink() if record is None else folder.environment.write_text(record)
    found = read_folder_config(folder, config)
    assert found is not None
    assert not found.is_own


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("train: [", "config.yaml, line 1: "),
        ("", "config.yaml: is empty"),
        ("train: {lr: -1}", "config.yaml: train.lr is -1; it should be greater than 0"),
        ("train: {lrr: 1}", "config.yaml: train.lrr is not an option; did you mean train.lr?"),
        ("- 1", "config.yaml: should contain sections such as `train:`"),
    ],
)
def test_one_that_cannot_be_read(folder: RunFolder, config: Config, text: str, wrong: str) -> None:
    folder.config.write_text(text)
    with pytest.raises(UserError) as caught:
        read_folder_config(folder, config)
    assert str(caught.value).startswith(str(folder.path / wrong))
    remedy = f"so that it is written again from the checkpoint: rm {folder.config}"
    assert str(caught.value).endswith(remedy)


def test_none_is_there(folder: RunFolder, config: Config) -> None:
    folder.config.unlink()
    assert read_folder_config(folder, config) is None


def test_an_edit_has_no_effect_on_figures(folder: RunFolder, config: Config) -> None:
    path = folder.path / "checkpoints" / "best.pt"
    assert describe_ignored_edit(path, config, [], ["postprocess"]) == []
    edit(folder, "  score_threshold: 0.05\n", "  score_threshold: 0.3\n")
    assert describe_ignored_edit(path, config, [], ["postprocess"]) == [
        f"{folder.config} was edited (postprocess.score_threshold: 0.05 -> 0.3), which has no "
        "effect here: a checkpoint contains its own config. Give the options on the command line: "
        "postprocess.score_threshold=0.3"
    ]
    given = ["postprocess.score_threshold=0.2"]
    assert describe_ignored_edit(path, config, given, ["postprocess"]) == []
    assert describe_ignored_edit(path, config, [], ["data"]) == []
    assert describe_ignored_edit(folder.path / "best.pt", config, [], ["postprocess"]) == []


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (None, "train.x=null"),
        (True, "train.x=true"),
        ([1, 2], "train.x=[1, 2]"),
        (["a b"], 'train.x=["a b"]'),
        (0.1, "train.x=0.1"),
    ],
)
def test_a_change_as_a_word(after: object, word: str) -> None:
    assert as_override(Change(key="train.x", before=0, after=after)) == word


def test_the_record_is_beside_the_environment(folder: RunFolder) -> None:
    written = json.loads(folder.environment.read_text())
    assert written["torch"] == "2.14"
    assert len(written["config_fingerprint"]) == 16
