"""Equality with detectron2, by the golden files that it wrote itself (shared/parity/detectron2).

The weights are rebuilt from their names by the rule of the golden files' README; the tolerances
are the README's.
"""

import json
import os
import re
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from retinanet.config import load_config
from retinanet.data.canvas import cover
from retinanet.losses.assign import build_assign
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import Detector, build_detector
from retinanet.model.postprocess import build_postprocess
from retinanet.schema import Config
from retinanet.structures import BACKGROUND, IGNORED, Batch, Target, find_assigned

CLASSES = 5
CONFIGS = Path(__file__).parents[2] / "configs"
# What the golden files have other than our recipe: the normaliser of one rank, every detection.
GOLDEN = [  # the golden run's own choices beside the recipe's
    "loss.normalizer_start=100",
    "loss.box_loss=smooth_l1",
    "loss.beta=0.1",
    "postprocess.score_threshold=0",
]
MODELS = {
    "r18_torchvision_a": [
        "model.backbone=resnet18",
        "model.stride_in_1x1=false",
        "model.channel_order=rgb",
        "model.pixel_mean=[123.675, 116.28, 103.53]",
        "model.pixel_std=[58.395, 57.12, 57.375]",
    ],
    "r50_msra_a": [],
}
STEPS = 3  # of the ten on file: later ones allow 1e-2 and cost 2 s each


def read_golden(name: str) -> tuple[dict[str, np.ndarray], dict]:
    root = os.environ.get("RETINANET_TEST_DATA")
    if not root:
        pytest.skip("RETINANET_TEST_DATA is not set: no golden files of detectron2")
    path = Path(root).parent / "parity" / "detectron2" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no golden file {path}")
    with np.load(path) as arrays:
        return dict(arrays), json.loads(path.with_suffix(".json").read_text())


def golden_weight(name: str, key: str, shape: list[int]) -> Tensor:
    """Rebuild one weight by the rule of the README."""
    salt = name.rsplit("_", 1)[1]
    generator = np.random.default_rng(zlib.crc32(f"{salt}:{key}".encode()))
    z = generator.standard_normal(shape, dtype=np.float32)
    if key == "head.cls_score.bias":
        value = np.full(shape, -4.59511985, dtype=np.float32)
    elif key.endswith("norm.weight"):
        value = np.float32(0.5) + np.float32(0.1) * z
    elif key.endswith("norm.running_var"):
        value = np.float32(1) + np.float32(0.1) * np.abs(z)
    elif key.endswith(("norm.bias", "norm.running_mean")):
        value = np.float32(0.1) * z
    elif key.endswith(".bias") or key.endswith(("cls_score.weight", "bbox_pred.weight")):
        value = np.float32(0.01) * z
    else:
        value = np.float32(np.sqrt(2 / np.prod(shape[1:]))) * z
    if "msra" in name and key == "backbone.bottom_up.stem.conv1.weight":
        value = value / np.float32(58)
    return torch.from_numpy(value)


def our_key(key: str) -> str:
    """Translate a name of detectron2's into ours."""
    rules = [
        (r"^backbone\.fpn_(lateral|output)([345])", lambda m: f"fpn.{m[1]}.{int(m[2]) - 3}"),
        (r"^backbone\.top_block\.", "fpn."),
        (r"^backbone\.bottom_up\.stem\.conv1\.norm", "backbone.bn1"),
        (r"^backbone\.bottom_up\.stem\.", "backbone."),
        (r"^backbone\.bottom_up\.res(\d)", lambda m: f"backbone.layer{int(m[1]) - 1}"),
        (r"shortcut\.norm", "downsample.1"),
        (r"shortcut", "downsample.0"),
        (r"conv(\d)\.norm", r"bn\1"),
        (r"^head\.cls_subnet", "class_subnet.tower"),
        (r"^head\.bbox_subnet", "box_subnet.tower"),
        (r"^head\.cls_score", "class_subnet.output"),
        (r"^head\.bbox_pred", "box_subnet.output"),
    ]
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def golden_config(name: str) -> Config:
    """Our recipe of detectron2, but for what is particular to the golden files."""
    return load_config(CONFIGS / "detectron2_r50_1x_coco.yaml", [*GOLDEN, *MODELS[name]])


def golden_model(name: str, config: Config, keys: dict[str, list[int]]) -> Detector:
    model = build_detector(config, classes=CLASSES, pretrained=False)
    state = {our_key(key): golden_weight(name, key, shape) for key, shape in keys.items()}
    model.load_state_dict(state)  # strict: every weight of theirs is one of ours and back
    return model


