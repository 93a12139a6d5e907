"""The user's mistakes: exit code 2, one message that names file and remedy, nothing left behind."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision

from retinanet.checkpoints.format import load_checkpoint

Cli = Callable[..., Any]
Refuse = Callable[..., str]


def listing(folder: Path) -> dict[Path, int]:
    """Return the files of a folder and when they changed; the cache of an index may come."""
    files = [path for path in folder.rglob("*") if path.suffix != ".index" and not path.is_dir()]
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    return dict.fromkeys(folders, 0) | {path: path.lstat().st_mtime_ns for path in files}


@pytest.fixture
def refuse(cli: Cli, tmp_path: Path) -> Refuse:
    """Run a command that must be refused and return its message, without `error: `."""

    def run(*words: object) -> str:
        before = listing(tmp_path)
        ran = cli(*words)
        assert ran.code == 2, ran.err
        assert ran.out == ""
        assert ran.err.startswith("error: ")
        assert ran.err.count("error: ") == 1
        assert "Traceback" not in ran.err
        assert listing(tmp_path) == before, "something was left behind"
        return ran.err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def data(synthetic: Path, tmp_path: Path) -> Path:
    """Return a copy of the data set to spoil."""
    return Path(shutil.copytree(synthetic, tmp_path / "data"))


@pytest.fixture
def edit(data: Path) -> Callable[..., Path]:
    """Return a function that changes the content of an annotation file."""

    def change(function: Callable[[dict[str, Any]], Any], split: str = "train") -> Path:
        path = data / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))
        return path

    return change


# Configs.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.gpus=2",
            "train.gpus is not an option; the options are: batch_size, micro_batch, steps, epochs,",
        ),
        ("train.bach_size=2", "train.bach_size is not an option; did you mean train.batch_size?"),
        ("train.workers=2", "train.workers is not an option; did you mean data.workers?"),
        ("batch_size.train=2", "batch_size is not an option; did you mean train.batch_size?"),
        (
            "sgd.rate=2",
            "sgd is not an option; the options are: model, anchors, assign, loss, data,",
        ),
        ("train.lr=fast", "train.lr is 'fast'; it should be a number"),
        ("train.steps=2.5", "train.steps is 2.5; it should be"),
        ("train.lr=-1", "train.lr is -1; it should be greater than 0"),
        ("train.lr=.nan", "train.lr is nan; it should be a finite number"),
        ("data.hflip=1.5", "data.hflip is 1.5; it should be less than or equal to 1"),
        ("train.optimizer=adam", "train.optimizer is 'adam'; it should be 'sgd' or 'adamw'"),
        ("data.short_side=[200]", "data: long_side: 128 is less than a short side of 200"),
        ("model.norm=frozen_bn", "Set model.norm=gn model.freeze=none"),
        ("model.freeze=stages:1", "would freeze random weights. Set model.freeze=none"),
    ],
)
def test_options(experiment: Path, refuse: Refuse, override: str, message: str) -> None:
    text = refuse("train", experiment, override)
    assert text.startswith("command line: ")  # also where it is wrong with what the file says
    assert message in text


@pytest.mark.parametrize(
    ("word", "hint"),
    [("train.lr", ""), ("=1", ""), ("train..lr=1", "; did you mean train.lr?")],
)
def test_an_override_of_another_form(
    experiment: Path, refuse: Refuse, word: str, hint: str
) -> None:
    text = refuse("train", experiment, word)
    form = "section.key=value, such as train.lr=0.02 (without spaces)"
    assert text == f"{word!r} is not of the form {form}{hint}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lr: 1\n  steps: 3\n  lr: 2\n", ", line 4: duplicate key lr"),
        (
            "train:\n  lr: !!python/object/apply:os.system ['touch run']\n",
            ", line 2: YAML tags are not allowed "
            "('tag:yaml.org,2002:python/object/apply:os.system')",
        ),
        ("train: [1, 2\n", ", line 2: "),
        ("- 1\n", ": should contain sections such as `train:`, not [1]"),
        ("train: 3\n", ": train is 3; it should be a section with options in it"),
    ],
)
def test_yaml(tmp_path: Path, refuse: Refuse, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert refuse("train", path).startswith(f"{path}{message}")
    assert not (tmp_path / "run").exists()


def test_a_missing_config(tmp_path: Path, refuse: Refuse) -> None:
    path = tmp_path / "none.yaml"
    assert refuse("train", path) == f"{path}: there is no such file"


def test_splits_that_are_not_set(tmp_path: Path, refuse: Refuse) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("output: {dir: " + str(tmp_path / "runs") + "}\n")
    assert refuse("train", path).startswith("data.train.annotations is not set; ")


def test_train_without_anything(cli: Cli) -> None:
    ran = cli("train")
    assert ran.code == 2
    assert (
        "give a recipe or a config file (retinanet train finetune_small), or a run with --resume"
        in ran.err
    )


# Annotation files.


def test_a_missing_annotation_file(experiment: Path, refuse: Refuse, synthetic: Path) -> None:
    text = refuse("train", experiment, "data.val.annotations=annotations/none.json")
    assert text == (
        f"{synthetic}/annotations/none.json: there is no such annotation file "
        "(data.val.annotations, relative to data.root)"
    )


def test_a_missing_root(experiment: Path, refuse: Refuse) -> None:
    text = refuse("train", experiment, "data.root=/no/such/folder")
    assert text == (
        "data.root: there is no such folder, or no permission to see it: /no/such/folder"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty; copy or download it again"),
        (b"{'images': []}", ": is a Python value, not JSON: write it with json.dump, not with str"),
        (b'{"images": [}', ": not JSON: "),
        (b"\xff\xfe\x00", ": not JSON: "),
        (b"[1, 2]", ": is a list of ints, not an object with images, annotations, categories; "),
        (b'{"images": 3, "annotations": [], "categories": []}', ": not a COCO file: "),
    ],
)
def test_files_that_are_not_coco(
    experiment: Path, refuse: Refuse, data: Path, content: bytes, message: str
) -> None:
    path = data / "annotations" / "train.json"
    path.write_bytes(content)
    text = refuse("train", experiment, f"data.root={data}")
    assert text.startswith(f"{path}{message}")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_list(
    experiment: Path, refuse: Refuse, data: Path, edit: Callable[..., Path], key: str
) -> None:
    path = edit(lambda content: content.pop(key))
    text = refuse("train", experiment, f"data.root={data}")
    assert text.startswith(f'{path}: has no "{key}" list; ')


def first_box(value: Any) -> Callable[[dict[str, Any]], None]:
    def function(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = value

    return function


def first(kind: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def function(content: dict[str, Any]) -> None:
        content[kind][0][key] = value

    return function


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            first("annotations", "image_id", 99),
            'annotation 1 (image 99) has image_id 99, which is not in "images" (1, 2, 3,',
        ),
        (
            first("annotations", "category_id", 9),
            'annotation 1 (image 1) has category_id 9, which is not in "categories" '
            "(1, 2, 3, 4, 5, 6)",
        ),
        (first("annotations", "id", 2), "annotation records 0 and 1 both have id 2; ids must"),
        (first("images", "id", 2), "image records 0 and 1 both have id 2; ids must be unique"),
        (first("categories", "id", 2), "category records 0 and 1 both have id 2; ids must"),
        (first("categories", "name", "ring"), "categories 1 and 6 are both named 'ring'; rename"),
        (
            first_box([10, 10, -5, 5]),
            "annotation 1 (image 1) has bbox [10, 10, -5, 5], whose width or height is negative; "
            "COCO boxes are [x, y, width, height]",
        ),
        (
            first_box([10, float("nan"), 5, 5]),
            "annotation 1 (image 1) has bbox [10, nan, 5, 5]; it must be four finite numbers",
        ),
        (
            first_box([10, 10, float("inf"), 5]),
            "annotation 1 (image 1) has bbox [10, 10, inf, 5]; it must be four finite numbers",
        ),
        (
            first_box([10, "10", 5, 5]),
            "annotation 1 (image 1) has bbox [10, '10', 5, 5]; it must be four finite numbers",
        ),
        (first_box([10, 10, 5]), "annotation 1 (image 1) has bbox [10, 10, 5]; it must be four"),
        (first_box(None), "annotation 1 (image 1) has bbox None; it must be four finite numbers"),
        (
            first("images", "file_name", "../secret.jpg"),
            "image 1 has file_name '../secret.jpg', which leads outside the image folder; it must",
        ),
        (
            first("images", "file_name", "/etc/passwd"),
            "image 1 has file_name '/etc/passwd', which leads outside the image folder; it must",
        ),
        (first("images", "width", 0), "image 1 has width 0; it must be the file's size"),
        (
            first("annotations", "iscrowd", 2),
            "annotation 1 (image 1) has iscrowd 2; it must be 0 or 1",
        ),
        (
            lambda content: content["images"].clear() or content["annotations"].clear(),
            '"images" is empty: data.train has no images',
        ),
        (lambda content: content["categories"].clear(), '"categories" is empty; there is no class'),
        (
            lambda content: content["annotations"].clear(),
            "data.train has 12 images but no box to learn from",
        ),
    ],
)
def test_records(
    experiment: Path,
    refuse: Refuse,
    data: Path,
    edit: Callable[..., Path],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    path = edit(change)
    text = refuse("train", experiment, f"data.root={data}")
    assert text.startswith(f"{path}: {message}")


def test_boxes_as_corners(
    experiment: Path, refuse: Refuse, data: Path, edit: Callable[..., Path]
) -> None:
    """A systematic error of format is refused."""

    def change(content: dict[str, Any]) -> None:
        for record in content["annotations"]:
            x, y, width, height = record["bbox"]
            record["bbox"] = [x, y, x + width, y + height]

    text = refuse("train", experiment, f"data.root={edit(change).parents[1]}")
    assert "all would fit as corners [x1, y1, x2, y2]" in text
    assert text.endswith(" --fix OUT.json` does so, or says what it needs to know")


def test_an_empty_val(
    experiment: Path, refuse: Refuse, data: Path, edit: Callable[..., Path]
) -> None:
    """Noticed before the training, not after."""
    path = edit(lambda c: c["images"].clear() or c["annotations"].clear(), "val")
    text = refuse("train", experiment, f"data.root={data}")
    assert text == f'{path}: "images" is empty: data.val has no images'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            first("categories", "name", "oval"),
            "category 1 is 'oval', but 'ellipse' in {train}; both files need the same categories",
        ),
        (
            lambda content: content["categories"].append({"id": 7, "name": "moon"}),
            "category 7 is 'moon', but missing in {train}; both files need the same categories",
        ),
    ],
)
def test_categories_that_differ(
    experiment: Path,
    refuse: Refuse,
    data: Path,
    edit: Callable[..., Path],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    path = edit(change, "val")
    text = refuse("train", experiment, f"data.root={data}")
    train = data / "annotations" / "train.json"
    assert text == (
        f"{path}: {message.format(train=train)}: `retinanet convert coco {train} {path} OUT --to "
        "coco --images FOLDER` writes both with the same categories, matched by name"
    )


def test_evaluation_on_other_classes(
    finished_run: Path, refuse: Refuse, data: Path, edit: Callable[..., Path]
) -> None:
    path = edit(first("categories", "name", "oval"), "val")
    checkpoint = finished_run / "checkpoints" / "best.pt"
    words = ["--annotations", path, "--images", data / "images" / "val"]
    text = refuse("evaluate", checkpoint, *words)
    assert text.startswith(f"{path}: category 1 is 'oval', but 'ellipse' in {checkpoint}")


# Image files.


def test_a_missing_image_folder(experiment: Path, refuse: Refuse, synthetic: Path) -> None:
    text = refuse("train", experiment, "data.train.images=pictures")
    assert text == (
        f"{synthetic}/pictures: there is no such image folder "
        f"(for {synthetic}/annotations/train.json)"
    )


def test_a_truncated_image_of_val(experiment: Path, refuse: Refuse, data: Path) -> None:
    """Evaluation leaves no image out, so it is found before step 0."""
    path = data / "images" / "val" / "000004.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    text = refuse("train", experiment, f"data.root={data}")
    assert text == (
        f"{path}: not an image that can be decoded: a truncated JPEG file, whose end is missing; "
        "copy or download it again (evaluation does not skip images)"
    )


def test_missing_image_files(experiment: Path, refuse: Refuse, data: Path) -> None:
    """All files are looked at before step 0."""
    folder = data / "images" / "train"
    for name in ("000004.jpg", "000007.jpg"):
        (folder / name).unlink()
    text = refuse("train", experiment, f"data.root={data}")
    assert text == (
        f"{data}/annotations/train.json: 2 of 12 image files are missing in {folder}, the first is "
        f"'000004.jpg' (image 4); is data.*.images right? `retinanet check "
        f"{data}/annotations/train.json --images {folder} --fix OUT.json` leaves them out"
    )


def test_empty_image_files(experiment: Path, refuse: Refuse, data: Path) -> None:
    (data / "images" / "val" / "000002.jpg").write_bytes(b"")
    text = refuse("train", experiment, f"data.root={data}")
    assert "1 of 6 image files is empty" in text
    assert "'000002.jpg' (image 2)" in text


def test_predict_on_nothing(finished_run: Path, refuse: Refuse, tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoint = finished_run / "checkpoints" / "best.pt"
    text = refuse("predict", checkpoint, tmp_path / "*.png", "--output", out)
    assert text.startswith(f"{tmp_path}/*.png: there is no such file or folder, and as a pattern")
    assert "--threshold 7 is not from" in refuse("predict", checkpoint, "x", "--threshold", 7)


# Checkpoints: someone else's file must not run code.


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def not_a_checkpoint(path: Path, good: Path) -> tuple[str, str]:
    path.write_text("hello")
    return "not a checkpoint, or a", "is not a torch file, a pickle of arrays or a safetensors fil"


def foreign(path: Path, good: Path) -> tuple[str, str]:
    torch.save({"model": {"weight": torch.zeros(2)}}, path)
    return (
        "not a checkpoint of this project",
        "is not a RetinaNet from torchvision, detectron2, mmdetection",
    )


def truncated(path: Path, good: Path) -> tuple[str, str]:
    path.write_bytes(good.read_bytes()[:1_000_000])
    return ("is damaged or cut off",) * 2


def runs_code(path: Path, good: Path) -> tuple[str, str]:
    torch.save({"format": "retinanet checkpoint", "x": Malicious(path.parent / "ran")}, path)
    return ("contains more than tensors and plain values; it was not opened",) * 2


def bare_pickle(path: Path, good: Path) -> tuple[str, str]:
    path.write_bytes(pickle.dumps(Malicious(path.parent / "ran"), protocol=2))
    return (
        "contains more than tensors and plain values; it was not opened",
        "contains pathlib.Path; it was",
    )


def absent(path: Path, good: Path) -> tuple[str, str]:
    return ("there is no such checkpoint",) * 2


@pytest.mark.parametrize("command", ["evaluate", "predict", "resume", "init-from"])
@pytest.mark.parametrize(
    "make", [not_a_checkpoint, foreign, truncated, runs_code, bare_pickle, absent]
)
def test_checkpoints(
    experiment: Path,
    finished_run: Path,
    synthetic: Path,
    refuse: Refuse,
    tmp_path: Path,
    command: str,
    make: Callable[[Path, Path], tuple[str, str]],
) -> None:
    """Messages of a checkpoint of ours, and of --init-from, which takes other projects' files."""
    path = tmp_path / "bad.pt"
    message = make(path, finished_run / "checkpoints" / "best.pt")[command == "init-from"]
    words: dict[str, list[object]] = {
        "evaluate": ["evaluate", path, "--output", tmp_path / "out"],
        "predict": ["predict", path, synthetic / "images" / "val", "--output", tmp_path / "out"],
        "resume": ["train", "--resume", path],
        "init-from": ["train", experiment, "--init-from", path],
    }
    text = refuse(*words[command])
    assert text.startswith(f"{path}: {message}")
    assert not (tmp_path / "ran").exists()


