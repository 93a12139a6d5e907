"""Options that were set but have no effect with the others: users should be told."""

from __future__ import annotations

from typing import Any

from retinanet.schema import Config
from retinanet.schema.data import CANVAS_PRESETS

_OHEM = ("loss.ohem_examples", "loss.ohem_nms", "loss.ohem_negatives")
_THRESHOLDS = ("assign.positive_iou", "assign.negative_iou", "assign.low_quality")


def options_without_effect(config: Config) -> list[str]:
    """Return lines about options that differ from their defaults but have no effect.

    Default values are not mentioned, because the config of a run lists all of them.
    """
    default = Config()
    lines = []
    for reason, keys in _reasons(config):
        own = [key for key in keys if _value(config, key) != _value(default, key)]
        if own:
            lines.append(f"  without effect: {', '.join(own)} ({reason})")
    return lines


def _reasons(config: Config) -> list[tuple[str, tuple[str, ...]]]:
    """List the options that have no effect in an experiment, each with the reason."""
    model, loss, train, data = config.model, config.loss, config.train, config.data
    kind = loss.class_loss
    cases: list[tuple[bool, str, tuple[str, ...]]] = [
        (
            train.schedule == "cosine",
            "train.schedule is cosine",
            ("train.milestones", "train.lr_drop"),
        ),
        (train.milestones == (), "train.milestones is empty", ("train.lr_drop",)),
        (train.optimizer == "adamw", "train.optimizer is adamw", ("train.momentum",)),
        (train.warmup_steps == 0, "train.warmup_steps is 0", ("train.warmup_factor",)),
        (train.weight_decay == 0, "train.weight_decay is 0", ("train.decay_exempt",)),
        (train.snapshot_every == 0, "train.snapshot_every is 0", ("train.keep_snapshots",)),
        (
            config.eval.every == 0,
            "eval.every is 0: there is only one evaluation",
            ("train.patience",),
        ),
        (
            model.freeze in ("backbone", "all_but_head"),
            f"model.freeze is {model.freeze}",
            ("train.backbone_lr_factor",),
        ),
        (model.init_from is not None, "the weights come from model.init_from", ("model.weights",)),
        (model.norm == "gn", "model.norm is gn", ("model.norm_eps",)),
        (model.head_convs == 0, "model.head_convs is 0", ("model.head_norm",)),
        (
            model.backbone in ("resnet18", "resnet34") or model.backbone.startswith("timm:"),
            f"model.backbone {model.backbone} has no such blocks",
            ("model.stride_in_1x1",),
        ),
        (
            kind not in ("focal", "focal_star", "balanced_cross_entropy"),
            f"loss.class_loss is {kind}",
            ("loss.alpha",),
        ),
        (kind not in ("focal", "focal_star"), f"loss.class_loss is {kind}", ("loss.gamma",)),
        (kind != "focal_star", f"loss.class_loss is {kind}", ("loss.star_beta",)),
        (kind != "ohem", f"loss.class_loss is {kind}", _OHEM),
        (loss.box_loss != "smooth_l1", f"loss.box_loss is {loss.box_loss}", ("loss.beta",)),
        (
            loss.normalizer != "moving_average",
            f"loss.normalizer is {loss.normalizer}",
            ("loss.normalizer_start", "loss.normalizer_momentum"),
        ),
        (config.assign.kind == "atss", "assign.kind is atss", _THRESHOLDS),
        (
            config.assign.kind != "atss",
            f"assign.kind is {config.assign.kind}",
            ("assign.atss_candidates",),
        ),
        (
            len(data.short_side) == 1 and data.preset != "multiscale",
            "data.short_side is a single size",
            ("data.resize",),
        ),
        (data.canvas == "bucket", "data.canvas is bucket", ("data.canvas_group",)),
        (
            data.canvas == "batch_max" and data.preset in CANVAS_PRESETS,
            f"data.preset {data.preset} has a canvas of its own",
            ("data.canvas_group",),
        ),
    ]
    return [(reason, keys) for applies, reason, keys in cases if applies]


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
