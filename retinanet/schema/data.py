"""Annotation files, images, and the way from them to batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from retinanet.schema.base import Count, Fraction, Positive, Section, Side, option

Paths = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
_Name = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]
"""YAML reads the name 5 as a number."""
CANVAS_PRESETS = ("large_scale_jitter", "mosaic")
"""Presets that make every image the same size (see `retinanet/data/presets.py`)."""


class SplitConfig(Section):
    """Annotation files and their images."""

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
    def _check_paths(cls, value: Any) -> Any:
        several = isinstance(value, list | tuple) and len(value) > 0
        if all(isinstance(path, str) for path in (value if several else [value])):
            return value
        raise ValueError(f"{value!r} is neither a path nor a list of paths")

    @model_validator(mode="after")
    def _check_folders(self) -> SplitConfig:
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
    find_images: bool = option(
        False,
        "an image file that is missing is taken under another spelling of its name (folders in "
        "front, suffix, case, ..), if only one file can be meant",
    )
    classes: Annotated[tuple[_Name, ...], Field(strict=False, min_length=1)] | None = option(
        None, "names of the classes to learn and to score; null is all of the files'"
    )
    workers: int = option(
        2, "loader processes of each rank; 0 loads in the training process", ge=0, le=512
    )
    short_side: tuple[Side, ...] = option(
        (800,), "px; several are drawn from (multi-scale)", strict=False, min_length=1
    )
    long_side: int = option(
        1333, "px, limit of the longer side (wins over short_side)", ge=1, le=65_536
    )
    eval_short_side: Side | None = option(
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
    preset_canvas: Annotated[tuple[Side, Side], Field(strict=False)] | None = option(
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
        le=1e6,
    )
    max_bad_images: Count = option(
        10,
        "unreadable images, each named, that training skips before it stops; evaluation skips none",
    )

    @field_validator("short_side", mode="before")
    @classmethod
    def _accept_one_side(cls, value: Any) -> Any:
        return [value] if type(value) is int else value

    @property
    def evaluation_short_side(self) -> int:
        """Short side (px) of evaluation and prediction."""
        return self.eval_short_side or max(self.short_side)

    @model_validator(mode="after")
    def _check_sides(self) -> DataConfig:
        longest = max(*self.short_side, self.eval_short_side or 0)
        if self.long_side < longest:
            raise ValueError(f"long_side: {self.long_side} is under a short side of {longest}")
        if any(side % 32 for side in self.preset_canvas or ()):
            raise ValueError(f"preset_canvas: {self.preset_canvas} are not multiples of 32")
        if self.preset_canvas and self.preset not in CANVAS_PRESETS:
            raise ValueError(f"preset_canvas: data.preset {self.preset} makes no canvas")
        return self
