"""Optimisation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from retinanet.schema.base import Count, Fraction, Images, Positive, Section, option


class TrainConfig(Section):
    """Optimisation. `milestones` count in the unit that gives the length: steps or epochs."""

    batch_size: Images = option(16, "images of one optimiser step, over all devices")
    micro_batch: Literal["auto"] | Images = option(
        "auto",
        "images on a device at a time, whatever the batch (gradients add up); auto is the whole "
        "share of the batch on a GPU, and on a CPU 2.5 million px (two images of COCO); resolved "
        "once and saved",
    )
    steps: Positive | None = option(90000, "optimiser steps (null with train.epochs)")
    epochs: Positive | None = option(None, "passes over the data, instead of train.steps")
    optimizer: Literal["sgd", "adamw"] = option("sgd", "sgd or adamw")
    lr: float = option(0.01, "peak learning rate; it belongs to the global batch", gt=0, le=1e30)
    backbone_lr_factor: float = option(
        1.0, "learning rate of the backbone, in that of the rest", gt=0, le=1e30
    )
    momentum: float = option(0.9, "of sgd", ge=0, lt=1)
    weight_decay: float = option(1e-4, "of the optimiser", ge=0, le=1e6)
    decay_exempt: Literal["none", "norms", "norms_and_biases"] = option(
        "none", "parameters without weight decay"
    )
    warmup_steps: Count = option(1000, "steps of linear warm-up")
    warmup_factor: Fraction = option(0.001, "share of the learning rate at step 0")
    schedule: Literal["multistep", "cosine"] = option("multistep", "after warm-up")
    milestones: tuple[Positive, ...] | None = option(
        None,
        "steps or epochs (the unit of the length) at which lr drops; null: at 2/3 and 8/9 of it",
        strict=False,
    )
    lr_drop: float = option(0.1, "factor at each milestone", gt=0, le=1)
    clip_norm: float = option(10.0, "largest gradient norm; 0 does not clip", ge=0, le=1e30)
    ema_decay: float = option(
        0.0,
        "share of a moving average of the weights that a step keeps, such as 0.9998 (less in the "
        "first steps); 0 keeps no average. The average is evaluated beside the weights, and saved",
        ge=0,
        lt=1,
    )
    seed: int = option(0, "of weights, order and augmentation", ge=0, le=2**63 - 1)
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = option(
        "fp32",
        "of the network's arithmetic; auto is bf16 where the hardware is fast at it, else fp32; "
        "resolved once and saved",
    )
    tf32: bool = option(
        True, "let fp32 products on a GPU round their factors to 10 bits (Ampere and later)"
    )
    deterministic: bool = option(
        True, "on a GPU, take only operations that give the same bits in every run"
    )
    channels_last: bool = option(
        True, "the channels of a pixel lie together in memory, as convolutions are fastest"
    )
    compile: bool = option(
        False, "compile the network with torch.compile (needs a C++ compiler); it takes minutes"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "auto takes the fastest there is"
    )
    log_every: Positive = option(
        20, "steps between lines of the log, for which alone the program waits for the device"
    )
    imbalance_every: Count = option(
        200,
        "steps between looks at what the class loss is made of (easy and hard negatives, "
        "positives), recorded as imbalance/..; 0 never looks",
    )
    checkpoint_every: Positive = option(1000, "steps between writings of last.pt")
    snapshot_every: Count = option(
        0, "steps between checkpoints that stay, as step_*.pt beside last.pt; 0 writes none"
    )
    keep_snapshots: Count = option(3, "newest step_*.pt that stay; 0 keeps all")
    max_bad_steps: Count = option(
        0, "steps whose loss or gradient is not finite that are skipped before the run stops"
    )
    max_minutes: float | None = option(
        None, "of one launch, after which the state is saved and the command ends", gt=0, le=1e9
    )
    patience: Count = option(0, "evaluations without a better AP before the run stops; 0 is never")

    @model_validator(mode="before")
    @classmethod
    def _let_epochs_replace_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None and "steps" not in values:
            return {**values, "steps": None}
        return values

    @model_validator(mode="after")
    def _check_length(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        milestones = list(self.milestones or ())
        if milestones != sorted(set(milestones)):
            raise ValueError(f"milestones: {milestones} do not ascend")
        return self
