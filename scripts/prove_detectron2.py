"""Compare our RetinaNet with golden files written by detectron2, value by value.

    python scripts/prove_detectron2.py GOLDEN_FOLDER --precision fp64

Rebuilds the weights of each golden file from their names (see `_rebuild_weight`), and converts them
as `retinanet convert checkpoint` does. Compares canvas, anchors, labels, features, outputs and
detections, and losses and weights over ten steps of SGD, with the values that detectron2 wrote (in
float32). Prints each difference with its tolerance. The exit code is 1 if one is exceeded.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from plain_assign import build_plain_assign
from torch import Tensor

from retinanet.batch import Batch
from retinanet.categories import Categories
from retinanet.data.canvas import cover
from retinanet.interop.projects import PROJECTS
from retinanet.interop.to_checkpoint import convert_checkpoint
from retinanet.losses.criterion import build_criterion
from retinanet.model.detector import Detector, build_detector
from retinanet.model.postprocess import build_postprocess
from retinanet.positives import find_assigned
from retinanet.schema import Config
from retinanet.structures import BACKGROUND, IGNORED, Outputs, Target

STYLES = {"r18_torchvision_a": "pytorch", "r50_msra_a": "caffe"}
CHOICES = [  # where the golden runs differ from the recipe: one rank, smooth-L1, no threshold
    "loss.normalizer_start=100",
    "loss.box_loss=smooth_l1",
    "loss.beta=0.1",
    "postprocess.score_threshold=0",
]
CLASSES = Categories(ids=(1, 2, 3, 4, 5), names=("a", "b", "c", "d", "e"))
STEPS = 10
Golden = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One golden file, and our network with its weights."""

    golden: Golden
    facts: dict[str, Any]
    config: Config
    model: Detector
    names: dict[str, str]
    """Names of weights in detectron2 -> our names."""
    batch: Batch


class Step(NamedTuple):
    """Result of one step of SGD."""

    losses: list[float]
    """Class loss, box loss, and the normaliser."""
    norms: list[float]
    """Norms of the watched weights."""


