"""The images listed in a table."""

from __future__ import annotations

import posixpath
from pathlib import Path

from retinanet.convert.dataset import FoundImage
from retinanet.convert.image_files import name_inside
from retinanet.convert.problems import Problems


class ImageFinder:
    """Finds the images of a table in the image folder; an image may be spelled in several ways."""

    def __init__(self, path: Path, images: Path, problems: Problems) -> None:
        self._path = path
        self._images = images
        self._problems = problems
        self._by_text: dict[str, FoundImage | None] = {}
        self._by_name: dict[str, FoundImage] = {}
        self._folders: dict[str, str] = {}

    @property
    def images(self) -> list[FoundImage]:
        """The images, in the order of their first rows."""
        return list(self._by_name.values())

    def find(self, line: int, text: str, folder: str | None) -> FoundImage | None:
        """Return the image of a row; None after a problem.

        Args:
            line: Line of the row, from 1.
            text: Name or path of the image.
            folder: Value of the folder column, if there is one.
        """
        if text not in self._by_text:
            self._by_text[text] = self._find(line, text)
        if folder and self._folders.setdefault(text, folder) != folder:
            self._problems.add(
                self._path,
                line,
                f"{text!r:.100} is in the folder {folder!r:.60}, but in an earlier row in "
                f"{self._folders[text]!r:.60}; write the folder before the name, as in "
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
                        self._problems.note("images whose path has \\ instead of /: found")
                    return self._image(line, name, name)
                outside = file
        if outside is not None:
            self._problems.add(
                self._path,
                line,
                f"path {text!r:.200} leads outside the image folder {self._images}; give a folder "
                "with all images with --images",
            )
            return None
        # The file does not exist: the path as written is the best clue to the right file.
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
