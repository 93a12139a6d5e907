"""Pascal VOC: an XML file an image, and lists of images (ImageSets/Main).

VOC counts pixels from 1 and includes the last one: xmin 1, xmax 10 is the box from 0 to 10.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from retinanet.convert.dataset import Corners, FoundBox, FoundImage, FoundImages
from retinanet.convert.image_files import find_image_names, name_inside
from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import map_in_threads, read_bytes
from retinanet.convert.tables import parse_number, read_lines
from retinanet.data.canvas import Size
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocReader:
    """Reads the XML files of a folder."""

    def __init__(
        self, folder: Path, images: Path | None, *, difficult: str, zero_based: bool
    ) -> None:
        """Find a folder's parts: Annotations, JPEGImages, or all files side by side.

        Args:
            folder: folder of the data set, or of its XML files.
            images: image folder, if it is not JPEGImages.
            difficult: `ignore` (a region to ignore, iscrowd 1), `keep` or `drop`.
            zero_based: corners are continuous px from 0, as some tools write them.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
        self.xml_folder = _first_folder(folder, "Annotations", "annotations")
        self.images = images or _first_folder(folder, "JPEGImages", "images")
        if not self.images.is_dir():
            raise UserError(f"{self.images}: there is no such image folder")
        self._folder = folder
        self._difficult = difficult
        self._zero_based = zero_based
        self._image_names = frozenset(find_image_names(self.images))

    def read(self, set_name: str | None, problems: Problems) -> FoundImages:
        """Read the images of a list, in its order; or all XML files, sorted.

        Args:
            set_name: name of a list in ImageSets/Main, or the path of one.
            problems: collects problems and notes.
        """
        part = FoundImages(name="", folder=self.images, normalized=False)
        if set_name is None:
            names = sorted(
                path.relative_to(self.xml_folder) for path in _find_xml_files(self.xml_folder)
            )
            if not names:
                raise UserError(
                    f"{self.xml_folder}: holds no XML file; name a folder of Pascal VOC, with "
                    "Annotations and JPEGImages in it, or one of XML files"
                )
        else:
            part.name = Path(set_name).stem
            names = self._read_list(set_name, problems)
        paths = [self.xml_folder / name for name in names]
        for path, content in zip(paths, map_in_threads(read_bytes, paths), strict=True):
            image = self._parse_image(path, content, problems)
            if image is not None:
                part.images.append(image)
        return part

    def _read_list(self, set_name: str, problems: Problems) -> list[Path]:
        path = self._folder / "ImageSets" / "Main" / f"{Path(set_name).name}"
        path = path if path.suffix == ".txt" else path.with_name(f"{path.name}.txt")
        if Path(set_name).is_file():
            path = Path(set_name)
        names = []
        for line, text in read_lines(path):
            name = Path(f"{text}.xml")
            if not (self.xml_folder / name).is_file() and text.lower().endswith(
                (*SUFFIXES, ".xml")
            ):
                name = Path(text).with_suffix(".xml")
            if name_inside(self.xml_folder, name) is None:
                problems.add(path, line, f"{text!r:.60} leads outside {self.xml_folder}")
            elif (self.xml_folder / name).is_file():
                names.append(name)
            elif re.search(r"\s-?[01]$", text):
                problems.add(
                    path,
                    line,
                    f"{text!r:.60} is a line of one class's list; name a plain list, "
                    "such as trainval",
                )
            else:
                problems.add(path, line, f"there is no {self.xml_folder / name}")
        return names

    def _parse_image(
        self, path: Path, content: bytes | OSError, problems: Problems
    ) -> FoundImage | None:
        root = _parse_xml(path, content, problems)
        if root is None:
            return None
        if root.tag != "annotation":
            problems.add(path, root.line, f"is <{root.tag}>; expected Pascal VOC's <annotation>")
            return None
        name = self._file_name(path, root, problems)
        if name is None:
            return None
        size = _parse_size(path, root, problems)
        image = FoundImage(source=path, line=None, file_name=name, size=size)
        for found in root.findall("object"):
            box = self._parse_box(path, found, problems)
            if box is not None:
                image.boxes.append(box)
        return image

    def _file_name(self, path: Path, root: _Element, problems: Problems) -> str | None:
        """Return the image of an XML file: what <filename> says, or the one of the same name."""
        filename = _child_text(root, "filename")
        beside = path.relative_to(self.xml_folder).with_suffix("")
        namesakes = [
            beside.as_posix() + suffix for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES))
        ]
        namesake = next((name for name in namesakes if name in self._image_names), None)
        if not filename:
            if namesake is None:
                problems.add(
                    path,
                    None,
                    f"has no <filename>, and there is no image {beside} in {self.images}",
                )
            return namesake
        inside = None if "\0" in filename else name_inside(self.images, Path(filename))
        if inside is None:
            problems.add(
                path,
                _child_line(root, "filename"),
                f"<filename> {filename!r:.200} leads outside the image folder {self.images}",
            )
            return None
        candidates = [inside, (beside.parent / inside).as_posix()]
        found = next((name for name in candidates if name in self._image_names), None)
        if found and namesake and found != namesake:
            problems.add(
                path,
                _child_line(root, "filename"),
                f"<filename> is {filename!r:.200}, but there is {namesake!r:.200}, too, which has "
                "the XML file's name; correct <filename>",
            )
            return None
        if found is None and namesake:
            problems.note(
                "XML files whose <filename> is not there: taken for the image of the same name"
            )
        return found or namesake or inside

    def _parse_box(self, path: Path, found: _Element, problems: Problems) -> FoundBox | None:
        """Return an object's own box; those of its <part> elements are not objects."""
        name, boxes = _child_text(found, "name"), found.findall("bndbox")
        if not name:
            problems.add(path, found.line, "an <object> has no <name>")
            return None
        if len(boxes) != 1:
            problems.add(
                path, found.line, f"the <object> {name!r:.60} has {len(boxes)} <bndbox>; expected 1"
            )
            return None
        texts = [_child_text(boxes[0], key) for key in _CORNERS]
        try:
            x1, y1, x2, y2 = map(parse_number, texts)
        except ValueError:
            shown = ", ".join(f"{k} {t!r:.20}" for k, t in zip(_CORNERS, texts, strict=True))
            problems.add(
                path,
                _child_line(found, "bndbox"),
                f"the <bndbox> of {name!r:.60} has {shown}; expected four numbers (px)",
            )
            return None
        difficult = self._is_difficult(path, found, problems)
        if difficult and self._difficult == "drop":
            problems.note("difficult objects: dropped")
            return None
        if difficult and self._difficult == "ignore":
            problems.note("difficult objects: iscrowd 1, regions to ignore")
        if not self._zero_based:
            if min(x1, y1) < 1:
                problems.note(
                    "boxes with an xmin or ymin under 1, which VOC does not have: if a tool wrote "
                    "corners from 0, give --zero-based"
                )
            x1, y1 = x1 - 1, y1 - 1
        corners: Corners = (x1, y1, x2, y2)
        crowd = difficult and self._difficult == "ignore"
        return FoundBox(_child_line(found, "bndbox"), name, corners, crowd)

    def _is_difficult(self, path: Path, found: _Element, problems: Problems) -> bool:
        text = _child_text(found, "difficult") or "0"
        if text not in ("0", "1"):
            problems.add(
                path,
                _child_line(found, "difficult"),
                f"<difficult> is {text!r:.60}; expected 0 or 1",
            )
        return text == "1"


