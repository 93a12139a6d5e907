"""Read Pascal VOC: an XML file for each image, and lists of images (ImageSets/Main).

VOC counts pixels from 1 and includes the last one: xmin 1, xmax 10 is the box from 0 to 10.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from retinanet.convert.box_forms import UNIT_SCALES
from retinanet.convert.dataset import FoundImage, FoundImages
from retinanet.convert.image_files import name_inside
from retinanet.convert.problems import Problems
from retinanet.convert.read_ahead import map_in_threads, read_bytes
from retinanet.convert.readers.voc.objects import ObjectParser, find_objects
from retinanet.convert.readers.voc.xml import (
    VocElement,
    child_line,
    child_text,
    describe_other,
    parse_size,
    parse_xml,
)
from retinanet.convert.tables import read_lines
from retinanet.data.images.folders import find_files, find_image_names
from retinanet.data.images.reading import SUFFIXES
from retinanet.errors import UserError


class VocReader:
    """Reads the XML files in a folder."""

    def __init__(
        self,
        folder: Path,
        images: Path | None,
        *,
        difficult: str,
        zero_based: bool,
        units: str | None,
        angles: str | None,
    ) -> None:
        """Find Annotations and JPEGImages in a folder; without them, all files are in the folder.

        Args:
            folder: Folder of the data set, or of its XML files.
            images: Image folder, if it is not JPEGImages.
            difficult: `ignore` (a region to ignore, iscrowd 1), `keep` or `drop`.
            zero_based: Whether corners are continuous px from 0, as some tools write them.
            units: Unit of the corners: `px`, or a key of `UNIT_SCALES`, if it is given.
            angles: Unit of <robndbox> angles: `radians` or `degrees`, if it is given.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
        self.xml_folder = _first_folder(folder, "Annotations", "annotations")
        self.images = images or _first_folder(folder, "JPEGImages", "images")
        if not self.images.is_dir():
            raise UserError(f"{self.images}: there is no such image folder")
        self._folder = folder
        self._units = units
        self._objects = ObjectParser(
            difficult=difficult,
            zero_based=zero_based,
            scale=UNIT_SCALES.get(units or "px"),
            angles=angles,
        )
        self._image_names = frozenset(find_image_names(self.images))

    def read(self, set_name: str | None, problems: Problems) -> FoundImages:
        """Read the images of a list in its order, or all XML files, sorted.

        Args:
            set_name: Name of a list in ImageSets/Main, or path of a list; None for all XML files.
            problems: Collects problems and notes.
        """
        part = FoundImages(
            name="",
            folder=self.images,
            normalized=self._units in UNIT_SCALES,
            are_units_guessed=self._units is None,
        )
        if set_name is None:
            names = self._find_xml_files(problems)
            if not names:
                raise UserError(
                    f"{self.xml_folder}: contains no XML files; name a Pascal VOC folder, with "
                    "Annotations and JPEGImages, or a folder of XML files"
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

    def finish(self, found: list[FoundImages], problems: Problems) -> None:
        """Make the checks that need all files; boxes with unclear angles are removed."""
        if not self._objects.angles.are_clear(problems):
            for part in found:
                for image in part.images:
                    image.boxes.clear()

    def note_unlisted(self, found: list[FoundImages], problems: Problems) -> None:
        """Count the image files without an XML file."""
        named = {image.file_name for part in found for image in part.images}
        problems.note(
            "images without an XML file: left out (--unlisted-images empty adds such images "
            "without boxes)",
            len(self._image_names - named),
        )

    def _find_xml_files(self, problems: Problems) -> list[Path]:
        """Return all XML files, relative to their folder, sorted."""
        files = find_files(self.xml_folder, (".xml",))
        problems.note("hidden XML files (name or folder begins with a dot): not read", files.hidden)
        if self.xml_folder != self._folder:
            every = find_files(self._folder, (".xml",)).names
            inside = f"{self.xml_folder.name}/"
            others = [name for name in every if not name.startswith(inside)]
            problems.note(f"XML files outside {self.xml_folder}: not read", len(others))
        return sorted(map(Path, files.names))

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
                    f"{text!r:.60} is a line from the list of a single class; name a plain list, "
                    "such as trainval",
                )
            else:
                problems.add(path, line, f"there is no file {self.xml_folder / name}")
        return names

    def _parse_image(
        self, path: Path, content: bytes | OSError, problems: Problems
    ) -> FoundImage | None:
        root = parse_xml(path, content, problems)
        if root is None:
            return None
        if root.tag != "annotation":
            problems.add(path, root.line, describe_other(root))
            return None
        name = self._file_name(path, root, problems)
        if name is None:
            return None
        size = parse_size(path, root, problems)
        image = FoundImage(source=path, line=None, file_name=name, size=size)
        for found in find_objects(path, root, problems):
            box = self._objects.parse(path, found, problems)
            if box is not None:
                image.boxes.append(box)
        return image

    def _file_name(self, path: Path, root: VocElement, problems: Problems) -> str | None:
        """Return the image of an XML file: the one in <filename>, or the one with the same name."""
        filename, line = child_text(root, "filename"), child_line(root, "filename")
        beside = path.relative_to(self.xml_folder).with_suffix("")
        namesakes = self._namesakes(beside)
        if "\0" in filename:
            problems.add(path, line, f"<filename> {filename!r:.60} is not the name of an image")
            return None
        exact, by_last_part = self._named_images(filename, beside.parent)
        named = exact or by_last_part
        if named and namesakes and named not in namesakes:
            problems.add(
                path,
                line,
                f"<filename> is {filename!r:.200}, but there is also {namesakes[0]!r:.200}, which "
                "has the name of the XML file; correct <filename>",
            )
            return None
        if named:
            if not exact:
                problems.note(
                    "XML files whose <filename> has other folders: only the last part is used"
                )
            return named
        if len(namesakes) > 1:
            problems.add(
                path,
                line,
                f"may belong to {' or '.join(map(repr, namesakes))}; write the right one in "
                "<filename>, or remove the other file",
            )
            return None
        if namesakes:
            if filename:
                problems.note(
                    "XML files whose <filename> does not exist: the image of the same name is used"
                )
            return namesakes[0]
        if not filename:
            problems.add(
                path,
                None,
                f"has no <filename>, and there is no image {beside} in {self.images}; add the "
                "<filename>, or give the image folder with --images",
            )
            return None
        return name_inside(self.images, Path(filename)) or filename

    def _namesakes(self, beside: Path) -> list[str]:
        """Return the images with the same name as an XML file, apart from the suffix."""
        suffixes = (*SUFFIXES, *map(str.upper, SUFFIXES))
        for stem in dict.fromkeys((beside.as_posix(), beside.name)):
            found = [stem + suffix for suffix in suffixes if stem + suffix in self._image_names]
            if found:
                return found
        return []

    def _named_images(self, filename: str, folder: Path) -> tuple[str | None, str | None]:
        """Return the image that <filename> names in full, and the one that its last part names."""
        if not filename:
            return None, None
        posix = filename.replace("\\", "/")
        inside = [name_inside(self.images, Path(text)) for text in (filename, posix)]
        last = posixpath.basename(posix)
        exact = [name for text in inside if text for name in (text, (folder / text).as_posix())]
        return tuple(  # type: ignore[return-value]
            next((name for name in names if name in self._image_names), None)
            for names in (exact, [(folder / last).as_posix(), last])
        )


def _first_folder(folder: Path, *names: str) -> Path:
    """Return the first of these subfolders that exists, or the folder itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)