def padded_batch(golden: dict[str, np.ndarray], model: Detector, config: Config) -> Batch:
    images = [torch.from_numpy(golden[f"image{i}"]) for i in range(2)]
    if config.model.channel_order == "bgr":
        images = [image.flip(0) for image in images]  # theirs are stored as fed; ours are RGB
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    height, width = cover(sizes)
    canvas = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    for i, image in enumerate(images):
        canvas[i, :, : image.shape[1], : image.shape[2]] = image
    targets = [
        Target(
            boxes=torch.from_numpy(golden[f"boxes{i}"]),
            labels=torch.from_numpy(golden[f"classes{i}"]),
            crowd=torch.zeros(len(golden[f"boxes{i}"]), dtype=torch.bool),
        )
        for i in range(2)
    ]
    anchors = model.anchors((height, width), torch.device("cpu"))
    matches = torch.stack([build_assign(config.assign)(anchors, t) for t in targets])
    return Batch(
        images=canvas,
        sizes=torch.tensor(sizes),
        original_sizes=torch.tensor(sizes),
        image_ids=torch.arange(2),
        targets=targets,
        matches=matches,
        assigned=find_assigned(targets, matches),
    )


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    name = request.param
    golden, facts = read_golden(name)
    config = golden_config(name)
    model = golden_model(name, config, facts["keys"])
    batch = padded_batch(golden, model, config)
    features: list[Tensor] = []
    hook = model.fpn.register_forward_hook(lambda _, __, output: features.extend(output))
    with torch.no_grad():
        outputs = model.eval()(batch.images, batch.sizes)
    hook.remove()
    return SimpleNamespace(
        name=name,
        golden=golden,
        facts=facts,
        config=config,
        model=model,
        batch=batch,
        features=features,
        outputs=outputs,
    )


def largest_difference(ours: Tensor, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert tuple(ours.shape) == theirs.shape
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


@pytest.mark.real_data
def test_canvas_and_anchors(case: SimpleNamespace) -> None:
    assert list(case.batch.images.shape) == case.golden["padded_shape"].tolist()
    assert case.outputs.anchors_per_level == [36 * 40 * 9, 18 * 20 * 9, 9 * 10 * 9, 225, 81]
    difference = np.abs(case.outputs.anchors.numpy() - case.golden["anchors"]).max()
    assert difference <= 1e-3


@pytest.mark.real_data
def test_labels_of_every_anchor(case: SimpleNamespace) -> None:
    for i, target in enumerate(case.batch.targets):
        matches = case.batch.matches[i].long()
        labels = target.labels[matches.clamp(min=0)]
        labels = torch.where(matches == BACKGROUND, CLASSES, labels)
        labels = torch.where(matches == IGNORED, -1, labels)
        assert labels.tolist() == case.golden["labels"][i].tolist()


@pytest.mark.real_data
def test_features_logits_and_deltas(case: SimpleNamespace) -> None:
    for feature, level in zip(case.features[2:], ("p5", "p6", "p7"), strict=True):
        assert largest_difference(feature, case.golden[f"feature_{level}"]) <= 1e-4
    for feature, level in zip(case.features[:2], ("p3", "p4"), strict=True):
        mean, deviation = case.golden[f"feature_{level}_mean_std"]
        assert float(feature.double().mean()) == pytest.approx(mean, abs=1e-4 * deviation)
        assert float(feature.double().std()) == pytest.approx(deviation, rel=1e-4)
    assert largest_difference(case.outputs.logits, case.golden["logits"]) <= 1e-4
    assert largest_difference(case.outputs.deltas, case.golden["deltas"]) <= 1e-4


@pytest.mark.real_data
def test_detections(case: SimpleNamespace) -> None:
    """detectron2 cuts boxes to the image after suppression and drops the empty ones."""
    options = case.config.postprocess
    assert options.clip == "after_nms"
    sizes = case.batch.sizes
    for i, found in enumerate(build_postprocess(options)(case.outputs, sizes, sizes)):
        boxes, scores, labels = found.boxes, found.scores, found.labels
        names = ("boxes", "scores", "classes")
        theirs = [torch.from_numpy(case.golden[f"det_{name}{i}"]) for name in names]
        assert len(theirs[0]) >= 80
        close = (boxes[:, None] - theirs[0]).abs().amax(dim=2) <= 0.01  # (ours, theirs)
        close &= (scores[:, None] - theirs[1]).abs() <= 1e-5
        close &= labels[:, None] == theirs[2]
        assert int((~close.any(dim=0)).sum()) + int((~close.any(dim=1)).sum()) <= 2


@pytest.mark.real_data
def test_losses_and_weights_over_sgd_steps(case: SimpleNamespace) -> None:
    """The last test of a case: it changes the model's weights."""
    model, batch, golden = case.model.train(), case.batch, case.golden
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {our_key(key) for key in case.facts["trainable"]}
    watched = [dict(model.named_parameters())[our_key(key)] for key in case.facts["watched"]]
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.002,
        momentum=0.9,
        weight_decay=1e-4,
    )
    options = case.config.loss
    normalizer = options.normalizer_start
    for step in range(STEPS):
        positives = int((batch.matches >= 0).sum())
        momentum = options.normalizer_momentum
        normalizer = momentum * normalizer + (1 - momentum) * positives
        sums = build_criterion(options)(model(batch.images, batch.sizes), batch)
        losses = {name: value / normalizer for name, value in sums.items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        near = step < 3
        ours = [losses["class"].item(), losses["box"].item(), normalizer]
        assert ours == pytest.approx(golden["losses"][step].tolist(), rel=1e-4 if near else 1e-2)
        norms = [float(p.detach().double().norm()) for p in watched]  # float32 sums lose 1e-4
        wanted = golden["watched_norms"][step].tolist()
        assert norms == pytest.approx(wanted, rel=1e-5 if near else 1e-3)
