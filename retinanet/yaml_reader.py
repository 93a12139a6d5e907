"""Read YAML as people mean it, without running anything.

PyYAML follows YAML 1.1, which reads `1e-4` as a string, `on` and `no` as booleans, `010` as 8 and
`1:30` as 90, and silently keeps the last of two equal keys. This reader does none of that.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from retinanet.errors import UserError
from retinanet.files import check_regular


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 and unique keys."""

    keys: tuple[type, ...] = (str,)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Refuse a value with an explicit tag: its type follows from how it is written."""
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if node.tag != self.resolve(type(node), getattr(node, "value", None), (plain, not plain)):
            raise yaml.constructor.ConstructorError(
                None, None, f"YAML tags are not allowed ({node.tag!r})", node.start_mark
            )
        return super().construct_object(node, deep=deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if type(key) not in self.keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key}", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _NumberKeysLoader(_Loader):
    """Also reads `0: person`."""

    keys = (str, int)


_SCALARS = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]
_Loader.yaml_implicit_resolvers = {}
for tag, pattern, first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), first
    )
# YAML 1.1 reads a leading 0 as octal and a colon as base 60.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def parse_yaml(text: str, source: str, *, number_keys: bool = False) -> Any:
    """Return the value of a YAML text.

    Args:
        text: Text to parse.
        source: Prefix of error messages.
        number_keys: Whether whole numbers may be keys, besides words.

    Raises:
        UserError: The text is not YAML, or has a duplicate key or a tag (which could run code).
    """
    try:
        loader = _NumberKeysLoader if number_keys else _Loader
        return yaml.load(text, Loader=loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{source}{place}: {reason}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{source}: not valid YAML") from None


def read_yaml(path: Path, *, number_keys: bool = False, hint: str = "") -> dict[Any, Any]:
    """Read a YAML file that contains a mapping; an empty file is an empty mapping.

    Args:
        path: Path of the file.
        number_keys: Whether whole numbers may be keys, besides words.
        hint: Appended to the message that there is no such file.

    Raises:
        UserError: The file is missing, unreadable, not UTF-8, not YAML, or not a mapping.
    """
    try:
        text = check_regular(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file{hint}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    values = parse_yaml(text, str(path), number_keys=number_keys)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: should contain sections such as `train:`, not {values!r:.40}")
    return values


class _Dumper(yaml.SafeDumper):
    """Keeps short lists on one line, as people write them."""


for tag, pattern, first in _SCALARS:  # quote a string that this reader would take for a number
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), first
    )
_Dumper.add_representer(
    list,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=all(not isinstance(v, dict) for v in values)
    ),
)


def write_yaml(values: dict[str, Any], path: Path | None = None) -> str:
    """Return `values` as YAML, and write it to `path` if given."""
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return text
