r"""Split file names into parts, to tell two spellings of one name from two different names.

It accepts paths of any system (`images/a.jpg`, `C:\images\a.jpg`), URLs (`s3://bucket/a.jpg`),
% codes, and the file names that Label Studio writes.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from retinanet.data.images.reading import SUFFIXES

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOCAL_FILE = re.compile(r"(?:^|local-files[/\\]*)\?(?:.*&)?d=([^&#]+)", re.IGNORECASE)
"""Label Studio's name for a file on its own machine: `/data/local-files/?d=images/a.jpg`."""
_UPLOAD = re.compile(r"[0-9a-f]{6,8}-(?=.)")
"""Prefix of files that were uploaded to Label Studio; without letters it may be a date."""
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
"""Characters of zero width, added when a name is copied from a document or a window."""
_SPLITS = {
    **dict.fromkeys(("train", "training", "train2014", "train2017"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "val2014", "val2017"), "val"),
    **dict.fromkeys(("test", "testing", "test2014", "test2017"), "test"),
}

Keys = tuple[str, ...]


class FilePath(NamedTuple):
    """A path or URL, split into parts."""

    text: str
    """As it was written."""
    parts: tuple[str, ...]
    keys: Keys
    """Each part without differences in case, Unicode form, outer blanks and suffix."""
    is_absolute: bool
    """Whether it starts at the root of a machine."""
    marks: frozenset[str]
    r"""Features of the name: `backslash`, `percent` codes, `blanks` around it."""

    def spellings(self) -> Iterator[tuple[Keys, bool]]:
        """Yield (keys, False), and (keys without the upload prefix, True) if there may be one."""
        if self.keys:
            yield self.keys, False
            upload = _UPLOAD.match(self.keys[-1])
            if upload and ("upload" in self.keys[:-1] or not upload[0][:-1].isdigit()):
                yield (*self.keys[:-1], self.keys[-1][upload.end() :].strip()), True


def take_apart(name: str) -> FilePath:
    """Split a path or URL, from any system, into its parts."""
    text, marks = name, set()
    decoded = _decode(name)
    if _ADDRESS.match(decoded) or _LOCAL_FILE.search(decoded):
        text = decoded if "://" not in name and "?" not in name else name
    address, local = _ADDRESS.match(text), _LOCAL_FILE.search(text)
    if local:
        text = unquote(local[1])
    elif address:
        text = unquote(re.split(r"[?#]", text[address.end() :], maxsplit=1)[0])
    else:
        before, query, _ = text.partition("?")
        text = before if query and before.lower().endswith(SUFFIXES) else text
        decoded = _decode(text)
        if decoded != text:
            marks.add("percent")
            text = decoded
    if "\\" in text:
        marks.add("backslash")
        text = text.replace("\\", "/")
    if text != text.strip():
        marks.add("blanks")
        text = text.strip()
    is_absolute = bool(address or local or re.match(r"/|[A-Za-z]:", text))
    parts = tuple(p for p in posixpath.normpath(text).split("/") if p.strip() and p != ".")
    keys = [_fold(part.strip()) for part in parts]
    if keys:
        keys[-1] = _fold(split_suffix(parts[-1].strip())[0].strip())
    return FilePath(name, parts, tuple(keys), is_absolute, frozenset(marks))


def without_upload_number(name: str) -> str:
    """Return the name of a file without the prefix that Label Studio adds."""
    upload = _UPLOAD.match(name.casefold())
    return name[upload.end() :] if upload else name


def split_suffix(name: str) -> tuple[str, str]:
    """Return a name without the suffixes of image files, and these suffixes."""
    stem = name
    while stem.lower().endswith(SUFFIXES):
        shorter = stem.rpartition(".")[0]
        if not shorter:
            break
        stem = shorter
    return stem, name[len(stem) :]


def differences(mine: str, theirs: str) -> set[str]:
    """Return how two parts with the same key differ: `blanks`, `unicode`, `case`."""
    found = set()
    for step, normal in (("blanks", str.strip), ("unicode", _plain), ("case", _fold)):
        if mine == theirs:
            break
        plain = normal(mine), normal(theirs)
        if plain != (mine, theirs):
            found.add(step)
        mine, theirs = plain
    return found


def may_replace(path: FilePath, file: FilePath) -> bool:
    """Whether the folders of another machine may be replaced by those of a file with the same name.

    Not if they belong to another split, or to another part of a series (`video2`, `video3`), whose
    frames have the same numbers.
    """
    theirs = {_SPLITS[key] for key in path.keys[:-1] if key in _SPLITS}
    ours = {_SPLITS[key] for key in file.keys[:-1] if key in _SPLITS}
    if len(path.keys) < 2 or len(file.keys) < 2 or (theirs and ours and theirs != ours):
        return False
    folders = {re.sub(r"\d+", "", keys[-2]) for keys in (path.keys, file.keys)}
    return len(folders) > 1 and not re.fullmatch(r"\d{1,7}", path.keys[-1])


def _decode(text: str) -> str:
    """Decode % codes, if there are any."""
    if "%" not in text or not re.search("%[0-9A-Fa-f]{2}", text):
        return text
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text
    return text if "\0" in decoded else decoded


@lru_cache(maxsize=4096)
def _fold(text: str) -> str:
    return _plain(_plain(text).casefold())


def _plain(text: str) -> str:
    """Return a text in one Unicode form, with plain blanks and without invisible characters."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
