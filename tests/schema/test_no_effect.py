"""Options that do nothing beside others are named; defaults and shipped recipes are not."""

from pathlib import Path

import pytest

from retinanet.config import dump_config, load_config, override_config
from retinanet.schema import Config
from retinanet.schema.no_effect import options_without_effect

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["train.schedule=cosine", "train.milestones=[3]", "train.lr_drop=0.5"],
            "train.milestones, train.lr_drop (train.schedule is cosine)",
        ),
        (["train.optimizer=adamw", "train.momentum=0.8"], "train.momentum (train.optimizer is ad"),
        (["train.warmup_steps=0", "train.warmup_factor=0.5"], "train.warmup_factor (train.warm"),
        (["train.weight_decay=0", "train.decay_exempt=norms"], "train.decay_exempt (train.weig"),
        (["train.keep_snapshots=9"], "train.keep_snapshots (train.snapshot_every is 0)"),
        (["eval.every=0", "train.patience=3"], "train.patience (eval.every is 0: there is only "),
        (["model.freeze=backbone", "train.backbone_lr_factor=0.1"], "train.backbone_lr_factor ("),
        (
            ["model.init_from=a.pt", "model.weights=b.pth"],
            "model.weights (the weights come from mo",
        ),
        (["model.backbone=resnet18", "model.stride_in_1x1=true"], "model.stride_in_1x1 (model.ba"),
        (["loss.class_loss=cross_entropy", "loss.gamma=1"], "loss.gamma (loss.class_loss is cros"),
        (["loss.class_loss=ohem", "loss.alpha=0.5"], "loss.alpha (loss.class_loss is ohem)"),
        (["loss.ohem_examples=9"], "loss.ohem_examples (loss.class_loss is focal)"),
        (["loss.star_beta=2"], "loss.star_beta (loss.class_loss is focal)"),
        (["loss.box_loss=giou", "loss.beta=1"], "loss.beta (loss.box_loss is giou)"),
        (["loss.normalizer_momentum=0.5"], "loss.normalizer_momentum (loss.normalizer is positiv"),
        (["assign.kind=atss", "assign.positive_iou=0.6"], "assign.positive_iou (assign.kind is at"),
        (["assign.atss_candidates=5"], "assign.atss_candidates (assign.kind is max_iou)"),
        (["data.canvas_group=2"], "data.canvas_group (data.canvas is bucket)"),
        (
            ["data.canvas=batch_max", "data.canvas_group=2", "data.preset=mosaic"],
            "data.canvas_group (data.preset mosaic has a canvas of its own)",
        ),
        (["data.resize=per_image"], "data.resize (data.short_side is a single size)"),
    ],
)
def test_what_has_none(words: list[str], line: str) -> None:
    (said,) = options_without_effect(override_config(Config(), words))
    assert said.startswith(f"  without effect: {line}")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_have_none(path: Path) -> None:
    assert options_without_effect(load_config(path)) == []


def test_the_config_of_a_run_says_all_options_without_a_word() -> None:
    whole = Config.model_validate(dump_config(Config()))
    assert options_without_effect(whole) == []
