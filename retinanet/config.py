"""An experiment from YAML and the command line, checked against the schema, and back to YAML.

Order of precedence: command line > YAML file > the schema's defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from retinanet.errors import UserError, nearest
from retinanet.option_aliases import REMARKS, our_name
from retinanet.schema import Config, Paths, Section
from retinanet.yaml_reader import parse_yaml, read_yaml, write_yaml

_EXPECTED = {
    "bool_type": "boolean",
    "dict_type": "dictionary",
    "finite_number": "a finite number",
    "float_type": "number",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "greater than or equal to {ge:g}",
    "int_type": "integer",
    "less_than": "less than {lt:g}",
    "less_than_equal": "less than or equal to {le:g}",
    "missing": "a longer list",  # only the lists of three numbers have required entries
    "model_type": "a section with options in it",
    "string_type": "string",
    "too_long": "a shorter list",
    "too_short": "a longer list",
    "tuple_type": "a list, in [brackets]",
}
"""What was expected, by pydantic's type of error: its messages may change with a release."""


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read an experiment from YAML, with `section.key=value` overrides on top.

    Raises:
        UserError: the file or an override is wrong; the message says which key and why.
    """
    values = read_yaml(path, hint=nearest(path.name.removesuffix(".yaml"), _recipe_names()))
    _apply_overrides(values, overrides or [])
    output = {} if values.get("output") is None else values["output"]
    if isinstance(output, dict):
        values["output"] = {**output, "name": output.get("name") or path.stem}
    return build_config(values, source=str(path), overrides=overrides or [])


def shipped_configs() -> Path:
    """Return the folder of the recipes: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    places = [package / "configs", package.parent / "configs"]
    return next((place for place in places if place.is_dir()), places[0])


def find_config(name: str) -> Path:
    """Return a config file: a path, or the name of a recipe that comes with the project."""
    path, recipe = Path(name), shipped_configs() / f"{name.removesuffix('.yaml')}.yaml"
    return recipe if not path.exists() and path.name == name and recipe.is_file() else path


def _recipe_names() -> list[str]:
    return sorted(path.stem for path in shipped_configs().glob("*.yaml"))


def override_config(config: Config, overrides: list[str]) -> Config:
    """Return a copy of `config` with `section.key=value` overrides applied."""
    values = config.model_dump(mode="json", exclude_unset=True)  # what was not said stays so
    _apply_overrides(values, overrides)
    return build_config(values, source="command line")


def follow_config(config: Config, other: Config, *, source: str) -> tuple[Config, list[str]]:
    """Return `config` with what it does not say of network and anchors as in another one.

    Where an experiment starts from a trained detector, that is what it was trained as. Weights and
    prior are for new networks, and freezing for a training; they stay. (A network of timm has no
    stages to freeze: there `freeze` becomes none.)

    Args:
        config: The experiment.
        other: The experiment that it follows.
        source: Begins each message.

    Returns:
        The config, and the options that another value than the default's was taken for.
    """
    values = config.model_dump(mode="json", exclude_unset=True)
    taken = []
    for name in ("model", "anchors"):
        section, said = getattr(other, name), getattr(config, name).model_fields_set
        dumped = section.model_dump(mode="json")
        for key in ("weights", "init_from", "prior", "freeze"):
            dumped.pop(key, None)
        if name == "model" and section.backbone.startswith("timm:") and "backbone" not in said:
            dumped["freeze"] = "none"
        for key in dumped:
            if key not in said:
                values.setdefault(name, {})[key] = dumped[key]
                if getattr(section, key) != getattr(getattr(config, name), key):
                    taken.append(f"{name}.{key}={dumped[key]}")
    return build_config(values, source=source), taken


