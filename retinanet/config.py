"""Read an experiment from YAML and the command line, check it, and write it back to YAML.

Order of precedence: command line > YAML file > the schema's defaults.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

from retinanet.errors import UserError, nearest
from retinanet.foreign_config import check_is_config, check_is_experiment, describe_foreign
from retinanet.option_aliases import our_name
from retinanet.schema import Config, Paths
from retinanet.schema.options import (
    all_options,
    describe_section,
    did_you_mean,
    number,
    type_of,
    words_of,
)
from retinanet.yaml_reader import parse_yaml, read_yaml, write_yaml

_EXPECTED = {
    "bool_type": "a boolean, true or false",
    "dict_type": "a dictionary",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "int_type": "an integer",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "missing": "a longer list",  # only the lists of three numbers have required entries
    "model_type": "a section with options in it",
    "string_type": "a string",
    "too_long": "a shorter list",
    "too_short": "a longer list",
    "tuple_type": "a list, in [brackets]",
}
"""Expected value by pydantic's error type; its own messages may change with a release."""


_DEVICE = (
    ". To choose one of several GPUs, put CUDA_VISIBLE_DEVICES=1 in front of the command, with "
    "train.device=cuda"
)
_SHORT = Repr()
"""Shortens values for messages: a file may contain anything."""
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read an experiment from YAML, with `section.key=value` overrides on top.

    Raises:
        UserError: The file or an override is wrong; the message names the key and the reason.
    """
    check_is_config(path)
    hint = nearest(path.name.removesuffix(".yaml"), _recipe_names())
    if not hint and path.name == str(path) and not path.suffix:
        hint = f", and no recipe of this name. Recipes: {', '.join(_recipe_names())}"
    values = read_yaml(path, hint=hint)
    check_is_experiment(values, path)
    before = copy.deepcopy(values)
    for part in (before, values):
        if part is values:
            _apply_overrides(values, overrides or [])
        output = {} if part.get("output") is None else part["output"]
        if isinstance(output, dict):
            name = output.get("name")
            part["output"] = {**output, "name": path.stem if name is None else name}
    config = build_config(values, source=str(path), overrides=overrides or [], before=before)
    _check_unit(before, values, overrides or [])
    return config


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
    values = config.model_dump(mode="json", exclude_unset=True)  # unset options stay unset
    before = copy.deepcopy(values)
    _apply_overrides(values, overrides)
    changed = build_config(values, source="command line")
    _check_unit(before, values, overrides)
    return changed


def follow_config(config: Config, other: Config, *, source: str) -> tuple[Config, list[str]]:
    """Return `config` with unset options of the network and its anchors taken from another one.

    An experiment that starts from a trained detector needs the network that was trained. Weights
    and prior are for new networks, and freezing is for one training, so these are not taken. (A
    network of timm has no stages to freeze: there `freeze` becomes none.)

    Args:
        config: Experiment to complete.
        other: Experiment to take options from.
        source: Prefix of each message.

    Returns:
        The config, and the options that were taken with a value other than the default.
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


def build_config(
    values: dict[str, Any],
    source: str,
    overrides: Sequence[str] = (),
    before: dict[str, Any] | None = None,
) -> Config:
    """Validate a nested dict.

    Args:
        values: Sections of options.
        source: Where they come from: the prefix of each message that `overrides` did not cause.
        overrides: Words `section.key=value` that are already part of `values`.
        before: Values without the overrides, to find out what they caused; None if they are the
            same.

    Raises:
        UserError: One line for each wrong key.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        given = named_in(overrides)
        known = set(_list_problems(before)) if overrides and before is not None else None
        lines: dict[str, None] = {}  # in order, each once
        for problem in _first_causes(error):
            for key, text in _explain_problem(problem):
                by_file = key not in given and (known is None or (key, text) in known)
                lines[f"{source if by_file else 'command line'}: {text}"] = None
        headline = describe_foreign(values)
        if headline:
            meant = [line for line in lines if "did you mean" in line]
            raise UserError("\n".join([f"{source}: {headline}", *meant])) from None
        raise UserError("\n".join(lines)) from None


def _list_problems(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the wrong keys of a nested dict, each with its message."""
    try:
        Config.model_validate(values)
    except ValidationError as error:
        return [found for problem in _first_causes(error) for found in _explain_problem(problem)]
    return []


def _first_causes(error: ValidationError) -> list[dict[str, Any]]:
    """Return the problems, without lists that are too short only because an entry is wrong."""
    problems: list[dict[str, Any]] = [dict(problem) for problem in error.errors()]
    inside = {problem["loc"][:-1] for problem in problems}
    return [p for p in problems if p["type"] != "too_short" or p["loc"] not in inside]


def named_in(overrides: Sequence[str]) -> set[str]:
    """Return the names of the options in words of the form `section.key=value`."""
    return {text.partition("=")[0].strip() for text in overrides}


