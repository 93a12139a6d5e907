"""A PNG without what its decoder grumbles about."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from retinanet.data.images.png import pixels_only


def chunk(name: bytes, data: bytes, spoilt: int = 0) -> bytes:
    checksum = zlib.crc32(name + data) ^ spoilt
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "remark",
    [
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"x" * 200)),
        chunk(b"sRGB", b"\7") + chunk(b"gAMA", b"\0\0"),
        chunk(b"tEXt", b"a\0b", spoilt=1),
        chunk(b"eXIf", b"rubbish"),
    ],
)
def test_remarks_are_left_out(remark: bytes) -> None:
    plain = png()
    assert pixels_only(plain) == plain
    assert pixels_only(plain[:33] + remark + plain[33:] + b"after the end") == plain
    assert pixels_only(plain + b"after the end") == plain + b"after the end"


def test_pixels_with_a_wrong_checksum_or_without_an_end_are_spoilt() -> None:
    plain = png()
    for place in (20, 33 + 8 + 3, len(plain) - 2):
        spoilt = bytearray(plain)
        spoilt[place] ^= 1
        assert pixels_only(bytes(spoilt)) is None, place
    for kept in range(len(plain)):
        assert pixels_only(plain[:kept]) is None


def test_a_transparent_colour_and_an_animation_stay() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("P", (5, 4), value) for value in (1, 2)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], transparency=0)
    assert pixels_only(buffer.getvalue()) == buffer.getvalue()