def build_config(values: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """Validate a nested dict; `source` begins each message, but for what `overrides` set.

    Raises:
        UserError: one line for each wrong key.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        given = {text.partition("=")[0].strip() for text in overrides}
        lines: dict[str, None] = {}  # in order, each once
        for problem in error.errors():
            for key, text in _explain_problem(dict(problem)):
                where = "command line" if key in given else source
                lines[f"{where}: {text}"] = None
        raise UserError("\n".join(lines)) from None


def dump_config(config: Config) -> dict[str, Any]:
    """Return the experiment as plain dicts, lists, numbers and strings."""
    return config.model_dump(mode="json")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved experiment as YAML that `load_config` reads back."""
    write_yaml(dump_config(config), path)


def _apply_overrides(values: dict[str, Any], overrides: list[str]) -> None:
    """Set `section.key=value` in turn.

    Raises:
        UserError: a wrong override, or one that changes the unit of length under other options.
    """
    before = _length_unit(values)
    for text in overrides:
        apply_override(values, text)
    after = _length_unit(values)
    if before == after:
        return
    given = {text.partition("=")[0].strip() for text in overrides}
    for key in ("train.milestones", "eval.every"):
        section, name = key.split(".")
        part = values.get(section)
        value = part.get(name) if isinstance(part, dict) else None
        if value and key not in given:
            raise UserError(
                f"train.{after} in place of train.{before} changes what {key}: {value} counts; "
                f"give it in {after}, too, or {key}=null"
            )


def _length_unit(values: dict[str, Any]) -> str:
    """Return the unit of length of an experiment as written."""
    train = values.get("train")
    if not isinstance(train, dict):
        return "steps"
    return "epochs" if train.get("epochs") is not None else "steps"


def apply_override(values: dict[str, Any], text: str) -> None:
    """Set one `section.key=value` in a nested dict, the value read as YAML.

    Setting `train.steps` takes the place of `train.epochs`, and the other way round.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text!r}: holds bytes that are not UTF-8") from None
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        meant = _did_you_mean(key.strip())
        raise UserError(
            f"{text!r} is not of the form section.key=value, such as train.lr=0.02 (without spaces)"
            f"{meant}"
        )
    node = values
    for depth, part in enumerate(parts[:-1], start=1):
        child = node.get(part)
        node[part] = child = {} if child is None else child
        if not isinstance(child, dict) or _type_of(parts[:depth]) in (int, float, bool, str):
            raise UserError(f"{text!r}: {part} is not a section{_did_you_mean(key.strip())}")
        node = child
    node[parts[-1]] = (
        value.strip() if _is_taken_literally(parts, value) else parse_yaml(value, source=text)
    )
    length = {"train.steps": "epochs", "train.epochs": "steps"}
    if ".".join(parts) in length and node[parts[-1]] is not None:
        node[length[".".join(parts)]] = None


def _is_taken_literally(parts: list[str], value: str) -> bool:
    """Whether a value is taken as it stands: a name or a path need not be YAML (`a #b`, `2024`)."""
    if not value.strip():
        return True
    kind = _type_of(parts)
    if value.strip()[:1] in ("'", '"') or (kind == Paths and value.strip()[:1] == "["):
        return False
    return kind in (str, Paths) or (kind == str | None and value.strip() != "null")


def _type_of(parts: list[str]) -> Any:
    """Return the type of an option or a section; None where there is none of this name."""
    kind: Any = Config
    for part in parts:
        field = kind.model_fields.get(part) if hasattr(kind, "model_fields") else None
        kind = field.annotation if field else None
    return kind


def describe(section: str | None = None) -> str:
    """Return the table of options of one section or of all, made from the schema.

    Raises:
        UserError: there is no such section.
    """
    names = list(Config.model_fields)
    if section is not None and section not in names:
        if section in _all_keys():
            return _describe_section(section.split(".")[0], only=section)
        close = nearest(section, [*names, *_recipe_names()]) or _did_you_mean(section)
        close = close or nearest(section, _all_keys())
        raise UserError(
            f"{section} is neither a section, an option nor a file{close or '.'} "
            f"Sections: {', '.join(names)}"
        )
    return "\n\n".join(_describe_section(name) for name in ([section] if section else names))


def _describe_section(name: str, only: str | None = None) -> str:
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
    bounds = [f"{sign} {schema[word]:g}" for word, sign in limits.items() if word in schema]
    return " ".join([str(schema.get("type", "any")), *bounds])


def _explain_problem(problem: dict[str, Any]) -> list[tuple[str, str]]:
    """Turn one pydantic error into the keys that are wrong, each with what is wrong: the remedy."""
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return _explain_unknown(location, problem["input"])
    return [(".".join(location), _explain_value(location, problem))]


def _explain_unknown(location: list[str], value: Any) -> list[tuple[str, str]]:
    """Say what is meant by an unknown option, or by those of an unknown section."""
    leaves = _dotted_names(".".join(location), value)
    if any(our_name(leaf) for leaf in leaves):  # another project's section
        return [(leaf, f"{leaf} is not an option{_did_you_mean(leaf)}") for leaf in leaves]
    siblings = list(_type_of(location[:-1]).model_fields)
    close = (
        nearest(location[-1], siblings) or _did_you_mean(leaves[0]) or _did_you_mean(location[-1])
    )
    rest = close or f"; there are: {', '.join(siblings)}"
    return [(leaves[0], f"{'.'.join(location)} is not an option{rest}")]


def _dotted_names(key: str, value: Any) -> list[str]:
    """Return the dotted names of what is set under a key: `SOLVER.BASE_LR`, .."""
    if not isinstance(value, dict) or not value:
        return [key]
    return [leaf for name, inner in value.items() for leaf in _dotted_names(f"{key}.{name}", inner)]


def _explain_value(location: list[str], problem: dict[str, Any]) -> str:
    """Say what is wrong with the value of an option that there is."""
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{'.'.join(location)}: {message}" if location else message
    # Where a field has several types, the location ends in the name of one of them.
    if location and not (location[-1].isidentifier() or location[-1].isdigit()):
        location = location[:-1]
    if problem["type"] == "literal_error":
        expected = _list_words(_type_of(location))
    elif problem["type"] in _EXPECTED:
        expected = _EXPECTED[problem["type"]].format(**problem.get("ctx", {}))
    else:
        expected = problem["msg"]
    return f"{'.'.join(location) or 'the config'} is {problem['input']!r}; it should be {expected}"


def _list_words(kind: Any) -> str:
    """Return the words of a `Literal`, or of the one among several types: `'sgd' or 'adamw'`."""
    words = next(part for part in (kind, *get_args(kind)) if get_origin(part) is Literal)
    *others, last = map(repr, get_args(words))
    return f"{', '.join(others)} or {last}" if others else last


def _did_you_mean(name: str) -> str:
    """Return `"; did you mean X?"` for an option of this name in another section, or project."""
    found = find_option(name)
    if found in (None, name):
        return ""
    remark = f" ({REMARKS[found]})" if found in REMARKS else ""
    return f"; did you mean {found}?{remark}"


def find_option(name: str) -> str | None:
    """Return the option that someone means by a name: without its section, or another project's."""
    keys = _all_keys()
    if name in keys:
        return name
    last = name.rpartition(".")[2].replace("-", "_").lower()
    ours = next((key for key in keys if key.endswith(f".{last}")), None)
    return our_name(name) or ours or our_name(last)


def _all_keys() -> list[str]:
    return [
        row[0]
        for name, field in Config.model_fields.items()
        for row in _list_options(field.annotation, name)  # type: ignore[arg-type]
    ]
