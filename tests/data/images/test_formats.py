"""The size that the header of an image claims."""

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinanet.data.images.formats import image_size


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (61, 37)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        saved("JPEG"),
        saved("JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff" * 999),
        saved("PNG"),
        saved("PNG", "P"),
        saved("WEBP"),
        saved("WEBP", lossless=True),
        saved("WEBP", exif=b"Exif\0\0"),
        saved("WEBP", "RGBA", save_all=True, append_images=[Image.new("RGBA", (61, 37), "red")]),
        saved("BMP"),
        saved("BMP", "1"),
        saved("TIFF"),
        saved("TIFF", compression="tiff_lzw"),
        saved("TIFF", big_tiff=True),
        saved("GIF"),
        saved("JPEG2000"),
        saved("JPEG2000", no_jp2=True),
        saved("PPM"),
        saved("PPM", "L"),
        saved("PPM", "1"),
        b"P5 # a remark\n#\n61\n# another 9 9\n37 255\n" + bytes(61 * 37),
        # What Pillow does not write: rows from top to bottom, OS/2's header, big-endian numbers.
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 61, -37),
        b"BM" + bytes(12) + struct.pack("<IHH", 12, 61, 37),
        b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIHxxHHII", 256, 3, 1, 61, 257, 4, 1, 37),
    ],
)
def test_the_size_in_a_header(content: bytes) -> None:
    assert image_size(content) == (37, 61)


def test_the_size_of_an_avif_is_that_of_the_whole_not_of_a_tile() -> None:
    start = b"\0\0\0\x1cftypavif" + bytes(16)
    sizes = [b"\0\0\0\x14ispe" + struct.pack(">III", 0, w, h) for w, h in ((8, 8), (61, 37))]
    assert image_size(start + b"".join(sizes)) == (37, 61)
    assert image_size(start) is None
    assert image_size(b"\0\0\0\x1cftypheic" + bytes(16) + sizes[0]) is None  # a relative


@given(
    start=st.sampled_from(
        [
            *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0+", b"GIF89a", b"P6 "),
            *(b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8L", b"\0\0\0\x0cjP  ihdr", b""),
            *(b"\0\0\0\x1cftypavif\0\0\0\x14ispe", b"\xff\x4f\xff\x51"),
        ]
    ),
    rest=st.binary(max_size=60),
)
def test_rubbish_has_a_size_or_none_but_never_fails(start: bytes, rest: bytes) -> None:
    found = image_size(start + rest)
    assert found is None or (found[0] >= 0 and len(found) == 2)
