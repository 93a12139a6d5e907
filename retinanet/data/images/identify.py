"""Identify a file that cannot be read as an image, and say what to do about it."""

from __future__ import annotations

import codecs
import re
import shlex
from pathlib import Path

from retinanet.data.images.formats import (
    FRAMES,
    JPEG,
    PNG,
    format_name,
    has_end,
    png_chunks,
    segments,
)
from retinanet.data.images.isobmff import brands
from retinanet.data.images.tiff import unread_kind, unusual_kind

_AGAIN = "copy or download it again"
_REPLACE = "replace it with the image"
_DEVELOP = "develop it: `darktable-cli {a} {b}.jpg`"
_IN_PLACE = "> {b} && mv {b} {a}"
_EXTRACT = "extract its frames: `ffmpeg -i {a} {b}_%06d.png`"


def _to_jpeg(coder: str) -> str:
    """Return a command that names the format for ImageMagick, as the suffix may be wrong."""
    return f"convert it to JPEG: `magick {coder}:{{a}} {{jpeg}}`"


# The start of a file, what it is, and a remedy. In the remedy, {a} is the file, {b} a new file
# without its suffix, {jpeg} the JPEG to make.
_FILES: tuple[tuple[bytes, str, str], ...] = (
    (rb"\xff\xd8\xff\xf7", "a JPEG-LS image, which is not supported", _to_jpeg("jls")),
    (
        rb"\x89PNG\r\n\x1a\n....CgBI",
        "a PNG in Apple's own format (CgBI), which is not supported",
        "restore it: `xcrun -sdk iphoneos pngcrush -revert-iphone-optimizations {a} {b}.png`",
    ),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image, which is not supported", _to_jpeg("jxl")),
    (rb"8BPS", "a Photoshop file (PSD), which is not supported", _to_jpeg("psd")),
    (rb"II\xbc", "a JPEG XR image, which is not supported", _to_jpeg("jxr")),
    (rb"\x76\x2f\x31\x01", "an OpenEXR image, which is not supported", _to_jpeg("exr")),
    (rb"#\?RADIANCE", "a Radiance HDR image, which is not supported", _to_jpeg("hdr")),
    (rb"P[Ff]\s", "a PFM image of floating-point numbers, which is not supported", _to_jpeg("pfm")),
    (rb"P7\s", "a PAM image, which is not supported", _to_jpeg("pam")),
    (rb"\0\0[\x01\x02]\0[^\0]\0", "an icon (ICO), which is not supported", _to_jpeg("ico")),
    (rb"DDS ", "a DDS texture, which is not supported", _to_jpeg("dds")),
    (rb"qoif", "a QOI image, which is not supported", _to_jpeg("qoi")),
    (rb"SIMPLE  =", "a FITS file, which is not supported", _to_jpeg("fits")),
    (rb"FUJIFILMCCD-RAW|IIR[OS]|IIU\0", "a camera RAW file, which is not supported", _DEVELOP),
    (
        rb".{128}DICM",
        "a DICOM image, which is not supported",
        "export it with a suitable window, for example `dcm2pnm +on +Wm {a} {b}.png`",
    ),
    (
        rb"\x93NUMPY",
        "a NumPy array (.npy)",
        'save it as an image: `python -c "import sys, numpy; from PIL import Image; '
        'Image.fromarray(numpy.load(sys.argv[1])).save(sys.argv[2])" {a} {b}.png`',
    ),
    (rb"%PDF", "a PDF document", "save its pages as images: `pdftoppm -png -r 150 {a} {b}`"),
    (
        rb"\0\x05\x16[\0\x07]",
        "a macOS companion file (its name starts with ._), not the image",
        "delete it and its record: `rm {a}`",
    ),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer: the image was not downloaded",
        "run `git lfs pull` in its repository",
    ),
    (
        rb"[./]{0,300}(?:\.git)?/annex/objects/",
        "a git-annex pointer: the image was not downloaded",
        "run `git annex get` in its repository",
    ),
    (rb"PK(?:\x03\x04|\x05\x06)", "a ZIP archive", "unpack it: `unzip {a} -d {b}`"),
    (rb"\x1f\x8b", "a gzip archive", f"unpack it: `gunzip -c {{a}} {_IN_PLACE}`"),
    (rb"BZh[1-9]1AY", "a bzip2 archive", f"unpack it: `bunzip2 -c {{a}} {_IN_PLACE}`"),
    (rb"\xfd7zXZ", "an xz archive", f"unpack it: `xz -dc {{a}} {_IN_PLACE}`"),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive", f"unpack it: `zstd -dc {{a}} {_IN_PLACE}`"),
    (rb"7z\xbc\xaf", "a 7-Zip archive", "unpack it: `7z x {a}`"),
    (rb"Rar!", "a RAR archive", "unpack it: `unrar x {a}`"),
    (rb".{257}ustar", "a tar archive", "unpack it: `tar xf {a}`"),
    (
        rb"RIFF....AVI |\x1a\x45\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS|\x30\x26\xb2\x75"
        rb"|....(?:moov|mdat|wide|free|skip)",
        "a video",
        _EXTRACT,
    ),
    (rb"RIFF....WAVE|ID3|fLaC", "a sound file", _REPLACE),
    (rb"\xd0\xcf\x11\xe0", "an Office document or a thumbnail cache (Thumbs.db)", _REPLACE),
    (rb"\x89HDF", "an HDF5 file, which is not supported", "save its arrays as PNG files"),
    (rb"SQLite format 3|PAR1|\x80[\x02-\x05][\x95c}\]]", "a data file", _REPLACE),
    (rb"\x7fELF|MZ.\0", "a program", _REPLACE),
    (
        rb"(?:\xef\xbf\xbd){2}|\xef\xbf\xbdPNG",
        "an image that a program saved as text, which ruined it",
        f"{_AGAIN}, as bytes",
    ),
    (
        rb"\x89PNG\n|\x89PNG\r\n\x1a\r|\x09PNG|\x89PNG\r\r",
        "a PNG that was transferred as text, which ruined it",
        f"{_AGAIN}, in binary mode",
    ),
    (
        rb"(?:data:image/[\w+.-]+;base64,)?(?:/9j/|iVBORw0KGgo)",
        "an image written as base64 text",
        f"decode it: `sed 's/^data:.*,//' {{a}} | base64 -d {_IN_PLACE}`",
    ),
)
# The same for text files, after blanks and a byte order mark.
_TEXTS: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"(?i)<!doctype html|<html|<head|<body|<script"
        rb"|<!--.{0,500}<html|<\?xml.{0,500}<(?:!doctype )?html",
        "a web page (HTML): an error or login page that was saved under the image's name",
        "download the image itself again",
    ),
    (rb"(?i)<svg|<!doctype svg|<\?xml.{0,900}<svg", "an SVG drawing", _to_jpeg("svg")),
    (rb"<\?xml|<[A-Za-z]", "an XML file", _REPLACE),
    (rb"[{\[]", "a JSON file", _REPLACE),
    (rb"b['\"]\\x", "the text form of Python bytes, not the bytes", f"{_AGAIN}, as bytes"),
)
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_LOSSLESS_FRAMES = {0xC3, 0xC7, 0xCB, 0xCF}
_SEARCHED = 1024
"""Bytes that are searched for an image after other content."""
_UNWRITTEN = 64
"""Number of zeros at the end of a file that cannot be chance."""