def test_the_malicious_file_would_run_code(tmp_path: Path) -> None:
    """The refusals above would be empty if the file did nothing."""
    pickle.loads(pickle.dumps(Malicious(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_folder_as_checkpoint(finished_run: Path, refuse: Refuse) -> None:
    text = refuse("evaluate", finished_run)
    assert text == (
        f"{finished_run}: is a folder; name a checkpoint, such as "
        f"{finished_run}/checkpoints/best.pt"
    )


def test_a_checkpoint_whose_weights_do_not_fit(
    finished_run: Path, refuse: Refuse, tmp_path: Path
) -> None:
    content = torch.load(finished_run / "checkpoints" / "best.pt", weights_only=True)
    content["model"]["box_subnet.output.bias"] = torch.zeros(3)
    torch.save(content, tmp_path / "odd.pt")
    text = refuse("evaluate", tmp_path / "odd.pt", "--output", tmp_path / "out")
    assert "the checkpoint's weights do not fit its own config" in text
    assert "box_subnet.output.bias" in text


# The output folder.


def test_an_empty_name_is_not_passed_over(experiment: Path, cli: Cli) -> None:
    """As a script's `--name "$NAME"` gives it where the variable is not set."""
    ran = cli("train", experiment, "--name", "")
    assert ran.code == 2
    assert "output: name: '' is not the name of a folder in output.dir" in ran.err


def test_another_run_in_the_folder(
    shared_experiment: Path, finished_run: Path, refuse: Refuse
) -> None:
    before = listing(finished_run)
    text = refuse("train", shared_experiment, "--name", "finished")
    assert text == (
        f"{finished_run}: there is a run here already. Continue it with --resume {finished_run}, "
        "or start another with --name finished-2"
    )
    assert listing(finished_run) == before


def test_foreign_files_in_the_folder(experiment: Path, refuse: Refuse) -> None:
    folder = experiment.parent / "runs" / "small"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    text = refuse("train", experiment)
    assert text.startswith(f"{folder}: the folder contains other files; ")
    assert text.endswith("--name small-2")


def test_a_folder_under_a_file(experiment: Path, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = refuse("train", experiment, f"output.dir={tmp_path}/file")
    where = f"{tmp_path}/file/small: cannot be created: {tmp_path}/file is not a folder"
    assert text == f"{where}; choose another output.dir"


def test_a_file_as_run_folder(experiment: Path, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("")
    text = refuse("train", experiment, f"output.dir={tmp_path}")
    assert text == f"{tmp_path}/small: is a file; choose another output.dir or --name"


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_output_under_a_file(
    finished_run: Path,
    synthetic: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """It is found before the evaluation, which takes minutes for COCO, and not after it."""
    monkeypatch.setattr("retinanet.reports.evaluate_checkpoint.evaluate_checkpoint", pytest.fail)
    monkeypatch.setattr("retinanet.inference.predictor.load", pytest.fail)
    (tmp_path / "file").write_text("")
    inputs = [synthetic / "images" / "val"] if command == "predict" else []
    checkpoint = finished_run / "checkpoints" / "best.pt"
    ran = cli(command, checkpoint, *inputs, "--output", tmp_path / "file" / "out")
    assert ran.code == 2
    where = f"{tmp_path}/file/out: cannot be created: {tmp_path}/file is not a folder"
    assert ran.err == f"error: {where}; choose another --output\n"


# Backbones and their weights.

TIMM = ["model.norm=bn", "model.backbone=timm:resnet18"]
PRETRAINED = ["model.norm=frozen_bn", "model.freeze=stages:1"]


def test_timm_that_is_not_installed(
    experiment: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    text = refuse("train", experiment, *TIMM)
    assert text == (
        "model.backbone: timm:resnet18 needs the package timm: pip install 'retinanet[timm]'"
    )


def test_an_unknown_backbone(experiment: Path, refuse: Refuse) -> None:
    text = refuse("train", experiment, "model.backbone=resnet19")
    assert text.startswith("model.backbone: unknown backbone 'resnet19'; did you mean resnet1")
    assert "Choose from: resnet18, resnet34, resnet50," in text


def test_a_missing_weights_file(experiment: Path, refuse: Refuse) -> None:
    text = refuse("train", experiment, *PRETRAINED, "model.weights=/no/weights.pth")
    assert text == (
        "model.weights: there is no such file: /no/weights.pth (expected IMAGENET1K_V1, "
        "IMAGENET1K_V2, none, or the path of a file)"
    )


def test_weights_of_another_network(experiment: Path, refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "r34.pth"
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), path)
    text = refuse("train", experiment, *PRETRAINED, f"model.weights={path}")
    assert text.startswith(f"model.weights: {path} does not fit the backbone: it has unexpected w")


def test_no_network(experiment: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message explains what to do without a network."""

    def download(*arguments: Any, **options: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", download)
    text = refuse("train", experiment, *PRETRAINED, "model.weights=IMAGENET1K_V1")
    assert text.startswith("model.weights: IMAGENET1K_V1 of resnet18 could not be downloaded from ")
    assert "no network" in text
    assert "model.weights=none model.norm=gn model.freeze=none" in text


def test_a_checkpoint_needs_no_network(
    finished_run: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkpoint nothing is downloaded, whatever its config names."""

    def download(*arguments: Any, **options: Any) -> None:
        raise AssertionError("touched the network")

    content = torch.load(finished_run / "checkpoints" / "best.pt", weights_only=True)
    content["config"]["model"]["weights"] = "IMAGENET1K_V1"
    content["config"]["model"]["norm"] = "bn"
    drop = [key for key in content["model"] if key.startswith("backbone.")]
    plain = {f"backbone.{k}": v for k, v in _plain_resnet().items()}
    content["model"] = {k: v for k, v in content["model"].items() if k not in drop} | plain
    torch.save(content, tmp_path / "pretrained.pt")
    assert load_checkpoint(tmp_path / "pretrained.pt").config.model.weights == "IMAGENET1K_V1"
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", download)
    ran = cli("evaluate", tmp_path / "pretrained.pt", "--output", tmp_path / "out")
    assert ran.code == 0, ran.err


def _plain_resnet() -> dict[str, torch.Tensor]:
    state = torchvision.models.resnet18(weights=None).state_dict()
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def test_augmentation_that_does_not_exist(experiment: Path, refuse: Refuse) -> None:
    text = refuse("train", experiment, "data.augment=[{RandomGama: {p: 0.5}}]")
    assert text == "data.augment.0: albumentations has no 'RandomGama'; did you mean RandomGamma?"


def test_a_device_that_is_not_there(
    experiment: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    text = refuse("train", experiment, "train.device=cuda")
    assert text == "train.device: cuda is not on this machine; available: cpu"


def test_half_precision_on_a_cpu(experiment: Path, refuse: Refuse) -> None:
    text = refuse("train", experiment, "train.precision=fp16")
    assert text == "train.precision: fp16 needs a GPU; a CPU supports bf16, fp32 and fp64"


# Results files.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "a results file is a list of detections"),
        ('[{"image_id": 77}]', "detection 0 has image_id 77, which is not in the annotation file"),
        (
            '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5], "score": 1}]',
            "detection 0 (image 1) has bbox [0, 0, 5] and score 1; bbox should be four finite",
        ),
    ],
)
def test_results(
    synthetic: Path, refuse: Refuse, tmp_path: Path, content: str, message: str
) -> None:
    """Results that do not belong to the set."""
    path = tmp_path / "results.json"
    path.write_text(content)
    truth = synthetic / "annotations" / "val.json"
    assert refuse("evaluate", path, "--annotations", truth).startswith(f"{path}: {message}")


def test_a_train_split_whose_boxes_are_all_left_out(
    experiment: Path, refuse: Refuse, data: Path
) -> None:
    """It is reported before step 0 that there is nothing to learn from."""
    text = refuse("train", experiment, f"data.root={data}", "data.min_box_side=500")
    assert "data.train has no box left to learn from" in text
    assert "with a side under 500 px: left out" in text


def test_images_without_annotations(cli: Cli, finished_run: Path, tmp_path: Path) -> None:
    ran = cli("evaluate", finished_run / "checkpoints" / "best.pt", "--images", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "--images" in ran.err and "needs --annotations" in ran.err