class _Element(Element):
    """An element that knows its line, from 1."""

    line: int = 0

    def findall(self, path: str, namespaces: dict[str, str] | None = None) -> list[Any]:
        return super().findall(path, namespaces)


def _parse_xml(path: Path, content: bytes | OSError, problems: Problems) -> _Element | None:
    """Return the root of an XML file; entities and the like, which could do harm, are refused."""
    if isinstance(content, OSError):
        problems.add(path, None, f"cannot be read: {content.strerror}")
        return None

    def make(tag: str, attributes: dict[str, str]) -> _Element:
        element = _Element(tag, attributes)
        element.line = parser.parser.CurrentLineNumber
        return element

    parser: Any = XMLParser(target=TreeBuilder(element_factory=make))
    try:
        parser.feed(content)
        return parser.close()
    except ParseError as error:
        problems.add(path, error.position[0], f"not XML: {str(error).partition(':')[0]}")
    except DefusedXmlException as error:
        problems.add(path, None, f"not read: {type(error).__name__}, which could do harm")
    except (ValueError, LookupError) as error:  # an encoding that there is not
        problems.add(path, None, f"not XML that can be read: {error}")
    return None


def _parse_size(path: Path, root: _Element, problems: Problems) -> Size | None:
    """Return what <size> says; None where it says nothing, or 0 as some tools write."""
    element = root.find("size")
    texts = [] if element is None else [_child_text(element, key) for key in ("height", "width")]
    if not any(texts):
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
        _child_line(root, "size"),
        f"<size> has height {texts[0]!r:.20}, width {texts[1]!r:.20}; expected whole numbers (px)",
    )
    return None


def _child_text(element: Element, key: str) -> str:
    return (element.findtext(key) or "").strip()


def _child_line(element: Element, key: str) -> int | None:
    """Return the line of an element's child, if there is one."""
    child: Any = element.find(key)
    return None if child is None else child.line


def _first_folder(folder: Path, *names: str) -> Path:
    """Return the first of a folder's folders that is there, or the folder itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def _find_xml_files(folder: Path) -> list[Path]:
    return [
        Path(place) / name
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(".xml")
    ]