def explain_unreadable(path: Path, content: bytes) -> str:
    """Return what a file is that is not a supported image, and a remedy.

    Args:
        path: Path of the file, for the commands in the remedy.
        content: Bytes of the file; the first ones are enough unless it starts like an image.
    """
    return explain(path, *identify(content))


def is_unread_picture(content: bytes) -> bool:
    """Whether a file has images in a format that is not supported: HEIC, RAW, a video, a PDF.

    Args:
        content: Bytes of the file, or the first ones.
    """
    _, remedy = identify(content)
    kinds = ("convert it to JPEG: ", _DEVELOP, _EXTRACT, "save its pages", "export it")
    return remedy.startswith(kinds)


def explain(path: Path, what: str, remedy: str) -> str:
    """Join a description and a remedy; {a}, {b} and {jpeg} in the remedy become file names.

    The names are quoted for a shell, and no existing image is overwritten.
    """
    new = path.with_name(f"{path.stem}_new")
    in_place = path.suffix.lower() in (".jpg", ".jpeg")  # its record names it
    jpeg = path if in_place else path.with_suffix(".jpg")
    if not in_place and jpeg.exists():
        jpeg = new.with_suffix(".jpg")
    names = {"a": str(path), "b": str(new), "jpeg": f"jpg:{jpeg}" if in_place else str(jpeg)}
    names = {key: f"./{name}" if name.startswith("-") else name for key, name in names.items()}
    makes_another = "{b}." in remedy or ("{jpeg}" in remedy and not in_place)
    command = re.sub(r"\{(a|b|jpeg)\}", lambda place: shlex.quote(names[place[1]]), remedy)
    return f"{what}; {command}{'; then use the new file' if makes_another else ''}"


