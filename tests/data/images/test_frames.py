"""Frames of animations and pages of documents."""

import io

import pytest
from PIL import Image

from retinanet.data.images.frames import frame_count


def animation(kind: str, count: int, **options: object) -> bytes:
    frames = [Image.new("RGB", (60, 40), (40 * i, 250 - 40 * i, 90)) for i in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_frames(kind: str, count: int) -> None:
    assert frame_count(animation(kind, count)) == count


def test_a_gif_with_remarks_and_palettes_of_its_frames() -> None:
    assert frame_count(animation("GIF", 3, comment=b"a" * 600, loop=0, disposal=2)) == 3


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "JPEG2000"])
def test_others_have_one(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, kind)
    assert frame_count(buffer.getvalue()) == 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_a_cut_file_has_some(kind: str) -> None:
    content = animation(kind, 3)
    for kept in range(0, len(content), 7):
        assert 1 <= frame_count(content[:kept]) <= 3
