"""XML files of Pascal VOC: their elements, which know their lines, and what else XML may be."""

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
"""What tools write for a size that they do not know, in small letters."""


class VocElement(Element):
    """An element that knows its line, from 1."""

    line: int = 0

    def findall(self, path: str, namespaces: dict[str, str] | None = None) -> list[Any]:
        """Return the children of a name, which know their lines, too."""
        return super().findall(path, namespaces)


def parse_xml(path: Path, content: bytes | OSError, problems: Problems) -> VocElement | None:
    """Return the root of an XML file; entities and the like, which could do harm, are refused.

    Names are in small letters and without namespaces, as VOC has none.
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
        except (ValueError, LookupError):  # an encoding that the parser does not know
            return _parse(_in_utf8(text), skipped)
    except ParseError as error:
        line = error.position[0] + skipped
        fault = f"not XML: {str(error).partition(':')[0]}"
        lines = content.split(b"\n")
        if line <= len(lines) and re.search(rb"&(?!#?\w+;)", lines[line - 1]):
            fault = "not XML: an & has to be written as &amp;"
        problems.add(path, line, fault)
    except DefusedXmlException as error:
        problems.add(path, None, f"not read: {type(error).__name__}, which could do harm")
    except (ValueError, LookupError) as error:  # an encoding that there is not
        problems.add(path, None, f"not XML that can be read: {error}; save it as UTF-8")
    return None


def _parse(content: bytes, skipped: int) -> VocElement:
    """Return the root; `skipped` lines were before it."""

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
        ValueError: not in the encoding that it declares.
        LookupError: there is no such encoding.
    """
    declared = re.match(rb"<\?xml[^>]*?encoding=[\"']([\w.:-]+)[\"'][^>]*\?>", content)
    if declared is None:
        raise LookupError("its encoding is not declared")
    rest = content[declared.end() :].decode(declared[1].decode())
    return rest.encode()


def describe_other(root: VocElement) -> str:
    """Say what an XML file is that is not Pascal VOC's, and what to do."""
    if root.tag == "annotations" and root.find("image") is not None:
        return (
            "is CVAT's own XML (CVAT for images), which is not read; export Pascal VOC 1.1 or "
            "COCO 1.0 from CVAT"
        )
    if root.tag == "annotations" and root.find("track") is not None:
        return "is CVAT's own XML (CVAT for video), which is not read; export COCO 1.0 from CVAT"
    if root.tag == "dataset" and root.find("images") is not None:
        return (
            "is XML of dlib's imglab, which is not read; Pascal VOC has a file for each image, "
            "with <annotation> as its root"
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
    """Return what <size> says; None where it says nothing, or 0 as some tools write."""
    element = root.find("size")
    texts = [] if element is None else [child_text(element, key) for key in ("height", "width")]
    if any(text.lower() in _NO_NUMBER for text in texts) or not texts:
        problems.note("XML files without <size>: taken from the image")
        return None
    try:
        height, width = map(parse_number, texts)
        if height == width == 0:
            problems.note("XML files with a <size> of 0x0: taken from the image")
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
