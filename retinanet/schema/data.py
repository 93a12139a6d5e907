"""Annotation files, images, and how they become batches."""

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
        "", "COCO JSON file, or a list of files; each relative to data.root, or absolute."
    )
    images: Paths = option(
        "",
        "Folder of the images (file_name is relative to it), or a list with a folder for each "
        "annotation file; each relative to data.root, or absolute.",
    )
    limit: Positive | None = option(
        None, "Number of images to use, the same ones for every seed; null uses all."
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
            problem = f"{len(self.images)} folders do not match {self.annotations!r}"
            raise ValueError(f"images: {problem}; give one folder, or one for each file")
        return self


class DataConfig(Section):
    """Annotation files, resizing, augmentation, loading."""

    root: str = option("", "Folder of the data set, absolute or relative to the working folder.")
    train: SplitConfig = option(SplitConfig(), "Training split.")
    val: SplitConfig = option(SplitConfig(), "Validation split.")
    find_images: bool = option(
        False,
        "Look for a missing image file under other spellings of its name (leading folders, suffix, "
        "case, ...), and use it if only one file matches.",
    )
    classes: Annotated[tuple[_Name, ...], Field(strict=False, min_length=1)] | None = option(
        None, "Names of the classes to learn and to score; null takes all classes of the files."
    )
    workers: int = option(
        2, "Loader processes of each rank; 0 loads in the training process.", ge=0, le=512
    )
    short_side: tuple[Side, ...] = option(
        (800,),
        "Shorter side of a resized image, px; one of several is drawn at random (multi-scale).",
        strict=False,
        min_length=1,
    )
    long_side: int = option(
        1333, "Limit of the longer side, px; it takes precedence over short_side.", ge=1, le=65_536
    )
    eval_short_side: Side | None = option(
        None, "Shorter side in evaluation and prediction, px; null is the largest of short_side."
    )
    resize: Literal["per_batch", "per_image"] = option(
        "per_batch", "Draw one short side for the global batch, or one for each image."
    )
    canvas: Literal["bucket", "batch_max"] = option(
        "bucket",
        "Padding of a batch. bucket: its images have a similar aspect ratio and share one of a few "
        "fixed canvases. batch_max: a random batch, padded to its largest image.",
    )
    canvas_group: Positive | None = option(
        None,
        "With batch_max, the most images that share a canvas, such as a peer's images on each GPU: "
        "the global batch, ordered by shape, is cut into groups. null pads all to the largest.",
    )
    hflip: Fraction = option(0.5, "Probability of a horizontal flip.")
    preset: Literal["flip", "multiscale", "large_scale_jitter", "strong", "mosaic"] = option(
        "flip",
        "Augmentation in addition to the flip: multiscale (80 to 100 % of short_side), "
        "large_scale_jitter (scale 0.1 to 2, then a crop), strong (colours, blur, a crop that cuts "
        "no box), mosaic (four images on one canvas). flip adds nothing.",
    )
    preset_canvas: Annotated[tuple[Side, Side], Field(strict=False)] | None = option(
        None,
        "Height and width of the images of large_scale_jitter and mosaic, px, multiples of 32; "
        "null is a square with the largest short_side, rounded up.",
    )
    augment: tuple[dict[str, dict[str, Any]], ...] = option(
        (),
        "Albumentations to apply before resizing, in order, e.g. [{RandomGamma: {p: 0.3}}].",
        strict=False,
    )
    repeat_threshold: Fraction = option(
        0.0,
        "Repeat images of rare classes: a class in a share f of the images below this threshold "
        "has its images sqrt(threshold / f) times in an epoch. 0 repeats nothing.",
    )
    drop_empty: bool = option(False, "Leave images without boxes out of training.")
    min_box_side: float = option(
        2.0,
        "Shortest side of a training box, px of the original image; smaller boxes are left out and "
        "counted. Evaluation keeps every box.",
        ge=0,
        le=1e6,
    )
    max_bad_images: Count = option(
        10,
        "Unreadable images that training names and skips before it stops; evaluation skips none.",
    )

    @field_validator("short_side", mode="before")
    @classmethod
    def _accept_one_side(cls, value: Any) -> Any:
        return [value] if type(value) is int else value

    @property
    def evaluation_short_side(self) -> int:
        """Short side (px) of evaluation and prediction."""
        return self.eval_short_side or max(self.short_side)

    @property
    def images_per_canvas(self) -> int | None:
        """Most images of a training batch that share a canvas; None if all of them do."""
        makes_own = self.canvas == "batch_max" and self.preset not in CANVAS_PRESETS
        return self.canvas_group if makes_own else None

    @model_validator(mode="after")
    def _check_sides(self) -> DataConfig:
        longest = max(*self.short_side, self.eval_short_side or 0)
        if self.long_side < longest:
            raise ValueError(f"long_side: {self.long_side} is less than a short side of {longest}")
        if any(side % 32 for side in self.preset_canvas or ()):
            raise ValueError(f"preset_canvas: {self.preset_canvas} should be multiples of 32")
        if self.preset_canvas and self.preset not in CANVAS_PRESETS:
            raise ValueError(
                f"preset_canvas: data.preset {self.preset} does not use it; only "
                f"{' and '.join(CANVAS_PRESETS)} do"
            )
        return self
