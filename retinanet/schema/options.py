"""The options by their names: their table, and what someone means by a name that there is not."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from retinanet.errors import nearest
from retinanet.option_aliases import REMARKS, our_name
from retinanet.schema import Config, Section
from retinanet.yaml_reader import write_yaml


def type_of(parts: list[str]) -> Any:
    """Return the type of an option or a section; None where there is none of this name."""
    kind: Any = Config
    for part in parts:
        field = kind.model_fields.get(part) if hasattr(kind, "model_fields") else None
        kind = field.annotation if field else None
    return kind


def words_of(kind: Any) -> list[str]:
    """Return the words of a `Literal`, or of the one among several types; none: it has no list."""
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
    """Return the option that someone means by a name: without its section, or another project's."""
    keys = all_options()
    if name in keys:
        return name
    last = name.rpartition(".")[2].replace("-", "_").lower()
    ours = next((key for key in keys if key.endswith(f".{last}")), None)
    return our_name(name) or ours or our_name(last)


def did_you_mean(name: str) -> str:
    """Return `"; did you mean X?"` for an option of this name in another section, or project."""
    found = find_option(name)
    if found in (None, name):
        return ""
    remark = f" ({REMARKS[found]})" if found in REMARKS else ""
    return f"; did you mean {found}?{remark}"


def nearest_option(name: str) -> str:
    """Return `"; did you mean X?"` for an option that is spelled nearly so, or an empty string."""
    return nearest(name, all_options())


def describe_section(name: str, only: str | None = None) -> str:
    """Return the table of a section's options, or of one of them."""
    kind = Config.model_fields[name].annotation
    assert isinstance(kind, type) and issubclass(kind, Section)
    lines = [f"{name}: {(kind.__doc__ or '').strip()}"]
    for key, type_name, default, meaning in _list_options(kind, name):
        if only not in (None, key):
            continue
        lines += [f"  {key}: {type_name} = {default}", f"      {meaning}"]
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
            default = (
                write_yaml({"": kind().model_dump(mode="json")[name]}).split(":", 1)[1].strip()
            )
            rows.append((key, _type_name(properties[name]), default, field.description or ""))
    return rows


def _type_name(schema: dict[str, Any]) -> str:
    """Return a JSON-schema type in a reader's words, with its range."""
    if "anyOf" in schema:
        return " or ".join(_type_name(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_type_name(inner)}"
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {number(schema[word])}" for word, sign in limits.items() if word in schema]
    return f"{schema.get('type', 'any')} {' and '.join(bounds)}".rstrip()


def number(value: float) -> str:
    """Return a limit as one writes it: whole numbers with all their digits."""
    whole = isinstance(value, int) or (value.is_integer() and 1 <= abs(value) < 1e9)
    return str(int(value)) if whole else f"{value:g}"