def open_case(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Case:
    """Read a golden file and convert its weights."""
    with np.load(folder / f"{name}.npz") as arrays:
        golden = dict(arrays)
    facts = json.loads((folder / f"{name}.json").read_text())
    weights = {key: _rebuild_weight(name, key, shape) for key, shape in facts["keys"].items()}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model_final.pkl"
        path.write_bytes(pickle.dumps({"model": weights, "__author__": "Detectron2 Model Zoo"}))
        found, _ = convert_checkpoint(
            path, style=STYLES[name], categories=CLASSES, overrides=CHOICES
        )
    model = build_detector(found.config, classes=len(CLASSES), pretrained=False)
    model.load_state_dict(found.model)
    return Case(
        golden=golden,
        facts=facts,
        config=found.config,
        model=model.to(dtype),
        names={PROJECTS["detectron2"].key(ours, False): ours for ours in found.model},
        batch=_make_batch(golden, model, found.config),
    )


def _rebuild_weight(name: str, key: str, shape: list[int]) -> NDArray[np.float32]:
    """Rebuild one weight by the rule of the golden files: noise seeded by its name."""
    salt = name.rsplit("_", 1)[1]
    generator = np.random.default_rng(zlib.crc32(f"{salt}:{key}".encode()))
    z = generator.standard_normal(shape, dtype=np.float32)
    if key == "head.cls_score.bias":
        return np.full(shape, -4.59511985, dtype=np.float32)
    if key.endswith("norm.weight"):
        return np.float32(0.5) + np.float32(0.1) * z
    if key.endswith("norm.running_var"):
        return np.float32(1) + np.float32(0.1) * np.abs(z)
    if key.endswith(("norm.bias", "norm.running_mean")):
        return np.float32(0.1) * z
    if key.endswith((".bias", "cls_score.weight", "bbox_pred.weight")):
        return np.float32(0.01) * z
    value = np.float32(np.sqrt(2 / np.prod(shape[1:]))) * z
    is_stem = key == "backbone.bottom_up.stem.conv1.weight"
    return value / np.float32(58) if "msra" in name and is_stem else value


def _make_batch(golden: Golden, model: Detector, config: Config) -> Batch:
    """Put the two images on one canvas, and assign the anchors."""
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
    matches = torch.stack([build_plain_assign(config.assign)(anchors, t) for t in targets])
    return Batch(
        images=canvas,
        sizes=torch.tensor(sizes),
        original_sizes=torch.tensor(sizes),
        image_ids=torch.arange(2),
        targets=targets,
        assigned=find_assigned(targets, matches),
    )


def wrong_labels(case: Case) -> int:
    """Return how many anchors have a wrong label: a class, 5 for background, -1 for ignored."""
    wrong = 0
    each = zip(case.batch.targets, case.batch.assigned.matches().long(), strict=True)
    for i, (target, matches) in enumerate(each):
        labels = target.labels[matches.clamp(min=0)]
        labels = torch.where(matches == BACKGROUND, len(CLASSES), labels)
        labels = torch.where(matches == IGNORED, -1, labels)
        wrong += int((labels.numpy() != case.golden["labels"][i]).sum())
    return wrong


@torch.no_grad()
def run_forward(case: Case) -> tuple[Outputs, list[Tensor]]:
    """Return the outputs and the features P3..P7 of the batch."""
    features: list[Tensor] = []
    hook = case.model.fpn.register_forward_hook(lambda _, __, output: features.extend(output))
    outputs = case.model.eval()(case.batch.images, case.batch.sizes)
    hook.remove()
    return outputs, features


def relative_difference(ours: Tensor, theirs: NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest value."""
    assert tuple(ours.shape) == theirs.shape
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


def unmatched_detections(case: Case, outputs: Outputs) -> int:
    """Return how many detections on either side have no counterpart within 0.01 px and 1e-5."""
    unmatched, sizes = 0, case.batch.sizes
    for i, found in enumerate(build_postprocess(case.config.postprocess)(outputs, sizes, sizes)):
        names = ("boxes", "scores", "classes")
        boxes, scores, labels = (torch.from_numpy(case.golden[f"det_{n}{i}"]) for n in names)
        close = (found.boxes[:, None] - boxes).abs().amax(dim=2) <= 0.01  # (ours, theirs)
        close &= (found.scores[:, None] - scores).abs() <= 1e-5
        close &= found.labels[:, None] == labels
        unmatched = max(unmatched, int((~close.any(dim=0)).sum()) + int((~close.any(dim=1)).sum()))
    return unmatched


def take_steps(case: Case, steps: int) -> Iterator[Step]:
    """Take steps of SGD on the batch, as the golden run did; the weights change."""
    model, batch, options = case.model.train(), case.batch, case.config.loss
    weights = dict(model.named_parameters())
    watched = [weights[case.names[key]] for key in case.facts["watched"]]
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.002,
        momentum=0.9,
        weight_decay=1e-4,
    )
    criterion, normalizer = build_criterion(options), options.normalizer_start
    for _ in range(steps):
        momentum = options.normalizer_momentum
        normalizer = momentum * normalizer + (1 - momentum) * len(batch.assigned.places)
        sums = criterion(model(batch.images, batch.sizes), batch)
        optimizer.zero_grad()
        ((sums["class"] + sums["box"]) / normalizer).backward()
        optimizer.step()
        yield Step(
            losses=[*(sums[part].item() / normalizer for part in ("class", "box")), normalizer],
            norms=[float(p.detach().double().norm()) for p in watched],  # float32 sums lose 1e-4
        )


def largest_relative(ours: list[float], theirs: NDArray[Any]) -> float:
    """Return the largest relative difference."""
    return float(np.max(np.abs(np.array(ours) - theirs) / np.abs(theirs)))


def figures(case: Case) -> Iterator[tuple[str, float, float]]:
    """Yield the name of each compared quantity, its difference, and the tolerance."""
    golden = case.golden
    outputs, features = run_forward(case)
    shape = list(case.batch.images.shape)
    yield "canvas", float(shape != golden["padded_shape"].tolist()), 0
    yield "anchors, px", float(np.abs(outputs.anchors.numpy() - golden["anchors"]).max()), 1e-3
    yield "labels, anchors", wrong_labels(case), 0
    for feature, level in zip(features[2:], ("p5", "p6", "p7"), strict=True):
        difference = relative_difference(feature, golden[f"feature_{level}"])
        yield f"features {level.upper()}, relative", difference, 1e-4
    for feature, level in zip(features[:2], ("p3", "p4"), strict=True):
        mean, deviation = golden[f"feature_{level}_mean_std"]
        own = feature.double()
        difference = max(abs(float(own.mean()) - mean), abs(float(own.std()) - deviation))
        what = f"mean and standard deviation of {level.upper()}, relative"
        yield what, difference / deviation, 1e-4
    yield "logits, relative", relative_difference(outputs.logits, golden["logits"]), 1e-4
    yield "deltas, relative", relative_difference(outputs.deltas, golden["deltas"]), 1e-4
    yield "detections without a counterpart", unmatched_detections(case, outputs), 2
    steps = list(take_steps(case, STEPS))
    for last, losses, norms in ((3, 1e-4, 1e-5), (STEPS, 1e-2, 1e-3)):
        for what, allowed in (("losses", losses), ("norms", norms)):
            stored = golden["losses" if what == "losses" else "watched_norms"]
            worst = max(
                largest_relative(getattr(step, what), stored[i])
                for i, step in enumerate(steps[:last])
            )
            of = "losses" if what == "losses" else "norms of weights"
            yield f"{of} over {last} steps, relative", worst, allowed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the golden files")
    parser.add_argument(
        "--precision", choices=["fp64", "fp32"], default="fp64", help="our precision (fp64)"
    )
    options = parser.parse_args()
    if not any(options.folder.glob("*.npz")):
        print(f"error: {options.folder}: contains no golden file (*.npz)", file=sys.stderr)
        return 2
    dtype = torch.float64 if options.precision == "fp64" else torch.float32
    failed = False
    for name in STYLES:
        print(f"{name}, {options.precision}")
        for what, difference, tolerance in figures(open_case(options.folder, name, dtype)):
            beyond = bool(difference > tolerance)
            failed |= beyond
            print(f"  {what}: {difference:.2g} (allowed {tolerance:g}){' BEYOND' * beyond}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
