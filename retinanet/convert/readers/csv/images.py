"""The images that the rows of a table name."""

from __future__ import annotations

import posixpath
from pathlib import Path

from retinanet.convert.dataset import FoundImage
from retinanet.convert.image_files import name_inside
from retinanet.convert.problems import Problems


class ImageFinder:
    """Finds the images of a table in the image folder; several spellings may name one."""

    def __init__(self, path: Path, images: Path, problems: Problems) -> None:
        self._path = path
        self._images = images
        self._problems = problems
        self._by_text: dict[str, FoundImage | None] = {}
        self._by_name: dict[str, FoundImage] = {}
        self._folders: dict[str, str] = {}

    @property
    def images(self) -> list[FoundImage]:
        """In the order of their first rows."""
        return list(self._by_name.values())

    def find(self, line: int, text: str, folder: str | None) -> FoundImage | None:
        """Return the image that a row names; None after a problem.

        Args:
            line: line of the row, from 1.
            text: its name or path.
            folder: what a column of folders says, if there is one.
        """
        if text not in self._by_text:
            self._by_text[text] = self._find(line, text)
        if folder and self._folders.setdefault(text, folder) != folder:
            self._problems.add(
                self._path,
                line,
                f"{text!r:.100} is in the folder {folder!r:.60}, but an earlier row says "
                f"{self._folders[text]!r:.60}; write the folder in front of the name, as in "
                f"{posixpath.join(folder, text)!r:.160}",
            )
        return self._by_text[text]

    def _find(self, line: int, text: str) -> FoundImage | None:
        if not text or "\0" in text:
            self._problems.add(self._path, line, f"path {text!r:.60} is not the name of an image")
            return None
        outside = None
        for written in dict.fromkeys((text, text.replace("\\", "/"))):
            for place in (self._path.parent.absolute(), self._images.absolute()):
                file = place / written
                if not _exists(file):
                    continue
                name = name_inside(self._images, file)
                if name is not None:
                    if written != text:
                        self._problems.note("images whose path has \\ in place of /: found")
                    return self._image(line, name, name)
                outside = file
        if outside is not None:
            self._problems.add(
                self._path,
                line,
                f"path {text!r:.200} leads outside the image folder {self._images}; name a folder "
                "that holds all images with --images",
            )
            return None
        # Not there: kept as written, which tells most of what file may be meant.
        name = name_inside(self._images, self._images.absolute() / text)
        is_plain = name is not None and "\\" not in text and "://" not in text
        return self._image(
            line, posixpath.normpath(text.replace("\\", "/")), name if is_plain else text
        )

    def _image(self, line: int, key: str, name: str | None) -> FoundImage:
        image = FoundImage(source=self._path, line=line, file_name=name or key)
        return self._by_name.setdefault(key, image)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False
