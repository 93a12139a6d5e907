"""Read the bytes of an annotation file, and unpack a .gz file."""

from __future__ import annotations

import gzip
import io
import shlex
import zlib
from pathlib import Path

from retinanet.errors import UserError
from retinanet.files import check_regular

_BYTES_AT_ONCE = 2**24
"""Bytes unpacked at a time."""
_ALWAYS_ALLOWED = 2**30
_LARGEST_RATIO = 200
"""JSON shrinks to about a twentieth. A file that grows to more than 1 GiB and to more than 200
times its size is not unpacked: it may be made to fill the memory."""

_PACKED = {
    b"BZh": ("a bzip2 file", "bunzip2 -k"),
    b"\xfd7zXZ\x00": ("an xz file", "unxz -k"),
    b"\x28\xb5\x2f\xfd": ("a zstd file", "zstd -d"),
    b"\x04\x22\x4d\x18": ("an lz4 file", "lz4 -d"),
    b"PK\x03\x04": ("a zip archive", "unzip"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x"),
    b"Rar!": ("a rar archive", "unrar x"),
}
"""Archives to unpack by hand, by their first bytes: name and command."""
_GZIP = b"\x1f\x8b"
_TAR_PLACE = slice(257, 262)


def read_content(path: Path) -> bytes:
    """Return the content of an annotation file, unpacked.

    Raises:
        UserError: The file cannot be read or unpacked.
    """
    return unpack(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an annotation file, without unpacking them.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        return check_regular(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such annotation file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not an annotation file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def unpack(path: Path, content: bytes) -> bytes:
    """Return the unpacked content of a .gz file (of any name); other content unchanged.

    Raises:
        UserError: The content is cut off, damaged, far too large, or packed in another way.
    """
    if content.startswith(_GZIP):
        content = _gunzip(path, content)
        if content[_TAR_PLACE] == b"ustar":
            raise UserError(_by_hand(path, "a tar archive", "tar xf"))
        return content
    for start, (name, command) in _PACKED.items():
        if content.startswith(start):
            raise UserError(_by_hand(path, name, command))
    if content[_TAR_PLACE] == b"ustar":
        raise UserError(_by_hand(path, "a tar archive", "tar xf"))
    return content


def _by_hand(path: Path, name: str, command: str) -> str:
    return (
        f"{path}: is {name}; unpack it (`{command} {shlex.quote(str(path))}`) and use the JSON "
        "file inside"
    )


def _gunzip(path: Path, content: bytes) -> bytes:
    largest = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * len(content))
    parts: list[bytes] = []
    size = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            while part := file.read(_BYTES_AT_ONCE):
                parts.append(part)
                size += len(part)
                if size > largest:
                    raise UserError(
                        f"{path}: {len(content):,} bytes unpack to more than {largest:,}, far more "
                        "than annotations do; if this is the right file, unpack it by hand "
                        f"(`gunzip -k {shlex.quote(str(path))}`)"
                    )
    except EOFError:
        raise UserError(f"{path}: the .gz file is cut off; copy or download it again") from None
    except (OSError, zlib.error) as error:
        raise UserError(
            f"{path}: the .gz file is damaged ({error}); copy or download it again"
        ) from None
    return b"".join(parts)
