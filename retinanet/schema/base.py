"""Building blocks of every section of the schema."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
MOST = 2**31 - 1
"""Largest count: PyTorch's kernels and COCO's tools count in 32 bits."""
Positive = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Images = Annotated[int, Field(ge=1, le=65_536)]
"""Images of a batch."""
Side = Annotated[int, Field(ge=1, le=16_384)]
"""Side of a resized image, px; a square of this side has more than 200 million px, the limit."""


class Section(BaseModel):
    """A part of the config: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_empty(cls, values: Any) -> Any:
        """Accept a section in which every line is a comment: YAML reads it as null."""
        return {} if values is None else values


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """Return a field with its default and the description that `retinanet config` prints."""
    return Field(default, description=meaning, **limits)
