"""Files, classes, images and presets, chosen in one line of a config."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.checkpoints.format import load_checkpoint
from retinanet.config import load_config
from retinanet.yaml_reader import parse_yaml

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
CHOICES = [
    "data.classes=[star, ring]",
    "data.train.limit=8",
    "data.train.annotations=[annotations/train.json, annotations/more.json]",
    "data.train.images=[images/train, images/more]",
    "data.repeat_threshold=0.9",
    "data.preset=mosaic",
    "train.steps=2",
    "train.milestones=null",
    "eval.every=0",
]


@pytest.fixture(scope="module")
def data(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the synthetic set with its training images once more, under the same ids."""
    folder = Path(shutil.copytree(synthetic, tmp_path_factory.mktemp("choices") / "set"))
    shutil.copy(folder / "annotations" / "train.json", folder / "annotations" / "more.json")
    shutil.copytree(folder / "images" / "train", folder / "images" / "more")
    return folder


@pytest.fixture(scope="module")
def chosen_run(data: Path, shared_experiment: Path, run_quietly: Callable[..., int]) -> Path:
    """Return the folder of a run with all the choices; tests leave it as it is."""
    words = [f"data.root={data}", *CHOICES, "--name", "chosen"]
    assert run_quietly("train", shared_experiment, *words) == 0
    return shared_experiment.parent / "runs" / "chosen"


def test_lists_on_the_command_line(experiment: Path, cli: Cli) -> None:
    ran = cli("config", experiment, "data.train.annotations=[a.json,b.json]", "data.classes=[x, y]")
    assert ran.code == 0
    written = parse_yaml(ran.out, "config")
    assert written["data"]["train"]["annotations"] == ["a.json", "b.json"]
    assert written["data"]["train"]["images"] == "images/train"
    assert written["data"]["classes"] == ["x", "y"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.train.annotations=[]"],
            "command line: data.train.annotations: [] is neither a path nor a list of paths",
        ),
        (
            ["data.val.images=[a, 3]"],
            "command line: data.val.images: ['a', 3] is neither a path nor a list of paths",
        ),
        (
            ["data.train.images=[a, b]"],
            "command line: data.train: images: 2 folders do not match 'annotations/train.json'",
        ),
        (["data.classes=ring"], "command line: data.classes is 'ring'; it should be a list, in"),
        (["data.classes=[]"], "command line: data.classes is []; it should be a longer list"),
        (["data.train.limit=0"], "command line: data.train.limit is 0; it should be greater than"),
        (["data.preset=flop"], "command line: data.preset is 'flop'; it should be 'flip', 'multi"),
        (
            ["data.preset_canvas=[64, 64]"],
            "command line: data: preset_canvas: data.preset flip does not use it; only ",
        ),
    ],
)
def test_wrong_choices(experiment: Path, cli: Cli, words: list[str], message: str) -> None:
    ran = cli("config", experiment, *words)
    assert ran.code == 2
    assert ran.err.startswith("error: " + message)
    assert len(ran.err.splitlines()) == 1


def test_an_unknown_class(experiment: Path, cli: Cli) -> None:
    ran = cli("train", experiment, "data.classes=[ring, stra]", "--dry-run")
    assert ran.code == 2
    assert ran.err.endswith(
        "annotations/train.json: data.classes: there is no class 'stra'; did you mean star?\n"
    )


@pytest.mark.parametrize("preset", ["flip", "multiscale", "large_scale_jitter", "strong", "mosaic"])
def test_every_preset_trains(experiment: Path, cli: Cli, preset: str) -> None:
    ran = cli(
        *("train", experiment, f"data.preset={preset}", "data.train.limit=8", "--dry-run"),
        *("data.repeat_threshold=0.5", "data.classes=[ring]"),
    )
    assert ran.code == 0, ran.err
    assert "dry run: one step of 4 images and the evaluation of 2 went well" in ran.out
    assert "  limit: 8 of 12 images used\n" in ran.out
    assert (
        "images per epoch (images with classes in less than 50.0% of them may repeat); " in ran.out
    )
    assert f"preset {preset}, horizontal flip " in ran.out
    assert re.search(r"  classes: 1 of 6 used; \d+ boxes of other classes left out\n", ran.out)
    fixed = "canvas: 64x64 px, from data.preset" in ran.out
    assert fixed == (preset in ("large_scale_jitter", "mosaic"))


