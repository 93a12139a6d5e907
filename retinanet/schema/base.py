"""What every section of the schema is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Scale = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of the config: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_empty(cls, values: Any) -> Any:
        """Accept a section whose every line is a comment: YAML reads it as null."""
        return {} if values is None else values


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """Return a field with its default and the line that `retinanet config` prints."""
    return Field(default, description=meaning, **limits)