def dump_config(config: Config) -> dict[str, Any]:
    """Return the experiment as plain dicts, lists, numbers and strings."""
    return config.model_dump(mode="json")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved experiment as YAML that `load_config` reads back."""
    write_yaml(dump_config(config), path)


def _apply_overrides(values: dict[str, Any], overrides: list[str]) -> None:
    """Set each `section.key=value`, in order."""
    for text in overrides:
        apply_override(values, text)


def _check_unit(before: dict[str, Any], values: dict[str, Any], overrides: list[str]) -> None:
    """Refuse overrides that change the unit of other options.

    Raises:
        UserError: An option set in the file would be in another unit.
    """
    unit = _length_unit(values)
    if unit == _length_unit(before):
        return
    given = named_in(overrides)
    for key in ("train.milestones", "eval.every"):
        section, name = key.split(".")
        part = values.get(section)
        value = part.get(name) if isinstance(part, dict) else None
        if value and key not in given:
            raise UserError(
                f"train.{unit} in place of train.{_length_unit(before)} changes the unit of "
                f"{key}: {value}. Set {key} in {unit} too, or {key}=null"
            )


def _length_unit(values: dict[str, Any]) -> str:
    """Return the unit of an experiment's length, `steps` or `epochs`."""
    train = values.get("train")
    if not isinstance(train, dict):
        return "steps"
    return "epochs" if train.get("epochs") is not None else "steps"


def apply_override(values: dict[str, Any], text: str) -> None:
    """Set one `section.key=value` in a nested dict; the value is read as YAML.

    Setting `train.steps` replaces `train.epochs`, and vice versa.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text!r}: contains bytes that are not UTF-8") from None
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        meant = did_you_mean(key.strip())
        raise UserError(
            f"{text!r} is not of the form section.key=value, such as train.lr=0.02 (without spaces)"
            f"{meant}"
        )
    node = values
    for depth, part in enumerate(parts[:-1], start=1):
        child = node.get(part)
        node[part] = child = {} if child is None else child
        if not isinstance(child, dict) or type_of(parts[:depth]) in (int, float, bool, str):
            raise UserError(f"{text!r}: {part} is not a section{did_you_mean(key.strip())}")
        node = child
    node[parts[-1]] = (
        value.strip() if _is_taken_literally(parts, value) else parse_yaml(value, source=text)
    )
    length = {"train.steps": "epochs", "train.epochs": "steps"}
    if ".".join(parts) in length and node[parts[-1]] is not None:
        node[length[".".join(parts)]] = None


def _is_taken_literally(parts: list[str], value: str) -> bool:
    """Whether a value is taken literally: a name or a path need not be YAML (`a #b`, `2024`)."""
    if not value.strip():
        return True
    kind = type_of(parts)
    if value.strip()[:1] in ("'", '"') or (kind == Paths and value.strip()[:1] == "["):
        return False
    return kind in (str, Paths) or (kind == str | None and value.strip() != "null")


def describe(section: str | None = None) -> str:
    """Return the table of the options of one section, or of all, made from the schema.

    Raises:
        UserError: There is no such section.
    """
    names = list(Config.model_fields)
    if section is not None and section not in names:
        if section in all_options():
            return describe_section(section.split(".")[0], only=section)
        close = nearest(section, [*names, *_recipe_names()]) or did_you_mean(section)
        close = close or nearest(section, all_options())
        raise UserError(
            f"{section} is neither a section, an option nor a file{close or '.'} "
            f"Sections: {', '.join(names)}"
        )
    return "\n\n".join(describe_section(name) for name in ([section] if section else names))


def _explain_problem(problem: dict[str, Any]) -> list[tuple[str, str]]:
    """Turn one pydantic error into the wrong keys, each with its message."""
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return _explain_unknown(location, problem["input"])
    return [(".".join(location), _explain_value(location, problem))]


def _explain_unknown(location: list[str], value: Any) -> list[tuple[str, str]]:
    """Explain an unknown option, or the options of an unknown section."""
    if len(location) == 1 and location[0] in all_options():
        section, _, name = location[0].rpartition(".")
        text = (
            f"{location[0]} belongs in its section in a file: write `{section}:`, and `{name}:` "
            "inside it"
        )
        return [(location[0], text)]
    leaves = _dotted_names(".".join(location), value)
    if any(our_name(leaf) for leaf in leaves):  # another project's section
        return [(leaf, f"{leaf} is not an option{did_you_mean(leaf)}") for leaf in leaves]
    siblings = list(type_of(location[:-1]).model_fields)
    section = "".join(f"{part}." for part in location[:-1])
    close = nearest(location[-1], siblings).replace("mean ", f"mean {section}")
    close = close or did_you_mean(leaves[0]) or did_you_mean(location[-1])
    rest = close or f"; the options are: {', '.join(siblings)}"
    return [(leaves[0], f"{'.'.join(location)} is not an option{rest}")]


def _dotted_names(key: str, value: Any) -> list[str]:
    """Return the dotted names of the options set under a key: `SOLVER.BASE_LR`, ..."""
    if not isinstance(value, dict) or not value:
        return [key]
    return [leaf for name, inner in value.items() for leaf in _dotted_names(f"{key}.{name}", inner)]


def _explain_value(location: list[str], problem: dict[str, Any]) -> str:
    """Explain the wrong value of an existing option."""
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{'.'.join(location)}: {message}" if location else message
    # If a field has several types, the location ends with the name of one of them.
    last = location[-1] if location else "last"
    if last == "bool" or not (last.isidentifier() or last.isdigit()):
        location = location[:-1]
    if problem["type"] == "literal_error":
        *others, last = map(repr, words_of(type_of(location)))
        expected = f"{', '.join(others)} or {last}" if others else last
    elif problem["type"] in _EXPECTED:
        context = problem.get("ctx", {}).items()
        limits = {k: number(v) for k, v in context if isinstance(v, int | float)}
        expected = _EXPECTED[problem["type"]].format(**limits)
    else:
        expected = problem["msg"]
    remedy = _DEVICE if location == ["train", "device"] else ""
    value = _SHORT.repr(problem["input"])
    return f"{'.'.join(location) or 'the config'} is {value}; it should be {expected}{remedy}"