def test_a_run_of_chosen_classes(chosen_run: Path, data: Path) -> None:
    """The checkpoint has the subset, under the ids of the JSON."""
    content = json.loads((data / "annotations" / "train.json").read_text())
    ids = {category["name"]: category["id"] for category in content["categories"]}
    checkpoint = load_checkpoint(chosen_run / "checkpoints" / "last.pt")
    expected = sorted((ids[name], name) for name in ("star", "ring"))
    assert checkpoint.categories.ids == tuple(number for number, _ in expected)
    assert checkpoint.categories.names == tuple(name for _, name in expected)
    saved = load_config(chosen_run / "config.yaml").data
    assert saved.classes == ("star", "ring") and saved.train.limit == 8
    assert saved.train.annotations == ("annotations/train.json", "annotations/more.json")
    log = (chosen_run / "train.log").read_text()
    assert "annotations/train.json + " in log and "more.json: 8 images, " in log
    assert "  limit: 8 of 24 images used\n" in log


def test_it_is_evaluated_on_its_classes(chosen_run: Path, cli: Cli, tmp_path: Path) -> None:
    """Only from the checkpoint, and on a file that also has the other class."""
    last = chosen_run / "checkpoints" / "last.pt"
    figures = []
    val = load_config(chosen_run / "config.yaml").data
    given = [
        *("--annotations", Path(val.root) / str(val.val.annotations)),
        *("--images", Path(val.root) / str(val.val.images)),
    ]
    for i, words in enumerate(([], given)):
        ran = cli("evaluate", last, *words, "--output", tmp_path / str(i))
        assert ran.code == 0, ran.err
        content = json.loads((tmp_path / str(i) / "metrics.json").read_text())
        assert sorted(content["classes"]) == ["ring", "star"]
        figures.append({key: value for key, value in content.items() if key != "annotations"})
    assert figures[0] == figures[1]


def test_one_file_for_a_run_of_several_folders(chosen_run: Path, data: Path, cli: Cli) -> None:
    words = ["data.val.annotations=[a.json, b.json]", "data.val.images=[images/val, images/more]"]
    last, given = chosen_run / "checkpoints" / "last.pt", data / "annotations" / "val.json"
    ran = cli("evaluate", last, *words, "--annotations", given)
    assert (ran.code, ran.err) == (
        2,
        "error: --annotations needs --images, because data.val.images has 2 folders\n",
    )


def test_it_predicts(chosen_run: Path, data: Path, cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        *("predict", chosen_run / "checkpoints" / "last.pt", data / "images" / "val"),
        *("--output", tmp_path / "out"),
    )
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("data.train.limit=9", "  data.train.limit: 9 here, 8 in the run\n"),
        ("data.train.limit=null", "  data.train.limit: null here, 8 in the run\n"),
        ("data.classes=[ring]", "  data.classes: ['ring'] here, ['star', 'ring'] in the run\n"),
        ("data.preset=flip", "  data.preset: flip here, mosaic in the run\n"),
        ("data.repeat_threshold=0", "  data.repeat_threshold: 0.0 here, 0.9 in the run\n"),
        (
            "data.train.images=[images/more, images/train]",
            "  data.train.images: ['images/more', 'images/train'] here, ['images/train', "
            "'images/more'] in the run\n",
        ),
    ],
)
def test_other_choices_are_another_experiment(
    chosen_run: Path, cli: Cli, change: str, line: str
) -> None:
    ran = cli("train", "--resume", chosen_run, change)
    assert ran.code == 2
    assert "these options differ from the run's:\n" + line in ran.err


def test_it_goes_on_where_the_data_has_moved(
    chosen_run: Path, data: Path, cli: Cli, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(chosen_run, tmp_path / "runs" / "chosen"))
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    longer = ["train.steps=3", "train.milestones=[1, 2]"]  # as they were at 2/3 and 8/9 of 2
    ran = cli("train", "--resume", run, f"data.root={moved}", *longer)
    assert ran.code == 0, ran.err
    assert load_checkpoint(run / "checkpoints" / "last.pt").progress.step == 3


def test_other_boxes_under_the_same_choices_are_refused(
    chosen_run: Path, data: Path, cli: Cli, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    path = moved / "annotations" / "more.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] += 1
    path.write_text(json.dumps(content))
    ran = cli("train", "--resume", chosen_run, f"data.root={moved}", "train.steps=3")
    assert ran.code == 2
    assert "more.json: its images or boxes differ from those the run was trained on" in ran.err
