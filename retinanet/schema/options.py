"""The options by name: their table, and suggestions for unknown names."""

from __future__ import annotations

import textwrap
from typing import Any, Literal, get_args, get_origin

from retinanet.errors import nearest
from retinanet.option_aliases import REMARKS, our_name
from retinanet.schema import Config, Section
from retinanet.yaml_reader import write_yaml

_ABSURD = 1e6
"""Limits from here on only guard against absurd values: the table leaves them out."""


def type_of(parts: list[str]) -> Any:
    """Return the type of an option or a section; None if there is none of this name."""
    kind: Any = Config
    for part in parts:
        field = kind.model_fields.get(part) if hasattr(kind, "model_fields") else None
        kind = field.annotation if field else None
    return kind


def words_of(kind: Any) -> list[str]:
    """Return the words of the `Literal` in a type; an empty list if it has none."""
    parts = (part for part in (kind, *get_args(kind)) if get_origin(part) is Literal)
    return [str(word) for part in parts for word in get_args(part)]


def all_options() -> list[str]:
    """Return the names of all options, such as `train.lr`."""
    return [
        row[0]
        for name, field in Config.model_fields.items()
        for row in _list_options(field.annotation, name)  # type: ignore[arg-type]
    ]


def find_option(name: str) -> str | None:
    """Return the option meant by a name without its section, or by another project's name."""
    keys = all_options()
    if name in keys:
        return name
    last = name.rpartition(".")[2].replace("-", "_").lower()
    ours = next((key for key in keys if key.endswith(f".{last}")), None)
    return our_name(name) or ours or our_name(last)


def did_you_mean(name: str) -> str:
    """Return `"; did you mean X?"` for a name of another section or project, or `""`."""
    found = find_option(name)
    if found in (None, name):
        return ""
    remark = f" ({REMARKS[found]})" if found in REMARKS else ""
    return f"; did you mean {found}?{remark}"


def nearest_option(name: str) -> str:
    """Return `"; did you mean X?"` for the option with the nearest spelling, or `""`."""
    return nearest(name, all_options())


def describe_section(name: str, only: str | None = None) -> str:
    """Return the table of the options of a section, or of only one of them."""
    kind = Config.model_fields[name].annotation
    assert isinstance(kind, type) and issubclass(kind, Section)
    lines = [f"{name}: {(kind.__doc__ or '').strip()}"]
    for key, type_name, default, meaning in _list_options(kind, name):
        if only not in (None, key):
            continue
        lines += [f"  {key}: {type_name} (default {default})", _wrap(meaning)]
    return "\n".join(lines)


def _list_options(kind: type[Section], prefix: str) -> list[tuple[str, str, str, str]]:
    """List (dotted key, type, default, meaning) of a section and the sections inside it."""
    properties = kind.model_json_schema()["properties"]
    rows = []
    for name, field in kind.model_fields.items():
        key = f"{prefix}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            rows += _list_options(field.annotation, key)
        else:
            text = write_yaml({"": kind().model_dump(mode="json")[name]}).split(":", 1)[1]
            default = " ".join(text.split())  # a long list is on several lines
            rows.append((key, _type_name(properties[name]), default, field.description or ""))
    return rows


def _wrap(meaning: str) -> str:
    """Return a description in lines of a terminal, indented."""
    indent = " " * 6
    return textwrap.fill(
        meaning, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _type_name(schema: dict[str, Any], *, many: bool = False) -> str:
    """Return a JSON-schema type in a reader's words, with its range.

    Args:
        schema: Type as pydantic describes it.
        many: In the plural, as in `list of integers`.
    """
    if "anyOf" in schema:
        return " or ".join(_type_name(part, many=many) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"{'lists' if many else 'list'} of {_type_name(inner, many=True)}"
    name = schema.get("type", "any")
    if many:
        name = "dictionaries" if name == "object" else f"{name}s"
    return f"{name} {_range(schema)}".rstrip()


def _range(schema: dict[str, Any]) -> str:
    """Return the range of a number: `from 0 to 1`, `≥ 0 and < 1`, `> 0`, or an empty string."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = {
        sign: number(schema[word])
        for word, sign in signs.items()
        if abs(schema.get(word, _ABSURD)) < _ABSURD
    }
    if list(bounds) == ["≥", "≤"]:
        return f"from {bounds['≥']} to {bounds['≤']}"
    return " and ".join(f"{sign} {limit}" for sign, limit in bounds.items())


def number(value: float) -> str:
    """Return a limit as one writes it: whole numbers with all their digits."""
    whole = isinstance(value, int) or (value.is_integer() and 1 <= abs(value) < 1e9)
    return str(int(value)) if whole else f"{value:g}"
