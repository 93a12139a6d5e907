"""Optimisation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ModelWrapValidatorHandler, model_validator

from retinanet.schema.base import Count, Fraction, Images, Positive, Section, option

_FAST = {"precision": "auto", "deterministic": False, "compile_loss": "auto"}
"""Options that `speed: fast` stands for."""


class TrainConfig(Section):
    """Optimisation. `milestones` are in the unit of the run's length: steps or epochs."""

    batch_size: Images = option(16, "Images of one optimiser step, over all devices.")
    micro_batch: Literal["auto"] | Images = option(
        "auto",
        "Images that a device processes at a time; their gradients add up to those of the batch. "
        "auto is the device's whole share of the batch on a GPU, and 2.5 million px on a CPU (two "
        "images of COCO). It is resolved once and saved.",
    )
    steps: Positive | None = option(90000, "Optimiser steps; null with train.epochs.")
    epochs: Positive | None = option(None, "Passes over the data, instead of train.steps.")
    optimizer: Literal["sgd", "adamw"] = option("sgd", "Optimiser.")
    lr: float = option(0.01, "Peak learning rate for the global batch.", gt=0, le=1e30)
    backbone_lr_factor: float = option(
        1.0, "Learning rate of the backbone, as a factor of that of the rest.", gt=0, le=1e30
    )
    momentum: float = option(0.9, "Momentum of SGD.", ge=0, lt=1)
    weight_decay: float = option(1e-4, "Weight decay of the optimiser.", ge=0, le=1e6)
    decay_exempt: Literal["none", "norms", "norms_and_biases"] = option(
        "none", "Parameters without weight decay."
    )
    warmup_steps: Count = option(1000, "Steps of linear warm-up.")
    warmup_factor: Fraction = option(0.001, "Share of the learning rate at step 0.")
    schedule: Literal["multistep", "cosine"] = option(
        "multistep", "Schedule of the learning rate after warm-up."
    )
    milestones: tuple[Positive, ...] | None = option(
        None,
        "Steps or epochs at which the learning rate drops, in the unit of the run's length; null "
        "is at 2/3 and 8/9 of it.",
        strict=False,
    )
    lr_drop: float = option(0.1, "Factor of the learning rate at each milestone.", gt=0, le=1)
    clip_norm: float = option(10.0, "Largest norm of the gradient; 0 does not clip.", ge=0, le=1e30)
    ema_decay: float = option(
        0.0,
        "Share of the moving average of the weights that a step keeps, such as 0.9998 (less in the "
        "first steps). The average is evaluated beside the weights, and saved. 0 keeps no average.",
        ge=0,
        lt=1,
    )
    seed: int = option(0, "Seed of weights, order and augmentation.", ge=0, le=2**63 - 1)
    speed: Literal["normal", "fast"] = option(
        "normal",
        "Preset: fast is precision auto, deterministic false and compile_loss auto, unless these "
        "are set. Half types round more, and on a GPU two runs differ in their last digits.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = option(
        "fp32",
        "Numeric precision of the network. auto is bf16 where the hardware is fast at it, else "
        "fp16 on a GPU with tensor cores, else fp32; it is resolved once and saved.",
    )
    tf32: bool = option(
        True, "On a GPU, let fp32 products round their factors to 10 bits (Ampere and later)."
    )
    deterministic: bool = option(
        True,
        "On a GPU, use only operations that give the same bits in every run. Otherwise the fastest "
        "ones are found by trial.",
    )
    channels_last: bool = option(
        True, "Keep the channels of a pixel together in memory; convolutions are then fastest."
    )
    compile: bool = option(
        False,
        "Compile the network and the class loss with torch.compile (minutes; needs what "
        "train.compile_loss needs).",
    )
    compile_loss: Literal["auto"] | bool = option(
        False,
        "Compile the class loss (seconds; needs a C++ compiler, on a GPU Triton and a C compiler). "
        "auto compiles it where these are there; it is resolved once and saved.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "Device to train on; auto takes the fastest available."
    )
    log_every: Positive = option(
        20, "Steps between lines of the log. Only for these does the program wait for the device."
    )
    imbalance_every: Count = option(
        200,
        "Steps between measurements of what the class loss consists of (easy and hard negatives, "
        "positives), recorded as imbalance/...; 0 never measures.",
    )
    checkpoint_every: Positive = option(1000, "Steps between checkpoints in last.pt.")
    snapshot_every: Count = option(
        0, "Steps between snapshots, which stay beside last.pt as step_*.pt; 0 writes none."
    )
    keep_snapshots: Count = option(3, "Newest step_*.pt to keep; 0 keeps all.")
    max_bad_steps: Count = option(
        0, "Steps with a non-finite loss or gradient that are skipped before the run stops."
    )
    max_minutes: float | None = option(
        None,
        "Minutes after which a launch saves its state and ends.",
        gt=0,
        le=1e9,
    )
    patience: Count = option(
        0, "Evaluations without a better AP after which the run stops; 0 never stops it."
    )

    @model_validator(mode="before")
    @classmethod
    def _let_epochs_replace_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None and "steps" not in values:
            return {**values, "steps": None}
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _expand_speed(cls, values: Any, build: ModelWrapValidatorHandler[TrainConfig]) -> Any:
        """Set the options that `speed: fast` stands for; like defaults, they count as unset."""
        if not isinstance(values, dict) or values.get("speed") != "fast":
            return build(values)
        missing = {key: value for key, value in _FAST.items() if key not in values}
        config = build({**missing, **values})
        config.model_fields_set.difference_update(missing)
        return config

    @model_validator(mode="after")
    def _check_length(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        milestones = list(self.milestones or ())
        if milestones != sorted(set(milestones)):
            raise ValueError(f"milestones: {milestones} should be in ascending order")
        return self
