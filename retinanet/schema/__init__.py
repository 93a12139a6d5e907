"""The typed schema of an experiment: every option, its default, its range and its meaning.

The defaults are defined here and nowhere else.
"""

from __future__ import annotations

from pydantic import model_validator

from retinanet.schema.base import Section, option
from retinanet.schema.data import DataConfig, Paths, SplitConfig
from retinanet.schema.evaluation import EvalConfig, PostprocessConfig
from retinanet.schema.loss import AssignConfig, LossConfig
from retinanet.schema.model import LEVELS, AnchorConfig, ModelConfig
from retinanet.schema.train import TrainConfig

__all__ = [
    "LEVELS",
    "AnchorConfig",
    "AssignConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "OutputConfig",
    "Paths",
    "PostprocessConfig",
    "Section",
    "SplitConfig",
    "TrainConfig",
]


class OutputConfig(Section):
    """Folder of a run."""

    dir: str = option("runs", "Folder that holds the run folders.")
    name: str | None = option(None, "Name of the run folder; null is the name of the config file.")

    @model_validator(mode="after")
    def _check_name(self) -> OutputConfig:
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

    @model_validator(mode="after")
    def _check_bad_steps(self) -> Config:
        if self.train.max_bad_steps and self.model.norm in ("bn", "sync_bn"):
            raise ValueError(
                f"train.max_bad_steps: with model.norm {self.model.norm} a bad step cannot be left "
                "out, because its images are already in the running statistics. Set "
                "train.max_bad_steps=0 or model.norm=gn"
            )
        return self
