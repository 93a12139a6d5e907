"""Read the properties of an <object> other than name and box: flags, rotations, CVAT attributes.

Tools write a property as an element, as an XML attribute of <object> or <bndbox>, or inside
<attributes>: `<attribute><name>...</name><value>...</value>`, `<attribute name="..." value="...">`,
`<attribute name="...">value</attribute>`, or an element with that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from retinanet.convert.readers.voc.xml import VocElement, child_text


class Said(NamedTuple):
    """A name and a value."""

    key: str
    """The name in lower case, letters and digits only: `iscrowd` for `is_crowd`."""
    name: str
    text: str
    line: int
    is_attribute: bool
    """Whether it is an <attribute> with a name, as CVAT writes them."""


def find_said(found: VocElement) -> list[Said]:
    """Return all properties of an <object>, without those that are empty."""
    said = [*_of(found), *(one for box in found.findall("bndbox") for one in _of(box))]
    for group in found.findall("attributes"):
        said += _of(group)
        for own in group.findall("attribute"):
            name = child_text(own, "name") or own.get("name", "")
            text = child_text(own, "value") or own.get("value", "") or (own.text or "")
            said.append(_said(name, text, own.line, is_attribute=True))
    return [one for one in said if one.key and one.text]


def _of(holder: VocElement) -> Iterator[Said]:
    """Yield the XML attributes of an element, and its children that have no children."""
    for name, text in holder.attrib.items():
        yield _said(name, text, holder.line)
    for child in holder:
        if not len(child) and isinstance(child, VocElement):
            yield _said(child.tag, child.text or "", child.line)


def _said(name: str, text: str, line: int, *, is_attribute: bool = False) -> Said:
    return Said(key_of(name), name.strip(), text.strip(), line, is_attribute)


def key_of(name: str) -> str:
    """Return a name in lower case, with letters and digits only."""
    return re.sub(r"[^0-9a-z]", "", name.lower())
