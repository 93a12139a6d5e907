"""Other people's checkpoints from the command line: convert, use, start from, and back."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retinanet.checkpoints.format import load_checkpoint
from retinanet.yaml_reader import read_yaml, write_yaml

pytestmark = pytest.mark.slow

Cli = Callable[..., "Ran"]  # type: ignore[name-defined]  # noqa: F821


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of torchvision's training script: v2's subnets on a ResNet-18, six classes."""
    torch.manual_seed(0)
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    pyramid = _resnet_fpn_extractor(
        body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(512, 256)
    )
    head = RetinaNetHead(256, 9, 7, norm_layer=partial(nn.GroupNorm, 32))
    path = tmp_path_factory.mktemp("peer") / "model_25.pth"
    torch.save({"model": RetinaNet(pyramid, 7, head=head).state_dict(), "epoch": 25}, path)
    return path


@pytest.fixture
def without_network(experiment: Path) -> Path:
    """The experiment, without a word on network and anchors."""
    values = read_yaml(experiment)
    del values["model"]
    values.pop("anchors", None)
    write_yaml(values, experiment)
    return experiment


def test_convert_evaluate_predict(peer: Path, synthetic: Path, cli: Cli, tmp_path: Path) -> None:
    ours, val = tmp_path / "ours.pt", synthetic / "annotations" / "val.json"
    ran = cli("convert", "checkpoint", peer, ours, "--categories", val)
    assert ran.code == 0 and ran.out.splitlines()[0].startswith("torchvision: resnet18, 6 classes")
    assert f"wrote {ours}" in ran.out
    images = synthetic / "images" / "val"
    small = ["data.short_side=[64]", "postprocess.score_threshold=0.001"]
    where = ["--annotations", val, "--images", images, "--output", tmp_path / "figures"]
    ran = cli("evaluate", ours, *where, *small)
    assert ran.code == 0 and "AP" in ran.out
    ran = cli("predict", ours, images, "--output", tmp_path / "found", *small)
    assert ran.code == 0


def test_a_foreign_file_is_told_how_to_convert(peer: Path, synthetic: Path, cli: Cli) -> None:
    ran = cli("predict", peer, synthetic / "images" / "val")
    assert ran.code == 2
    assert f"{peer}: is a RetinaNet from torchvision, not a checkpoint of this project" in ran.err
    assert f"Convert it first: retinanet convert checkpoint {peer} OUT.pt" in ran.err