def identify(content: bytes) -> tuple[str, str]:
    """Return what a file is that is not a supported image, and a remedy for `explain`.

    Args:
        content: Bytes of the file, or the first ones.
    """
    if not content:
        return "an empty file", _AGAIN
    if not content.strip(b"\0"):
        return "a file of zeros, which was never fully written", _AGAIN
    tiff = unread_kind(content)
    if tiff is not None:
        return tiff
    for pattern, what, remedy in _FILES:
        if re.match(pattern, content, re.DOTALL):
            return what, remedy
    name = format_name(content)
    if name is not None and not (name in ("BMP", "PNM") and _text(content)):
        return _damaged(name, content)
    kinds = brands(content)
    if kinds:
        return _film_or_photo(kinds)
    return _text(content) or _image_inside(content) or ("a file of unknown format", _REPLACE)


def _film_or_photo(kinds: set[bytes]) -> tuple[str, str]:
    if kinds & _HEIF:
        return "a HEIC (HEIF) image, which is not supported", _to_jpeg("heic")
    if b"crx " in kinds:
        return "a camera RAW file (CR3), which is not supported", _DEVELOP
    return "a video (MP4 or MOV)", _EXTRACT


def _damaged(name: str, content: bytes) -> tuple[str, str]:
    """Return what is wrong with a file that starts like an image, and a remedy."""
    zeros = len(content) - len(content.rstrip(b"\0"))
    if content.startswith(JPEG):
        for marker, place in segments(content):
            if marker in FRAMES and place < len(content):
                if marker in _LOSSLESS_FRAMES:
                    return "a lossless JPEG, which is not supported", _to_jpeg("jpg")
                if content[place] != 8:
                    what = f"a JPEG with {content[place]} bits per channel, which is not supported"
                    return what, _to_jpeg("jpg")
                break
        cut_off = not has_end(content)
    elif (unusual := unusual_kind(content)) is not None:
        return unusual
    else:
        chunks = png_chunks(content) if content.startswith(PNG) else ()
        cut_off = content.startswith(PNG) and all(kind != b"IEND" for kind, _, _ in chunks)
    if zeros >= _UNWRITTEN:
        return (
            f"a {name} file whose last {zeros:,} bytes are zeros: it was not fully written",
            _AGAIN,
        )
    if cut_off:
        return f"a truncated {name} file, whose end is missing", _AGAIN
    return f"a damaged or truncated {name} file", _AGAIN


def _text(content: bytes) -> tuple[str, str] | None:
    """Return what a text file is, and a remedy; None for other files."""
    start = content[:_SEARCHED].removeprefix(codecs.BOM_UTF8).lstrip()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "a text file", _REPLACE
    if re.search(rb"[^\t\n\r\f\x1b -~\x80-\xff]", start):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return None
    for pattern, what, remedy in _TEXTS:
        if re.match(pattern, start, re.DOTALL):
            return what, remedy
    return "a text file", _REPLACE


def _image_inside(content: bytes) -> tuple[str, str] | None:
    """Find an image after bytes that do not belong to it: a header, a blank line."""
    found = re.search(rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n", content[:_SEARCHED])
    if found is None:
        return None
    what = f"an image after {found.start()} bytes that do not belong to it"
    return what, f"cut them off: `tail -c +{found.start() + 1} {{a}} {_IN_PLACE}`"
