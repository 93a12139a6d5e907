"""The typed schema of an experiment: every option, its default, its range and its meaning.

The defaults stand here and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Scale = Annotated[float, Field(gt=0)]
LevelSizes = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)]
Paths = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
LEVELS = 5
"""P3..P7: the pyramid's levels are the architecture, not an option."""


class Section(BaseModel):
    """A part of the config: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_empty(cls, values: Any) -> Any:
        """Take a section whose every line is a comment for one without lines."""
        return {} if values is None else values


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """Return a field with its default and the line that `retinanet config` prints."""
    return Field(default, description=meaning, **limits)


class ModelConfig(Section):
    """The network: ResNet, FPN P3-P7, class and box subnets."""

    backbone: str = option(
        "resnet50",
        "resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, resnext101_32x8d, "
        "or timm:<name> (extra `timm`)",
    )
    weights: str = option(
        "IMAGENET1K_V1",
        "of the backbone: IMAGENET1K_V1, IMAGENET1K_V2, a path to a state dict, or none",
    )
    norm: Literal["frozen_bn", "bn", "sync_bn", "gn"] = option(
        "frozen_bn", "normalisation in the backbone; gn goes with weights none"
    )
    frozen_stages: int = option(
        2, "backbone stages kept as they are: 1 is the stem, 2 adds layer1, .. 5", ge=0, le=5
    )
    stride_in_1x1: bool = option(
        False, "bottlenecks stride in the 1x1 convolution (MSRA weights) instead of the 3x3"
    )
    channel_order: Literal["rgb", "bgr"] = option("rgb", "order that the backbone's weights expect")
    pixel_mean: tuple[float, float, float] = option(
        (123.675, 116.28, 103.53), "subtracted, 0-255, in channel_order", strict=False
    )
    pixel_std: tuple[Scale, Scale, Scale] = option(
        (58.395, 57.12, 57.375), "divided by, 0-255, in channel_order", strict=False
    )
    fpn_channels: int = option(256, "channels of P3-P7", ge=8)
    p6_from: Literal["c5", "p5"] = option("c5", "what P6 is convolved from")
    head_convs: int = option(4, "convolutions in each subnet before its output", ge=0, le=16)
    head_channels: int = option(256, "channels in the subnets", ge=8)
    head_norm: Literal["none", "gn"] = option("none", "normalisation in the subnets")
    prior: float = option(
        0.01, "probability π of an object that every anchor starts with", gt=0, lt=1
    )

    @model_validator(mode="after")
    def _combinations(self) -> ModelConfig:
        norm = "bn" if self.backbone.startswith("timm:") else "gn"
        if self.weights == "none" and self.norm == "frozen_bn":
            raise ValueError(
                "weights: none with norm: frozen_bn diverges: frozen batch norm needs the "
                f"statistics of pretrained weights. Set model.norm={norm} model.frozen_stages=0"
            )
        if self.weights == "none" and self.frozen_stages > 0:
            raise ValueError(
                f"weights: none with frozen_stages: {self.frozen_stages} would freeze random "
                f"weights. Set model.frozen_stages=0 (and model.norm={norm})"
            )
        if self.norm == "gn" and self.weights.startswith("IMAGENET"):
            raise ValueError(
                f"weights: {self.weights} were trained with batch norm and do not fit norm: gn. "
                "Set model.norm=frozen_bn, or model.weights=none"
            )
        if self.head_norm == "gn" and (self.head_channels % 32 or self.head_channels < 64):
            raise ValueError(
                f"head_channels: {self.head_channels} is not 64, 96, 128, .., which head_norm: gn "
                "needs (32 groups of at least two channels)"
            )
        return self


class AnchorConfig(Section):
    """Anchors of each level; torchvision's and detectron2's are both exactly expressible."""

    sizes: tuple[LevelSizes, ...] = option(
        tuple(
            tuple(round(4 * stride * 2 ** (i / 3), 6) for i in range(3))
            for stride in (8, 16, 32, 64, 128)
        ),
        "px, square roots of the areas, for each of P3-P7",
        strict=False,
    )
    ratios: tuple[Annotated[float, Field(gt=0)], ...] = option(
        (0.5, 1.0, 2.0), "height / width", strict=False, min_length=1
    )
    offset: float = option(0.0, "of the first centre, in strides", ge=0, lt=1)
    rounding: Literal["none", "corners"] = option(
        "none", "corners: round the base anchors' corners to whole px (torchvision)"
    )
    cell_order: Literal["size_major", "ratio_major"] = option(
        "size_major", "order of a cell's anchors (torchvision: ratio_major)"
    )
    stride_from: Literal["nominal", "canvas"] = option(
        "nominal", "8, 16, .. 128 px, or canvas // grid (torchvision)"
    )

    @model_validator(mode="after")
    def _levels(self) -> AnchorConfig:
        if len(self.sizes) != LEVELS:
            raise ValueError(f"sizes: {len(self.sizes)} lists, but P3-P7 are {LEVELS} levels")
        if len({len(level) for level in self.sizes}) != 1 or not self.sizes[0]:
            raise ValueError("sizes: every level needs the same number of sizes, at least one")
        return self


class AssignConfig(Section):
    """Which anchors are positives, negatives, ignored."""

    positive_iou: Fraction = option(0.5, "best IoU from which an anchor is a positive")
    negative_iou: Fraction = option(0.4, "best IoU under which an anchor is a negative")
    low_quality: bool = option(
        True, "anchors that are the best of some box become positives of their own best box"
    )
    crowd_overlap: Annotated[float, Field(gt=0, le=1)] | None = option(
        0.5,
        "share of a negative inside a crowd region from which it is ignored; null learns crowds as "
        "background (as the peers do)",
    )

    @model_validator(mode="after")
    def _order(self) -> AssignConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"negative_iou: {self.negative_iou} is above positive_iou: {self.positive_iou}"
            )
        return self


class LossConfig(Section):
    """α-balanced focal loss on the classes, a regression loss on the boxes."""

    alpha: Fraction = option(0.25, "weight α of positives; negatives weigh 1 - α")
    gamma: float = option(2.0, "focusing parameter γ", ge=0)
    box_loss: Literal["smooth_l1", "l1", "giou"] = option("smooth_l1", "loss of the boxes")
    beta: float = option(0.1, "where smooth_l1 turns from square to linear", gt=0)
    box_weight: float = option(1.0, "weight of the box loss", ge=0)
    normalizer: Literal["positives", "per_image", "moving_average"] = option(
        "positives",
        "divide by the positives of the global batch, by each image's (torchvision), or by their "
        "moving average (detectron2)",
    )
    normalizer_start: float = option(
        100.0, "positives a step that the moving average starts from", gt=0
    )
    normalizer_momentum: Fraction = option(0.9, "of the moving average")


class SplitConfig(Section):
    """Annotation files and their pictures."""

    annotations: Paths = option(
        "", "COCO JSON, relative to data.root or absolute; or a list of files"
    )
    images: Paths = option(
        "",
        "folder that file_name starts from, relative to data.root or absolute; or a list, one for "
        "each file",
    )
    limit: Positive | None = option(
        None, "images, drawn once and for all whatever the seed; null takes every one"
    )

    @field_validator("annotations", "images", mode="before")
    @classmethod
    def _path_or_paths(cls, value: Any) -> Any:
        several = isinstance(value, list | tuple) and len(value) > 0
        if all(isinstance(path, str) for path in (value if several else [value])):
            return value
        raise ValueError(f"{value!r} is neither a path nor a list of paths")

    @model_validator(mode="after")
    def _pairs(self) -> SplitConfig:
        count = 1 if isinstance(self.annotations, str) else len(self.annotations)
        if not isinstance(self.images, str) and len(self.images) != count:
            problem = f"{len(self.images)} folders do not go with {self.annotations!r}"
            raise ValueError(f"images: {problem}: give one, or one for each file")
        return self


class DataConfig(Section):
    """Annotation files, resizing, augmentation, loading."""

    root: str = option("", "folder of the data set; relative paths start from the working folder")
    train: SplitConfig = option(SplitConfig(), "training split")
    val: SplitConfig = option(SplitConfig(), "validation split")
    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = option(
        None, "names of the classes to learn and to score; null is all of the files'"
    )
    workers: Count = option(2, "loader processes of each rank; 0 loads in the training process")
    short_side: tuple[Positive, ...] = option(
        (800,), "px; several are drawn from (multi-scale)", strict=False, min_length=1
    )
    long_side: Positive = option(1333, "px, limit of the longer side (wins over short_side)")
    eval_short_side: Positive | None = option(
        None, "px in evaluation and prediction; null is the largest of short_side"
    )
    resize: Literal["per_batch", "per_image"] = option(
        "per_batch", "one short side for the global batch, or one for each image"
    )
    canvas: Literal["bucket", "batch_max"] = option(
        "bucket",
        "bucket: a few fixed canvases by aspect ratio, a batch from one of them; batch_max: the "
        "largest of a random batch (as the peers do)",
    )
    hflip: Fraction = option(0.5, "probability of a horizontal flip")
    preset: Literal["flip", "multiscale", "large_scale_jitter", "strong", "mosaic"] = option(
        "flip",
        "augmentation beside the flip: multiscale (short sides from 80 % of short_side up), "
        "large_scale_jitter (scale 0.1-2, then crop), strong (colours, blur, a crop that cuts no "
        "box), mosaic (four images on one canvas)",
    )
    preset_canvas: Annotated[tuple[Positive, Positive], Field(strict=False)] | None = option(
        None,
        "height and width, px, multiples of 32, that large_scale_jitter and mosaic make; null is a "
        "square of the largest short_side, rounded up",
    )
    augment: tuple[dict[str, dict[str, Any]], ...] = option(
        (),
        "albumentations applied before resizing, in order, e.g. [{RandomGamma: {p: 0.3}}]",
        strict=False,
    )
    repeat_threshold: Fraction = option(
        0.0,
        "classes in a smaller share f of the images are rare: their images stand sqrt(threshold / "
        "f) times in an epoch; 0 repeats nothing",
    )
    drop_empty: bool = option(False, "leave images without boxes out of training")
    min_box_side: float = option(
        2.0,
        "original px; a training box with a shorter side is left out and counted (evaluation "
        "keeps every box)",
        ge=0,
    )
    max_bad_images: Count = option(
        10,
        "unreadable images, each named, that training skips before it stops; evaluation skips none",
    )

    @field_validator("short_side", mode="before")
    @classmethod
    def _one_side(cls, value: Any) -> Any:
        return [value] if type(value) is int else value

    @model_validator(mode="after")
    def _sides(self) -> DataConfig:
        longest = max(*self.short_side, self.eval_short_side or 0)
        if self.long_side < longest:
            raise ValueError(f"long_side: {self.long_side} is under a short side of {longest}")
        if any(side % 32 for side in self.preset_canvas or ()):
            raise ValueError(f"preset_canvas: {self.preset_canvas} are not multiples of 32")
        if self.preset_canvas and self.preset not in ("large_scale_jitter", "mosaic"):
            raise ValueError(f"preset_canvas: data.preset {self.preset} makes no canvas")
        return self


class TrainConfig(Section):
    """Optimisation. `milestones` count in the unit that gives the length: steps or epochs."""

    batch_size: Positive = option(16, "images of one optimiser step, over all devices")
    micro_batch: Literal["auto"] | Positive = option(
        "auto",
        "images on a device at a time, whatever the batch (gradients add up); auto is the whole "
        "share of the batch on a GPU, and on a CPU 2.5 million px (two images of COCO); resolved "
        "once and saved",
    )
    steps: Positive | None = option(90000, "optimiser steps (null with train.epochs)")
    epochs: Positive | None = option(None, "passes over the data, instead of train.steps")
    optimizer: Literal["sgd", "adamw"] = option("sgd", "sgd or adamw")
    lr: float = option(0.01, "peak learning rate; it belongs to the global batch", gt=0)
    momentum: float = option(0.9, "of sgd", ge=0, lt=1)
    weight_decay: float = option(1e-4, "of the optimiser", ge=0)
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
    clip_norm: float = option(10.0, "largest gradient norm; 0 does not clip", ge=0)
    seed: Count = option(0, "of weights, order and augmentation")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "fp32", "of the network's arithmetic; auto is bf16 where the hardware has it, else fp32"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "auto takes the fastest there is"
    )
    log_every: Positive = option(20, "steps between lines of the log")
    checkpoint_every: Positive = option(1000, "steps between writings of last.pt")
    patience: Count = option(0, "evaluations without a better AP before the run stops; 0 is never")

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None and "steps" not in values:
            return {**values, "steps": None}
        return values

    @model_validator(mode="after")
    def _length(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        milestones = list(self.milestones or ())
        if milestones != sorted(set(milestones)):
            raise ValueError(f"milestones: {milestones} do not ascend")
        return self


class EvalConfig(Section):
    """Evaluation on data.val during training, and of checkpoints."""

    every: Count | None = option(
        None,
        "steps or epochs (the unit of the length) between evaluations; 0 is only at the end; null: "
        "5000 steps, or 1 epoch",
    )
    batch_size: Positive = option(8, "images at a time")
    pictures: Count = option(8, "images drawn into tensorboard at each evaluation")


class PostprocessConfig(Section):
    """From the network's outputs to detections."""

    score_threshold: Fraction = option(0.05, "lowest score of a detection")
    topk_per_level: Positive = option(1000, "candidates of each level before suppression")
    nms_threshold: Fraction = option(0.5, "IoU above which the lower score is suppressed")
    max_detections: Positive = option(100, "detections an image, in evaluation and its AP too")
    clip: Literal["before_nms", "after_nms"] = option(
        "before_nms",
        "when boxes are cut to the image (torchvision: before; detectron2: after, and boxes that "
        "are then empty are dropped)",
    )
    class_agnostic_nms: bool = option(False, "suppress across classes: one object, one class")


class OutputConfig(Section):
    """Where a run goes."""

    dir: str = option("runs", "folder of runs")
    name: str | None = option(None, "of the run's folder; null is the config file's name")

    @model_validator(mode="after")
    def _one_folder(self) -> OutputConfig:
        if self.name is not None and (
            not self.name.strip(". ") or any(mark in self.name for mark in "/\\\0")
        ):
            raise ValueError(f"name: {self.name!r} is not the name of a folder in output.dir")
        return self


class Config(Section):
    """One experiment."""

    model: ModelConfig = ModelConfig()
    anchors: AnchorConfig = AnchorConfig()
    assign: AssignConfig = AssignConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    output: OutputConfig = OutputConfig()