def test_start_from_a_foreign_file(
    peer: Path, without_network: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    """What the experiment does not say of its network comes from there, and is written down."""
    converted = tmp_path / "ours.pt"
    val = synthetic / "annotations" / "val.json"
    assert cli("convert", "checkpoint", peer, converted, "--categories", val).code == 0
    words = ["train", without_network, "train.steps=1", "train.lr=1e-12", "--init-from"]
    ran = cli(*words, converted)
    assert ran.code == 0
    assert f"start from {converted}\n" in ran.out
    assert "model.backbone=resnet18" in ran.out and "model.head_norm=gn" in ran.out
    assert "class logits kept for 6 classes of the same name" in ran.out
    run = without_network.parent / "runs" / "small"
    saved = load_checkpoint(run / "checkpoints" / "last.pt")
    assert saved.config.anchors.rounding == "corners"  # torchvision's
    assert saved.config.model.init_from == str(converted)
    before = load_checkpoint(converted)
    for name, value in before.model.items():
        torch.testing.assert_close(saved.model[name], value, rtol=0, atol=1e-6)

    # The run resumes from its own checkpoint: the file is not needed any more.
    converted.unlink()
    ran = cli("train", without_network, "--resume", "train.steps=2", "train.lr=1e-12")
    assert ran.code == 0, ran.err


def test_a_run_goes_on_as_it_began(
    learned_run: Path, without_network: Path, cli: Cli, tmp_path: Path
) -> None:
    """Group norm, all but the head frozen: what only goes together with weights to start from."""
    source = tmp_path / "start.pt"
    shutil.copy(learned_run / "checkpoints" / "last.pt", source)
    words = ["train", without_network, "model.freeze=all_but_head", "eval.every=0"]
    assert cli(*words, "train.steps=1", "--init-from", source).code == 0
    source.unlink()
    other = cli(*words, "train.steps=2", "--init-from", "other.pt", "--resume")
    assert other.code == 2 and "with its own weights, not with those of other.pt" in other.err
    ran = cli(*words, "train.steps=2", "--init-from", f"{source.parent}/./start.pt", "--resume")
    assert ran.code == 0, ran.err
    run = without_network.parent / "runs" / "small"
    last = load_checkpoint(run / "checkpoints" / "last.pt")
    assert last.progress.step == 2 and last.config.model.init_from == str(source)
    assert len(last.environment["init_from"]) == 16  # a digest of the weights


def test_config_shows_what_comes_from_the_weights(
    peer: Path, without_network: Path, synthetic: Path, cli: Cli, tmp_path: Path
) -> None:
    converted, val = tmp_path / "ours.pt", synthetic / "annotations" / "val.json"
    assert cli("convert", "checkpoint", peer, converted, "--categories", val).code == 0
    ran = cli("config", without_network, f"model.init_from={converted}")
    assert ran.code == 0
    shown = yaml.safe_load(ran.out)
    assert shown["model"]["backbone"] == "resnet18" and shown["model"]["head_norm"] == "gn"
    assert shown["anchors"]["rounding"] == "corners"
    ran = cli("config", without_network, f"model.init_from={tmp_path / 'no.pt'}")
    assert ran.code == 2 and "no.pt: there is no such checkpoint" in ran.err


def test_a_foreign_file_on_the_fly(peer: Path, without_network: Path, cli: Cli) -> None:
    """It has no names of classes: with COCO's number of logits it would have."""
    ran = cli("train", without_network, "--init-from", peer)
    assert ran.code == 2
    assert "has 7 logits per anchor and no class names; give its classes" in ran.err
    assert not (without_network.parent / "runs" / "small").exists()


def test_a_backbone_on_the_fly(without_network: Path, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    ran = cli("train", without_network, "model.fpn_channels=32", "--init-from", path, "--dry-run")
    assert ran.code == 0
    assert "resnet18 in pytorch style: a backbone without a detector" in ran.out
    assert "  fresh fpn, all of it" in ran.out


def test_a_backbone_detects_nothing(synthetic: Path, cli: Cli, tmp_path: Path) -> None:
    path, ours = tmp_path / "resnet18.pth", tmp_path / "ours.pt"
    torch.save(resnet18(weights=None).state_dict(), path)
    assert cli("convert", "checkpoint", path, ours).code == 0
    ran = cli("predict", ours, synthetic / "images" / "val")
    assert ran.code == 2 and "the checkpoint contains only a backbone; train a detector" in ran.err


def test_another_class_leaves_the_old_ones_as_they_are(
    experiment: Path, learned_run: Path, few_images: Path, cli: Cli, tmp_path: Path
) -> None:
    """A detector of some classes, extended to all, finds those as before."""
    two = ["--name", "two", "data.classes=[ellipse, ring]"]
    same = [
        *(f"data.{split}.annotations={few_images}" for split in ("train", "val")),
        *("data.val.images=images/train", "data.short_side=[64]", "data.hflip=0"),
        *("data.augment=[]", "postprocess.score_threshold=0.05", "eval.every=0"),
    ]
    source = learned_run / "checkpoints" / "last.pt"
    short = ["train.steps=1", "train.lr=1e-12", "train.weight_decay=0"]
    assert cli("train", experiment, *same, *two, *short, "--init-from", source).code == 0
    runs = experiment.parent / "runs"
    narrow = runs / "two" / "checkpoints" / "last.pt"
    assert load_checkpoint(narrow).categories.names == ("ellipse", "ring")
    assert cli("train", experiment, *same, *short, "--init-from", narrow, "--name", "all").code == 0
    figures = []
    for name in ("two", "all"):
        out = tmp_path / name
        checkpoint = runs / name / "checkpoints" / "last.pt"
        assert cli("evaluate", checkpoint, "--output", out).code == 0
        metrics = json.loads((out / "metrics.json").read_text())
        figures.append({c: metrics["classes"][c] for c in ("ellipse", "ring")})
    assert figures[0] == figures[1]
    assert max(row["AP"] or 0 for row in figures[0].values()) > 0.3


def test_and_back(learned_run: Path, cli: Cli, tmp_path: Path) -> None:
    source, out = learned_run / "checkpoints" / "last.pt", tmp_path / "peer.pth"
    ran = cli("convert", "checkpoint", source, out, "--to", "detectron2")
    assert ran.code == 2 and 'detectron2 has no such network: model.norm is "gn"' in ran.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.pth", "OUT"], "no.pth: there is no such file"),
        (["PEER", "PEER"], "already exists; name another file to write, or remove it"),
        (["PEER", "no/OUT"], "there is no folder"),
        (["PEER", "OUT", "--categories", "no.json"], "--categories no.json: cannot be read"),
        (["PEER", "OUT", "--from", "detectron2"], "--from detectron2: "),
        (["PEER", "OUT", "--style", "caffe"], "--style: torchvision has only one kind"),
        (["PEER", "OUT", "model.bakbone=x"], "did you mean model.backbone"),
        (
            ["PEER", "OUT", "--to", "torchvision", "--style", "caffe"],
            "--to cannot be combined with --from, --style, --categories, --box-weights or "
            "section.key=value; leave them out",
        ),
    ],
)
def test_mistakes(words: list[str], message: str, peer: Path, cli: Cli, tmp_path: Path) -> None:
    places = {"PEER": peer, "OUT": tmp_path / "out.pt", "no/OUT": tmp_path / "no" / "out.pt"}
    ran = cli("convert", "checkpoint", *(places.get(word, word) for word in words))
    assert ran.code == 2 and message in ran.err and "Traceback" not in ran.err
    assert not list(tmp_path.iterdir())
