"""Parse the XML files of Pascal VOC into elements with line numbers."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from retinanet.convert.problems import Problems
from retinanet.convert.tables import parse_number
from retinanet.data.canvas import Size

_NO_NUMBER = ("", "none", "null", "nan")
"""What tools write for an unknown size, in lower case."""


class VocElement(Element):
    """An element with its line, from 1."""

    line: int = 0

    def findall(self, path: str, namespaces: dict[str, str] | None = None) -> list[Any]:
        """Return the children with this name, each with its line."""
        return super().findall(path, namespaces)


def parse_xml(path: Path, content: bytes | OSError, problems: Problems) -> VocElement | None:
    """Return the root of an XML file; entities and other unsafe features are refused.

    Names are in lower case and without namespaces, as VOC has none.
    """
    if isinstance(content, OSError):
        problems.add(path, None, f"cannot be read: {content.strerror}")
        return None

    text = content.removeprefix(codecs.BOM_UTF8).lstrip()  # no blank line may come before <?xml
    skipped = content[: len(content) - len(text)].count(b"\n")
    try:
        try:
            return _parse(text, skipped)
        except DefusedXmlException:  # a ValueError, too
            raise
        except (ValueError, LookupError):  # an encoding that the parser does not support
            return _parse(_in_utf8(text), skipped)
    except ParseError as error:
        line = error.position[0] + skipped
        fault = f"not XML: {str(error).partition(':')[0]}"
        lines = content.split(b"\n")
        if line <= len(lines) and re.search(rb"&(?!#?\w+;)", lines[line - 1]):
            fault = "not XML: write & as &amp;"
        problems.add(path, line, fault)
    except DefusedXmlException as error:
        problems.add(path, None, f"not read: {type(error).__name__}; such XML can be unsafe")
    except (ValueError, LookupError) as error:  # an unknown encoding
        problems.add(path, None, f"cannot be read as XML: {error}; save it as UTF-8")
    return None


def _parse(content: bytes, skipped: int) -> VocElement:
    """Return the root of XML that follows `skipped` lines."""

    def make(tag: str, attributes: dict[str, str]) -> VocElement:
        names = {name.rpartition("}")[2].lower(): text for name, text in attributes.items()}
        element = VocElement(tag.rpartition("}")[2].lower(), names)
        element.line = parser.parser.CurrentLineNumber + skipped
        return element

    parser: Any = XMLParser(target=TreeBuilder(element_factory=make))
    parser.feed(content)
    root: VocElement = parser.close()
    return root


def _in_utf8(content: bytes) -> bytes:
    """Return XML in UTF-8, without the declaration of its encoding.

    Raises:
        ValueError: The content is not in the declared encoding.
        LookupError: The declared encoding does not exist.
    """
    declared = re.match(rb"<\?xml[^>]*?encoding=[\"']([\w.:-]+)[\"'][^>]*\?>", content)
    if declared is None:
        raise LookupError("its encoding is not declared")
    rest = content[declared.end() :].decode(declared[1].decode())
    return rest.encode()


def describe_other(root: VocElement) -> str:
    """Return what kind of XML file this is, if not Pascal VOC, and what to do."""
    if root.tag == "annotations" and root.find("image") is not None:
        return (
            "is CVAT's own XML (CVAT for images), which is not supported; export Pascal VOC 1.1 "
            "or COCO 1.0 from CVAT"
        )
    if root.tag == "annotations" and root.find("track") is not None:
        return (
            "is CVAT's own XML (CVAT for video), which is not supported; export COCO 1.0 from CVAT"
        )
    if root.tag == "dataset" and root.find("images") is not None:
        return (
            "is XML of dlib's imglab, which is not supported; Pascal VOC has a file for each "
            "image, with <annotation> as its root"
        )
    inside = root.findall("annotation")
    if inside:
        return (
            f"is <{root.tag}> with {len(inside)} <annotation> in it; Pascal VOC has a file for "
            "each image, with <annotation> as its root"
        )
    return (
        f"is <{root.tag}>; expected Pascal VOC's <annotation>; move the file elsewhere if it "
        "belongs to no image"
    )


def parse_size(path: Path, root: VocElement, problems: Problems) -> Size | None:
    """Return the <size>; None if it is missing, or 0 as some tools write."""
    element = root.find("size")
    texts = [] if element is None else [child_text(element, key) for key in ("height", "width")]
    if any(text.lower() in _NO_NUMBER for text in texts) or not texts:
        problems.note("XML files without <size>: size read from the image")
        return None
    try:
        height, width = map(parse_number, texts)
        if height == width == 0:
            problems.note("XML files with a <size> of 0x0: size read from the image")
            return None
        if min(height, width) >= 1 and height == int(height) and width == int(width):
            return int(height), int(width)
    except ValueError:
        pass
    problems.add(
        path,
        child_line(root, "size"),
        f"<size> has height {texts[0]!r:.20}, width {texts[1]!r:.20}; expected whole numbers (px)",
    )
    return None


def child_text(element: Element, key: str) -> str:
    """Return the text of an element's child, stripped; empty if there is none."""
    return (element.findtext(key) or "").strip()


def child_line(element: Element, key: str) -> int | None:
    """Return the line of an element's child, if there is one."""
    child: Any = element.find(key)
    return None if child is None else child.line
